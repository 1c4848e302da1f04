//! The time service's server.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use super::cache::Cache;
use super::{DEFAULT_FORMAT, FormatError, MAX_ANSWER, MAX_FORMAT, format};
use crate::{DatagramService, Instant, Now, Transmit, may_answer};

/// The longest answer for each byte of the request.
const MAX_AMPLIFICATION: usize = 8;

/// The answer that even the shortest request may have, in bytes: enough for a date and a time.
const ALWAYS_ALLOWED: usize = 64;

/// Answers formats with the time. Takes 624 bytes: one answer of up to [`MAX_ANSWER`] bytes, the peer that is to
/// have it, and counters.
///
/// An answer is never more than 8 times as long as its request, 64 bytes aside: whoever forges the address of
/// another cannot use this server to flood it. QUIC has such a limit for the same reason (RFC 9000, section 8).
pub type Server = CachingServer<0>;

/// A [`Server`] that remembers the answers of this second to up to `N` formats, at 152 bytes each.
///
/// It gives the same answers. A busy one is asked the same again and again, and then spends a few instructions where
/// [`format`](fn@format) takes hundreds. Formats and answers of more than 64 bytes are not kept.
#[derive(Clone, Debug)]
pub struct CachingServer<const N: usize> {
    cache: Cache<N>,
    answer: [u8; MAX_ANSWER],
    transmit: Option<Transmit>,
    counters: Counters,
}

/// What happened to the requests of a [`Server`] so far: answers that went out, and one counter for each
/// [`NotAnswered`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers handed out to be sent.
    pub answered: u64,
    /// Senders that cannot or must not be answered.
    pub unanswerable: u64,
    /// Requests that came before the last answer was taken out.
    pub busy: u64,
    /// Requests over [`MAX_FORMAT`] bytes.
    pub format_too_long: u64,
    /// Requests that are not UTF-8.
    pub not_utf8: u64,
    /// Requests with a NUL character.
    pub nul: u64,
    /// Requests that came while the machine did not know the date.
    pub no_clock: u64,
    /// Requests that came while the date was outside the calendar's range.
    pub out_of_range: u64,
    /// Requests whose answer would have been too long.
    pub answer_too_long: u64,
}

impl Counters {
    fn count(&mut self, why: NotAnswered) {
        let counter = match why {
            NotAnswered::Unanswerable => &mut self.unanswerable,
            NotAnswered::Busy => &mut self.busy,
            NotAnswered::FormatTooLong => &mut self.format_too_long,
            NotAnswered::NotUtf8 => &mut self.not_utf8,
            NotAnswered::Nul => &mut self.nul,
            NotAnswered::NoClock => &mut self.no_clock,
            NotAnswered::OutOfRange => &mut self.out_of_range,
            NotAnswered::AnswerTooLong => &mut self.answer_too_long,
        };
        *counter += 1;
    }
}

impl<const N: usize> CachingServer<N> {
    /// A server with nobody to answer.
    pub const fn new() -> Self {
        Self {
            cache: Cache::new(),
            answer: [0; MAX_ANSWER],
            transmit: None,
            counters: Counters {
                answered: 0,
                unanswerable: 0,
                busy: 0,
                format_too_long: 0,
                not_utf8: 0,
                nul: 0,
                no_clock: 0,
                out_of_range: 0,
                answer_too_long: 0,
            },
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn answer(&mut self, now: Now, from: SocketAddr, request: &[u8]) -> Result<(), NotAnswered> {
        if !may_answer(from) {
            return Err(NotAnswered::Unanswerable);
        }
        if self.transmit.is_some() {
            return Err(NotAnswered::Busy);
        }
        if request.len() > MAX_FORMAT {
            return Err(NotAnswered::FormatTooLong);
        }
        if let Some(wall) = &now.wall
            && let Some(len) = self.cache.copy(request, wall, &mut self.answer)
        {
            self.transmit = Some(Transmit { to: from, len });
            return Ok(());
        }
        let asked = match core::str::from_utf8(request).map_err(|_| NotAnswered::NotUtf8)? {
            "" => DEFAULT_FORMAT,
            asked => asked,
        };
        let wall = now.wall.ok_or(NotAnswered::NoClock)?;
        let allowed = (request.len() * MAX_AMPLIFICATION).clamp(ALWAYS_ALLOWED, MAX_ANSWER);
        let room = self.answer.get_mut(..allowed).unwrap_or_default();
        let len = format(asked, &wall, room).map_err(|error| match error {
            FormatError::NoRoom => NotAnswered::AnswerTooLong,
            FormatError::Nul => NotAnswered::Nul,
            FormatError::OutOfRange => NotAnswered::OutOfRange,
        })?;
        let answer = room.get(..len).unwrap_or_default();
        let any = self.counters.answered;
        self.cache.keep(request, &wall, answer, any);
        self.transmit = Some(Transmit { to: from, len });
        Ok(())
    }
}

impl<const N: usize> Default for CachingServer<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> DatagramService for CachingServer<N> {
    const MAX_DATAGRAM: usize = MAX_ANSWER;
    type Reject = NotAnswered;

    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), NotAnswered> {
        self.answer(now, from, payload)
            .inspect_err(|&why| self.counters.count(why))
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        let Transmit { to, len } = self.transmit?;
        let answer = self.answer.get(..len)?;
        buf.get_mut(..len)?.copy_from_slice(answer);
        self.transmit = None;
        self.counters.answered += 1;
        Some(Transmit { to, len })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnswered {
    /// Its sender cannot or must not be answered: see [`may_answer`].
    Unanswerable,
    /// The last answer was not taken out by `poll_transmit` yet. Does not happen under [`pump`](crate::pump).
    Busy,
    /// The format has more than [`MAX_FORMAT`] bytes.
    FormatTooLong,
    /// The format is not UTF-8.
    NotUtf8,
    /// The format has a NUL character: [`FormatError::Nul`].
    Nul,
    /// The machine does not know the date (yet): a wrong answer would be worse than none.
    NoClock,
    /// The date is outside the calendar's range: [`FormatError::OutOfRange`].
    OutOfRange,
    /// The answer would have more than [`MAX_ANSWER`] bytes, or more than 8 times the request and 64 bytes.
    AnswerTooLong,
}

impl fmt::Display for NotAnswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unanswerable => "the sender's address must not be answered",
            Self::Busy => "the last answer is not sent yet",
            Self::FormatTooLong => "the format is longer than 256 bytes",
            Self::NotUtf8 => "the format is not UTF-8",
            Self::Nul => "the format has a NUL character",
            Self::NoClock => "the date is not known",
            Self::OutOfRange => "the date is outside the calendar's range",
            Self::AnswerTooLong => "the answer would be too long for its request",
        })
    }
}

impl Error for NotAnswered {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Wall, Zone};
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::string::String;
    use std::vec::Vec;

    const CLIENT: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 7)),
        40_000,
    );

    /// 2026-11-22 17:03:09 in Berlin.
    fn now() -> Now {
        Now {
            monotonic: Instant::ZERO,
            wall: Some(Wall {
                unix_seconds: 1_795_363_389,
                nanoseconds: 0,
                zone: Zone::new(3_600, "CET").unwrap(),
            }),
        }
    }

    fn ask<const N: usize>(
        server: &mut CachingServer<N>,
        now: Now,
        request: &[u8],
    ) -> Result<Vec<u8>, NotAnswered> {
        server.handle_datagram(now, CLIENT, request)?;
        let mut buf = [0; Server::MAX_DATAGRAM];
        let transmit = server.poll_transmit(now, &mut buf).unwrap();
        assert_eq!(transmit.to, CLIENT);
        assert_eq!(server.poll_transmit(now, &mut buf), None);
        Ok(buf[..transmit.len].to_vec())
    }

    #[test]
    fn formats_are_answered() {
        let mut server = Server::new();
        for (request, answer) in [
            ("", "2026-11-22 17:03:09"),
            ("%Y-%m-%d %X", "2026-11-22 17:03:09"),
            ("%d.%m.%Y", "22.11.2026"),
            ("%H:%M %Z", "17:03 CET"),
            ("%5", "   %5"),
            ("现在 %H:%M", "现在 17:03"),
        ] {
            assert_eq!(
                ask(&mut server, now(), request.as_bytes()).as_deref(),
                Ok(answer.as_bytes()),
                "{request:?}"
            );
        }
        let expected = Counters {
            answered: 6,
            ..Counters::default()
        };
        assert_eq!(server.counters(), expected);
    }

    #[test]
    fn an_empty_answer_is_an_answer() {
        let mut nameless = now();
        if let Some(wall) = &mut nameless.wall {
            wall.zone = Zone::new(0, "").unwrap();
        }
        assert_eq!(ask(&mut Server::new(), nameless, b"%Z"), Ok(Vec::new()));
    }

    #[test]
    fn each_refusal_is_counted_and_leaves_the_server_as_it_was() {
        use NotAnswered::*;
        let mut server = Server::new();
        let far = Now {
            wall: Some(Wall::utc(i64::MAX)),
            ..now()
        };
        let clockless = Now::monotonic(Instant::ZERO);
        let long = [b'x'; MAX_FORMAT + 1];
        for (now, request, why) in [
            (now(), long.as_slice(), FormatTooLong),
            (now(), b"%Y \xff", NotUtf8),
            (now(), b"\xe7\x8e", NotUtf8),
            (now(), b"%Y\0", Nul),
            (now(), b"%65Y", AnswerTooLong),
            (now(), b"%999999999999Y", AnswerTooLong),
            (clockless, b"%Y", NoClock),
            (far, b"%Y", OutOfRange),
        ] {
            assert_eq!(ask(&mut server, now, request), Err(why), "{request:?}");
            assert_eq!(server.poll_transmit(now, &mut [0; MAX_ANSWER]), None);
        }
        for unanswerable in ["192.0.2.7:0", "192.0.2.7:9000", "224.0.0.1:40000"] {
            assert_eq!(
                server.handle_datagram(now(), unanswerable.parse().unwrap(), b"%Y"),
                Err(Unanswerable)
            );
        }
        server.handle_datagram(now(), CLIENT, b"%Y").unwrap();
        let other = "192.0.2.8:40000".parse().unwrap();
        assert_eq!(server.handle_datagram(now(), other, b"%d"), Err(Busy));
        let mut buf = [0; MAX_ANSWER];
        // Too short a buffer loses nothing.
        assert_eq!(server.poll_transmit(now(), &mut [0; 3]), None);
        let transmit = Transmit { to: CLIENT, len: 4 };
        assert_eq!(server.poll_transmit(now(), &mut buf), Some(transmit));
        assert_eq!(&buf[..4], b"2026");
        let expected = Counters {
            answered: 1,
            unanswerable: 3,
            busy: 1,
            format_too_long: 1,
            not_utf8: 2,
            nul: 1,
            no_clock: 1,
            out_of_range: 1,
            answer_too_long: 2,
        };
        assert_eq!(server.counters(), expected);
    }

    #[test]
    fn an_answer_may_have_64_bytes_or_8_times_the_request_or_512() {
        let mut server = Server::new();
        let mut answered = |request: &str| match ask(&mut server, now(), request.as_bytes()) {
            Ok(answer) => Some(answer.len()),
            Err(NotAnswered::AnswerTooLong) => None,
            Err(other) => panic!("{request}: {other}"),
        };
        assert_eq!(answered("%64Y"), Some(64));
        assert_eq!(answered("%65Y"), None);
        assert_eq!(answered("xxxxx%67Y"), Some(72));
        assert_eq!(answered("xxxxx%68Y"), None);
        let sixty: String = "x".repeat(60);
        assert_eq!(answered(&(sixty.clone() + "%452Y")), Some(512));
        assert_eq!(answered(&(sixty + "%453Y")), None);
        let longest = "x".repeat(MAX_FORMAT);
        assert_eq!(answered(&longest), Some(MAX_FORMAT));
    }

    #[test]
    fn it_takes_as_much_memory_as_it_says() {
        assert_eq!(size_of::<Server>(), 624);
        assert_eq!(size_of::<CachingServer<10>>(), 624 + 10 * 152);
    }

    #[test]
    fn an_answer_is_remembered_for_its_second_in_its_zone_only() {
        let mut server = CachingServer::<2>::new();
        let at = |unix_seconds, zone| Now {
            wall: Some(Wall {
                unix_seconds,
                zone,
                ..Wall::utc(0)
            }),
            ..now()
        };
        let utc = Zone::UTC;
        let named = Zone::new(0, "WET").unwrap();
        let moved = Zone::new(3_600, "UTC").unwrap();
        for (unix, zone, answer) in [
            (1, utc, "1 UTC 00"),
            (1, utc, "1 UTC 00"),
            (2, utc, "2 UTC 00"),
            (1, utc, "1 UTC 00"),
            (1, named, "1 WET 00"),
            (1, moved, "1 UTC 01"),
            (1, utc, "1 UTC 00"),
        ] {
            for _ in 0..2 {
                let answered = ask(&mut server, at(unix, zone), b"%s %Z %H");
                assert_eq!(answered.as_deref(), Ok(answer.as_bytes()));
            }
        }
        // A clock that is lost is not remembered.
        let clockless = Now::monotonic(Instant::ZERO);
        let refused = ask(&mut server, clockless, b"%s %Z %H");
        assert_eq!(refused, Err(NotAnswered::NoClock));
    }

    #[test]
    fn a_remembered_answer_is_not_formatted_again() {
        let mut server = CachingServer::<2>::new();
        for request in ["%Y", "%m", "%Y"] {
            ask(&mut server, now(), request.as_bytes()).unwrap();
        }
        // What is remembered comes from where it is kept, here with a mark that only this test makes.
        server.cache.keep(b"%Y", &now().wall.unwrap(), b"mark", 0);
        assert_eq!(ask(&mut server, now(), b"%Y"), Ok(b"mark".to_vec()));
        // Too long to be kept, both ways.
        for request in ["%65Y", &"x".repeat(65)] {
            let _ = ask(&mut server, now(), request.as_bytes());
            assert_eq!(ask(&mut server, now(), b"%Y"), Ok(b"mark".to_vec()));
        }
    }

    /// Some that are remembered and some that are not: the last but one has 64 bytes, the last 65.
    const FORMATS: &[&str] = &[
        "",
        "%s",
        "%Z",
        "%z",
        "%c",
        "%Y-%m-%d %X",
        "%Y-%m-%d %T",
        "%64Y",
        "%65Y",
        "%Y\0",
        "%c %c %c %c",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx %S",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx %S",
    ];

    proptest! {
        /// Whatever is asked in whatever order, by clocks that go on, back and elsewhere: a server that remembers
        /// answers what one answers that does not.
        #[test]
        fn remembering_changes_no_answer(
            requests in proptest::collection::vec(
                (
                    select(FORMATS),
                    -2..2_i64,
                    0..1_000_000_000_u32,
                    select(&[(0, "UTC"), (0, "WET"), (3_600, "CET"), (3_600, "BST")][..]),
                    proptest::bool::weighted(0.9),
                ),
                0..100,
            ),
        ) {
            let mut plain = Server::new();
            let mut caching = CachingServer::<3>::new();
            for (request, unix_seconds, nanoseconds, (offset, name), knows) in requests {
                let zone = Zone::new(offset, name).unwrap();
                let wall = Wall { unix_seconds, nanoseconds, zone };
                let now = Now { wall: knows.then_some(wall), ..now() };
                prop_assert_eq!(
                    ask(&mut caching, now, request.as_bytes()),
                    ask(&mut plain, now, request.as_bytes())
                );
                prop_assert_eq!(caching.counters(), plain.counters());
            }
        }

        #[test]
        fn whatever_is_asked_the_answer_keeps_its_bounds(
            request in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                "(%[-_0^#]{0,2}[0-9]{0,3}[EO]?[a-zA-Z%é]){0,30}".prop_map(String::into_bytes),
            ],
            unix in -8_334_601_315_200..8_210_266_963_200_i64,
        ) {
            let mut server = Server::new();
            let now = Now { wall: Some(Wall::utc(unix)), ..now() };
            if let Ok(answer) = ask(&mut server, now, &request) {
                prop_assert!(answer.len() <= MAX_ANSWER);
                prop_assert!(answer.len() <= 64.max(8 * request.len()));
                prop_assert!(core::str::from_utf8(&answer).is_ok());
                prop_assert!(request.len() <= MAX_FORMAT);
                prop_assert_eq!(server.counters().answered, 1);
            }
        }
    }
}
