//! Connections that say nothing.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

/// For each connection to be there.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the server to have taken in the last of them.
const SETTLE: Duration = Duration::from_millis(100);

/// Connections of clients who do not greet. They are reset when dropped.
pub struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens `count` connections to `server`, and holds them. The error says how far it came.
    pub fn open(server: SocketAddr, count: usize) -> io::Result<Self> {
        let mut idle = Self(Vec::with_capacity(count));
        for opened in 0..count {
            let stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(|error| {
                io::Error::new(error.kind(), format!("{opened} of {count}: {error}"))
            })?;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            stream.set_nonblocking(true)?;
            idle.0.push(stream);
        }
        sleep(SETTLE);
        match idle.closed() {
            0 => Ok(idle),
            closed => Err(io::Error::other(format!("{closed} of {count} were closed"))),
        }
    }

    /// How many the server has closed or reset.
    pub fn closed(&self) -> usize {
        let waits = |stream: &&TcpStream| {
            let peeked = stream.peek(&mut [0]);
            !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        };
        self.0.iter().filter(waits).count()
    }
}
