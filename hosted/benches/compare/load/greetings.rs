//! Connections: so many clients always greet, each once in a connection of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::contest::{Load, Tally};

const GREETING: &[u8] = b"hello";
const ANSWER: &[u8] = b"hi";
/// How long the last connections of a turn may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Clients on non-blocking sockets in one thread.
pub struct Greetings {
    server: SocketAddr,
    poll: Poll,
    events: Events,
    clients: Vec<Option<Client>>,
}

struct Client {
    stream: TcpStream,
    sent: bool,
    answer: usize,
}

/// What came of a client.
enum Step {
    Waits,
    Done,
    Refused,
}

impl Greetings {
    /// `clients` at a time to `server`.
    pub fn new(server: SocketAddr, clients: usize) -> io::Result<Self> {
        Ok(Self {
            server,
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            clients: (0..clients).map(|_| None).collect(),
        })
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        let mut client = Client {
            stream: TcpStream::connect(self.server)?,
            sent: false,
            answer: 0,
        };
        // On loopback the connection is there already, or a refusal, of which the event queue tells too.
        if self.server.ip().is_loopback() {
            let _ = client.greet();
        }
        // Registered before it is looked at again, and edge-triggered: nothing is missed.
        let interest = if client.sent {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        self.poll
            .registry()
            .register(&mut client.stream, Token(index), interest)?;
        self.clients[index] = Some(client);
        Ok(())
    }

    /// Gives up on everybody, with a reset, so that the server has nothing left of it.
    fn give_up(&mut self) -> u64 {
        let mut count = 0;
        for client in self.clients.iter_mut().filter_map(Option::take) {
            let _ = SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
            count += 1;
        }
        count
    }
}

impl Client {
    fn greet(&mut self) -> io::Result<()> {
        match self.stream.write(GREETING) {
            Ok(_) => {
                self.sent = true;
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on as far as it can. With `ended`, the server is known to have closed behind its answer.
    fn step(&mut self, ended: bool) -> io::Result<Step> {
        if !self.sent {
            // The answer to it comes with an event of its own.
            return Ok(match self.greet() {
                Ok(()) => Step::Waits,
                Err(_) => Step::Refused,
            });
        }
        let mut bytes = [0; 64];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) if self.answer == ANSWER.len() => return Ok(Step::Done),
                Ok(0) => return Ok(Step::Refused),
                Ok(len) => {
                    let rest = ANSWER.get(self.answer..).unwrap_or_default();
                    if !rest.starts_with(&bytes[..len]) {
                        return Err(io::Error::other("a wrong greeting"));
                    }
                    self.answer += len;
                    if ended && self.answer == ANSWER.len() {
                        return Ok(Step::Done);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
                Err(_) => return Ok(Step::Refused),
            }
        }
    }
}

impl Load for Greetings {
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn run(&mut self, time: Duration) -> io::Result<Tally> {
        let mut tally = Tally::default();
        let start = Instant::now();
        for index in 0..self.clients.len() {
            self.open(index)?;
        }
        let mut open = self.clients.len();
        let mut over = false;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        while open > 0 {
            self.poll.poll(&mut events, Some(PATIENCE))?;
            let elapsed = start.elapsed();
            if !over && elapsed >= time {
                over = true;
                tally.time = elapsed;
                tally.units_in_time = tally.units;
            }
            if elapsed >= time + PATIENCE {
                break;
            }
            for event in &events {
                let Token(index) = event.token();
                // An event of a client that has given way to another in this very round tells of nothing.
                let Some(client) = &mut self.clients[index] else {
                    continue;
                };
                match client.step(event.is_read_closed())? {
                    Step::Waits => continue,
                    Step::Done => tally.units += 1,
                    Step::Refused => {
                        tally.refused += 1;
                        let _ = client.stream.shutdown(Shutdown::Both);
                    }
                }
                self.clients[index] = None;
                if over {
                    open -= 1;
                } else {
                    self.open(index)?;
                }
            }
        }
        self.events = events;
        tally.lost = self.give_up();
        Ok(tally)
    }
}
