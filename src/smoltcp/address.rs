//! Addresses as `core::net` has them and as smoltcp has them, and what an interface knows of the addresses
//! around it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::smoltcp::config::IFACE_MAX_ADDR_COUNT;
use ::smoltcp::wire::{IpAddress, IpEndpoint};
use heapless::Vec;

use crate::Unreachable;

/// `ip` for smoltcp. `None` if it is of a version that is not built in.
pub(super) fn ip_address(ip: IpAddr) -> Option<IpAddress> {
    // smoltcp's own conversions need both versions to be built in.
    match ip.to_canonical() {
        #[cfg(feature = "ipv4")]
        IpAddr::V4(ip) => Some(IpAddress::Ipv4(ip)),
        #[cfg(feature = "ipv6")]
        IpAddr::V6(ip) => Some(IpAddress::Ipv6(ip)),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

/// `address` for smoltcp, without the scope and flow label, which it does not have.
pub(super) fn endpoint(address: SocketAddr) -> Option<IpEndpoint> {
    Some(IpEndpoint::new(ip_address(address.ip())?, address.port()))
}

pub(super) fn ip_addr(ip: IpAddress) -> Option<IpAddr> {
    match ip {
        #[cfg(feature = "ipv4")]
        IpAddress::Ipv4(ip) => Some(IpAddr::V4(ip)),
        #[cfg(feature = "ipv6")]
        IpAddress::Ipv6(ip) => Some(IpAddr::V6(ip)),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

pub(super) fn socket_addr(endpoint: IpEndpoint) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip_addr(endpoint.addr)?, endpoint.port))
}

/// The link-local address of an Ethernet interface (RFC 4291, section 2.5.6 and appendix A).
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0, //
        a ^ 0x02,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// The group in which neighbour discovery asks for `ip`: the one made of its last 24 bits (RFC 4291, section
/// 2.7.1).
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    const GROUP: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(GROUP | ip.to_bits() & 0xff_ffff)
}

/// Whether a host can have `ip` for its own, or be asked for under it.
pub(super) fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// Whether a host on the network of the first `prefix` bits of `ip` can have `ip`: to be asked of an address that
/// somebody else has chosen for us (RFC 1122, section 3.2.1.3).
#[cfg(any(feature = "dhcp", feature = "slaac"))]
pub(super) fn is_host(ip: IpAddr, prefix: u8) -> bool {
    let IpAddr::V4(ip) = ip else {
        return is_unicast(ip);
    };
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let host = ip.to_bits() & hosts;
    // 0.0.0.0/8 is nobody, 127.0.0.0/8 everybody himself, and from 224.0.0.0 on there are no hosts. Networks of
    // two hosts have no broadcast address (RFC 3021).
    !matches!(ip.octets()[0], 0 | 127 | 224..)
        && matches!(prefix, 1..=32)
        && (prefix > 30 || host != 0 && host != hosts)
}

/// The addresses of an interface and of the networks it is in. 180 bytes and some.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    pub(super) addresses: Vec<(IpAddr, u8), IFACE_MAX_ADDR_COUNT>,
    pub(super) gateway_v4: Option<IpAddr>,
    pub(super) gateway_v6: Option<IpAddr>,
    /// The longest IP packet, in bytes.
    pub(super) mtu: usize,
}

impl Network {
    pub(super) fn owns(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|&(own, _)| own == ip)
    }

    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    pub(super) fn is_gateway(&self, ip: IpAddr) -> bool {
        [self.gateway_v4, self.gateway_v6].contains(&Some(ip))
    }

    /// Whether `ip` is in a network that the interface is in, and so reached without a gateway.
    pub(super) fn on_link(&self, ip: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|&(own, prefix)| common_prefix(own, ip).is_some_and(|bits| bits >= prefix))
    }

    /// Whether `ip` stands for all hosts of a network that the interface is in.
    pub(super) fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        ip.is_broadcast()
            || self.addresses.iter().any(|&(own, prefix)| match own {
                // RFC 3021: networks of two hosts have no broadcast address.
                IpAddr::V4(own) if prefix < 31 => {
                    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                    ip == Ipv4Addr::from(u32::from(own) | hosts)
                }
                _ => false,
            })
    }

    /// Whether `ip` is the group in which neighbour discovery asks for one of our addresses.
    pub(super) fn is_solicited_node(&self, ip: Ipv6Addr) -> bool {
        self.addresses.iter().any(|&(own, _)| match own {
            IpAddr::V6(own) => solicited_node(own) == ip,
            IpAddr::V4(_) => false,
        })
    }

    /// Whether there is a way to `to`.
    pub(super) fn route(&self, to: SocketAddr) -> Result<(), Unreachable> {
        let ip = to.ip();
        let gateway = match ip {
            IpAddr::V4(_) => self.gateway_v4.is_some(),
            // Link-local addresses are never behind a router (RFC 4291, section 2.5.6).
            IpAddr::V6(ip) => self.gateway_v6.is_some() && !ip.is_unicast_link_local(),
        };
        let reachable = to.port() != 0
            && !ip.is_unspecified()
            && (gateway || ip.is_multicast() || self.is_broadcast(ip) || self.on_link(ip));
        if reachable {
            Ok(())
        } else {
            Err(Unreachable::NoRoute)
        }
    }

    /// The address of ours to speak from to `to` (RFC 6724, in so far as it matters to one interface): one of
    /// the same network, or else the first that is not link-local.
    pub(super) fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        let wants_link_local = match to {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments()[0] & 0xff0f == 0xff02,
        };
        let is_link_local = |ip: IpAddr| match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let candidates = || {
            self.addresses
                .iter()
                .filter(|(own, _)| own.is_ipv4() == to.is_ipv4())
                .filter(|&&(own, _)| is_link_local(own) == wants_link_local)
        };
        candidates()
            .find(|&&(own, prefix)| common_prefix(own, to).is_some_and(|bits| bits >= prefix))
            .or_else(|| candidates().next())
            .map(|&(own, _)| own)
    }

    /// The longest payload of a UDP datagram to `to` (the IP header has 20 or 40 bytes, UDP's 8).
    pub(super) fn max_datagram(&self, to: IpAddr) -> usize {
        let headers = if to.is_ipv4() { 28 } else { 48 };
        self.mtu.saturating_sub(headers)
    }
}

/// How many bits `a` and `b` have in common at their beginning. `None` if they are of different versions.
fn common_prefix(a: IpAddr, b: IpAddr) -> Option<u8> {
    let bits = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => return None,
    };
    u8::try_from(bits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let addresses = [
            ("192.0.2.1", 24),
            ("198.51.100.1", 31),
            ("fdaa::1", 64),
            ("2001:db8::1", 64),
            ("fe80::1", 64),
        ];
        Network {
            addresses: addresses
                .iter()
                .map(|&(ip, prefix)| (ip.parse().unwrap(), prefix))
                .collect(),
            gateway_v4: Some("192.0.2.254".parse().unwrap()),
            gateway_v6: None,
            mtu: 1500,
        }
    }

    #[test]
    fn the_link_local_address_is_the_one_of_the_rfc() {
        // RFC 4291, appendix A, and RFC 2464, section 4, have this very example.
        assert_eq!(
            link_local([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]),
            "fe80::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap()
        );
    }

    #[test]
    fn routes() {
        let network = network();
        for reachable in [
            "192.0.2.7:1",
            "192.0.2.255:1",
            "255.255.255.255:1",
            "203.0.113.1:1",
            "[fdaa::7]:1",
            "[fe80::7]:1",
            "[ff02::1]:1",
        ] {
            assert_eq!(
                network.route(reachable.parse().unwrap()),
                Ok(()),
                "{reachable}"
            );
        }
        for unreachable in [
            "192.0.2.7:0",
            "0.0.0.0:1",
            "[::]:1",
            "[fdab::1]:1",
            "[fe80:0:0:1::1]:1",
        ] {
            assert_eq!(
                network.route(unreachable.parse().unwrap()),
                Err(Unreachable::NoRoute),
                "{unreachable}"
            );
        }
    }

    #[test]
    fn the_source_address_fits_the_destination() {
        let network = network();
        for (to, source) in [
            ("192.0.2.7", "192.0.2.1"),
            ("198.51.100.0", "198.51.100.1"),
            ("203.0.113.1", "192.0.2.1"),
            ("fdaa::7", "fdaa::1"),
            ("2001:db8::7", "2001:db8::1"),
            ("2001:4860::1", "fdaa::1"),
            ("fe80::7", "fe80::1"),
            ("ff02::1", "fe80::1"),
        ] {
            assert_eq!(
                network.source_for(to.parse().unwrap()),
                Some(source.parse().unwrap()),
                "{to}"
            );
        }
        assert_eq!(
            Network::default().source_for("192.0.2.7".parse().unwrap()),
            None
        );
    }

    #[test]
    fn groups_of_neighbour_discovery() {
        let network = network();
        for (ip, is) in [
            ("ff02::1:ff00:1", true),
            ("ff02::1:ff01:1", false),
            ("ff02::2:ff00:1", false),
            ("ff05::1:ff00:1", false),
            ("2001:db8:1::1", false),
        ] {
            assert_eq!(network.is_solicited_node(ip.parse().unwrap()), is, "{ip}");
        }
    }

    #[test]
    fn broadcast_addresses() {
        let network = network();
        assert!(network.is_broadcast("192.0.2.255".parse().unwrap()));
        assert!(!network.is_broadcast("192.0.2.254".parse().unwrap()));
        assert!(!network.is_broadcast("198.51.100.1".parse().unwrap()));
    }
}
