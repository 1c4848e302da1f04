//! A layer around the user's device that learns who the neighbours are from what they send.
//!
//! smoltcp learns a neighbour's Ethernet address from ARP (RFC 826) and neighbour discovery (RFC 4861) only,
//! keeps a few of them (8 by default), and holds a packet to an unknown neighbour at the head of its socket's
//! queue until the neighbour has answered. One datagram with a forged source address of a host that does not
//! exist would then hold up a whole UDP service. But whoever sends us a frame has told us with it where an
//! answer goes; so before a packet from an unknown neighbour is answered, smoltcp is told of that neighbour
//! by an announcement of our own making. It also saves a genuine neighbour the ARP exchange.
//!
//! Anybody on the link can claim to be anybody else in this way; ARP has never been different.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities};
use ::smoltcp::time::Instant;
use heapless::Vec;

use super::address::{Network, is_unicast};
use super::news::News;
use super::stack::PORTS;

/// The user's device, and what was learned from its frames.
pub(super) struct Link<D> {
    pub(super) device: D,
    pub(super) observer: Observer,
}

pub(super) struct Observer {
    pub(super) mac: [u8; 6],
    network: Network,
    /// The last neighbour heard of: smoltcp was told of him, or will be before it serves. Of others nothing is
    /// certain. Which ones smoltcp still knows depends on what it made of their frames, and for each it was told
    /// of it forgets another. It learns from ARP and neighbour discovery besides: this one is in doubt too
    /// whenever such a packet passes.
    known: Option<(IpAddr, [u8; 6])>,
    /// The neighbour that smoltcp is to be told of.
    unknown: Option<Neighbour>,
    /// The device had no room for another frame.
    pub(super) full: bool,
    /// Frames dropped because they claimed to come from ourselves, or from where no single host can be.
    pub(super) forged: u64,
    /// Where nobody listens for the moment, though somebody is to.
    pub(super) starved: Starved,
    /// A connection request that came there. smoltcp would refuse it.
    pub(super) wanted: Option<Wanted>,
    checksums: ChecksumCapabilities,
    /// What the last frame said of a datagram of ours.
    pub(super) news: Option<News>,
    #[cfg(feature = "slaac")]
    pub(super) slaac: Option<super::slaac::Slaac>,
    /// When the current turn is.
    #[cfg(feature = "slaac")]
    pub(super) now: crate::Instant,
}

/// An address, or all of ours, and a port at which connections are to be taken in.
pub(super) type Listening = (Option<IpAddr>, u16);
pub(super) type Starved = Vec<Listening, PORTS>;

/// Where somebody wants to connect, and who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) at: Listening,
    pub(super) by: SocketAddr,
}

/// Somebody on our link, and the address of ours that he spoke to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    ip: IpAddr,
    mac: [u8; 6],
    ours: IpAddr,
}

impl<D: Device> Link<D> {
    pub(super) fn new(device: D, mac: [u8; 6], network: Network) -> Self {
        let checksums = device.capabilities().checksum;
        Self {
            device,
            observer: Observer {
                mac,
                network,
                known: None,
                unknown: None,
                full: false,
                forged: 0,
                starved: Vec::new(),
                wanted: None,
                checksums,
                news: None,
                #[cfg(feature = "slaac")]
                slaac: None,
                #[cfg(feature = "slaac")]
                now: crate::Instant::ZERO,
            },
        }
    }

    /// The announcement that smoltcp must hear before it answers the last frame.
    pub(super) fn announcement(&mut self) -> Option<Announcement> {
        Announcement::new(self.observer.mac, self.observer.unknown.take()?)
    }
}

impl Observer {
    /// Takes note of who we are now. smoltcp forgets all neighbours when its addresses change.
    pub(super) fn adopt(&mut self, network: &Network) {
        self.network.clone_from(network);
        self.known = None;
    }

    /// Looks at a frame, and returns whether it is one that smoltcp should see.
    fn admits(&mut self, frame: &[u8]) -> bool {
        let (Some(&to), Some(&from), Some(&ethertype)) = (
            frame.first_chunk::<6>(),
            frame.get(6..).and_then(|rest| rest.first_chunk::<6>()),
            frame.get(12..).and_then(|rest| rest.first_chunk::<2>()),
        ) else {
            return true;
        };
        let packet = frame.get(14..).unwrap_or_default();
        let (source, destination) = match u16::from_be_bytes(ethertype) {
            0x0806 => {
                self.known = None;
                return true;
            }
            // RFC 791, section 3.1
            0x0800 => match (chunk::<4>(packet, 12), chunk::<4>(packet, 16)) {
                (Some(source), Some(destination)) => (
                    IpAddr::V4(Ipv4Addr::from(source)),
                    IpAddr::V4(Ipv4Addr::from(destination)),
                ),
                _ => return true,
            },
            // RFC 8200, section 3
            0x86dd => match (chunk::<16>(packet, 8), chunk::<16>(packet, 24)) {
                (Some(source), Some(destination)) => {
                    // Neighbour discovery is ICMPv6 (58), perhaps behind a hop-by-hop header (0).
                    if matches!(packet.get(6), Some(0 | 58)) {
                        self.known = None;
                    }
                    #[cfg(feature = "slaac")]
                    self.hear_of_addresses(from, packet);
                    (
                        IpAddr::V6(Ipv6Addr::from(source)),
                        IpAddr::V6(Ipv6Addr::from(destination)),
                    )
                }
                _ => return true,
            },
            _ => return true,
        };
        // Nobody's answer may wait for an address that nobody has. So what claims to come from one of these is
        // dropped, as it is by all hosts: a group (IEEE 802.3, section 3.2.3); ourselves (RFC 1122, section
        // 3.2.1.3), though on a loopback device we do speak to ourselves; an IPv4 address within IPv6, which
        // stands for IPv4 in programs, and never on a link (RFC 4291, section 2.5.5.2).
        let is_group = from[0] & 1 != 0;
        let is_own = self.network.owns(source) && from != self.mac;
        let is_mapped = matches!(source, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
        if is_group || is_own || is_mapped {
            self.forged += 1;
            return false;
        }
        let Some(ours) = self.spoken_to(source, destination) else {
            // smoltcp takes every IPv6 address that ends as ours does for one of ours, and that of the loopback.
            // Of IPv4 it knows better than this layer what is for us: a DHCP server's offer is (RFC 2131, section
            // 4.1), though it goes to an address that we do not have yet.
            return destination.is_ipv4();
        };
        if !self.starved.is_empty()
            && let Some((from_port, port)) = connection_request(packet)
            && let Some(&at) = self
                .starved
                .iter()
                .find(|&&(ip, starved)| starved == port && ip.is_none_or(|ip| ip == destination))
        {
            // It is not refused but not answered, as everywhere when a backlog is full, and so it comes again.
            let by = SocketAddr::new(source, from_port);
            self.wanted = Some(Wanted { at, by });
            return false;
        }
        if self.network.owns(destination) {
            self.news = News::read(packet, &self.checksums);
        }
        if (to == self.mac || to[0] & 1 != 0)
            && is_unicast(source)
            && self.network.on_link(source)
            && !self.network.is_broadcast(source)
            && let Some(ours) = ours
        {
            self.note(Neighbour {
                ip: source,
                mac: from,
                ours,
            });
        }
        true
    }

    /// Hands neighbour discovery to those who make addresses.
    #[cfg(feature = "slaac")]
    fn hear_of_addresses(&mut self, from_mac: [u8; 6], packet: &[u8]) {
        use ::smoltcp::wire::{Icmpv6Packet, IpProtocol, Ipv6Packet};
        let Some(slaac) = &mut self.slaac else {
            return;
        };
        let Ok(ip) = Ipv6Packet::new_checked(packet) else {
            return;
        };
        // RFC 4861, sections 6.1.2 and 7.1: anything less has passed a router.
        if ip.next_header() != IpProtocol::Icmpv6 || ip.hop_limit() != 255 {
            return;
        }
        let Ok(message) = Icmpv6Packet::new_checked(ip.payload()) else {
            return;
        };
        let (from, to) = (ip.src_addr(), ip.dst_addr());
        if !self.checksums.icmpv6.rx() || message.verify_checksum(&from, &to) {
            slaac.handle_message(self.now, from_mac, from, ip.payload());
        }
    }

    /// The address of ours from which to answer a packet from `source` to `destination`, if we have one that
    /// fits. `None`: it was not for us.
    fn spoken_to(&self, source: IpAddr, destination: IpAddr) -> Option<Option<IpAddr>> {
        if self.network.owns(destination) {
            return Some(Some(destination));
        }
        let for_all = match destination {
            IpAddr::V4(ip) => {
                self.network.is_broadcast(destination) || ip == Ipv4Addr::new(224, 0, 0, 1)
            }
            IpAddr::V6(ip) => {
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                ip == all_nodes || self.network.is_solicited_node(ip)
            }
        };
        for_all.then(|| self.network.source_for(source))
    }

    fn note(&mut self, neighbour: Neighbour) {
        let entry = Some((neighbour.ip, neighbour.mac));
        if self.known != entry {
            self.known = entry;
            self.unknown = Some(neighbour);
        }
    }
}

/// The ports from which and to which `packet` asks for a connection, if it does.
fn connection_request(packet: &[u8]) -> Option<(u16, u16)> {
    let first = packet.first()?;
    let (protocol, header_len) = match first >> 4 {
        4 => (packet.get(9)?, usize::from(first & 0x0f) * 4),
        _ => (packet.get(6)?, 40),
    };
    let segment = packet.get(header_len..)?;
    // RFC 9293, section 3.1: SYN without ACK.
    let asks = *protocol == 6 && segment.get(13)? & 0x12 == 0x02;
    let from = u16::from_be_bytes(chunk(segment, 0)?);
    let to = u16::from_be_bytes(chunk(segment, 2)?);
    asks.then_some((from, to))
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl<D: Device> Device for Link<D> {
    type RxToken<'a>
        = RxToken<'a, D::RxToken<'a>>
    where
        Self: 'a;
    type TxToken<'a>
        = D::TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (token, tx) = self.device.receive(now)?;
        let observer = &mut self.observer;
        Some((RxToken { token, observer }, tx))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        let token = self.device.transmit(now);
        self.observer.full |= token.is_none();
        token
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.capabilities()
    }
}

pub(super) struct RxToken<'a, T> {
    token: T,
    observer: &'a mut Observer,
}

impl<T: phy::RxToken> phy::RxToken for RxToken<'_, T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let observer = self.observer;
        self.token.consume(|frame| {
            if observer.admits(frame) {
                f(frame)
            } else {
                // smoltcp takes no notice of an empty frame.
                f(&[])
            }
        })
    }

    fn meta(&self) -> phy::PacketMeta {
        self.token.meta()
    }
}

/// A device that delivers one frame, in which a neighbour tells us of himself.
pub(super) struct Announcement {
    frame: [u8; Self::LONGEST],
    len: usize,
}

impl Announcement {
    /// A neighbour advertisement; an ARP reply has 42 bytes.
    const LONGEST: usize = 86;

    fn new(mac: [u8; 6], neighbour: Neighbour) -> Option<Self> {
        let mut announcement = Self {
            frame: [0; Self::LONGEST],
            len: 0,
        };
        let bytes = announcement.frame.as_mut_slice();
        announcement.len = match (neighbour.ip, neighbour.ours) {
            #[cfg(feature = "ipv4")]
            (IpAddr::V4(ip), IpAddr::V4(ours)) => {
                use ::smoltcp::wire::{
                    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame,
                    EthernetProtocol,
                };
                let (to, from) = (EthernetAddress(mac), EthernetAddress(neighbour.mac));
                let mut frame = EthernetFrame::new_unchecked(bytes);
                frame.set_dst_addr(to);
                frame.set_src_addr(from);
                frame.set_ethertype(EthernetProtocol::Arp);
                let reply = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr: from,
                    source_protocol_addr: ip,
                    target_hardware_addr: to,
                    target_protocol_addr: ours,
                };
                reply.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
                EthernetFrame::<&[u8]>::buffer_len(reply.buffer_len())
            }
            #[cfg(feature = "ipv6")]
            (IpAddr::V6(ip), IpAddr::V6(ours)) => {
                use super::ndisc;
                use ::smoltcp::wire::{
                    EthernetAddress, HardwareAddress, NdiscNeighborFlags, NdiscRepr,
                };
                let from = EthernetAddress(neighbour.mac);
                let advertisement = NdiscRepr::NeighborAdvert {
                    flags: NdiscNeighborFlags::OVERRIDE,
                    target_addr: ip,
                    lladdr: Some(HardwareAddress::Ethernet(from).into()),
                };
                let path = ndisc::Path {
                    from_mac: neighbour.mac,
                    to_mac: mac,
                    from: ip,
                    to: ours,
                };
                let len = ndisc::frame_len(&advertisement);
                ndisc::emit(bytes, &path, advertisement);
                len
            }
            _ => return None,
        };
        Some(announcement)
    }
}

impl Device for Announcement {
    type RxToken<'a> = Frame<'a>;
    type TxToken<'a> = Nowhere;

    fn receive(&mut self, _: Instant) -> Option<(Frame<'_>, Nowhere)> {
        Some((Frame(self.frame.get(..self.len)?), Nowhere))
    }

    fn transmit(&mut self, _: Instant) -> Option<Nowhere> {
        Some(Nowhere)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities::default()
    }
}

pub(super) struct Frame<'a>(&'a [u8]);

impl phy::RxToken for Frame<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Where answers to an announcement go. There are none; if there were, they would be announcements too.
pub(super) struct Nowhere;

impl phy::TxToken for Nowhere {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; Announcement::LONGEST];
        f(&mut frame[..len.min(Announcement::LONGEST)])
    }
}
