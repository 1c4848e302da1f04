//! The smallest complete server on the sockets of an operating system: the greeting over UDP.
//!
//!     cargo run --example std_net               answers itself once, and ends
//!     cargo run --example std_net -- serve      answers everybody: `nc -u 127.0.0.1 8898`
//!
//! A transport is three short functions. `smoltalk-hosted` has one that does more: many sockets at once, and
//! what the network has to say of datagrams that did not arrive.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};

use smoltalk::greeting::{self, DatagramClient, DatagramServer};
use smoltalk::{
    Arrival, DatagramTransport, Duration, Instant, Now, Outcome, Retry, Sent, Unreachable, pump,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::start();
    let serve_on = std::env::args().any(|argument| argument == "serve");

    let port = if serve_on { greeting::PORT } else { 0 };
    let mut server = DatagramServer::new();
    let mut socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let address = socket.socket.local_addr()?;
    println!("listening greeting udp {address}");

    if serve_on {
        loop {
            socket.pump(&mut server, clock.now())?;
            socket.wait(None, clock.now().monotonic)?;
        }
    }

    // Somebody to talk to.
    let mut client = DatagramClient::start(clock.now(), address, b"hello", Retry::default())?;
    let mut client_socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    loop {
        let deadline = client_socket.pump(&mut client, clock.now())?;
        if client.outcome() != Outcome::Pending {
            break;
        }
        socket.pump(&mut server, clock.now())?;
        // The server's answer, or the time to ask again.
        client_socket.wait(deadline, clock.now().monotonic)?;
    }
    match client.outcome() {
        Outcome::Answered { answer, .. } => {
            println!("udp {address}: hello -> {}", answer.escape_ascii());
            Ok(())
        }
        other => Err(format!("no answer: {other:?}").into()),
    }
}

/// A host socket and what a datagram service needs besides.
struct Socket {
    socket: UdpSocket,
    /// What was received last. No UDP datagram is longer.
    received: Vec<u8>,
    /// Where a service writes what it sends.
    scratch: [u8; 2048],
}

impl Socket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            received: vec![0; 65_535],
            scratch: [0; 2048],
        })
    }

    /// Lets `service` do what there is to do, and returns when it wants to be called again.
    fn pump<S: smoltalk::DatagramService>(
        &mut self,
        service: &mut S,
        now: Now,
    ) -> io::Result<Option<Instant>> {
        let mut transport = Transport {
            socket: &self.socket,
            received: &mut self.received,
        };
        let pumped = pump(service, &mut transport, now, &mut self.scratch, 32)?;
        Ok(if pumped.more {
            Some(now.monotonic)
        } else {
            pumped.deadline
        })
    }

    /// Waits for a datagram, but no longer than to the deadline.
    fn wait(&self, deadline: Option<Instant>, now: Instant) -> io::Result<()> {
        let patience = deadline.map(|deadline| deadline.saturating_since(now));
        if patience == Some(Duration::ZERO) {
            return Ok(());
        }
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(patience)?;
        // It looks without taking, so that the pump finds what has arrived.
        let arrived = self.socket.peek_from(&mut [0]);
        self.socket.set_nonblocking(true)?;
        match arrived {
            Err(error) if !is_harmless(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

struct Transport<'s> {
    socket: &'s UdpSocket,
    received: &'s mut [u8],
}

impl DatagramTransport for Transport<'_> {
    type Error = io::Error;

    fn recv(&mut self) -> io::Result<Option<Arrival<'_>>> {
        match self.socket.recv_from(self.received) {
            Ok((len, from)) => Ok(Some(Arrival::Datagram {
                from,
                payload: &self.received[..len],
            })),
            Err(error) if is_harmless(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn can_send(&mut self, _: usize) -> bool {
        true
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8]) -> io::Result<Sent> {
        Ok(match self.socket.send_to(payload, to) {
            Ok(_) => Sent::Queued,
            // A full buffer of the system's loses the datagram, as the network may.
            Err(error) if is_harmless(&error) => Sent::Queued,
            // Whatever else is wrong is wrong with this address, which a peer may have made up: others go on.
            Err(_) => Sent::Unreachable(Unreachable::NoRoute),
        })
    }
}

/// Nothing there for now, or what the system tells of an earlier datagram: the socket is as good as before.
fn is_harmless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
    )
}

/// The time since the program's start.
struct Clock(std::time::Instant);

#[allow(
    clippy::disallowed_methods,
    reason = "a driver is where the time comes from"
)]
impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(&self) -> Now {
        Now::monotonic(Instant::ZERO + self.0.elapsed())
    }
}
