//! The greeting's server over streams.

use core::net::SocketAddr;

use super::{ANSWER, MAX_GREETING};
use crate::connections::{Config, Connections, Refusal};
use crate::{ConnId, Flow, Instant, Now, StreamService};

/// Greets up to `N` connections at a time, at 16 bytes each and 88 besides.
///
/// The first byte of a greeting is answered; then our direction is closed, and what else the peer sends is
/// thrown away until it closes too. A peer that does nothing for [`Config::idle_timeout`] is cut off; when
/// there are [`Config::max_connections`] already, the one that has been silent longest gives way to the new
/// one, so that nobody can shut others out by connecting and saying nothing.
#[derive(Debug)]
pub struct StreamServer<const N: usize> {
    connections: Connections<Greeting, N>,
    answered: u64,
    too_long: u64,
    abandoned: u64,
}

/// What happened to the connections of a [`StreamServer`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken in.
    pub opened: u64,
    /// Connections whose greeting was answered.
    pub answered: u64,
    /// Connections with a greeting longer than [`MAX_GREETING`].
    pub too_long: u64,
    /// Connections cut off because their time was up.
    pub timed_out: u64,
    /// Connections that gave way to a new one.
    pub evicted: u64,
    /// Connections that the peer gave up before they were answered.
    pub abandoned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Greeting {
    state: State,
    /// Bytes of the greeting so far, up to one more than allowed.
    len: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// This many bytes of the answer are written.
    Answering(u8),
}

impl<const N: usize> StreamServer<N> {
    /// A server without connections.
    pub const fn new(config: Config) -> Self {
        Self {
            connections: Connections::new(config),
            answered: 0,
            too_long: 0,
            abandoned: 0,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let counts = self.connections.counts();
        Counters {
            opened: counts.opened,
            answered: self.answered,
            too_long: self.too_long,
            timed_out: counts.timed_out,
            evicted: counts.evicted,
            abandoned: self.abandoned,
        }
    }

    /// How many connections are open, those about to be reset not counted.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes in no more connections, cuts off those that have said nothing, and finishes the others.
    pub fn shut_down(&mut self) {
        self.connections
            .shut_down(|greeting| greeting.state == State::Waiting);
    }

    fn answer(&mut self, now: Now, id: ConnId) {
        if let Some(greeting) = self.connections.get_mut(id)
            && greeting.state == State::Waiting
        {
            greeting.state = State::Answering(0);
            self.connections.renew(now, id);
            self.answered += 1;
        }
    }
}

impl<const N: usize> StreamService for StreamServer<N> {
    type Reject = Refusal;

    fn handle_open(&mut self, now: Now, id: ConnId, _: SocketAddr) -> Result<(), Refusal> {
        let greeting = Greeting {
            state: State::Waiting,
            len: 0,
        };
        self.connections.open(now, id, greeting)
    }

    fn handle_data(&mut self, now: Now, id: ConnId, data: &[u8]) -> usize {
        if let Some(greeting) = self.connections.get_mut(id)
            && !data.is_empty()
        {
            let before = usize::from(greeting.len);
            let after = before.saturating_add(data.len()).min(MAX_GREETING + 1);
            greeting.len = after as u16;
            if before <= MAX_GREETING && after > MAX_GREETING {
                self.too_long += 1;
            }
            self.answer(now, id);
        }
        data.len()
    }

    fn handle_end(&mut self, now: Now, id: ConnId) {
        self.answer(now, id);
    }

    fn handle_close(&mut self, _: Now, id: ConnId) {
        if let Some(greeting) = self.connections.close(id)
            && greeting.state == State::Waiting
        {
            self.abandoned += 1;
        }
    }

    fn poll_write(&mut self, _: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        match self.connections.get_mut(id).map(|kept| &mut kept.state) {
            None => (0, Flow::Abort),
            Some(State::Waiting) => (0, Flow::Open),
            Some(State::Answering(written)) => {
                let rest = &ANSWER[usize::from(*written)..];
                let len = rest.len().min(buf.len());
                buf[..len].copy_from_slice(&rest[..len]);
                *written += len as u8;
                if len == rest.len() {
                    (len, Flow::Finish)
                } else {
                    (len, Flow::Open)
                }
            }
        }
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        // It leaves the list with the `handle_close` that follows its reset.
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
    use proptest::prelude::*;
    use std::vec::Vec;

    const PEER: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 7)),
        40_000,
    );
    const ID: ConnId = ConnId::new(0);
    const IDLE: u64 = 10_000_000;

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn server<const N: usize>() -> StreamServer<N> {
        StreamServer::new(Config::default())
    }

    /// All that the server writes to `id`, through a window of `window` bytes, and what becomes of it then.
    fn written<const N: usize>(
        server: &mut StreamServer<N>,
        id: ConnId,
        window: usize,
    ) -> (Vec<u8>, Flow) {
        let mut bytes = Vec::new();
        loop {
            let mut buf = std::vec![0; window];
            let (len, flow) = server.poll_write(at(0), id, &mut buf);
            bytes.extend_from_slice(&buf[..len]);
            if len == 0 || flow != Flow::Open {
                return (bytes, flow);
            }
        }
    }

    #[test]
    fn the_first_byte_is_answered() {
        let mut server = server::<1>();
        server.handle_open(at(0), ID, PEER).unwrap();
        assert_eq!(written(&mut server, ID, 100), (Vec::new(), Flow::Open));
        assert_eq!(server.handle_data(at(1), ID, b"h"), 1);
        assert_eq!(
            written(&mut server, ID, 100),
            (b"hi".to_vec(), Flow::Finish)
        );
        // The rest of the greeting is taken in and changes nothing.
        assert_eq!(server.handle_data(at(2), ID, b"ello"), 4);
        assert_eq!(written(&mut server, ID, 100), (Vec::new(), Flow::Finish));
        server.handle_close(at(3), ID);
        assert_eq!(server.connections(), 0);
        assert_eq!(
            server.counters(),
            Counters {
                opened: 1,
                answered: 1,
                ..Counters::default()
            }
        );
    }

    #[test]
    fn an_answer_fits_through_a_window_of_one_byte() {
        let mut server = server::<1>();
        server.handle_open(at(0), ID, PEER).unwrap();
        server.handle_data(at(0), ID, b"hello");
        assert_eq!(server.poll_write(at(0), ID, &mut []), (0, Flow::Open));
        assert_eq!(written(&mut server, ID, 1), (b"hi".to_vec(), Flow::Finish));
    }

    #[test]
    fn the_end_of_the_stream_is_a_greeting_too() {
        let mut server = server::<1>();
        server.handle_open(at(0), ID, PEER).unwrap();
        server.handle_end(at(0), ID);
        server.handle_end(at(0), ID);
        assert_eq!(written(&mut server, ID, 9), (b"hi".to_vec(), Flow::Finish));
        assert_eq!(server.counters().answered, 1);
    }

    #[test]
    fn silence_is_cut_off_at_the_microsecond() {
        let mut server = server::<1>();
        server.handle_open(at(5), ID, PEER).unwrap();
        assert_eq!(server.poll_timeout(), Some(Instant::from_micros(IDLE + 5)));
        server.handle_timeout(at(IDLE + 4));
        assert_eq!(server.poll_ready(), None);
        server.handle_timeout(at(IDLE + 5));
        assert_eq!(server.poll_ready(), Some(ID));
        assert_eq!(server.poll_write(at(0), ID, &mut []), (0, Flow::Abort));
        server.handle_close(at(IDLE + 5), ID);
        assert_eq!(server.poll_ready(), None);
        assert_eq!(server.poll_timeout(), None);
        assert_eq!(server.counters().timed_out, 1);
        server.handle_open(at(IDLE + 6), ID, PEER).unwrap();
    }

    #[test]
    fn a_peer_that_never_closes_is_cut_off_too() {
        let mut server = server::<1>();
        server.handle_open(at(0), ID, PEER).unwrap();
        server.handle_data(at(1_000), ID, b"hello");
        written(&mut server, ID, 100);
        // More data does not put the deadline off.
        server.handle_data(at(5_000_000), ID, b"and another thing");
        assert_eq!(
            server.poll_timeout(),
            Some(Instant::from_micros(IDLE + 1_000))
        );
        server.handle_timeout(at(IDLE + 1_000));
        assert_eq!(server.poll_write(at(0), ID, &mut [0; 9]), (0, Flow::Abort));
    }

    #[test]
    fn a_full_house_sends_away_who_was_silent_longest() {
        let mut server = StreamServer::<3>::new(Config {
            max_connections: 2,
            ..Config::default()
        });
        let [a, b, c] = [0, 1, 2].map(ConnId::new);
        server.handle_open(at(0), a, PEER).unwrap();
        server.handle_open(at(1), b, PEER).unwrap();
        server.handle_data(at(2), a, b"x");
        server.handle_open(at(3), c, PEER).unwrap();
        assert_eq!(server.poll_ready(), Some(b));
        assert_eq!(server.poll_write(at(3), b, &mut []), (0, Flow::Abort));
        assert_eq!(server.poll_write(at(3), c, &mut []), (0, Flow::Open));
        server.handle_close(at(3), b);
        assert_eq!(server.connections(), 2);
        assert_eq!(server.counters().evicted, 1);
    }

    #[test]
    fn a_slot_that_is_taken_or_not_there_is_refused() {
        let mut server = server::<1>();
        server.handle_open(at(0), ID, PEER).unwrap();
        assert_eq!(server.handle_open(at(0), ID, PEER), Err(Refusal::NoRoom));
        let beyond = ConnId::new(1);
        assert_eq!(
            server.handle_open(at(0), beyond, PEER),
            Err(Refusal::NoRoom)
        );
        assert_eq!(server.handle_data(at(0), beyond, b"abc"), 3);
        server.handle_end(at(0), beyond);
        server.handle_close(at(0), beyond);
        assert_eq!(
            server.poll_write(at(0), beyond, &mut [0; 9]),
            (0, Flow::Abort)
        );
        assert_eq!(server.connections(), 1);
    }

    #[test]
    fn a_greeting_may_have_1024_bytes() {
        let mut server = server::<1>();
        server.handle_open(at(0), ID, PEER).unwrap();
        assert_eq!(server.handle_data(at(0), ID, &[b'x'; 1024]), 1024);
        assert_eq!(server.counters().too_long, 0);
        assert_eq!(server.handle_data(at(0), ID, b"x"), 1);
        assert_eq!(server.handle_data(at(0), ID, &[b'x'; 4096]), 4096);
        assert_eq!(server.counters().too_long, 1);
        assert_eq!(written(&mut server, ID, 9).0, b"hi");
    }

    #[test]
    fn shutting_down_finishes_what_was_begun() {
        let mut server = server::<3>();
        let [silent, talking, new] = [0, 1, 2].map(ConnId::new);
        server.handle_open(at(0), silent, PEER).unwrap();
        server.handle_open(at(0), talking, PEER).unwrap();
        server.handle_data(at(0), talking, b"hello");
        server.shut_down();
        assert_eq!(
            server.handle_open(at(1), new, PEER),
            Err(Refusal::ShuttingDown)
        );
        assert_eq!(server.poll_ready(), Some(silent));
        assert_eq!(
            written(&mut server, talking, 9),
            (b"hi".to_vec(), Flow::Finish)
        );
        server.handle_close(at(1), silent);
        server.handle_close(at(1), talking);
        assert_eq!(server.connections(), 0);
    }

    #[test]
    fn a_connection_costs_16_bytes() {
        assert_eq!(
            size_of::<StreamServer<100>>() - size_of::<StreamServer<0>>(),
            1_600
        );
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Open(u16),
        Data(u16, usize),
        End(u16),
        Close(u16),
        Write(u16, usize),
        Wait(u64),
        Reset,
    }

    fn step() -> impl Strategy<Value = Step> {
        let id = 0..6_u16;
        prop_oneof![
            id.clone().prop_map(Step::Open),
            (id.clone(), 0..1500_usize).prop_map(|(id, len)| Step::Data(id, len)),
            id.clone().prop_map(Step::End),
            id.clone().prop_map(Step::Close),
            (id, 0..4_usize).prop_map(|(id, window)| Step::Write(id, window)),
            (0..12_000_000_u64).prop_map(Step::Wait),
            Just(Step::Reset),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: nobody is kept beyond the idle timeout, the table never holds
        /// more than it may, and no connection gets anything but the beginning of `hi`.
        #[test]
        fn any_order_of_events_keeps_the_table_whole(steps in proptest::collection::vec(step(), 0..200)) {
            let mut server = StreamServer::<5>::new(Config { max_connections: 3, ..Config::default() });
            let mut now = 0;
            let mut sent: [Vec<u8>; 6] = Default::default();
            let mut open = [false; 6];
            for step in steps {
                match step {
                    Step::Open(id) => if server.handle_open(at(now), ConnId::new(id), PEER).is_ok() {
                        prop_assert!(!open[usize::from(id)]);
                        open[usize::from(id)] = true;
                        sent[usize::from(id)].clear();
                    },
                    Step::Data(id, len) => {
                        let data = std::vec![b'x'; len];
                        prop_assert_eq!(server.handle_data(at(now), ConnId::new(id), &data), len);
                    }
                    Step::End(id) => server.handle_end(at(now), ConnId::new(id)),
                    Step::Close(id) => {
                        server.handle_close(at(now), ConnId::new(id));
                        open[usize::from(id)] = false;
                    }
                    Step::Write(id, window) => {
                        let mut buf = std::vec![0; window];
                        let (len, _) = server.poll_write(at(now), ConnId::new(id), &mut buf);
                        sent[usize::from(id)].extend_from_slice(&buf[..len]);
                        prop_assert!(ANSWER.starts_with(&sent[usize::from(id)]));
                    }
                    Step::Wait(micros) => {
                        now += micros;
                        server.handle_timeout(at(now));
                        prop_assert!(server.poll_timeout().is_none_or(|at| at > Instant::from_micros(now)));
                    }
                    Step::Reset => while let Some(id) = server.poll_ready() {
                        prop_assert_eq!(server.poll_write(at(now), id, &mut []), (0, Flow::Abort));
                        server.handle_close(at(now), id);
                        open[id.index()] = false;
                    },
                }
                prop_assert!(server.connections() <= 3);
                prop_assert_eq!(server.poll_timeout().is_some(), server.connections() > 0);
            }
        }
    }
}
