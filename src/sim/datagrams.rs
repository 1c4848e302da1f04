//! A network of hosts that send each other datagrams.

use core::convert::Infallible;
use core::net::SocketAddr;

use heapless::Vec;

use super::Impairments;
use crate::random::Rng;
use crate::{Arrival, DatagramTransport, Instant, Sent, Unreachable};

/// Up to `HOSTS` hosts, each with one address, and up to `FLIGHT` datagrams of up to `MAX` bytes on the way.
///
/// Takes some `FLIGHT * (MAX + 100)` bytes. A datagram to an address that no host has comes back as
/// [`Unreachable::Refused`], as if its host had said so.
#[derive(Debug)]
pub struct DatagramNet<const HOSTS: usize, const FLIGHT: usize, const MAX: usize> {
    hosts: Vec<SocketAddr, HOSTS>,
    flight: Vec<Packet<MAX>, FLIGHT>,
    /// The datagram that was received last, while its receiver looks at it.
    lent: Option<Packet<MAX>>,
    impairments: Impairments,
    rng: Rng,
    now: Instant,
    /// Numbers the packets, so that of two that arrive at one moment the first sent comes first.
    count: u64,
    counters: DatagramCounters,
}

#[derive(Debug)]
struct Packet<const MAX: usize> {
    from: SocketAddr,
    to: SocketAddr,
    arrives: Instant,
    number: u64,
    /// `None`: the news for `to` that its datagram to `from` was refused.
    payload: Option<Vec<u8, MAX>>,
}

/// What a [`DatagramNet`] did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounters {
    /// Datagrams given to it.
    pub sent: u64,
    /// Datagrams that it lost on purpose.
    pub lost: u64,
    /// Datagrams that it doubled.
    pub duplicated: u64,
    /// Copies for which there was no room.
    pub overflowed: u64,
}

/// One host of a [`DatagramNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostId(usize);

impl<const HOSTS: usize, const FLIGHT: usize, const MAX: usize> DatagramNet<HOSTS, FLIGHT, MAX> {
    /// A network without hosts, at [`Instant::ZERO`].
    pub const fn new(seed: u64, impairments: Impairments) -> Self {
        Self {
            hosts: Vec::new(),
            flight: Vec::new(),
            lent: None,
            impairments,
            rng: Rng::new(seed),
            now: Instant::ZERO,
            count: 0,
            counters: DatagramCounters {
                sent: 0,
                lost: 0,
                duplicated: 0,
                overflowed: 0,
            },
        }
    }

    /// Adds a host at `address`. `None` if another has it already, or if there are `HOSTS` of them.
    pub fn add_host(&mut self, address: SocketAddr) -> Option<HostId> {
        if self.hosts.contains(&address) {
            return None;
        }
        self.hosts.push(address).ok()?;
        Some(HostId(self.hosts.len() - 1))
    }

    /// Gives a host another address, as when it roams. What is on the way to the old one will be refused.
    pub fn move_host(&mut self, host: HostId, address: SocketAddr) {
        if let Some(old) = self.hosts.get_mut(host.0) {
            *old = address;
        }
    }

    /// Changes what befalls datagrams from now on.
    pub fn set_impairments(&mut self, impairments: Impairments) {
        self.impairments = impairments;
    }

    /// Moves the clock on to `now`. It never goes back.
    pub fn advance_to(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// What time it is.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// When the next datagram can be received, which may be now.
    pub fn next_arrival(&self) -> Option<Instant> {
        let next = self.flight.iter().map(|packet| packet.arrives).min()?;
        Some(next.max(self.now))
    }

    /// What happened so far.
    pub fn counters(&self) -> DatagramCounters {
        self.counters
    }

    /// `host`'s socket.
    pub fn host(&mut self, host: HostId) -> DatagramHost<'_, HOSTS, FLIGHT, MAX> {
        DatagramHost { net: self, host }
    }

    fn address(&self, host: HostId) -> Option<SocketAddr> {
        self.hosts.get(host.0).copied()
    }

    fn push(&mut self, packet: Packet<MAX>) {
        if self.flight.push(packet).is_err() {
            self.counters.overflowed += 1;
        }
    }

    /// Sends the news of refusals for all datagrams that have arrived where nobody is.
    fn refuse(&mut self) {
        while let Some(index) = self
            .flight
            .iter()
            .position(|packet| packet.arrives <= self.now && !self.hosts.contains(&packet.to))
        {
            let Packet {
                from,
                to,
                number,
                payload,
                arrives,
            } = self.flight.swap_remove(index);
            // There is no news of news.
            if payload.is_some() {
                let arrives = self.impairments.arrivals(&mut self.rng, arrives).next();
                if let Some(arrives) = arrives {
                    self.push(Packet {
                        from: to,
                        to: from,
                        arrives,
                        number,
                        payload: None,
                    });
                }
            }
        }
    }
}

/// The socket of one host in a [`DatagramNet`].
#[derive(Debug)]
pub struct DatagramHost<'n, const HOSTS: usize, const FLIGHT: usize, const MAX: usize> {
    net: &'n mut DatagramNet<HOSTS, FLIGHT, MAX>,
    host: HostId,
}

impl<const HOSTS: usize, const FLIGHT: usize, const MAX: usize> DatagramTransport
    for DatagramHost<'_, HOSTS, FLIGHT, MAX>
{
    type Error = Infallible;

    fn recv(&mut self) -> Result<Option<Arrival<'_>>, Infallible> {
        let net = &mut *self.net;
        net.refuse();
        let address = net.address(self.host);
        let next = net
            .flight
            .iter()
            .enumerate()
            .filter(|(_, packet)| Some(packet.to) == address && packet.arrives <= net.now)
            .min_by_key(|(_, packet)| (packet.arrives, packet.number))
            .map(|(index, _)| index);
        let Some(index) = next else {
            return Ok(None);
        };
        let packet = net.lent.insert(net.flight.swap_remove(index));
        Ok(Some(match &packet.payload {
            Some(payload) => Arrival::Datagram {
                from: packet.from,
                payload,
            },
            None => Arrival::Unreachable {
                to: packet.from,
                why: Unreachable::Refused,
            },
        }))
    }

    fn can_send(&mut self, _: usize) -> bool {
        !self.net.flight.is_full()
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8]) -> Result<Sent, Infallible> {
        let net = &mut *self.net;
        let (Some(from), Ok(payload)) = (net.address(self.host), Vec::from_slice(payload)) else {
            return Ok(Sent::Unreachable(Unreachable::TooLong));
        };
        net.counters.sent += 1;
        let mut copies = 0;
        for arrives in net.impairments.arrivals(&mut net.rng, net.now) {
            copies += 1;
            net.count += 1;
            net.push(Packet {
                from,
                to,
                arrives,
                number: net.count,
                payload: Some(payload.clone()),
            });
        }
        net.counters.lost += u64::from(copies == 0);
        net.counters.duplicated += u64::from(copies == 2);
        Ok(Sent::Queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Duration;
    use std::vec::Vec as StdVec;

    type Net = DatagramNet<3, 8, 16>;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn received(net: &mut Net, host: HostId) -> StdVec<(SocketAddr, StdVec<u8>)> {
        let mut all = StdVec::new();
        loop {
            match net.host(host).recv().unwrap() {
                None => return all,
                Some(Arrival::Datagram { from, payload }) => all.push((from, payload.to_vec())),
                Some(Arrival::Unreachable { to, why }) => {
                    assert_eq!(why, Unreachable::Refused);
                    all.push((to, b"refused".to_vec()));
                }
            }
        }
    }

    #[test]
    fn datagrams_arrive_when_their_time_has_come_and_in_order() {
        let late = Duration::from_millis(5);
        let mut net = Net::new(
            1,
            Impairments {
                delay: (late, late),
                ..Impairments::default()
            },
        );
        let (a, b) = (
            net.add_host(addr(1)).unwrap(),
            net.add_host(addr(2)).unwrap(),
        );
        net.host(a).send(addr(2), b"one").unwrap();
        net.host(a).send(addr(2), b"two").unwrap();
        assert_eq!(net.next_arrival(), Some(Instant::from_millis(5)));
        net.advance_to(Instant::from_micros(4_999));
        assert_eq!(received(&mut net, b), []);
        net.advance_to(Instant::from_millis(5));
        assert_eq!(
            received(&mut net, b),
            [(addr(1), b"one".to_vec()), (addr(1), b"two".to_vec())]
        );
        assert_eq!(net.next_arrival(), None);
    }

    #[test]
    fn nobody_at_home_is_told() {
        let mut net = Net::new(1, Impairments::default());
        let a = net.add_host(addr(1)).unwrap();
        net.host(a).send(addr(9), b"hello").unwrap();
        assert_eq!(received(&mut net, a), [(addr(9), b"refused".to_vec())]);
    }

    #[test]
    fn bounds_are_kept() {
        let mut net = Net::new(1, Impairments::default());
        let a = net.add_host(addr(1)).unwrap();
        net.add_host(addr(2)).unwrap();
        assert_eq!(net.add_host(addr(2)), None);
        net.add_host(addr(3)).unwrap();
        assert_eq!(net.add_host(addr(4)), None);
        assert_eq!(
            net.host(a).send(addr(2), &[0; 17]),
            Ok(Sent::Unreachable(Unreachable::TooLong))
        );
        for _ in 0..8 {
            assert!(net.host(a).can_send(16));
            net.host(a).send(addr(2), b"x").unwrap();
        }
        assert!(!net.host(a).can_send(1));
    }

    #[test]
    fn one_seed_one_fate() {
        let fates = |seed| {
            let mut net = DatagramNet::<2, 64, 4>::new(
                seed,
                Impairments::rough(300, 300, Duration::from_millis(10)),
            );
            let (a, b) = (
                net.add_host(addr(1)).unwrap(),
                net.add_host(addr(2)).unwrap(),
            );
            for n in 0..30 {
                net.host(a).send(addr(2), &[n]).unwrap();
            }
            net.advance_to(Instant::from_millis(10));
            let mut order = StdVec::new();
            while let Some(Arrival::Datagram { payload, .. }) = net.host(b).recv().unwrap() {
                order.push(payload[0]);
            }
            (order, net.counters())
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        let (order, counters) = fates(7);
        assert!(!order.is_sorted());
        assert!(counters.lost > 0 && counters.duplicated > 0, "{counters:?}");
        assert_eq!(order.len() as u64, 30 - counters.lost + counters.duplicated);
    }
}
