//! The clients of the demo: they say what the script says, whatever the stack.

use std::convert::Infallible;
use std::net::SocketAddr;

use smoltalk::sim::script::Exchange;
use smoltalk::{
    ConnId, DatagramService, Duration, Flow, Instant, Now, StreamService, Transmit, Unreachable,
};

/// The time between two pieces of a stream, so that they travel apart.
const BETWEEN_PIECES: Duration = Duration::from_millis(1);

/// How much of a stream a client keeps: more than any answer has.
const MOST: usize = 4096;

/// How an exchange stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Pending,
    /// It has ended by itself: the answers are complete.
    Done,
    Failed(String),
}

/// What the demo looks at.
pub trait Client {
    fn progress(&self) -> Progress;

    /// What has come back.
    fn answers(&self) -> Vec<Vec<u8>>;
}

/// Sends the datagrams of one exchange, and collects as many answers as it should have.
#[derive(Debug)]
pub struct Datagrams {
    exchange: &'static Exchange,
    server: SocketAddr,
    sent: usize,
    deadline: Instant,
    answers: Vec<Vec<u8>>,
    failure: Option<String>,
}

impl Datagrams {
    pub fn new(exchange: &'static Exchange, server: SocketAddr, deadline: Instant) -> Self {
        Self {
            exchange,
            server,
            sent: 0,
            deadline,
            answers: Vec::new(),
            failure: None,
        }
    }
}

impl Client for Datagrams {
    fn progress(&self) -> Progress {
        match &self.failure {
            Some(why) => Progress::Failed(why.clone()),
            None if self.answers.len() >= self.exchange.answers.len() => Progress::Done,
            None => Progress::Pending,
        }
    }

    fn answers(&self) -> Vec<Vec<u8>> {
        self.answers.clone()
    }
}

impl DatagramService for Datagrams {
    // The longest request of the script has 1400 bytes.
    const MAX_DATAGRAM: usize = 1472;
    type Reject = Infallible;

    fn handle_datagram(&mut self, _: Now, _: SocketAddr, payload: &[u8]) -> Result<(), Infallible> {
        // One more than there should be is enough to tell that there are too many.
        if self.answers.len() <= self.exchange.answers.len() {
            self.answers.push(payload.to_vec());
        }
        Ok(())
    }

    fn handle_unreachable(&mut self, _: Now, _: SocketAddr, why: Unreachable) {
        self.failure = Some(why.to_string());
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.failure = Some("no answer in time".into());
        }
    }

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        let request = self.exchange.requests.get(self.sent)?;
        buf.get_mut(..request.len())?.copy_from_slice(request);
        self.sent += 1;
        Some(Transmit {
            to: self.server,
            len: request.len(),
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (self.progress() == Progress::Pending).then_some(self.deadline)
    }
}

/// Sends the pieces of one exchange's stream, and collects what comes back up to its end.
#[derive(Debug)]
pub struct Stream {
    exchange: &'static Exchange,
    conn: Option<ConnId>,
    /// Pieces that were sent, and bytes of the next one.
    sent: usize,
    sent_of_next: usize,
    /// When the next piece may go out, and whether it may.
    next: Instant,
    is_due: bool,
    deadline: Instant,
    answer: Vec<u8>,
    has_ended: bool,
    failure: Option<String>,
}

impl Stream {
    pub fn new(exchange: &'static Exchange, deadline: Instant) -> Self {
        Self {
            exchange,
            conn: None,
            sent: 0,
            sent_of_next: 0,
            next: Instant::ZERO,
            is_due: false,
            deadline,
            answer: Vec::new(),
            has_ended: false,
            failure: None,
        }
    }

    fn has_more(&self) -> bool {
        self.sent < self.exchange.requests.len()
    }

    fn fail(&mut self, why: &str) {
        if self.progress() == Progress::Pending {
            self.failure = Some(why.into());
        }
    }
}

impl Client for Stream {
    fn progress(&self) -> Progress {
        match &self.failure {
            Some(why) => Progress::Failed(why.clone()),
            None if self.has_ended => Progress::Done,
            None => Progress::Pending,
        }
    }

    fn answers(&self) -> Vec<Vec<u8>> {
        vec![self.answer.clone()]
    }
}

impl StreamService for Stream {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, id: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        self.conn = Some(id);
        self.is_due = true;
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        let room = MOST - self.answer.len();
        self.answer.extend_from_slice(&data[..data.len().min(room)]);
        data.len()
    }

    fn handle_end(&mut self, _: Now, _: ConnId) {
        self.has_ended = true;
    }

    fn handle_close(&mut self, _: Now, _: ConnId) {
        match self.conn.take() {
            Some(_) => self.fail("the connection was reset"),
            None => self.fail("no connection"),
        }
    }

    fn poll_write(&mut self, now: Now, _: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        if self.failure.is_some() {
            return (0, Flow::Abort);
        }
        if self.has_ended {
            return (0, Flow::Finish);
        }
        let mut len = 0;
        if now.monotonic >= self.next
            && let Some(piece) = self.exchange.requests.get(self.sent)
        {
            let rest = &piece[self.sent_of_next..];
            len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            self.sent_of_next += len;
            if len == rest.len() {
                self.sent += 1;
                self.sent_of_next = 0;
                self.next = now.monotonic + BETWEEN_PIECES;
            }
            // With no room left the stack asks again by itself.
            self.is_due = false;
        }
        let flow = if self.exchange.end && !self.has_more() {
            Flow::Finish
        } else {
            Flow::Open
        };
        (len, flow)
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        self.conn.filter(|_| self.failure.is_some() || self.is_due)
    }

    fn handle_timeout(&mut self, now: Now) {
        if now.monotonic >= self.deadline {
            self.fail("no answer in time");
        } else if now.monotonic >= self.next && self.has_more() {
            self.is_due = true;
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.progress() != Progress::Pending {
            return None;
        }
        if self.conn.is_some() && self.has_more() && !self.is_due {
            return Some(self.next.min(self.deadline));
        }
        Some(self.deadline)
    }
}
