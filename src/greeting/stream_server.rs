//! The greeting's server over streams.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use super::{ANSWER, MAX_GREETING};
use crate::{ConnId, Duration, Flow, Instant, Now, StreamService};

/// Greets up to `N` connections at a time, at 16 bytes each and 88 besides.
///
/// The first byte of a greeting is answered; then our direction is closed, and what else the peer sends is
/// thrown away until it closes too. A peer that does nothing for [`Config::idle_timeout`] is cut off; when
/// there are [`Config::max_connections`] already, the one that has been silent longest gives way to the new
/// one, so that nobody can shut others out by connecting and saying nothing.
#[derive(Debug)]
pub struct StreamServer<const N: usize> {
    config: Config,
    slots: [Slot; N],
    /// Connections in the order of their last activity, which is the order of their deadlines.
    active: Queue,
    /// Connections to be reset.
    doomed: Queue,
    shutting_down: bool,
    counters: Counters,
}

/// How a [`StreamServer`] treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a connection may stay silent, and how long it may take to close: 10 seconds by default.
    pub idle_timeout: Duration,
    /// How many connections there may be before one must give way; `N` where it is more than that. Leave it
    /// below the number of connections that the transport can hold, so that a new one can always come in.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(10),
            max_connections: usize::MAX,
        }
    }
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
struct Slot {
    state: State,
    prev: u16,
    next: u16,
    deadline: Instant,
    /// Bytes of the greeting so far, up to one more than allowed.
    greeting_len: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    /// This many bytes of the answer are written.
    Answering(u8),
    Doomed,
}

/// The ends of a doubly linked list through the slots.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u16,
    last: u16,
    len: u16,
}

/// The link that leads nowhere. No slot has this index, since `ConnId` has 65,536 values and `N` is less.
const NIL: u16 = u16::MAX;

impl<const N: usize> StreamServer<N> {
    const FITS: () = assert!(
        N < NIL as usize,
        "a ConnId names at most 65,535 connections"
    );

    /// A server without connections.
    pub const fn new(config: Config) -> Self {
        let () = Self::FITS;
        const EMPTY: Queue = Queue {
            first: NIL,
            last: NIL,
            len: 0,
        };
        Self {
            config,
            slots: [Slot {
                state: State::Free,
                prev: NIL,
                next: NIL,
                deadline: Instant::ZERO,
                greeting_len: 0,
            }; N],
            active: EMPTY,
            doomed: EMPTY,
            shutting_down: false,
            counters: Counters {
                opened: 0,
                answered: 0,
                too_long: 0,
                timed_out: 0,
                evicted: 0,
                abandoned: 0,
            },
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many connections are open, those about to be reset not counted.
    pub fn connections(&self) -> usize {
        usize::from(self.active.len)
    }

    /// Takes in no more connections, cuts off those that have said nothing, and finishes the others.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
        for index in 0..N {
            if self.slots[index].state == State::Waiting {
                self.doom(index as u16);
            }
        }
    }

    fn queue(&mut self, state: State) -> &mut Queue {
        match state {
            State::Doomed => &mut self.doomed,
            State::Free | State::Waiting | State::Answering(_) => &mut self.active,
        }
    }

    fn append(&mut self, index: u16) {
        let state = self.slots[usize::from(index)].state;
        let queue = self.queue(state);
        queue.len += 1;
        let last = core::mem::replace(&mut queue.last, index);
        let slot = &mut self.slots[usize::from(index)];
        (slot.prev, slot.next) = (last, NIL);
        match last {
            NIL => self.queue(state).first = index,
            last => self.slots[usize::from(last)].next = index,
        }
    }

    fn unlink(&mut self, index: u16) {
        let Slot {
            state, prev, next, ..
        } = self.slots[usize::from(index)];
        self.queue(state).len -= 1;
        match prev {
            NIL => self.queue(state).first = next,
            prev => self.slots[usize::from(prev)].next = next,
        }
        match next {
            NIL => self.queue(state).last = prev,
            next => self.slots[usize::from(next)].prev = prev,
        }
    }

    fn doom(&mut self, index: u16) {
        self.unlink(index);
        self.slots[usize::from(index)].state = State::Doomed;
        self.append(index);
    }

    fn answer(&mut self, now: Now, index: u16) {
        self.unlink(index);
        let slot = &mut self.slots[usize::from(index)];
        slot.state = State::Answering(0);
        slot.deadline = now.monotonic + self.config.idle_timeout;
        self.append(index);
        self.counters.answered += 1;
    }

    /// The slot of `id`, if it is one that this server has.
    fn slot(&mut self, id: ConnId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index())
    }
}

impl<const N: usize> StreamService for StreamServer<N> {
    type Reject = Refusal;

    fn handle_open(&mut self, now: Now, id: ConnId, _: SocketAddr) -> Result<(), Refusal> {
        if self.shutting_down {
            return Err(Refusal::ShuttingDown);
        }
        let most = self.config.max_connections.min(N);
        if most == 0 || self.slot(id).is_none_or(|slot| slot.state != State::Free) {
            return Err(Refusal::NoRoom);
        }
        if self.connections() >= most {
            self.counters.evicted += 1;
            self.doom(self.active.first);
        }
        let index = id.index() as u16;
        let deadline = now.monotonic + self.config.idle_timeout;
        let slot = &mut self.slots[id.index()];
        slot.state = State::Waiting;
        slot.deadline = deadline;
        slot.greeting_len = 0;
        self.append(index);
        self.counters.opened += 1;
        Ok(())
    }

    fn handle_data(&mut self, now: Now, id: ConnId, data: &[u8]) -> usize {
        let Some(slot) = self.slot(id) else {
            return data.len();
        };
        let state = slot.state;
        let before = usize::from(slot.greeting_len);
        let after = before.saturating_add(data.len()).min(MAX_GREETING + 1);
        slot.greeting_len = after as u16;
        if before <= MAX_GREETING && after > MAX_GREETING {
            self.counters.too_long += 1;
        }
        if state == State::Waiting && !data.is_empty() {
            self.answer(now, id.index() as u16);
        }
        data.len()
    }

    fn handle_end(&mut self, now: Now, id: ConnId) {
        if self
            .slot(id)
            .is_some_and(|slot| slot.state == State::Waiting)
        {
            self.answer(now, id.index() as u16);
        }
    }

    fn handle_close(&mut self, _: Now, id: ConnId) {
        let Some(slot) = self.slot(id) else { return };
        let state = slot.state;
        if state == State::Free {
            return;
        }
        self.unlink(id.index() as u16);
        self.slots[id.index()].state = State::Free;
        if state == State::Waiting {
            self.counters.abandoned += 1;
        }
    }

    fn poll_write(&mut self, _: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let Some(slot) = self.slot(id) else {
            return (0, Flow::Abort);
        };
        match &mut slot.state {
            State::Free | State::Doomed => (0, Flow::Abort),
            State::Waiting => (0, Flow::Open),
            State::Answering(written) => {
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
        match self.doomed.first {
            NIL => None,
            index => Some(ConnId::new(index)),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        while self.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.counters.timed_out += 1;
            self.doom(self.active.first);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.active.first {
            NIL => None,
            index => Some(self.slots[usize::from(index)].deadline),
        }
    }
}

/// Why a connection was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The table has no slot for it.
    NoRoom,
    /// The server is about to end.
    ShuttingDown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no room for another connection",
            Self::ShuttingDown => "the server is shutting down",
        })
    }
}

impl Error for Refusal {}

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
