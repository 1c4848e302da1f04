//! One request after the other: how long each answer takes.

use std::hint::spin_loop;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use super::requests::{REQUEST, check};
use crate::contest::{Load, Tally};

/// After so long without its answer, a request is lost.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// A client that looks for the answer without sleeping: so all the time that is measured is
/// the server's and the way's.
pub struct OneByOne {
    socket: UdpSocket,
    pause: Duration,
    /// In nanoseconds.
    times: Vec<u32>,
}

impl OneByOne {
    /// One that lets `pause` go by after each answer.
    pub fn new(server: SocketAddrV4, pause: Duration) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            pause,
            times: Vec::new(),
        })
    }

    /// How long the answer to one request takes; `None` if it is lost.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn ask(&self) -> io::Result<Option<Duration>> {
        let mut answer = [0; 512];
        let start = Instant::now();
        self.socket.send(REQUEST)?;
        loop {
            match self.socket.recv(&mut answer) {
                Ok(len) => {
                    let time = start.elapsed();
                    check(&answer[..len])?;
                    return Ok(Some(time));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if start.elapsed() > LOST_AFTER {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What so many of a thousand take at most, in microseconds.
    fn percentile(&mut self, of_thousand: usize) -> f64 {
        let at = (self.times.len() * of_thousand / 1_000).min(self.times.len() - 1);
        let (_, time, _) = self.times.select_nth_unstable(at);
        f64::from(*time) / 1_000.0
    }
}

impl Load for OneByOne {
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn run(&mut self, time: Duration) -> io::Result<Tally> {
        let mut tally = Tally::default();
        self.times.clear();
        let start = Instant::now();
        while start.elapsed() < time {
            match self.ask()? {
                Some(time) => self.times.push(time.as_nanos() as u32),
                None => tally.lost += 1,
            }
            let answered = Instant::now();
            while answered.elapsed() < self.pause {
                spin_loop();
            }
        }
        tally.time = start.elapsed();
        tally.units = self.times.len() as u64;
        tally.units_in_time = tally.units;
        if tally.units > 0 {
            tally.latency = Some((self.percentile(500), self.percentile(990)));
        }
        Ok(tally)
    }
}
