//! Addresses that come from the network: a DHCP server lends one (RFC 2131, by smoltcp's client), and IPv6
//! routers say of what to make some (RFC 4862).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::smoltcp::phy::Device;

use super::{ConfigError, Stack};
#[cfg(any(feature = "dhcp", feature = "slaac"))]
use crate::Now;
use crate::{Instant, earliest};

/// What became of an address of ours, or of the way out: see [`Stack::poll_addresses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// A DHCP server has lent us an address, or leaves us the one that we have for longer.
    Leased(Lease),
    /// The lease is over: the address is not ours any more.
    LeaseLost {
        /// The address.
        ip: Ipv4Addr,
    },
    /// An address made of a router's prefix is ours: nobody else on the link has it.
    Autoconfigured {
        /// The address.
        ip: Ipv6Addr,
        /// How many bits of it say that another host is on our link; 128 if no other is for certain.
        prefix: u8,
    },
    /// No router stands by that address any more, and so it is not ours any more.
    Expired {
        /// The address.
        ip: Ipv6Addr,
    },
    /// Another host has the address that we would have had. We do without.
    Duplicate {
        /// The address.
        ip: Ipv6Addr,
    },
    /// What is for other networks goes over this router from now on.
    Gateway {
        /// The router's address on our link.
        ip: Ipv6Addr,
    },
    /// That router has left, or is silent.
    NoGateway {
        /// The router's address on our link.
        ip: Ipv6Addr,
    },
    /// What the network told us to use cannot be used.
    Unusable {
        /// Our address, or the router's.
        ip: IpAddr,
        /// Why not.
        why: ConfigError,
    },
}

/// What a DHCP server has lent us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub ip: Ipv4Addr,
    /// The length of its network's prefix, in bits.
    pub prefix: u8,
    /// Who lent it.
    pub server: Ipv4Addr,
    /// The way to other networks, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// For how many seconds. `None`: the socket was given no buffer in which to keep the server's message.
    pub seconds: Option<u32>,
}

/// What a stack remembers of all this. Nothing without the features `dhcp` and `slaac`.
#[derive(Debug, Default)]
pub(super) struct Autoconfiguration {
    #[cfg(feature = "dhcp")]
    dhcp: Option<Dhcp>,
}

#[cfg(feature = "dhcp")]
#[derive(Debug)]
struct Dhcp {
    handle: ::smoltcp::iface::SocketHandle,
    held: Option<Lease>,
    /// What the user has not heard yet: the lease that there is now, or that there is none.
    news: Option<Option<Lease>>,
}

impl Autoconfiguration {
    /// Whether addresses of this version may come.
    pub(super) fn may_bring(&self, ip: IpAddr) -> bool {
        #[cfg(feature = "dhcp")]
        if ip.is_ipv4() {
            return self.dhcp.is_some();
        }
        let _ = ip;
        false
    }
}

impl<'a, D: Device> Stack<'a, D> {
    /// Asks DHCP servers for an IPv4 address from now on, and for its renewal. Takes room for one socket.
    ///
    /// Give the socket a buffer of 576 bytes (`set_receive_packet_buffer`) to be told for how long a lease is, and
    /// of each renewal.
    ///
    /// Call [`poll_addresses`](Self::poll_addresses) after each turn.
    ///
    /// # Errors
    /// [`BindError::NoRoom`](super::BindError::NoRoom), also if it was started before.
    #[cfg(feature = "dhcp")]
    pub fn start_dhcp(
        &mut self,
        socket: ::smoltcp::socket::dhcpv4::Socket<'a>,
    ) -> Result<(), super::BindError> {
        self.check_room(1)?;
        if self.autoconfiguration.dhcp.is_some() {
            let capacity = 1;
            return Err(super::BindError::NoRoom { capacity });
        }
        self.used += 1;
        let handle = self.sockets.set.add(socket);
        let (held, news) = (None, None);
        self.autoconfiguration.dhcp = Some(Dhcp { handle, held, news });
        Ok(())
    }

    /// Asks IPv6 routers from now on of what networks they know, and makes an address in each, and in each that a
    /// router tells of unasked: up to 4.
    ///
    /// An address is probed first: if another host on the link has it, we do without. The link-local address is
    /// not: it is in use from the start.
    ///
    /// Call [`poll_addresses`](Self::poll_addresses) after each turn.
    #[cfg(feature = "slaac")]
    pub fn start_slaac(&mut self, now: Now) {
        let mac = self.link.observer.mac;
        let link_local = super::address::link_local(mac);
        let seed = self.rng.next_u64();
        self.link.observer.slaac = Some(super::slaac::Slaac::new(
            mac,
            link_local,
            seed,
            now.monotonic,
        ));
    }

    /// Applies the next change that the network wants of our addresses, and tells of it. To be called after each
    /// [`turn`](Self::turn) until there is none; until then the turns' deadline is at once.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    pub fn poll_addresses(&mut self, now: Now) -> Option<AddressEvent> {
        #[cfg(feature = "dhcp")]
        if let Some(event) = self.poll_lease() {
            return Some(event);
        }
        #[cfg(feature = "slaac")]
        if let Some(slaac) = &mut self.link.observer.slaac
            && let Some(change) = slaac.poll_change(now.monotonic)
        {
            return Some(self.apply(change));
        }
        let _ = now;
        None
    }

    #[cfg(feature = "dhcp")]
    fn poll_lease(&mut self) -> Option<AddressEvent> {
        let dhcp = self.autoconfiguration.dhcp.as_mut()?;
        let lease = dhcp.news.take()?;
        let held = core::mem::replace(&mut dhcp.held, lease);
        let network = |lease: Lease| (lease.ip, lease.prefix, lease.gateway);
        if held.map(network) == lease.map(network) {
            return lease.map(AddressEvent::Leased);
        }
        if let Some(Lease { ip, gateway, .. }) = held {
            if let Some(gateway) = gateway {
                self.remove_gateway(gateway.into());
            }
            self.remove_address(ip.into());
            if lease.is_none() {
                return Some(AddressEvent::LeaseLost { ip });
            }
        }
        let lease = lease?;
        let (ip, gateway) = (IpAddr::V4(lease.ip), lease.gateway.map(IpAddr::V4));
        let mut unusable = self
            .add_address(ip, lease.prefix)
            .err()
            .map(|why| (ip, why));
        if let (None, Some(gateway)) = (unusable, gateway) {
            unusable = self.add_gateway(gateway).err().map(|why| (gateway, why));
        }
        Some(match unusable {
            None => AddressEvent::Leased(lease),
            Some((ip, why)) => AddressEvent::Unusable { ip, why },
        })
    }

    #[cfg(feature = "slaac")]
    fn apply(&mut self, change: super::slaac::Change) -> AddressEvent {
        use super::slaac::Change;
        let (ip, done, event) = match change {
            Change::Add(ip, prefix) => (
                ip,
                self.add_address(ip.into(), prefix),
                AddressEvent::Autoconfigured { ip, prefix },
            ),
            Change::Remove(ip) => {
                self.remove_address(ip.into());
                (ip, Ok(()), AddressEvent::Expired { ip })
            }
            Change::Duplicate(ip) => (ip, Ok(()), AddressEvent::Duplicate { ip }),
            Change::Gateway(ip) => (
                ip,
                self.add_gateway(ip.into()),
                AddressEvent::Gateway { ip },
            ),
            Change::NoGateway(ip) => {
                self.remove_gateway(ip.into());
                (ip, Ok(()), AddressEvent::NoGateway { ip })
            }
        };
        match done {
            Ok(()) => event,
            Err(why) => AddressEvent::Unusable { ip: ip.into(), why },
        }
    }

    /// Says what is to be said for the sake of addresses, and takes note of what DHCP has come to.
    pub(super) fn autoconfigure(&mut self, now: Instant) {
        #[cfg(feature = "dhcp")]
        if let Some(dhcp) = &mut self.autoconfiguration.dhcp {
            use ::smoltcp::socket::dhcpv4::{Event, Socket};
            match self.sockets.set.get_mut::<Socket<'_>>(dhcp.handle).poll() {
                Some(Event::Configured(config)) => dhcp.news = Some(Some(lease(config))),
                Some(Event::Deconfigured) => dhcp.news = dhcp.held.map(|_| None),
                None => {}
            }
        }
        #[cfg(feature = "slaac")]
        {
            self.link.observer.now = now;
        }
        #[cfg(feature = "slaac")]
        while let Some(slaac) = &mut self.link.observer.slaac
            && slaac.poll_timeout().is_some_and(|at| at <= now)
        {
            use ::smoltcp::phy::TxToken;
            let at = super::stack::smoltcp_instant(now);
            let Some(token) = self.link.device.transmit(at) else {
                self.sockets.device_full = true;
                break;
            };
            let Some(solicitation) = slaac.poll_transmit(now) else {
                break;
            };
            let (path, message) = slaac.words(solicitation);
            token.consume(super::ndisc::frame_len(&message), |frame| {
                super::ndisc::emit(frame, &path, message);
            });
        }
        let _ = now;
    }

    /// When to do that again, and at once if there is an event to be polled.
    pub(super) fn autoconfiguration_timeout(&self, now: Instant) -> Option<Instant> {
        #[cfg(feature = "dhcp")]
        let dhcp = self.autoconfiguration.dhcp.as_ref();
        #[cfg(feature = "dhcp")]
        let news = dhcp.and_then(|dhcp| dhcp.news.map(|_| now));
        #[cfg(not(feature = "dhcp"))]
        let news = None;
        #[cfg(feature = "slaac")]
        let slaac = self.link.observer.slaac.as_ref();
        #[cfg(feature = "slaac")]
        let change = slaac.and_then(super::slaac::Slaac::poll_timeout);
        #[cfg(not(feature = "slaac"))]
        let change = None;
        let _ = now;
        earliest(news, change)
    }
}

#[cfg(feature = "dhcp")]
fn lease(config: ::smoltcp::socket::dhcpv4::Config<'_>) -> Lease {
    use ::smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};
    let ip = config.address.address();
    // A message that did not fit into the buffer has left an older one there, or none.
    let seconds = config.packet.and_then(|packet| {
        let packet = DhcpPacket::new_checked(packet.into_inner()).ok()?;
        let message = DhcpRepr::parse(&packet).ok()?;
        let fits = message.message_type == DhcpMessageType::Ack && message.your_ip == ip;
        message.lease_duration.filter(|_| fits)
    });
    Lease {
        ip,
        prefix: config.address.prefix_len(),
        server: config.server.address,
        gateway: config.router,
        seconds,
    }
}
