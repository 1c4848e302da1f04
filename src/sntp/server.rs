//! A server for clients of the Simple Network Time Protocol, and of the full one.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use super::MESSAGE_LEN;
use super::message::{Message, Mode, Timestamp};
use crate::{DatagramService, Instant, Now, Transmit, Wall, may_answer};

/// How far from a clock the server says it is: far enough that no client takes it where there is a better one.
pub const STRATUM: u8 = 10;

/// A reference that is no other server: the machine's own clock, uncalibrated (RFC 4330, section 4, has the
/// name `LOCL` for stratum 1 only; at any other there is an address here, and this one means the same).
const LOCAL_CLOCK: [u8; 4] = [127, 127, 1, 1];

/// The server's clock is read to a microsecond: 2⁻²⁰ seconds.
const PRECISION: i8 = -20;

/// Answers every request with the time that it is told ([`Now::wall`]). 80 bytes: it remembers one request,
/// the one to be answered next. While the machine itself does not know the time, it answers nobody.
#[derive(Clone, Debug, Default)]
pub struct Server {
    pending: Option<Pending>,
    counters: ServerCounters,
}

/// What happened to the requests of a [`Server`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Requests answered.
    pub answered: u64,
    /// Requests refused because the machine does not know the time.
    pub no_clock: u64,
    /// Datagrams that were no request, or not to be answered.
    pub malformed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    to: SocketAddr,
    version: u8,
    poll: u8,
    originate: Timestamp,
    received: Timestamp,
}

impl Server {
    /// A server with nobody to answer.
    pub const fn new() -> Self {
        Self {
            pending: None,
            counters: ServerCounters {
                answered: 0,
                no_clock: 0,
                malformed: 0,
            },
        }
    }

    /// What happened so far.
    pub const fn counters(&self) -> ServerCounters {
        self.counters
    }
}

impl DatagramService for Server {
    const MAX_DATAGRAM: usize = MESSAGE_LEN;
    type Reject = NotAnswered;

    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), NotAnswered> {
        let request = Message::parse(payload)
            .filter(|request| request.mode == Mode::CLIENT.0 && (1..=4).contains(&request.version));
        let Some(request) = request else {
            self.counters.malformed += 1;
            return Err(NotAnswered::NoRequest);
        };
        if !may_answer(from) {
            self.counters.malformed += 1;
            return Err(NotAnswered::Unanswerable);
        }
        let Some(received) = now.wall.and_then(|wall| on_the_wire(&wall)) else {
            self.counters.no_clock += 1;
            return Err(NotAnswered::NoClock);
        };
        if self.pending.is_some() {
            return Err(NotAnswered::Busy);
        }
        self.pending = Some(Pending {
            to: from,
            version: request.version,
            poll: request.poll,
            originate: request.transmit,
            received,
        });
        Ok(())
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, now: Now, buf: &mut [u8]) -> Option<Transmit> {
        let pending = self.pending?;
        let transmit = now
            .wall
            .and_then(|wall| on_the_wire(&wall))
            .unwrap_or(pending.received);
        let answer = Message {
            leap: 0,
            version: pending.version,
            mode: Mode::SERVER.0,
            stratum: STRATUM,
            poll: pending.poll,
            precision: PRECISION,
            reference: LOCAL_CLOCK,
            reference_time: pending.received,
            originate: pending.originate,
            receive: pending.received,
            transmit,
            ..Message::default()
        };
        let len = answer.emit(buf)?;
        self.pending = None;
        self.counters.answered += 1;
        Some(Transmit {
            to: pending.to,
            len,
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// `wall` as clients will read it. `None` if they would read it as another time, in a turn that is not its own.
fn on_the_wire(wall: &Wall) -> Option<Timestamp> {
    let timestamp = Timestamp::from_wall(wall);
    (timestamp.to_wall().unix_seconds == wall.unix_seconds).then_some(timestamp)
}

/// Why a [`Server`] did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnswered {
    /// The datagram is no request of version 1 to 4: too short, or of another mode.
    NoRequest,
    /// Its sender cannot or must not be answered: see [`may_answer`].
    Unanswerable,
    /// This machine does not know the time itself, or believes in one that [`Timestamp`] has no room for.
    NoClock,
    /// The last answer was not taken out by `poll_transmit` yet. Does not happen under [`pump`](crate::pump).
    Busy,
}

impl fmt::Display for NotAnswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRequest => "no request for the time",
            Self::Unanswerable => "the sender's address must not be answered",
            Self::NoClock => "this machine does not know the time",
            Self::Busy => "the last answer is not sent yet",
        })
    }
}

impl Error for NotAnswered {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zone;
    use proptest::prelude::*;

    const CLIENT: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 7)),
        super::super::PORT,
    );

    /// Noon has passed on a leap day; a client's zone does not matter to it.
    fn now(nanoseconds: u32) -> Now {
        Now {
            monotonic: Instant::ZERO,
            wall: Some(Wall {
                unix_seconds: 1_456_749_296,
                nanoseconds,
                zone: Zone::new(3_600, "CET").unwrap(),
            }),
        }
    }

    fn request(version: u8, mode: u8) -> [u8; MESSAGE_LEN] {
        let mut buf = [0; MESSAGE_LEN];
        let message = Message {
            version,
            mode,
            poll: 6,
            transmit: Timestamp::from_bits(0x1122_3344_5566_7788),
            ..Message::default()
        };
        message.emit(&mut buf);
        buf
    }

    #[test]
    fn the_answer_is_these_bytes() {
        let mut server = Server::new();
        server
            .handle_datagram(now(500_000_000), CLIENT, &request(3, 3))
            .unwrap();
        let mut buf = [0; MESSAGE_LEN];
        assert_eq!(
            server.poll_transmit(now(750_000_000), &mut buf),
            Some(Transmit {
                to: CLIENT,
                len: MESSAGE_LEN
            })
        );
        // 1,456,749,296 + 2,208,988,800 seconds since 1900
        let seconds = 3_665_738_096_u32.to_be_bytes();
        let received = [seconds, [0x80, 0, 0, 0]].concat();
        let expected = [
            [0x1c, STRATUM, 6, 0xec].as_slice(),
            &[0; 8],
            &[127, 127, 1, 1],
            &received,
            &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
            &received,
            &seconds,
            &[0xc0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(buf.as_slice(), expected);
        assert_eq!(server.poll_transmit(now(0), &mut buf), None);
        assert_eq!(server.counters().answered, 1);
    }

    #[test]
    fn without_a_clock_nobody_is_answered() {
        let mut server = Server::new();
        assert_eq!(
            server.handle_datagram(Now::monotonic(Instant::ZERO), CLIENT, &request(4, 3)),
            Err(NotAnswered::NoClock)
        );
        assert_eq!(server.poll_transmit(now(0), &mut [0; 48]), None);
        assert_eq!(server.counters().no_clock, 1);
    }

    #[test]
    fn a_time_that_the_wire_has_no_room_for_is_not_told() {
        // From 1968-01-20 03:14:08 to 2104-02-26 09:42:23 UTC.
        for (unix, answered) in [
            (i64::MIN, false),
            (-61_505_153, false),
            (-61_505_152, true),
            (4_233_462_143, true),
            (4_233_462_144, false),
            (i64::MAX, false),
        ] {
            let mut server = Server::new();
            let now = Now {
                monotonic: Instant::ZERO,
                wall: Some(Wall::utc(unix)),
            };
            let taken = server.handle_datagram(now, CLIENT, &request(4, 3));
            assert_eq!(taken.is_ok(), answered, "{unix}");
        }
    }

    #[test]
    fn only_requests_are_answered() {
        let mut server = Server::new();
        for (version, mode) in (0..8).flat_map(|version| (0..8).map(move |mode| (version, mode))) {
            let answered = server.handle_datagram(now(0), CLIENT, &request(version, mode));
            let expected = if mode == 3 && (1..=4).contains(&version) {
                Ok(())
            } else {
                Err(NotAnswered::NoRequest)
            };
            assert_eq!(answered, expected, "version {version}, mode {mode}");
            server.poll_transmit(now(0), &mut [0; 48]);
        }
        assert_eq!(
            server.handle_datagram(now(0), CLIENT, &request(4, 3)[..47]),
            Err(NotAnswered::NoRequest)
        );
        let nobody = SocketAddr::new(CLIENT.ip(), 0);
        assert_eq!(
            server.handle_datagram(now(0), nobody, &request(4, 3)),
            Err(NotAnswered::Unanswerable)
        );
        // A key and its digest may follow.
        server
            .handle_datagram(
                now(0),
                CLIENT,
                &[request(4, 3).as_slice(), &[9; 20]].concat(),
            )
            .unwrap();
        assert_eq!(
            server.handle_datagram(now(0), CLIENT, &request(4, 3)),
            Err(NotAnswered::Busy)
        );
    }

    proptest! {
        #[test]
        fn no_answer_is_longer_than_its_request(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut server = Server::new();
            let taken = server.handle_datagram(now(0), CLIENT, &payload);
            let sent = server.poll_transmit(now(0), &mut [0; 48]);
            prop_assert_eq!(taken.is_ok(), sent.is_some());
            prop_assert!(sent.is_none_or(|sent| sent.len <= payload.len()));
        }
    }
}
