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

use super::address::{Network, is_unicast};
use super::news::News;
use ::smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities};
use ::smoltcp::time::Instant;

/// The user's device, and what was learned from its frames.
pub(super) struct Link<D> {
    pub(super) device: D,
    /// The device had no room for another frame.
    pub(super) full: bool,
    /// smoltcp asked for room for a frame.
    pub(super) asked: bool,
    pub(super) observer: Observer,
}

pub(super) struct Observer {
    pub(super) mac: [u8; 6],
    /// The last neighbour heard of: smoltcp was told of him, or will be before it serves. Of others nothing is
    /// certain. Which ones smoltcp still knows depends on what it made of their frames, and for each it was told
    /// of it forgets another. It learns from ARP and neighbour discovery besides: this one is in doubt too
    /// whenever such a packet passes.
    known: Option<(IpAddr, [u8; 6])>,
    /// The neighbour that smoltcp is to be told of.
    unknown: Option<Neighbour>,
    /// Something was heard of neighbours that smoltcp may have waited for.
    pub(super) heard_of_neighbours: bool,
    /// Frames dropped because they claimed to come from ourselves, or from where no single host can be.
    pub(super) forged: u64,
    checksums: ChecksumCapabilities,
    /// What the last frame said of a datagram of ours.
    pub(super) news: Option<News>,
    #[cfg(feature = "slaac")]
    pub(super) slaac: Option<super::slaac::Slaac>,
    /// When the current turn is.
    #[cfg(feature = "slaac")]
    pub(super) now: crate::Instant,
}

/// Who a packet is for, as far as this layer can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// A UDP datagram.
    Datagram {
        /// Where it goes.
        to: SocketAddr,
    },
    /// A TCP segment.
    Segment {
        /// Where it comes from.
        from: SocketAddr,
        /// Where it goes.
        to: SocketAddr,
        /// If it asks for a connection, its sequence number.
        asks: Option<u32>,
    },
    /// Anything else: for smoltcp itself, as a rule.
    Other,
}

/// Somebody on our link, and the address of ours that he spoke to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    ip: IpAddr,
    mac: [u8; 6],
    ours: IpAddr,
}

impl<D: Device> Link<D> {
    pub(super) fn new(device: D, mac: [u8; 6]) -> Self {
        let checksums = device.capabilities().checksum;
        Self {
            device,
            full: false,
            asked: false,
            observer: Observer {
                mac,
                known: None,
                unknown: None,
                heard_of_neighbours: false,
                forged: 0,
                checksums,
                news: None,
                #[cfg(feature = "slaac")]
                slaac: None,
                #[cfg(feature = "slaac")]
                now: crate::Instant::ZERO,
            },
        }
    }
}

impl Observer {
    /// The announcement that smoltcp must hear before it answers the last frame.
    pub(super) fn announcement(&self) -> Option<Announcement> {
        Announcement::new(self.mac, self.unknown?)
    }

    /// smoltcp has heard it.
    pub(super) fn announced(&mut self) {
        self.unknown = None;
    }

    /// Forgets whom smoltcp knows, because it does too when its addresses change.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }

    /// Looks at a frame. `None`: smoltcp should not see it.
    pub(super) fn admits(&mut self, frame: &[u8], network: &Network) -> Option<Packet> {
        let (Some(&to), Some(&from), Some(&ethertype)) = (
            frame.first_chunk::<6>(),
            frame.get(6..).and_then(|rest| rest.first_chunk::<6>()),
            frame.get(12..).and_then(|rest| rest.first_chunk::<2>()),
        ) else {
            return Some(Packet::Other);
        };
        let packet = frame.get(14..).unwrap_or_default();
        let (source, destination) = match u16::from_be_bytes(ethertype) {
            0x0806 => {
                self.known = None;
                self.heard_of_neighbours = true;
                return Some(Packet::Other);
            }
            // RFC 791, section 3.1
            #[cfg(feature = "ipv4")]
            0x0800 => match (chunk::<4>(packet, 12), chunk::<4>(packet, 16)) {
                (Some(source), Some(destination)) => (
                    IpAddr::V4(Ipv4Addr::from(source)),
                    IpAddr::V4(Ipv4Addr::from(destination)),
                ),
                _ => return Some(Packet::Other),
            },
            // RFC 8200, section 3
            #[cfg(feature = "ipv6")]
            0x86dd => match (chunk::<16>(packet, 8), chunk::<16>(packet, 24)) {
                (Some(source), Some(destination)) => {
                    // Neighbour discovery is ICMPv6 (58), perhaps behind a hop-by-hop header (0).
                    if matches!(packet.get(6), Some(0 | 58)) {
                        self.known = None;
                        self.heard_of_neighbours = true;
                    }
                    (
                        IpAddr::V6(Ipv6Addr::from(source)),
                        IpAddr::V6(Ipv6Addr::from(destination)),
                    )
                }
                _ => return Some(Packet::Other),
            },
            _ => return Some(Packet::Other),
        };
        // Nobody's answer may wait for an address that nobody has. So what claims to come from one of these is
        // dropped, as it is by all hosts: a group (IEEE 802.3, section 3.2.3); ourselves (RFC 1122, section
        // 3.2.1.3), though on a loopback device we do speak to ourselves; an IPv4 address within IPv6, which
        // stands for IPv4 in programs, and never on a link (RFC 4291, section 2.5.5.2).
        let is_group = from[0] & 1 != 0;
        let is_own = network.owns(source) && from != self.mac;
        let is_mapped = matches!(source, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
        if is_group || is_own || is_mapped {
            self.forged += 1;
            return None;
        }
        // smoltcp would ask a DHCP server without an address for a renewal, and panic.
        #[cfg(feature = "dhcp")]
        if source == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            return None;
        }
        #[cfg(feature = "slaac")]
        if destination.is_ipv6() && (to == self.mac || to[0] & 1 != 0) {
            self.hear_of_addresses(network, from, packet);
        }
        let Some(ours) = spoken_to(network, source, destination) else {
            // smoltcp takes every IPv6 address that ends as ours does for one of ours, and that of the loopback.
            // Of IPv4 it knows better than this layer what is for us: a DHCP server's offer is (RFC 2131, section
            // 4.1), though it goes to an address that we do not have yet.
            return destination
                .is_ipv4()
                .then(|| transport(packet, source, destination));
        };
        if network.owns(destination) {
            self.news = News::read(packet, &self.checksums);
        }
        if (to == self.mac || to[0] & 1 != 0)
            && is_unicast(source)
            && network.on_link(source)
            && !network.is_broadcast(source)
            && let Some(ours) = ours
        {
            self.note(Neighbour {
                ip: source,
                mac: from,
                ours,
            });
        }
        Some(transport(packet, source, destination))
    }

    /// Hands neighbour discovery to those who make addresses.
    #[cfg(feature = "slaac")]
    fn hear_of_addresses(&mut self, network: &Network, from_mac: [u8; 6], packet: &[u8]) {
        use ::smoltcp::wire::{Icmpv6Packet, IpProtocol, Ipv6Packet};
        let Some(slaac) = &mut self.slaac else {
            return;
        };
        let Ok(ip) = Ipv6Packet::new_checked(packet) else {
            return;
        };
        // RFC 4861, sections 6.1.2 and 7.1: anything less has passed a router.
        if ip.version() != 6 || ip.next_header() != IpProtocol::Icmpv6 || ip.hop_limit() != 255 {
            return;
        }
        let Ok(message) = Icmpv6Packet::new_checked(ip.payload()) else {
            return;
        };
        let (from, to) = (ip.src_addr(), ip.dst_addr());
        if self.checksums.icmpv6.rx() && !message.verify_checksum(&from, &to) {
            return;
        }
        slaac.handle_message(self.now, network, from_mac, (from, to), ip.payload());
    }

    fn note(&mut self, neighbour: Neighbour) {
        let entry = Some((neighbour.ip, neighbour.mac));
        if self.known != entry {
            self.known = entry;
            self.unknown = Some(neighbour);
        }
    }
}

/// The address of ours from which to answer a packet from `source` to `destination`, if we have one that
/// fits. `None`: it was not for us.
fn spoken_to(network: &Network, source: IpAddr, destination: IpAddr) -> Option<Option<IpAddr>> {
    if network.owns(destination) {
        return Some(Some(destination));
    }
    let for_all = match destination {
        IpAddr::V4(ip) => network.is_broadcast(destination) || ip == Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(ip) => {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            ip == all_nodes || network.is_solicited_node(ip)
        }
    };
    for_all.then(|| network.source_for(source))
}

/// What `packet` carries.
fn transport(packet: &[u8], source: IpAddr, destination: IpAddr) -> Packet {
    carried(packet, source, destination).unwrap_or(Packet::Other)
}

fn carried(packet: &[u8], source: IpAddr, destination: IpAddr) -> Option<Packet> {
    let first = packet.first()?;
    let (mut protocol, mut payload) = match first >> 4 {
        4 => (
            *packet.get(9)?,
            packet.get(usize::from(first & 0x0f) * 4..)?,
        ),
        _ => (*packet.get(6)?, packet.get(40..)?),
    };
    // Options for every hop (RFC 8200, section 4.3), which smoltcp skips too.
    if cfg!(feature = "ipv6") && destination.is_ipv6() && protocol == 0 {
        protocol = *payload.first()?;
        payload = payload.get(8 + 8 * usize::from(*payload.get(1)?)..)?;
    }
    let from = SocketAddr::new(source, u16::from_be_bytes(chunk(payload, 0)?));
    let to = SocketAddr::new(destination, u16::from_be_bytes(chunk(payload, 2)?));
    match protocol {
        17 => Some(Packet::Datagram { to }),
        6 => {
            // RFC 9293, section 3.1: SYN without ACK.
            let sequence = u32::from_be_bytes(chunk(payload, 4)?);
            let asks = (payload.get(13)? & 0x12 == 0x02).then_some(sequence);
            Some(Packet::Segment { from, to, asks })
        }
        _ => None,
    }
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What smoltcp sends through.
impl<D: Device> Device for Link<D> {
    type RxToken<'a>
        = D::RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = D::TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.device.receive(now)
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        let token = self.device.transmit(now);
        self.asked = true;
        self.full |= token.is_none();
        token
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.capabilities()
    }
}

/// A device that delivers one frame that was taken from another, and sends one at most.
pub(super) struct Delivery<'f, T> {
    frame: &'f [u8],
    tx: Option<T>,
}

impl<'f, T> Delivery<'f, T> {
    pub(super) fn new(frame: &'f [u8], tx: T) -> Self {
        let tx = Some(tx);
        Self { frame, tx }
    }
}

impl<'f, T: phy::TxToken> Device for Delivery<'f, T> {
    type RxToken<'a>
        = Frame<'f>
    where
        Self: 'a;
    type TxToken<'a>
        = T
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Frame<'f>, T)> {
        Some((Frame(self.frame), self.tx.take()?))
    }

    fn transmit(&mut self, _: Instant) -> Option<T> {
        self.tx.take()
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities::default()
    }
}

/// A frame in which a neighbour tells us of himself.
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

impl Announcement {
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame[..self.len]
    }
}

pub(super) struct Frame<'a>(&'a [u8]);

impl phy::RxToken for Frame<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}
