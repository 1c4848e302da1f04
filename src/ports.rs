//! Which service has which port: a registry for stacks that do not keep one themselves.

use core::error::Error;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Up to `N` ports in use, at 56 bytes each.
///
/// smoltcp lets two UDP sockets have one port, and hands all datagrams to the first without a word. Whoever
/// binds a socket there asks this registry first and gets the error that an operating system would give.
#[derive(Clone, Debug, Default)]
pub struct Ports<const N: usize> {
    taken: heapless::Vec<Taken, N>,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    protocol: Protocol,
    local: SocketAddr,
    owner: &'static str,
}

impl<const N: usize> Ports<N> {
    /// No port in use.
    pub const fn new() -> Self {
        Self {
            taken: heapless::Vec::new(),
        }
    }

    /// Notes that `owner` (a service's name) has `local`. An unspecified address (`0.0.0.0`, `[::]`) stands
    /// for every address of its IP version.
    ///
    /// # Errors
    /// Another has that port on that address already, or the registry is full.
    pub fn take(
        &mut self,
        protocol: Protocol,
        local: SocketAddr,
        owner: &'static str,
    ) -> Result<(), InUse> {
        if let Some(taken) = self
            .taken
            .iter()
            .find(|taken| taken.protocol == protocol && overlap(taken.local, local))
        {
            return Err(InUse::By {
                protocol,
                local: taken.local,
                owner: taken.owner,
            });
        }
        self.taken
            .push(Taken {
                protocol,
                local,
                owner,
            })
            .map_err(|_| InUse::Full { capacity: N })
    }

    /// Frees `local` again. Nothing happens if nobody has it.
    pub fn free(&mut self, protocol: Protocol, local: SocketAddr) {
        self.taken
            .retain(|taken| taken.protocol != protocol || taken.local != local);
    }

    /// Whether a `take` of `local` would find the port free.
    pub fn is_free(&self, protocol: Protocol, local: SocketAddr) -> bool {
        !self
            .taken
            .iter()
            .any(|taken| taken.protocol == protocol && overlap(taken.local, local))
    }
}

/// Whether a datagram could be meant for either of two addresses.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let ips = match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        _ => false,
    };
    ips && a.port() == b.port()
}

/// Why a port could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Another service has it.
    By {
        /// The protocol of the port.
        protocol: Protocol,
        /// The address as the other has it.
        local: SocketAddr,
        /// The other's name.
        owner: &'static str,
    },
    /// The registry has no room for another port.
    Full {
        /// How many ports it holds.
        capacity: usize,
    },
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By {
                protocol,
                local,
                owner,
            } => write!(f, "{protocol} {local} is in use by {owner}"),
            Self::Full { capacity } => write!(f, "all {capacity} ports are taken"),
        }
    }
}

impl Error for InUse {}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_port_one_owner() {
        let mut ports = Ports::<4>::new();
        ports
            .take(Protocol::Udp, addr("192.0.2.1:9000"), "time")
            .unwrap();
        assert_eq!(
            ports.take(Protocol::Udp, addr("192.0.2.1:9000"), "greeting"),
            Err(InUse::By {
                protocol: Protocol::Udp,
                local: addr("192.0.2.1:9000"),
                owner: "time"
            })
        );
        ports
            .take(Protocol::Tcp, addr("192.0.2.1:9000"), "greeting")
            .unwrap();
        ports
            .take(Protocol::Udp, addr("192.0.2.2:9000"), "greeting")
            .unwrap();
        ports.free(Protocol::Udp, addr("192.0.2.1:9000"));
        assert!(ports.is_free(Protocol::Udp, addr("192.0.2.1:9000")));
    }

    #[test]
    fn an_unspecified_address_takes_the_port_on_all_of_its_version() {
        let mut ports = Ports::<4>::new();
        ports
            .take(Protocol::Udp, addr("0.0.0.0:9000"), "time")
            .unwrap();
        assert!(!ports.is_free(Protocol::Udp, addr("192.0.2.1:9000")));
        assert!(ports.is_free(Protocol::Udp, addr("[::]:9000")));
        ports
            .take(Protocol::Udp, addr("[2001:db8::1]:9000"), "time")
            .unwrap();
        assert!(!ports.is_free(Protocol::Udp, addr("[::]:9000")));
    }

    #[test]
    fn a_full_registry_says_so() {
        let mut ports = Ports::<1>::new();
        ports
            .take(Protocol::Udp, addr("192.0.2.1:1"), "one")
            .unwrap();
        assert_eq!(
            ports.take(Protocol::Udp, addr("192.0.2.1:2"), "two"),
            Err(InUse::Full { capacity: 1 })
        );
    }
}
