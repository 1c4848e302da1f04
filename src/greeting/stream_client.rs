//! The greeting's client over streams.

use core::convert::Infallible;
use core::net::SocketAddr;

use heapless::Vec;

use crate::{ConnId, Duration, Flow, Instant, Now, StreamService};

/// Says one greeting of up to `GREETING` bytes over one connection, and collects up to `ANSWER` bytes until
/// the server closes. Takes `GREETING + ANSWER` and 64 bytes on a 64-bit machine.
#[derive(Clone, Debug)]
pub struct StreamClient<const GREETING: usize, const ANSWER: usize> {
    greeting: Vec<u8, GREETING>,
    written: usize,
    answer: Vec<u8, ANSWER>,
    state: State,
    started: Instant,
    deadline: Instant,
    /// The connection to be reset, once that is decided.
    doomed: Option<ConnId>,
    conn: Option<ConnId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Answered(Duration),
    Refused,
    Reset,
    TimedOut,
    TooLong,
}

/// How a [`StreamClient`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOutcome<'a> {
    /// It goes on.
    Pending,
    /// The server has answered and closed.
    Answered {
        /// The answer, as it was sent: not safe to show on a terminal.
        answer: &'a [u8],
        /// From the start to the end of the answer.
        elapsed: Duration,
    },
    /// No connection was made: nothing listens there.
    Refused,
    /// The connection was reset before the answer's end.
    Reset {
        /// What had come until then.
        answer: &'a [u8],
    },
    /// Time was up.
    TimedOut {
        /// Whether there was a connection at all.
        connected: bool,
        /// What had come until then.
        answer: &'a [u8],
    },
    /// The answer is longer than the client has room for.
    TooLong {
        /// Its beginning.
        answer: &'a [u8],
    },
}

impl<const GREETING: usize, const ANSWER: usize> StreamClient<GREETING, ANSWER> {
    /// Begins at `now`, to end within `timeout`. `None` if the greeting has more than `GREETING` bytes.
    pub fn start(now: Now, greeting: &[u8], timeout: Duration) -> Option<Self> {
        Some(Self {
            greeting: Vec::from_slice(greeting).ok()?,
            written: 0,
            answer: Vec::new(),
            state: State::Connecting,
            started: now.monotonic,
            deadline: now.monotonic + timeout,
            doomed: None,
            conn: None,
        })
    }

    /// How it stands.
    pub fn outcome(&self) -> StreamOutcome<'_> {
        let answer = &self.answer;
        match self.state {
            State::Connecting | State::Open => StreamOutcome::Pending,
            State::Answered(elapsed) => StreamOutcome::Answered { answer, elapsed },
            State::Refused => StreamOutcome::Refused,
            State::Reset => StreamOutcome::Reset { answer },
            State::TimedOut => StreamOutcome::TimedOut {
                connected: self.conn.is_some(),
                answer,
            },
            State::TooLong => StreamOutcome::TooLong { answer },
        }
    }

    fn fail(&mut self, state: State) {
        self.state = state;
        self.doomed = self.conn;
    }
}

impl<const GREETING: usize, const ANSWER: usize> StreamService for StreamClient<GREETING, ANSWER> {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, id: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        self.conn = Some(id);
        if self.state == State::Connecting {
            self.state = State::Open;
        } else {
            self.doomed = self.conn;
        }
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        if self.state == State::Open {
            let room = self.answer.capacity() - self.answer.len();
            let fits = &data[..data.len().min(room)];
            // It was just cut to the room there is.
            let _ = self.answer.extend_from_slice(fits);
            if fits.len() < data.len() {
                self.fail(State::TooLong);
            }
        }
        data.len()
    }

    fn handle_end(&mut self, now: Now, _: ConnId) {
        if self.state == State::Open {
            self.state = State::Answered(now.monotonic.saturating_since(self.started));
        }
    }

    fn handle_close(&mut self, _: Now, _: ConnId) {
        self.state = match self.state {
            State::Connecting => State::Refused,
            State::Open => State::Reset,
            ended => ended,
        };
        self.doomed = None;
    }

    fn poll_write(&mut self, _: Now, _: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        match self.state {
            State::Connecting => (0, Flow::Open),
            State::Open => {
                let rest = &self.greeting[self.written..];
                let len = rest.len().min(buf.len());
                buf[..len].copy_from_slice(&rest[..len]);
                self.written += len;
                (len, Flow::Open)
            }
            State::Answered(_) => (0, Flow::Finish),
            State::Refused | State::Reset | State::TimedOut | State::TooLong => (0, Flow::Abort),
        }
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        self.doomed
    }

    fn handle_timeout(&mut self, now: Now) {
        if matches!(self.state, State::Connecting | State::Open) && now.monotonic >= self.deadline {
            self.fail(State::TimedOut);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        matches!(self.state, State::Connecting | State::Open).then_some(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1)),
        super::super::PORT,
    );
    const ID: ConnId = ConnId::new(0);

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn client() -> StreamClient<8, 4> {
        StreamClient::start(at(0), b"hello", Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn an_answer_in_pieces_is_put_together() {
        let mut client = client();
        client.handle_open(at(10), ID, PEER).unwrap();
        let mut buf = [0; 3];
        assert_eq!(client.poll_write(at(10), ID, &mut buf), (3, Flow::Open));
        assert_eq!(&buf, b"hel");
        assert_eq!(client.poll_write(at(10), ID, &mut buf), (2, Flow::Open));
        assert_eq!(&buf[..2], b"lo");
        assert_eq!(client.poll_write(at(10), ID, &mut buf), (0, Flow::Open));
        client.handle_data(at(20), ID, b"h");
        client.handle_data(at(30), ID, b"i");
        assert_eq!(client.outcome(), StreamOutcome::Pending);
        client.handle_end(at(40), ID);
        client.handle_end(at(50), ID);
        assert_eq!(
            client.outcome(),
            StreamOutcome::Answered {
                answer: b"hi",
                elapsed: Duration::from_micros(40)
            }
        );
        assert_eq!(client.poll_write(at(40), ID, &mut buf), (0, Flow::Finish));
        client.handle_close(at(60), ID);
        assert!(matches!(client.outcome(), StreamOutcome::Answered { .. }));
    }

    #[test]
    fn no_connection_is_a_refusal_and_a_lost_one_a_reset() {
        let mut refused = client();
        refused.handle_close(at(1), ID);
        assert_eq!(refused.outcome(), StreamOutcome::Refused);

        let mut reset = client();
        reset.handle_open(at(1), ID, PEER).unwrap();
        reset.handle_data(at(2), ID, b"h");
        reset.handle_close(at(3), ID);
        assert_eq!(reset.outcome(), StreamOutcome::Reset { answer: b"h" });
    }

    #[test]
    fn time_is_up_at_the_microsecond() {
        for connected in [false, true] {
            let mut client = client();
            if connected {
                client.handle_open(at(1), ID, PEER).unwrap();
            }
            assert_eq!(client.poll_timeout(), Some(Instant::from_secs(5)));
            client.handle_timeout(at(4_999_999));
            assert_eq!(client.outcome(), StreamOutcome::Pending);
            client.handle_timeout(at(5_000_000));
            assert_eq!(
                client.outcome(),
                StreamOutcome::TimedOut {
                    connected,
                    answer: b""
                }
            );
            assert_eq!(client.poll_ready(), connected.then_some(ID));
            assert_eq!(client.poll_write(at(0), ID, &mut []), (0, Flow::Abort));
            client.handle_close(at(0), ID);
            assert_eq!(client.poll_ready(), None);
        }
    }

    #[test]
    fn a_connection_made_too_late_is_reset() {
        let mut client = client();
        client.handle_timeout(at(5_000_000));
        client.handle_open(at(5_000_001), ID, PEER).unwrap();
        assert_eq!(client.poll_ready(), Some(ID));
        assert_eq!(client.poll_write(at(0), ID, &mut [0; 9]), (0, Flow::Abort));
    }

    #[test]
    fn a_server_that_says_too_much_is_cut_off() {
        let mut client = client();
        client.handle_open(at(0), ID, PEER).unwrap();
        assert_eq!(client.handle_data(at(0), ID, b"hi there"), 8);
        assert_eq!(client.outcome(), StreamOutcome::TooLong { answer: b"hi t" });
        assert_eq!(client.poll_ready(), Some(ID));
    }

    #[test]
    fn a_greeting_that_does_not_fit_is_refused_at_once() {
        assert!(StreamClient::<4, 4>::start(at(0), b"hello", Duration::from_secs(5)).is_none());
    }
}
