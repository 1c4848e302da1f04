//! Addresses that come from the network: a DHCP server lends one (RFC 2131, by smoltcp's client), and IPv6
//! routers say of what to make some (RFC 4862).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::smoltcp::phy::Device;

use super::{ConfigError, Stack};
use crate::Instant;
#[cfg(feature = "slaac")]
use crate::earliest;
#[cfg(any(feature = "dhcp", feature = "slaac"))]
use crate::{Duration, Now};

/// What became of an address of ours, or of the way out: see [`Stack::poll_addresses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// A DHCP server has lent us an address, or leaves us the one that we have for longer. Another one that was
    /// lent before is not ours any more.
    Leased(Lease),
    /// The lease is over: the address is not ours any more, unless it was [added](Stack::add_address) as well.
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
    /// For how many seconds, 4,294,967,295 for ever. `None`: the socket was given no buffer in which to keep the
    /// server's message, or it was too short.
    pub seconds: Option<u32>,
}

/// Room for all that the network can give at a time: an address and a gateway by DHCP, those that `slaac` keeps,
/// and a gateway of theirs.
#[cfg(any(feature = "dhcp", feature = "slaac"))]
const GIVEN: usize = 7;

/// When a driver that does not ask for events is reminded of them.
#[cfg(any(feature = "dhcp", feature = "slaac"))]
const REMINDER: Duration = Duration::from_secs(1);

/// What a stack remembers of all this. Nothing without the features `dhcp` and `slaac`.
#[derive(Debug, Default)]
pub(super) struct Autoconfiguration {
    /// Addresses of ours and gateways that came from the network, and go with it. What the user adds, or removes,
    /// is his.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    given: heapless::Vec<IpAddr, GIVEN>,
    /// There were events after the last turn, and nobody has asked for them since.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    unheard: bool,
    #[cfg(feature = "dhcp")]
    dhcp: Option<Dhcp>,
}

#[cfg(feature = "dhcp")]
#[derive(Debug)]
struct Dhcp {
    index: super::table::Index,
    held: Option<Lease>,
    /// What the user has not heard yet: the lease that there is now, or that there is none.
    news: Option<Option<Lease>>,
    /// The gateway of a lease, if it cannot be used and the user has not heard of it yet.
    unusable: Option<(IpAddr, ConfigError)>,
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

    /// Leaves `ip` to the user, whatever the network says of it. Returns whether it was the network's.
    pub(super) fn disown(&mut self, ip: IpAddr) -> bool {
        #[cfg(any(feature = "dhcp", feature = "slaac"))]
        if let Some(index) = self.given.iter().position(|&given| given == ip) {
            self.given.swap_remove(index);
            return true;
        }
        let _ = ip;
        false
    }
}

impl<'a, D: Device> Stack<'a, D> {
    /// Asks DHCP servers for an IPv4 address from now on, and for its renewal. Takes room for one socket.
    ///
    /// Give the socket a buffer of 576 bytes (`set_receive_packet_buffer`) to be told for how long a lease is, and
    /// of each renewal. Bind `0.0.0.0` afterwards, not before: then it stands for the address that is to come.
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
        let Some(index) = self.sockets.table.add(socket) else {
            unreachable!("there is room");
        };
        self.autoconfiguration.dhcp = Some(Dhcp {
            index,
            held: None,
            news: None,
            unusable: None,
        });
        Ok(())
    }

    /// Asks IPv6 routers from now on of what networks they know, and makes an address in each, and in each that a
    /// router tells of unasked: up to 4.
    ///
    /// An address is probed first: if another host on the link has it, we do without. The link-local address is
    /// not: it is in use from the start.
    ///
    /// Call [`poll_addresses`](Self::poll_addresses) after each turn. Called again, it asks again: do so when the
    /// cable was pulled out and is back.
    #[cfg(feature = "slaac")]
    pub fn start_slaac(&mut self, now: Now) {
        if let Some(slaac) = &mut self.link.observer.slaac {
            return slaac.begin_soliciting(now.monotonic);
        }
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
    /// [`turn`](Self::turn) until there is none. The deadline of a turn that leaves one is at once (a second later
    /// each time if nobody asks).
    ///
    /// An address or a gateway that you have added yourself is not the network's: it stays, and is not told of.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    pub fn poll_addresses(&mut self, now: Now) -> Option<AddressEvent> {
        self.autoconfiguration.unheard = false;
        #[cfg(feature = "dhcp")]
        if let Some(event) = self.poll_lease() {
            return Some(event);
        }
        #[cfg(feature = "slaac")]
        while let Some(slaac) = &mut self.link.observer.slaac
            && let Some(change) = slaac.poll_change(now.monotonic)
        {
            let event = self.apply(change);
            if event.is_some() {
                return event;
            }
        }
        let _ = now;
        None
    }

    #[cfg(feature = "dhcp")]
    fn poll_lease(&mut self) -> Option<AddressEvent> {
        let dhcp = self.autoconfiguration.dhcp.as_mut()?;
        if let Some((ip, why)) = dhcp.unusable.take() {
            return Some(AddressEvent::Unusable { ip, why });
        }
        let lease = dhcp.news.take()?;
        let held = core::mem::replace(&mut dhcp.held, lease);
        let network = |lease: Lease| (lease.ip, lease.prefix, lease.gateway);
        if let Some(Lease { ip, gateway, .. }) = held
            && held.map(network) != lease.map(network)
        {
            if let Some(gateway) = gateway {
                self.give_back_gateway(gateway.into());
            }
            self.give_back(ip.into());
            if lease.is_none() {
                return Some(AddressEvent::LeaseLost { ip });
            }
        }
        let lease = lease?;
        let ip = lease.ip.into();
        if let Err(why) = self.accept(ip, lease.prefix) {
            return Some(AddressEvent::Unusable { ip, why });
        }
        if let Some(gateway) = lease.gateway.map(IpAddr::V4)
            && let Err(why) = self.accept_gateway(gateway)
            && let Some(dhcp) = &mut self.autoconfiguration.dhcp
        {
            dhcp.unusable = Some((gateway, why));
        }
        Some(AddressEvent::Leased(lease))
    }

    /// `None`: nothing has changed.
    #[cfg(feature = "slaac")]
    fn apply(&mut self, change: super::slaac::Change) -> Option<AddressEvent> {
        use super::slaac::Change;
        let (ip, done, event) = match change {
            Change::Add(ip, prefix) => (
                ip,
                self.accept(ip.into(), prefix),
                AddressEvent::Autoconfigured { ip, prefix },
            ),
            Change::Remove(ip) => (
                ip,
                Ok(self.give_back(ip.into())),
                AddressEvent::Expired { ip },
            ),
            Change::Duplicate(ip) => (ip, Ok(true), AddressEvent::Duplicate { ip }),
            Change::Gateway(ip) => (
                ip,
                self.accept_gateway(ip.into()),
                AddressEvent::Gateway { ip },
            ),
            Change::NoGateway(ip) => (
                ip,
                Ok(self.give_back_gateway(ip.into())),
                AddressEvent::NoGateway { ip },
            ),
        };
        match done {
            Ok(changed) => changed.then_some(event),
            Err(why) => Some(AddressEvent::Unusable { ip: ip.into(), why }),
        }
    }

    /// Adds an address that somebody else has chosen, and returns whether it was not there before.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    fn accept(&mut self, ip: IpAddr, prefix: u8) -> Result<bool, ConfigError> {
        let network = &self.sockets.network;
        if network.owns(ip) {
            return Ok(false);
        }
        if !super::address::is_host(ip, prefix) || network.is_gateway(ip) {
            return Err(ConfigError::Address { ip, prefix });
        }
        self.add_address(ip, prefix)?;
        // There is room: see `GIVEN`.
        let _ = self.autoconfiguration.given.push(ip);
        Ok(true)
    }

    /// Removes an address if it is there by [`accept`](Self::accept), and returns whether it was.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    fn give_back(&mut self, ip: IpAddr) -> bool {
        let given = self.autoconfiguration.disown(ip);
        if given {
            self.remove_address(ip);
        }
        given
    }

    /// The same for a gateway.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    fn accept_gateway(&mut self, ip: IpAddr) -> Result<bool, ConfigError> {
        let network = &self.sockets.network;
        if network.is_gateway(ip) {
            return Ok(false);
        }
        if network.is_broadcast(ip) {
            return Err(ConfigError::Gateway(ip));
        }
        self.add_gateway(ip)?;
        let _ = self.autoconfiguration.given.push(ip);
        Ok(true)
    }

    /// The same for a gateway.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    fn give_back_gateway(&mut self, ip: IpAddr) -> bool {
        let given = self.autoconfiguration.disown(ip);
        if given {
            self.remove_gateway(ip);
        }
        given
    }

    /// Says what is to be said for the sake of addresses, and takes note of what DHCP has come to.
    pub(super) fn autoconfigure(&mut self, now: Instant) {
        #[cfg(feature = "dhcp")]
        if let Some(dhcp) = &mut self.autoconfiguration.dhcp {
            use ::smoltcp::socket::dhcpv4::{Event, Socket};
            match self.sockets.table.socket::<Socket<'_>>(dhcp.index).poll() {
                Some(Event::Configured(config)) => dhcp.news = Some(Some(lease(config))),
                Some(Event::Deconfigured) => dhcp.news = dhcp.held.map(|_| None),
                None => {}
            }
        }
        #[cfg(feature = "slaac")]
        {
            self.link.observer.now = now;
        }
        // A bounded number, though there is one of each kind at most.
        #[cfg(feature = "slaac")]
        for _ in 0..8 {
            let Some(slaac) = &mut self.link.observer.slaac else {
                break;
            };
            let Some(message) = slaac.due(now) else {
                break;
            };
            use ::smoltcp::phy::TxToken;
            let at = super::stack::smoltcp_instant(now);
            let Some(token) = self.link.device.transmit(at) else {
                self.sockets.device_full = true;
                break;
            };
            slaac.sent(now, message);
            let (path, message) = slaac.words(message);
            token.consume(super::ndisc::frame_len(&message), |frame| {
                super::ndisc::emit(frame, &path, message);
            });
        }
        let _ = now;
    }

    /// When to do that again, and at once if there is an event to be polled.
    pub(super) fn autoconfiguration_timeout(&mut self, now: Instant) -> Option<Instant> {
        #[cfg(any(feature = "dhcp", feature = "slaac"))]
        {
            let mut next = None;
            #[cfg(feature = "dhcp")]
            if let Some(dhcp) = &self.autoconfiguration.dhcp
                && (dhcp.news.is_some() || dhcp.unusable.is_some())
            {
                next = Some(now);
            }
            #[cfg(feature = "slaac")]
            if let Some(slaac) = &self.link.observer.slaac {
                next = earliest(next, slaac.poll_timeout());
            }
            if next? > now || self.sockets.device_full {
                return next;
            }
            let unheard = core::mem::replace(&mut self.autoconfiguration.unheard, true);
            Some(if unheard { now + REMINDER } else { now })
        }
        #[cfg(not(any(feature = "dhcp", feature = "slaac")))]
        {
            let _ = now;
            None
        }
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
