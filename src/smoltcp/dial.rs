//! One outgoing connection.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use ::smoltcp::socket::tcp::{Socket, State};

use super::listener::StreamsPumped;
use super::stack::Sockets;
use super::table::Index;
use super::tcp::{Signature, TcpTransport};
use crate::{ConnId, Now, StreamService, pump_stream, pump_timeout};

/// One connection to a server, made by [`Stack::connect`](super::Stack::connect). 104 bytes, besides its socket.
///
/// The service knows it as `ConnId::new(0)`.
#[derive(Debug)]
pub struct Dial {
    pub(super) index: Index,
    local: SocketAddr,
    peer: SocketAddr,
    phase: Phase,
    pumped: Option<Signature>,
    end_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Done,
}

impl Dial {
    pub(super) fn new(index: Index, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            index,
            local,
            peer,
            phase: Phase::Connecting,
            pumped: None,
            end_told: false,
        }
    }

    /// Our address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The server's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the connection has ended, or was never made, and the service has been told so.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Tells `service` of the connection, and moves bytes between the two if something has changed. To be called
    /// in every `serve` of [`Stack::turn`](super::Stack::turn), until [`is_done`](Self::is_done) or until the
    /// service itself has come to an end: one that gives up while the connection is still being made has none
    /// that it could reset. Then [`Stack::hang_up`](super::Stack::hang_up).
    ///
    /// # Panics
    /// If the connection is of another stack than `sockets`.
    pub fn pump<S: StreamService>(
        &mut self,
        sockets: &mut Sockets<'_>,
        service: &mut S,
        now: Now,
    ) -> StreamsPumped {
        const ID: ConnId = ConnId::new(0);
        let mut pumped = StreamsPumped::default();
        pump_timeout(service, now);
        let socket = sockets.table.socket::<Socket<'_>>(self.index);
        let mut moved_on = false;
        if self.phase == Phase::Connecting {
            match socket.state() {
                State::SynSent | State::SynReceived => {}
                State::Closed => {
                    service.handle_close(now, ID);
                    pumped.closed += 1;
                    self.phase = Phase::Done;
                }
                _ if service.handle_open(now, ID, self.peer).is_ok() => {
                    pumped.opened += 1;
                    self.phase = Phase::Open;
                }
                _ => {
                    pumped.rejected += 1;
                    socket.abort();
                    moved_on = true;
                    self.phase = Phase::Done;
                }
            }
        }
        if self.phase == Phase::Open {
            // There is one connection, so the service can mean no other.
            let asked = service.poll_ready().is_some();
            if asked || self.pumped != Some(Signature::of(socket)) {
                let mut transport = TcpTransport::new(socket, &mut self.end_told);
                let moved = pump_stream(service, ID, &mut transport, now);
                moved_on = true;
                pumped.received += moved.received;
                pumped.sent += moved.sent;
                self.pumped = (!moved.more).then(|| Signature::of(socket));
                if moved.closed {
                    pumped.closed += 1;
                    self.phase = Phase::Done;
                }
            }
        }
        if moved_on {
            sockets.table.touch(self.index);
        }
        pumped.deadline = if self.phase == Phase::Open && self.pumped.is_none() {
            Some(now.monotonic)
        } else {
            service.poll_timeout()
        };
        pumped
    }
}

/// Why no connection was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// No network of ours leads there, no gateway does, or it is no address that one can connect to.
    NoRoute {
        /// Where it was to go.
        to: SocketAddr,
    },
    /// All ephemeral ports are in use.
    NoPort,
    /// The stack was given no memory for another socket.
    NoRoom {
        /// How many it has.
        capacity: usize,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute { to } => write!(f, "no route leads to {to}"),
            Self::NoPort => f.write_str("all ephemeral ports are in use"),
            Self::NoRoom { capacity } => write!(f, "all {capacity} sockets are in use"),
        }
    }
}

impl Error for ConnectError {}
