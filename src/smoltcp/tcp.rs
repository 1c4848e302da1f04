//! Streams over smoltcp's TCP sockets.

use core::error::Error;
use core::fmt;

use ::smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};

use crate::{Duration, Received, StreamTransport};

/// A connection whose peer has not been heard of for so long is given up (RFC 9293, section 3.8.3, leaves
/// the time to us), so that a vanished peer does not keep a socket.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How often a silent peer is asked whether it is still there (RFC 9293, section 3.8.4). A live one answers
/// and so is not given up, however long the service lets it be silent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The memory of one TCP socket: `RX` bytes received but not yet read, which is the largest window it offers,
/// and `TX` bytes sent but not yet acknowledged. Takes `RX + TX` bytes.
#[derive(Debug)]
pub struct TcpBuffers<const RX: usize, const TX: usize> {
    rx: [u8; RX],
    tx: [u8; TX],
}

impl<const RX: usize, const TX: usize> TcpBuffers<RX, TX> {
    /// Empty buffers.
    pub const fn new() -> Self {
        Self {
            rx: [0; RX],
            tx: [0; TX],
        }
    }
}

impl<const RX: usize, const TX: usize> Default for TcpBuffers<RX, TX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, const RX: usize, const TX: usize> From<&'a mut TcpBuffers<RX, TX>> for Socket<'a> {
    fn from(buffers: &'a mut TcpBuffers<RX, TX>) -> Self {
        Socket::new(
            SocketBuffer::new(buffers.rx.as_mut_slice()),
            SocketBuffer::new(buffers.tx.as_mut_slice()),
        )
    }
}

/// Sets what every socket here has in common.
pub(super) fn prepare(socket: &mut Socket<'_>) {
    let micros = |duration: Duration| {
        ::smoltcp::time::Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(0))
    };
    // smoltcp's timeout counts idle time too, so it needs the keep-alive.
    socket.set_timeout(Some(micros(TIMEOUT)));
    socket.set_keep_alive(Some(micros(KEEP_ALIVE)));
    // Answers are short, and nothing follows that they could wait for.
    socket.set_nagle_enabled(false);
}

/// What a connection looks like from outside. It changes whenever a pump could have something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    state: State,
    received: usize,
    unacknowledged: usize,
}

impl Signature {
    pub(super) fn of(socket: &Socket<'_>) -> Self {
        Self {
            state: socket.state(),
            received: socket.recv_queue(),
            unacknowledged: socket.send_queue(),
        }
    }
}

/// A TCP connection at work: what [`pump_stream`](crate::pump_stream) pumps.
#[derive(Debug)]
pub struct TcpTransport<'s, 'a> {
    socket: &'s mut Socket<'a>,
    /// Whether the peer's end of the stream has been told of.
    end_told: &'s mut bool,
}

impl<'s, 'a> TcpTransport<'s, 'a> {
    /// `end_told` is the connection's memory from one pump to the next: `false` when it is new.
    pub fn new(socket: &'s mut Socket<'a>, end_told: &'s mut bool) -> Self {
        Self { socket, end_told }
    }
}

impl StreamTransport for TcpTransport<'_, '_> {
    type Error = Gone;

    fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> Result<Received, Gone> {
        let connecting = matches!(self.socket.state(), State::SynSent | State::SynReceived);
        let received = self.socket.recv(|data| {
            if data.is_empty() {
                (0, Received::Nothing)
            } else {
                let consumed = f(data).min(data.len());
                (consumed, Received::Data(consumed))
            }
        });
        match received {
            Ok(received) => Ok(received),
            Err(RecvError::Finished) => {
                *self.end_told = true;
                Ok(Received::End)
            }
            Err(RecvError::InvalidState) if connecting => Ok(Received::Nothing),
            Err(RecvError::InvalidState) => Err(Gone),
        }
    }

    fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, Gone> {
        if self.socket.may_send() {
            let sent = self.socket.send(|room| {
                let len = f(room).min(room.len());
                (len, len)
            });
            return sent.map_err(|_| Gone);
        }
        let gone = match self.socket.state() {
            // What came before a reset is still there, and so is the end if it came before.
            State::Closed => match self.socket.peek(1) {
                Ok(_) => false,
                Err(RecvError::Finished) => *self.end_told,
                Err(RecvError::InvalidState) => true,
            },
            State::Listen => true,
            _ => false,
        };
        if gone {
            Err(Gone)
        } else {
            f(&mut []);
            Ok(0)
        }
    }

    fn close(&mut self) {
        self.socket.close();
    }

    fn abort(&mut self) {
        self.socket.abort();
    }

    fn is_closed(&self) -> bool {
        matches!(self.socket.state(), State::Closed | State::TimeWait)
    }
}

/// The connection is gone: reset, timed out, or never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is gone")
    }
}

impl Error for Gone {}
