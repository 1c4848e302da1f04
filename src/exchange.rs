//! One request, one answer, over datagrams that may get lost: the state machine of every datagram client here.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use heapless::Vec;

use crate::{DatagramService, Duration, Instant, Now, Transmit, Unreachable};

/// When a request is sent again, and when its sender gives up.
///
/// The time between two requests doubles each time (RFC 8085, section 3.1.1), from `first` up to `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The time to the first retransmission.
    pub first: Duration,
    /// The longest time between two requests.
    pub most: Duration,
    /// The time from the first request to giving up.
    pub give_up: Duration,
}

impl Retry {
    /// Requests at 0, 0.5, 1.5, 3.5 seconds and every 4 seconds from then on, until `give_up` has passed.
    pub const fn within(give_up: Duration) -> Self {
        Self {
            first: Duration::from_millis(500),
            most: Duration::from_secs(4),
            give_up,
        }
    }
}

impl Default for Retry {
    /// [`Retry::within`] 5 seconds: four requests.
    fn default() -> Self {
        Self::within(Duration::from_secs(5))
    }
}

/// A client that sends one request of up to `REQUEST` bytes to one server, again and again until an answer of
/// up to `ANSWER` bytes comes from that very address. Takes `REQUEST + ANSWER` and 128 bytes on a 64-bit machine.
#[derive(Clone, Debug)]
pub struct Exchange<const REQUEST: usize, const ANSWER: usize> {
    server: SocketAddr,
    request: Vec<u8, REQUEST>,
    answer: Vec<u8, ANSWER>,
    retry: Retry,
    state: State,
    started: Instant,
    requests: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A request is to be sent at once.
    Due,
    /// A request is on its way; the next is due at this time.
    Waiting(Instant),
    Answered(Duration),
    TimedOut,
    Unreachable(Unreachable),
}

/// How an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It goes on.
    Pending,
    /// The answer has come.
    Answered {
        /// The answer, as it was sent: not safe to show on a terminal.
        answer: &'a [u8],
        /// From the first request to the answer.
        elapsed: Duration,
        /// Requests sent.
        requests: u32,
    },
    /// No answer came in time.
    TimedOut {
        /// Requests sent.
        requests: u32,
    },
    /// The network says that the server cannot be reached.
    Unreachable(Unreachable),
}

impl<const REQUEST: usize, const ANSWER: usize> Exchange<REQUEST, ANSWER> {
    /// Begins to ask `server`, at `now`.
    ///
    /// # Errors
    /// [`ExchangeError::TooLong`] if the request has more than `REQUEST` bytes.
    pub fn start(
        now: Now,
        server: SocketAddr,
        request: &[u8],
        retry: Retry,
    ) -> Result<Self, ExchangeError> {
        Ok(Self {
            server,
            request: Vec::from_slice(request).map_err(|_| ExchangeError::TooLong)?,
            answer: Vec::new(),
            retry,
            state: State::Due,
            started: now.monotonic,
            requests: 0,
        })
    }

    /// How the exchange stands.
    pub fn outcome(&self) -> Outcome<'_> {
        match self.state {
            State::Due | State::Waiting(_) => Outcome::Pending,
            State::Answered(elapsed) => Outcome::Answered {
                answer: &self.answer,
                elapsed,
                requests: self.requests,
            },
            State::TimedOut => Outcome::TimedOut {
                requests: self.requests,
            },
            State::Unreachable(why) => Outcome::Unreachable(why),
        }
    }

    fn gives_up_at(&self) -> Instant {
        self.started + self.retry.give_up
    }

    fn is_pending(&self) -> bool {
        matches!(self.state, State::Due | State::Waiting(_))
    }
}

impl<const REQUEST: usize, const ANSWER: usize> DatagramService for Exchange<REQUEST, ANSWER> {
    const MAX_DATAGRAM: usize = REQUEST;
    type Reject = ExchangeError;

    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), ExchangeError> {
        if from != self.server {
            return Err(ExchangeError::Stranger);
        }
        if !self.is_pending() || self.requests == 0 {
            return Err(ExchangeError::Unasked);
        }
        self.answer = Vec::from_slice(payload).map_err(|_| ExchangeError::TooLong)?;
        self.state = State::Answered(now.monotonic.saturating_since(self.started));
        Ok(())
    }

    fn handle_unreachable(&mut self, _: Now, peer: SocketAddr, why: Unreachable) {
        if peer == self.server && self.is_pending() {
            self.state = State::Unreachable(why);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if !self.is_pending() {
            return;
        }
        if now.monotonic >= self.gives_up_at() {
            self.state = State::TimedOut;
        } else if let State::Waiting(next) = self.state
            && now.monotonic >= next
        {
            self.state = State::Due;
        }
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut [u8]) -> Option<Transmit> {
        if !matches!(self.state, State::Due) {
            return None;
        }
        let len = self.request.len();
        buf.get_mut(..len)?.copy_from_slice(&self.request);
        let doublings = self.requests.min(16);
        let interval = self
            .retry
            .first
            .saturating_mul(1 << doublings)
            .min(self.retry.most);
        self.requests += 1;
        self.state = State::Waiting(now.monotonic + interval);
        Some(Transmit {
            to: self.server,
            len,
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Due => Some(self.gives_up_at()),
            State::Waiting(next) => Some(next.min(self.gives_up_at())),
            State::Answered(_) | State::TimedOut | State::Unreachable(_) => None,
        }
    }
}

/// Why an exchange could not begin, or would not take a datagram for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeError {
    /// It came from another address than the request went to.
    Stranger,
    /// No answer is expected (any more): an answer to a request that was sent twice, as a rule.
    Unasked,
    /// The request or the answer is longer than the client has room for.
    TooLong,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "not from the server that was asked",
            Self::Unasked => "no answer is expected",
            Self::TooLong => "longer than the client has room for",
        })
    }
}

impl Error for ExchangeError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1)),
        9000,
    );

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn start() -> Exchange<8, 8> {
        Exchange::start(at(0), SERVER, b"hello", Retry::default()).unwrap()
    }

    /// The request that is due at `now`, if one is.
    fn request(client: &mut Exchange<8, 8>, now: Now) -> Option<std::vec::Vec<u8>> {
        let mut buf = [0; 8];
        let transmit = client.poll_transmit(now, &mut buf)?;
        assert_eq!(transmit.to, SERVER);
        Some(buf[..transmit.len].to_vec())
    }

    #[test]
    fn an_answer_ends_it() {
        let mut client = start();
        assert_eq!(
            request(&mut client, at(0)).as_deref(),
            Some(b"hello".as_slice())
        );
        assert_eq!(request(&mut client, at(0)), None);
        client.handle_datagram(at(1_500), SERVER, b"hi").unwrap();
        assert_eq!(
            client.outcome(),
            Outcome::Answered {
                answer: b"hi",
                elapsed: Duration::from_micros(1_500),
                requests: 1
            }
        );
        assert_eq!(client.poll_timeout(), None);
    }

    #[test]
    fn lost_requests_are_repeated_to_the_microsecond_and_then_given_up() {
        let mut client = start();
        let mut sent_at = std::vec::Vec::new();
        let mut now = at(0);
        loop {
            if request(&mut client, now).is_some() {
                sent_at.push(now.monotonic.micros());
            }
            let Some(next) = client.poll_timeout() else {
                break;
            };
            // A microsecond early nothing happens.
            client.handle_timeout(at(next.micros() - 1));
            assert_eq!(request(&mut client, at(next.micros() - 1)), None);
            assert_eq!(client.outcome(), Outcome::Pending);
            now = at(next.micros());
            client.handle_timeout(now);
        }
        assert_eq!(sent_at, [0, 500_000, 1_500_000, 3_500_000]);
        assert_eq!(now.monotonic, Instant::from_secs(5));
        assert_eq!(client.outcome(), Outcome::TimedOut { requests: 4 });
    }

    #[test]
    fn the_answer_to_a_repeated_request_counts_once() {
        let mut client = start();
        request(&mut client, at(0)).unwrap();
        client.handle_timeout(at(500_000));
        request(&mut client, at(500_000)).unwrap();
        client.handle_datagram(at(600_000), SERVER, b"one").unwrap();
        assert_eq!(
            client.handle_datagram(at(600_001), SERVER, b"two"),
            Err(ExchangeError::Unasked)
        );
        assert!(matches!(
            client.outcome(),
            Outcome::Answered {
                answer: b"one",
                requests: 2,
                ..
            }
        ));
    }

    #[test]
    fn an_answer_after_giving_up_is_too_late() {
        let mut client = start();
        request(&mut client, at(0)).unwrap();
        client.handle_timeout(at(5_000_000));
        assert_eq!(
            client.handle_datagram(at(5_000_000), SERVER, b"hi"),
            Err(ExchangeError::Unasked)
        );
        assert_eq!(client.outcome(), Outcome::TimedOut { requests: 1 });
    }

    #[test]
    fn others_cannot_answer_and_nobody_can_before_the_question() {
        let mut client = start();
        assert_eq!(
            client.handle_datagram(at(0), SERVER, b"hi"),
            Err(ExchangeError::Unasked)
        );
        request(&mut client, at(0)).unwrap();
        assert_eq!(
            client.handle_datagram(at(1), "192.0.2.1:9001".parse().unwrap(), b"hi"),
            Err(ExchangeError::Stranger)
        );
        assert_eq!(
            client.handle_datagram(at(1), SERVER, b"123456789"),
            Err(ExchangeError::TooLong)
        );
        assert_eq!(client.outcome(), Outcome::Pending);
    }

    #[test]
    fn the_network_may_say_no() {
        let mut client = start();
        request(&mut client, at(0)).unwrap();
        client.handle_unreachable(
            at(1),
            "192.0.2.9:9000".parse().unwrap(),
            Unreachable::Refused,
        );
        assert_eq!(client.outcome(), Outcome::Pending);
        client.handle_unreachable(at(1), SERVER, Unreachable::Refused);
        assert_eq!(client.outcome(), Outcome::Unreachable(Unreachable::Refused));
        assert_eq!(request(&mut client, at(9_000_000)), None);
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused_at_once() {
        assert_eq!(
            Exchange::<4, 4>::start(at(0), SERVER, b"hello", Retry::default()).map(|_| ()),
            Err(ExchangeError::TooLong)
        );
    }
}
