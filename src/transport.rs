//! Where service meets transport: the two traits that a stack implements, and the pumps that move bytes
//! between a service and a transport without knowing what either does.

use core::net::SocketAddr;

use crate::{ConnId, DatagramService, Flow, Instant, Now, StreamService, Unreachable};

/// A socket for datagrams. It never blocks.
pub trait DatagramTransport {
    /// The transport itself is broken, and every further call would fail. What befalls a single datagram is
    /// not an error: see [`Arrival::Unreachable`] and [`Sent::Unreachable`].
    type Error;

    /// Lends the next arrival. `None`: nothing has arrived.
    ///
    /// # Errors
    /// The transport is broken.
    fn recv(&mut self) -> Result<Option<Arrival<'_>>, Self::Error>;

    /// Whether a datagram of `len` bytes of payload would be taken now.
    fn can_send(&mut self, len: usize) -> bool;

    /// Sends one datagram; to be called when [`can_send`](Self::can_send) allows it.
    ///
    /// # Errors
    /// The transport is broken.
    fn send(&mut self, to: SocketAddr, payload: &[u8]) -> Result<Sent, Self::Error>;
}

/// What comes out of a datagram socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// A datagram.
    Datagram {
        /// The sender, an IPv4 address never in its IPv6-mapped form.
        from: SocketAddr,
        /// The payload, whole.
        payload: &'a [u8],
    },
    /// The news that an earlier datagram to `to` did not arrive.
    Unreachable {
        /// Where it was to go.
        to: SocketAddr,
        /// Why it did not.
        why: Unreachable,
    },
}

/// What became of a datagram given to a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Queued,
    /// It cannot go there.
    Unreachable(Unreachable),
}

/// A connection. It never blocks.
pub trait StreamTransport {
    /// The connection is gone: reset, timed out, or never made.
    type Error;

    /// Offers received bytes to `f`, which says how many it consumed; the others stay. `f` is called at most
    /// once, and not at all unless there is data.
    ///
    /// # Errors
    /// The connection is gone, and all data that came before was consumed.
    fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> Result<Received, Self::Error>;

    /// Lends `f` room for bytes to send; `f` says how many it wrote. `f` is called exactly once, with an empty
    /// slice when there is no room or our direction has ended.
    ///
    /// # Errors
    /// The connection is gone, and nothing is left to receive.
    fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, Self::Error>;

    /// Ends our direction once all that was sent has gone out. May be called again.
    fn close(&mut self);

    /// Resets the connection.
    fn abort(&mut self);

    /// Whether both directions have ended and nothing is left to do.
    fn is_closed(&self) -> bool;
}

/// What a stream had to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Data, of which so many bytes were consumed.
    Data(usize),
    /// Nothing for now.
    Nothing,
    /// Nothing, and nothing more will come: the peer has ended its direction.
    End,
}

/// What one [`pump`] moved, and when to call it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Datagrams taken from the transport.
    pub received: u32,
    /// Of those, datagrams that the service would not have.
    pub rejected: u32,
    /// Datagrams given to the transport.
    pub sent: u32,
    /// Datagrams that the transport could not send where they were to go.
    pub undeliverable: u32,
    /// The transport has no room for another datagram, so both directions wait for it.
    pub blocked: bool,
    /// The budget ended before the datagrams did: call again without sleeping.
    pub more: bool,
    /// When the service wants its timeout.
    pub deadline: Option<Instant>,
}

/// Moves datagrams between `service` and `transport`: first a timeout that is due, then what waits to be sent,
/// then up to `budget` received datagrams, each followed by all that the service has to say to it.
///
/// When the transport has no room, receiving waits too, so that nothing is dropped that could wait.
///
/// # Errors
/// The transport is broken. What peers send never is an error: it is counted in [`Pumped::rejected`].
///
/// # Panics
/// If `scratch` has less than [`DatagramService::MAX_DATAGRAM`] bytes: on the first call or never.
pub fn pump<S, T>(
    service: &mut S,
    transport: &mut T,
    now: Now,
    scratch: &mut [u8],
    budget: u32,
) -> Result<Pumped, T::Error>
where
    S: DatagramService,
    T: DatagramTransport,
{
    assert!(
        scratch.len() >= S::MAX_DATAGRAM,
        "the scratch buffer is shorter than the service's longest datagram"
    );
    let mut pumped = Pumped::default();
    if service.poll_timeout().is_some_and(|at| at <= now.monotonic) {
        service.handle_timeout(now);
    }
    loop {
        if !drain(service, transport, now, scratch, &mut pumped)? {
            pumped.blocked = true;
            break;
        }
        if pumped.received >= budget {
            pumped.more = true;
            break;
        }
        match transport.recv()? {
            None => break,
            Some(Arrival::Datagram { from, payload }) => {
                pumped.received += 1;
                if service.handle_datagram(now, from, payload).is_err() {
                    pumped.rejected += 1;
                }
            }
            Some(Arrival::Unreachable { to, why }) => service.handle_unreachable(now, to, why),
        }
    }
    pumped.deadline = service.poll_timeout();
    Ok(pumped)
}

/// Sends what `service` has to say, and returns whether that was all of it, rather than all there was room for.
fn drain<S, T>(
    service: &mut S,
    transport: &mut T,
    now: Now,
    scratch: &mut [u8],
    pumped: &mut Pumped,
) -> Result<bool, T::Error>
where
    S: DatagramService,
    T: DatagramTransport,
{
    while transport.can_send(S::MAX_DATAGRAM) {
        let Some(transmit) = service.poll_transmit(now, scratch) else {
            return Ok(true);
        };
        match transport.send(transmit.to, &scratch[..transmit.len])? {
            Sent::Queued => pumped.sent += 1,
            Sent::Unreachable(why) => {
                pumped.undeliverable += 1;
                service.handle_unreachable(now, transmit.to, why);
            }
        }
    }
    Ok(false)
}

/// What one [`pump_stream`] moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPumped {
    /// Bytes that the service consumed.
    pub received: usize,
    /// Bytes that the transport took.
    pub sent: usize,
    /// The connection is gone: the service has been told, and its [`ConnId`] is free.
    pub closed: bool,
    /// The budget ended before the data did: call again without sleeping.
    pub more: bool,
}

/// The most pieces of data that one [`pump_stream`] takes in, and the most that it hands out, so that one busy peer
/// cannot hold up the others: a service without end never runs dry, and a peer nearby makes room all the time.
const STREAM_BUDGET: u32 = 16;

/// Moves bytes between `service` and one of its open connections: what has arrived, then what the service has
/// to say to it, then the end of the connection if it has come.
///
/// To be called when the connection has data, room or an end to tell of, and for each
/// [`StreamService::poll_ready`]. Timeouts are the service's, not the connection's: see [`pump_timeout`].
pub fn pump_stream<S, T>(service: &mut S, id: ConnId, conn: &mut T, now: Now) -> StreamPumped
where
    S: StreamService,
    T: StreamTransport,
{
    let mut pumped = StreamPumped {
        received: 0,
        sent: 0,
        closed: false,
        more: false,
    };
    let mut budget = STREAM_BUDGET;
    let mut room = STREAM_BUDGET;
    loop {
        // Writing comes before each reading, so that a service that waits for room to answer is asked first,
        // and after the last, so that what was read is answered now.
        if write(service, id, conn, now, &mut pumped, &mut room).is_err() {
            pumped.closed = true;
            break;
        }
        if budget == 0 {
            pumped.more = true;
            break;
        }
        budget -= 1;
        match conn.recv(|data| service.handle_data(now, id, data)) {
            Ok(Received::Data(consumed)) if consumed > 0 => pumped.received += consumed,
            Ok(Received::Data(_) | Received::Nothing) => break,
            Ok(Received::End) => {
                service.handle_end(now, id);
                pumped.closed = write(service, id, conn, now, &mut pumped, &mut room).is_err()
                    || conn.is_closed();
                break;
            }
            Err(_) => {
                pumped.closed = true;
                break;
            }
        }
    }
    if pumped.closed {
        service.handle_close(now, id);
    }
    pumped
}

/// Runs the timeout of a [`StreamService`] if it is due. The connections it changed come out of
/// [`StreamService::poll_ready`].
pub fn pump_timeout<S: StreamService>(service: &mut S, now: Now) {
    if service.poll_timeout().is_some_and(|at| at <= now.monotonic) {
        service.handle_timeout(now);
    }
}

/// The connection is gone, by our doing or another's.
struct Gone;

/// Writes what `service` has to say, until it is said, there is no more room, or `budget` pieces are written.
fn write<S, T>(
    service: &mut S,
    id: ConnId,
    conn: &mut T,
    now: Now,
    pumped: &mut StreamPumped,
    budget: &mut u32,
) -> Result<(), Gone>
where
    S: StreamService,
    T: StreamTransport,
{
    loop {
        if *budget == 0 {
            pumped.more = true;
            return Ok(());
        }
        let mut flow = Flow::Open;
        let sent = conn.send(|buf| {
            let (len, then) = service.poll_write(now, id, buf);
            flow = then;
            len
        });
        match (sent, flow) {
            (_, Flow::Abort) => {
                conn.abort();
                return Err(Gone);
            }
            (Err(_), _) => return Err(Gone),
            (Ok(len), Flow::Finish) => {
                pumped.sent += len;
                conn.close();
                return Ok(());
            }
            (Ok(0), Flow::Open) => return Ok(()),
            (Ok(len), Flow::Open) => {
                pumped.sent += len;
                *budget -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chargen;
    use crate::greeting::{Config, DatagramServer, StreamServer};
    use crate::{Exchange, Outcome, Retry};
    use core::convert::Infallible;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    const NOW: Now = Now::monotonic(Instant::ZERO);

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::new([192, 0, 2, 7].into(), port)
    }

    /// A socket with room for `room` datagrams to send.
    #[derive(Default)]
    struct Socket {
        arrived: VecDeque<(SocketAddr, Vec<u8>)>,
        lent: Vec<u8>,
        room: usize,
        sent: Vec<(SocketAddr, Vec<u8>)>,
        unreachable: Option<Unreachable>,
        broken: bool,
    }

    impl Socket {
        fn with(room: usize, arrived: impl IntoIterator<Item = u16>) -> Self {
            Self {
                room,
                arrived: arrived
                    .into_iter()
                    .map(|port| (peer(port), b"hello".to_vec()))
                    .collect(),
                ..Self::default()
            }
        }
    }

    #[derive(Debug, PartialEq)]
    struct Broken;

    impl DatagramTransport for Socket {
        type Error = Broken;

        fn recv(&mut self) -> Result<Option<Arrival<'_>>, Broken> {
            if self.broken {
                return Err(Broken);
            }
            let Some((from, payload)) = self.arrived.pop_front() else {
                return Ok(None);
            };
            self.lent = payload;
            Ok(Some(Arrival::Datagram {
                from,
                payload: &self.lent,
            }))
        }

        fn can_send(&mut self, _: usize) -> bool {
            self.sent.len() < self.room
        }

        fn send(&mut self, to: SocketAddr, payload: &[u8]) -> Result<Sent, Broken> {
            if let Some(why) = self.unreachable {
                return Ok(Sent::Unreachable(why));
            }
            self.sent.push((to, payload.to_vec()));
            Ok(Sent::Queued)
        }
    }

    #[test]
    fn each_datagram_is_answered_before_the_next_is_taken() {
        let mut socket = Socket::with(usize::MAX, 1000..1100);
        let pumped = pump(
            &mut DatagramServer::new(),
            &mut socket,
            NOW,
            &mut [0; 2],
            1000,
        )
        .unwrap();
        assert_eq!(
            (pumped.received, pumped.sent, pumped.rejected),
            (100, 100, 0)
        );
        assert!(!pumped.more && !pumped.blocked);
        let expected: Vec<_> = (1000..1100)
            .map(|port| (peer(port), b"hi".to_vec()))
            .collect();
        assert_eq!(socket.sent, expected);
    }

    #[test]
    fn a_full_transmit_ring_holds_back_receiving_and_loses_nothing() {
        let mut server = DatagramServer::new();
        let mut socket = Socket::with(4, 1000..1010);
        let mut answered = Vec::new();
        for _ in 0..3 {
            let pumped = pump(&mut server, &mut socket, NOW, &mut [0; 2], 1000).unwrap();
            assert!(pumped.received <= 4);
            assert_eq!(pumped.blocked, socket.sent.len() == 4);
            answered.append(&mut socket.sent);
        }
        assert_eq!(answered.len(), 10);
    }

    #[test]
    fn the_budget_bounds_one_call() {
        let mut socket = Socket::with(usize::MAX, 1000..1010);
        let mut server = DatagramServer::new();
        let pumped = pump(&mut server, &mut socket, NOW, &mut [0; 2], 3).unwrap();
        assert_eq!((pumped.received, pumped.sent, pumped.more), (3, 3, true));
        let pumped = pump(&mut server, &mut socket, NOW, &mut [0; 2], 8).unwrap();
        assert_eq!((pumped.received, pumped.sent, pumped.more), (7, 7, false));
    }

    #[test]
    fn what_a_peer_does_wrong_is_counted_and_ends_nothing() {
        let mut socket = Socket::with(usize::MAX, [7, 1000]);
        let pumped = pump(&mut DatagramServer::new(), &mut socket, NOW, &mut [0; 2], 9).unwrap();
        assert_eq!((pumped.received, pumped.rejected, pumped.sent), (2, 1, 1));
        assert_eq!(socket.sent, [(peer(1000), b"hi".to_vec())]);
    }

    #[test]
    fn a_service_hears_that_its_datagram_cannot_go() {
        let mut client =
            Exchange::<9, 9>::start(NOW, peer(9000), b"hello", Retry::default()).unwrap();
        let mut socket = Socket {
            unreachable: Some(Unreachable::NoRoute),
            ..Socket::with(9, [])
        };
        let pumped = pump(&mut client, &mut socket, NOW, &mut [0; 9], 9).unwrap();
        assert_eq!((pumped.sent, pumped.undeliverable), (0, 1));
        assert_eq!(client.outcome(), Outcome::Unreachable(Unreachable::NoRoute));
    }

    #[test]
    fn a_timeout_that_is_due_comes_first_and_the_next_is_told() {
        let mut client =
            Exchange::<9, 9>::start(NOW, peer(9000), b"hello", Retry::default()).unwrap();
        let mut socket = Socket::with(9, []);
        for (now, next, sent) in [
            (0, 500_000, 1),
            (499_999, 500_000, 1),
            (500_000, 1_500_000, 2),
        ] {
            let now = Now::monotonic(Instant::from_micros(now));
            let pumped = pump(&mut client, &mut socket, now, &mut [0; 9], 9).unwrap();
            assert_eq!(pumped.deadline, Some(Instant::from_micros(next)));
            assert_eq!(socket.sent.len(), sent);
        }
    }

    #[test]
    fn only_a_broken_transport_is_an_error() {
        let mut socket = Socket {
            broken: true,
            ..Socket::with(9, [1000])
        };
        assert_eq!(
            pump(&mut DatagramServer::new(), &mut socket, NOW, &mut [0; 2], 9),
            Err(Broken)
        );
    }

    #[test]
    #[should_panic(expected = "the scratch buffer is shorter")]
    fn a_short_scratch_buffer_is_caught_on_the_first_call() {
        let _ = pump(
            &mut DatagramServer::new(),
            &mut Socket::default(),
            NOW,
            &mut [0; 1],
            9,
        );
    }

    /// A connection on which `arriving` comes in these pieces, and then the peer's end.
    struct Connection {
        arriving: VecDeque<Vec<u8>>,
        window: usize,
        sent: Vec<u8>,
        ours_ended: bool,
        aborted: bool,
    }

    impl Connection {
        fn with(pieces: &[&[u8]], window: usize) -> Self {
            Self {
                arriving: pieces.iter().map(|piece| piece.to_vec()).collect(),
                window,
                sent: Vec::new(),
                ours_ended: false,
                aborted: false,
            }
        }
    }

    impl StreamTransport for Connection {
        type Error = Infallible;

        fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> Result<Received, Infallible> {
            let Some(mut piece) = self.arriving.pop_front() else {
                return Ok(Received::End);
            };
            if piece.is_empty() {
                return Ok(Received::Nothing);
            }
            let consumed = f(&piece);
            if consumed < piece.len() {
                self.arriving.push_front(piece.split_off(consumed));
            }
            Ok(Received::Data(consumed))
        }

        fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, Infallible> {
            let mut room = std::vec![0; if self.ours_ended { 0 } else { self.window }];
            let len = f(&mut room);
            self.sent.extend_from_slice(&room[..len]);
            Ok(len)
        }

        fn close(&mut self) {
            self.ours_ended = true;
        }

        fn abort(&mut self) {
            self.aborted = true;
        }

        fn is_closed(&self) -> bool {
            self.ours_ended && self.arriving.is_empty()
        }
    }

    fn open() -> (StreamServer<1>, ConnId) {
        let mut server = StreamServer::new(Config::default());
        let id = ConnId::new(0);
        server.handle_open(NOW, id, peer(1000)).unwrap();
        (server, id)
    }

    #[test]
    fn a_connection_is_served_and_let_go() {
        let (mut server, id) = open();
        let mut conn = Connection::with(&[b"hello"], 100);
        let pumped = pump_stream(&mut server, id, &mut conn, NOW);
        assert_eq!(
            pumped,
            StreamPumped {
                received: 5,
                sent: 2,
                closed: true,
                more: false
            }
        );
        assert_eq!(conn.sent, b"hi");
        assert!(!conn.aborted);
        assert_eq!(server.connections(), 0);
    }

    #[test]
    fn the_answer_does_not_wait_for_the_end() {
        let (mut server, id) = open();
        let mut conn = Connection::with(&[b"h", b"", b"ello"], 100);
        let pumped = pump_stream(&mut server, id, &mut conn, NOW);
        assert!(!pumped.closed);
        assert_eq!(conn.sent, b"hi");
        assert!(conn.ours_ended);
    }

    #[test]
    fn a_busy_peer_must_let_others_have_their_turn() {
        let (mut server, id) = open();
        let pieces = std::vec![b"x".as_slice(); 40];
        let mut conn = Connection::with(&pieces, 100);
        for received in [16, 16] {
            let pumped = pump_stream(&mut server, id, &mut conn, NOW);
            assert_eq!((pumped.received, pumped.more), (received, true));
        }
        let pumped = pump_stream(&mut server, id, &mut conn, NOW);
        assert_eq!((pumped.received, pumped.closed), (8, true));
    }

    #[test]
    fn a_service_without_end_must_let_others_have_their_turn() {
        let mut server = chargen::Server::<1>::new(Config::default());
        let id = ConnId::new(0);
        server.handle_open(NOW, id, peer(1000)).unwrap();
        // There is room for ever.
        let mut conn = Connection::with(&[b"thanks", b""], 10);
        let pumped = pump_stream(&mut server, id, &mut conn, NOW);
        assert_eq!((pumped.received, pumped.sent), (6, 160));
        assert!(pumped.more && !pumped.closed);
        // That the peer has ended is heard all the same.
        let pumped = pump_stream(&mut server, id, &mut conn, NOW);
        assert_eq!((pumped.received, pumped.sent), (0, 160));
        assert!(pump_stream(&mut server, id, &mut conn, NOW).closed);
        let mut expected = std::vec![0; 320];
        chargen::fill(0, &mut expected);
        assert_eq!(conn.sent, expected);
        assert_eq!(server.connections(), 0);
    }

    #[test]
    fn a_connection_whose_time_is_up_is_reset_though_its_peer_takes_nothing() {
        let (mut server, id) = open();
        let mut conn = Connection::with(&[b"hello", b""], 0);
        assert!(!pump_stream(&mut server, id, &mut conn, NOW).closed);
        let late = Now::monotonic(Instant::from_secs(10));
        pump_timeout(&mut server, late);
        assert_eq!(server.poll_ready(), Some(id));
        conn.arriving.push_back(Vec::new());
        assert!(pump_stream(&mut server, id, &mut conn, late).closed);
        assert!(conn.aborted);
        assert_eq!(server.poll_ready(), None);
    }

    #[test]
    fn a_timeout_is_not_run_early() {
        let (mut server, _) = open();
        pump_timeout(&mut server, Now::monotonic(Instant::from_micros(9_999_999)));
        assert_eq!(server.poll_ready(), None);
    }

    proptest! {
        /// However the network splits and merges a greeting, and however narrow the way back is, the peer
        /// gets `hi` and no more.
        #[test]
        fn any_splitting_of_a_greeting_gets_the_same_answer(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..50),
            window in 1..5_usize,
        ) {
            let (mut server, id) = open();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut conn = Connection::with(&pieces, window);
            for _ in 0..200 {
                if pump_stream(&mut server, id, &mut conn, NOW).closed {
                    break;
                }
            }
            prop_assert_eq!(conn.sent, b"hi");
            prop_assert!(conn.ours_ended && !conn.aborted);
            prop_assert_eq!(server.connections(), 0);
        }
    }
}
