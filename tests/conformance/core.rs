//! The conformance suite's two sides as services of the core, for backends without an operating system.

use std::convert::Infallible;
use std::net::SocketAddr;

use smoltalk::chat::{self, Chat, ContactBook};
use smoltalk::greeting::{self, DatagramServer, StreamServer};
use smoltalk::sim::script::{AUTO_REPLY, Exchange, WALL};
use smoltalk::time;
use smoltalk::{ConnId, DatagramService, Flow, Instant, Now, StreamService, Transmit};

/// The suite's time: what people read stands still.
pub fn at(monotonic: Instant) -> Now {
    Now {
        monotonic,
        wall: Some(WALL),
    }
}

/// How many connections the servers take.
pub const CONNECTIONS: usize = 4;

/// Every service, as the suite wants it.
pub struct Servers {
    pub greeting_tcp: StreamServer<CONNECTIONS>,
    pub greeting_udp: DatagramServer,
    pub time: time::Server,
    pub chat: Chat<0, 8>,
}

impl Servers {
    pub fn new() -> Self {
        Self {
            greeting_tcp: StreamServer::new(greeting::Config::default()),
            greeting_udp: DatagramServer::new(),
            time: time::Server::new(),
            chat: Chat::new(
                ContactBook::new(),
                chat::Config {
                    auto_reply: Some(AUTO_REPLY.try_into().unwrap()),
                    ..chat::Config::default()
                },
            ),
        }
    }
}

/// Sends the requests of an exchange, each once, and keeps all that comes back.
pub struct Asker {
    server: SocketAddr,
    exchange: Exchange,
    sent: usize,
    pub answers: Vec<Vec<u8>>,
}

impl Asker {
    pub fn new(server: SocketAddr, exchange: &Exchange) -> Self {
        Self {
            server,
            exchange: *exchange,
            sent: 0,
            answers: Vec::new(),
        }
    }
}

impl DatagramService for Asker {
    const MAX_DATAGRAM: usize = 1472;
    type Reject = Infallible;

    fn handle_datagram(
        &mut self,
        _: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Infallible> {
        assert_eq!(from, self.server, "an answer from elsewhere");
        self.answers.push(payload.to_vec());
        Ok(())
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        let request = self.exchange.requests.get(self.sent)?;
        buf[..request.len()].copy_from_slice(request);
        self.sent += 1;
        Some(Transmit {
            to: self.server,
            len: request.len(),
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Sends the pieces of an exchange, one in each segment, and keeps all that comes back.
pub struct Caller {
    exchange: Exchange,
    /// Pieces that are sent whole, and bytes sent of the next.
    sent: (usize, usize),
    pub answer: Vec<u8>,
    pub ended: bool,
    pub closed: bool,
}

impl Caller {
    pub fn new(exchange: &Exchange) -> Self {
        Self {
            exchange: *exchange,
            sent: (0, 0),
            answer: Vec::new(),
            ended: false,
            closed: false,
        }
    }
}

impl StreamService for Caller {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, _: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        self.answer.extend_from_slice(data);
        data.len()
    }

    fn handle_end(&mut self, _: Now, _: ConnId) {
        self.ended = true;
    }

    fn handle_close(&mut self, _: Now, _: ConnId) {
        self.closed = true;
    }

    fn poll_write(&mut self, _: Now, _: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let (pieces, bytes) = self.sent;
        let mut len = 0;
        if let Some(piece) = self.exchange.requests.get(pieces) {
            let rest = &piece[bytes..];
            len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            self.sent = match len == rest.len() {
                true => (pieces + 1, 0),
                false => (pieces, bytes + len),
            };
        }
        let all = self.sent.0 == self.exchange.requests.len();
        if all && (self.exchange.end || self.ended) {
            (len, Flow::Finish)
        } else {
            (len, Flow::Open)
        }
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        None
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
