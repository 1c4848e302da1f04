//! One connection that carries as much as it can.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contest::{Load, Tally};
use crate::sys::unacknowledged;

/// Bytes in one system call.
const CHUNK: usize = 256 * 1_024;
/// For a connection to be there, and for what it carries to go on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It sends the characters of [`pattern`], again and again (RFC 864).
    Out,
    /// It takes in what comes and throws it away (RFC 863).
    In,
}

/// The lines of RFC 864, section 2, once through all of them: 95 lines of 72 characters, each beginning with the next
/// character.
pub fn pattern() -> Vec<u8> {
    let printable = b' '..=b'~';
    let all: Vec<u8> = printable.collect();
    let line = |first: usize| {
        let characters = all.iter().cycle().skip(first).take(72);
        characters.copied().chain(*b"\r\n")
    };
    (0..all.len()).flat_map(line).collect()
}

/// A client of a service that sends, or takes in, without end.
pub struct Bulk {
    server: SocketAddr,
    direction: Direction,
    /// The pattern over and over: a chunk can begin anywhere in the first of them.
    text: Vec<u8>,
    period: usize,
    buffer: Vec<u8>,
}

impl Bulk {
    pub fn new(server: SocketAddr, direction: Direction) -> Self {
        let pattern = pattern();
        Self {
            server,
            direction,
            text: pattern.repeat(CHUNK / pattern.len() + 2),
            period: pattern.len(),
            buffer: vec![0; CHUNK],
        }
    }

    /// Takes in for `time`, and compares every byte.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn receive(&mut self, mut stream: &TcpStream, time: Duration) -> io::Result<Tally> {
        let start = Instant::now();
        let (mut bytes, mut at) = (0, None);
        while start.elapsed() < time {
            let len = stream.read(&mut self.buffer)?;
            let received = &self.buffer[..len];
            if received.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            // Wherever the server begins, it goes on from there.
            let first = match at {
                Some(at) => at,
                None => (0..self.period)
                    .find(|at| self.text[*at..].starts_with(received))
                    .ok_or_else(wrong)?,
            };
            if received != &self.text[first..first + len] {
                return Err(wrong());
            }
            at = Some((first + len) % self.period);
            bytes += len as u64;
        }
        Ok(Tally {
            units: bytes,
            units_in_time: bytes,
            time: start.elapsed(),
            ..Tally::default()
        })
    }

    /// Sends for `time`, and waits until everything is acknowledged.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn send(&self, stream: &TcpStream, time: Duration) -> io::Result<Tally> {
        let start = Instant::now();
        let mut writer = stream;
        let mut bytes = 0;
        while start.elapsed() < time {
            let at = bytes % self.period;
            bytes += writer.write(&self.text[at..at + CHUNK])?;
        }
        let elapsed = start.elapsed();
        let waiting = || unacknowledged(stream).map(|bytes| bytes as u64);
        let in_time = bytes as u64 - waiting()?;
        while waiting()? > 0 && start.elapsed() < elapsed + PATIENCE {
            sleep(Duration::from_micros(100));
        }
        Ok(Tally {
            units: bytes as u64 - waiting()?,
            units_in_time: in_time,
            time: elapsed,
            lost: waiting()?,
            ..Tally::default()
        })
    }
}

impl Load for Bulk {
    /// Bytes, of which a million are a unit.
    fn counts(&self) -> f64 {
        1e-6
    }

    fn run(&mut self, time: Duration) -> io::Result<Tally> {
        let stream = TcpStream::connect_timeout(&self.server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // So that the server stops at once when this is dropped.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        match self.direction {
            Direction::Out => self.receive(&stream, time),
            Direction::In => self.send(&stream, time),
        }
    }
}

fn wrong() -> io::Error {
    io::Error::other("what came is not what RFC 864 says")
}
