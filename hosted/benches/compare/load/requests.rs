//! Datagrams: so many requests are always under way.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::contest::{Load, Tally};
use crate::sys::{Batch, Parts, send_segmented, want_source};

/// The request: the default format of the time service, spelt out, so that every server formats the same.
pub const REQUEST: &[u8] = b"%Y-%m-%d %X";
/// How long an answer to it is, in bytes.
const ANSWER_LEN: usize = "2024-02-29 12:00:00".len();
/// Answers that are taken in before as many new requests go out. It is a part of what is under way, or server and load
/// would work in turns, each waiting for all that the other has.
const BATCH: usize = 16;
/// After so long without any answer, all that is under way is lost.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// How requests are handed to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Each by itself, many in one call (sendmmsg(2)).
    Plain,
    /// In one piece, which the system cuts (udp(7), `UDP_SEGMENT`): so they cost the load less, and arrive together.
    /// All are of one flow.
    Burst,
}

/// Requests from one socket in one thread, many in one system call, so that the load costs less than the server.
pub struct Requests {
    socket: UdpSocket,
    batch: Batch,
    /// As many requests as are sent at once, one after the other.
    requests: Vec<u8>,
    server: SocketAddrV4,
    /// Each request comes from the next of these. One alone is one flow.
    sources: Vec<Ipv4Addr>,
    under_way: usize,
    sending: Sending,
}

impl Requests {
    /// Always `under_way` requests to `server`. With several `sources`, which are the kernel's own addresses, each
    /// is a flow of its own.
    pub fn new(
        server: SocketAddrV4,
        sources: Vec<Ipv4Addr>,
        under_way: usize,
        sending: Sending,
    ) -> io::Result<Self> {
        let one = sources.len() == 1;
        let local = match sources[..] {
            [source] => source,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let socket = UdpSocket::bind((local, 0))?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        let parts = if one {
            socket.connect(server)?;
            Parts::Payload
        } else {
            want_source(&socket)?;
            Parts::NameAndSource
        };
        Ok(Self {
            socket,
            batch: Batch::new(BATCH.min(under_way), parts),
            requests: REQUEST.repeat(BATCH),
            server,
            sources,
            under_way,
            sending,
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut done = 0;
        while done < self.under_way {
            let count = self.batch.size().min(self.under_way - done);
            for i in 0..count {
                let source = self.sources[(done + i) % self.sources.len()];
                self.batch.address(i, self.server, source);
            }
            self.send(count)?;
            done += count;
        }
        Ok(())
    }

    /// Sends so many requests; those of several flows from where the last answers came to.
    fn send(&mut self, count: usize) -> io::Result<()> {
        match self.sending {
            Sending::Burst => {
                let requests = &self.requests[..count * REQUEST.len()];
                send_segmented(&self.socket, None, requests, REQUEST.len())
            }
            Sending::Plain => self.batch.send(&self.socket, count, REQUEST),
        }
    }

    /// The number of right answers among the first `count`.
    fn check(&self, count: usize) -> io::Result<u64> {
        for i in 0..count {
            check(self.batch.payload(i))?;
        }
        Ok(count as u64)
    }
}

/// Whether it is an answer to [`REQUEST`].
pub fn check(answer: &[u8]) -> io::Result<()> {
    if answer.len() == ANSWER_LEN && answer[4] == b'-' && answer[13] == b':' {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "a wrong answer: {:?}",
        String::from_utf8_lossy(answer)
    )))
}

impl Load for Requests {
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn run(&mut self, time: Duration) -> io::Result<Tally> {
        let mut tally = Tally::default();
        let start = Instant::now();
        self.fill()?;
        let mut under_way = self.under_way as u64;
        loop {
            let received = match self.batch.receive(&self.socket) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tally.lost += under_way;
                    if tally.time == Duration::ZERO && start.elapsed() < time {
                        self.fill()?;
                        under_way = self.under_way as u64;
                        continue;
                    }
                    break;
                }
                Err(error) => return Err(error),
            };
            tally.units += self.check(received)?;
            // More than is under way: what was taken for lost has come after all.
            under_way = under_way.saturating_sub(received as u64);
            if tally.time == Duration::ZERO {
                let elapsed = start.elapsed();
                if elapsed < time {
                    self.send(received)?;
                    under_way += received as u64;
                    continue;
                }
                tally.time = elapsed;
                tally.units_in_time = tally.units;
            }
            if under_way == 0 {
                break;
            }
        }
        if tally.time == Duration::ZERO {
            tally.time = start.elapsed();
            tally.units_in_time = tally.units;
        }
        Ok(tally)
    }
}
