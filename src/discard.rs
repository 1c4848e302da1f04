//! Discard (RFC 863): whatever comes over a stream is thrown away, and nothing is answered.
//!
//! It is what a sender's speed is measured with. Data is taken as fast as the transport offers it, all of it at once;
//! when the peer ends its direction, so does the server. Over TCP only: a datagram can be sent into nothing without a
//! service.

use core::net::SocketAddr;

pub use crate::connections::{Config, Refusal};

use crate::connections::Connections;
use crate::{ConnId, Flow, Instant, Now, StreamService};

/// The default port (TCP).
pub const PORT: u16 = 9;

/// Throws away what up to `N` connections at a time send, at 16 bytes each and 72 besides.
///
/// A peer that sends nothing for [`Config::idle_timeout`] is cut off, and so is one that takes longer to close. When
/// there are [`Config::max_connections`] already, the one that has been silent longest gives way to the new one.
#[derive(Debug)]
pub struct Server<const N: usize> {
    /// Whether the peer's direction has ended.
    connections: Connections<bool, N>,
    bytes: u64,
}

/// What happened to the connections of a [`Server`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken in.
    pub opened: u64,
    /// Bytes thrown away.
    pub bytes: u64,
    /// Connections cut off because their time was up.
    pub timed_out: u64,
    /// Connections that gave way to a new one.
    pub evicted: u64,
}

impl<const N: usize> Server<N> {
    /// A server without connections.
    pub const fn new(config: Config) -> Self {
        Self {
            connections: Connections::new(config),
            bytes: 0,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let counts = self.connections.counts();
        Counters {
            opened: counts.opened,
            bytes: self.bytes,
            timed_out: counts.timed_out,
            evicted: counts.evicted,
        }
    }

    /// How many connections are open, those about to be reset not counted.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes in no more connections, and cuts off those that have not ended.
    pub fn shut_down(&mut self) {
        self.connections.shut_down(|&ended| !ended);
    }
}

impl<const N: usize> StreamService for Server<N> {
    type Reject = Refusal;

    fn handle_open(&mut self, now: Now, id: ConnId, _: SocketAddr) -> Result<(), Refusal> {
        self.connections.open(now, id, false)
    }

    fn handle_data(&mut self, now: Now, id: ConnId, data: &[u8]) -> usize {
        self.bytes += data.len() as u64;
        self.connections.renew(now, id);
        data.len()
    }

    fn handle_end(&mut self, _: Now, id: ConnId) {
        if let Some(ended) = self.connections.get_mut(id) {
            *ended = true;
        }
    }

    fn handle_close(&mut self, _: Now, id: ConnId) {
        self.connections.close(id);
    }

    fn poll_write(&mut self, _: Now, id: ConnId, _: &mut [u8]) -> (usize, Flow) {
        let flow = match self.connections.get_mut(id) {
            None => Flow::Abort,
            Some(false) => Flow::Open,
            Some(true) => Flow::Finish,
        };
        (0, flow)
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        self.connections.doomed()
    }

    fn handle_timeout(&mut self, now: Now) {
        self.connections.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.connections.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 7)),
        40_000,
    );
    const ID: ConnId = ConnId::new(0);
    const IDLE: u64 = 10_000_000;

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn open() -> Server<1> {
        let mut server = Server::new(Config::default());
        server.handle_open(at(0), ID, PEER).unwrap();
        server
    }

    #[test]
    fn all_that_is_offered_is_taken_and_nothing_is_answered() {
        let mut server = open();
        for len in [0, 1, 1_460, 1 << 20] {
            assert_eq!(server.handle_data(at(0), ID, &std::vec![b'x'; len]), len);
            let mut buf = [0xff; 9];
            assert_eq!(server.poll_write(at(0), ID, &mut buf), (0, Flow::Open));
            assert_eq!(buf, [0xff; 9]);
        }
        server.handle_end(at(0), ID);
        assert_eq!(server.poll_write(at(0), ID, &mut []), (0, Flow::Finish));
        server.handle_close(at(0), ID);
        assert_eq!(server.connections(), 0);
        let expected = Counters {
            opened: 1,
            bytes: 1 + 1_460 + (1 << 20),
            ..Counters::default()
        };
        assert_eq!(server.counters(), expected);
    }

    #[test]
    fn each_piece_of_data_puts_the_deadline_off_and_silence_does_not() {
        let mut server = open();
        server.handle_data(at(IDLE - 1), ID, b"x");
        server.handle_timeout(at(IDLE));
        assert_eq!(server.poll_ready(), None);
        assert_eq!(
            server.poll_timeout(),
            Some(Instant::from_micros(2 * IDLE - 1))
        );
        server.handle_timeout(at(2 * IDLE - 1));
        assert_eq!(server.poll_ready(), Some(ID));
        assert_eq!(server.poll_write(at(0), ID, &mut []), (0, Flow::Abort));
        // What still comes is taken, and changes nothing.
        assert_eq!(server.handle_data(at(2 * IDLE), ID, b"abc"), 3);
        server.handle_close(at(2 * IDLE), ID);
        assert_eq!((server.poll_ready(), server.poll_timeout()), (None, None));
        assert_eq!(server.counters().timed_out, 1);
    }

    #[test]
    fn a_full_house_sends_away_who_was_silent_longest() {
        let mut server = Server::<3>::new(Config {
            max_connections: 2,
            ..Config::default()
        });
        let [a, b, c] = [0, 1, 2].map(ConnId::new);
        server.handle_open(at(0), a, PEER).unwrap();
        server.handle_open(at(1), b, PEER).unwrap();
        server.handle_data(at(2), a, b"x");
        server.handle_open(at(3), c, PEER).unwrap();
        assert_eq!(server.poll_ready(), Some(b));
        assert_eq!((server.connections(), server.counters().evicted), (2, 1));
    }

    #[test]
    fn shutting_down_cuts_off_who_goes_on_sending() {
        let mut server = Server::<2>::new(Config::default());
        let [sending, ended] = [0, 1].map(ConnId::new);
        for id in [sending, ended] {
            server.handle_open(at(0), id, PEER).unwrap();
        }
        server.handle_end(at(0), ended);
        server.shut_down();
        assert_eq!(server.poll_ready(), Some(sending));
        server.handle_close(at(0), sending);
        assert_eq!(server.poll_ready(), None);
        assert_eq!(server.poll_write(at(0), ended, &mut []), (0, Flow::Finish));
        assert_eq!(
            server.handle_open(at(0), sending, PEER),
            Err(Refusal::ShuttingDown)
        );
    }
}
