//! What a protocol looks like from the outside: it is told the time and handed bytes, and writes what it has
//! to say into buffers that the caller owns.
//!
//! One mutation, then drain: after each `handle_…` call the caller polls until there is nothing more to send.
//! [`pump`](crate::pump) and [`pump_stream`](crate::pump_stream) do that, so that a driver need not.

use core::error::Error;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::{Instant, Now};

/// A protocol over datagrams, as server or as client.
pub trait DatagramService {
    /// The longest datagram that [`poll_transmit`](Self::poll_transmit) writes, in bytes of payload.
    const MAX_DATAGRAM: usize;

    /// Why a datagram was not accepted.
    type Reject: Error;

    /// Takes in one datagram.
    ///
    /// # Errors
    /// The datagram was not what the protocol allows, or there was no room for what it asks. The service is
    /// unchanged but for its counters, and goes on; the pump counts the rejection and drops the datagram.
    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Self::Reject>;

    /// Hears that a datagram sent to `peer` will not arrive (RFC 1122, section 4.1.3.3: UDP passes to the
    /// application what ICMP says). Servers have nothing to do about it; clients can stop waiting.
    fn handle_unreachable(&mut self, now: Now, peer: SocketAddr, why: Unreachable) {
        let _ = (now, peer, why);
    }

    /// Does what was due at [`poll_timeout`](Self::poll_timeout). Harmless when called early.
    fn handle_timeout(&mut self, now: Now);

    /// Writes the next datagram to send into `buf`, which has at least [`MAX_DATAGRAM`](Self::MAX_DATAGRAM)
    /// bytes, and says how long it is and where it goes. `None`: nothing to send.
    fn poll_transmit(&mut self, now: Now, buf: &mut [u8]) -> Option<Transmit>;

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. `None`: never, as things stand.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// A datagram that a service wrote: where it goes, and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The destination.
    pub to: SocketAddr,
    /// Bytes of the caller's buffer that are the payload.
    pub len: usize,
}

/// Why a datagram cannot arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing listens on that port (ICMP port unreachable).
    Refused,
    /// No way to that host or network.
    NoRoute,
    /// The operating system or a firewall does not allow it.
    Prohibited,
    /// The datagram is too long for the way there.
    TooLong,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused: nothing listens on that port",
            Self::NoRoute => "no route to that host",
            Self::Prohibited => "not permitted by the system or a firewall",
            Self::TooLong => "the datagram is too long for the way there",
        })
    }
}

impl Error for Unreachable {}

/// A protocol over byte streams, as server or as client, for all its connections.
///
/// The life of a connection: [`handle_open`](Self::handle_open) once; then any number of
/// [`handle_data`](Self::handle_data), split and merged as the network likes; perhaps
/// [`handle_end`](Self::handle_end); and [`handle_close`](Self::handle_close) once, after which the
/// [`ConnId`] may be used for another connection.
pub trait StreamService {
    /// Why a connection was not accepted.
    type Reject: Error;

    /// Takes in a connection with `peer`, under an `id` that no open connection has.
    ///
    /// # Errors
    /// The service will not have it. The driver resets the connection and makes no other call for `id`.
    fn handle_open(&mut self, now: Now, id: ConnId, peer: SocketAddr) -> Result<(), Self::Reject>;

    /// Takes in the next bytes of the stream and says how many it consumed; the rest is offered again later.
    fn handle_data(&mut self, now: Now, id: ConnId, data: &[u8]) -> usize;

    /// Hears that the peer has sent its last byte (its FIN has come). The other direction still works.
    /// May be told more than once.
    fn handle_end(&mut self, now: Now, id: ConnId);

    /// Hears that the connection is gone: closed in both directions, reset, or (for a client) never made.
    fn handle_close(&mut self, now: Now, id: ConnId);

    /// Writes the next bytes to send into `buf`, which may be empty, and says how many they are and what
    /// becomes of the connection after them.
    fn poll_write(&mut self, now: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow);

    /// The next connection whose [`poll_write`](Self::poll_write) has something new to say although nothing
    /// was received on it: a timeout passed, or it must give way to another. `None`: no other.
    ///
    /// The same one comes again until the driver has pumped it (or told of its close, if it is gone).
    fn poll_ready(&mut self) -> Option<ConnId>;

    /// Does what was due at [`poll_timeout`](Self::poll_timeout). Harmless when called early.
    fn handle_timeout(&mut self, now: Now);

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. `None`: never, as things stand.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// Names one connection of one [`StreamService`]: a small number, chosen by the driver, below the number of
/// connections it can hold; free for another connection after `handle_close`. 2 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u16);

impl ConnId {
    /// The connection in slot `index` of the driver's table.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// The slot in the driver's table, and in the service's.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What becomes of a connection after the bytes just written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It stays open.
    Open,
    /// Our direction ends (FIN) once all that was written has gone out. What the peer still sends is handed
    /// to the service as before, so that the peer is not met with a reset that could overtake our last bytes.
    Finish,
    /// It is reset (RST), now.
    Abort,
}

/// Whether a server that answers every datagram may answer one from `peer`.
///
/// Not if `peer` could not receive it (port 0 means "no reply wanted", RFC 768), and not if whatever has that
/// port answers every datagram too: a single forged datagram would set the two talking for ever. That is so
/// for the small services of old (echo, RFC 862, and its kin) and for the default ports of our own.
pub fn may_answer(peer: SocketAddr) -> bool {
    let answers_everything = matches!(
        peer.port(),
        7 | 13 | 17 | 19 | 37 | crate::greeting::PORT | crate::time::PORT
    );
    let one_host = match peer.ip() {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    peer.port() != 0 && !answers_everything && one_host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_does_not_answer_those_who_answer_everything() {
        for peer in [
            "192.0.2.1:0",
            "192.0.2.1:7",
            "192.0.2.1:19",
            "192.0.2.1:8898",
            "[2001:db8::1]:9000",
            "255.255.255.255:4000",
            "224.0.0.1:4000",
            "0.0.0.0:4000",
            "[ff02::1]:4000",
            "[::]:4000",
        ] {
            assert!(!may_answer(peer.parse().unwrap()), "{peer}");
        }
        for peer in ["192.0.2.1:1", "192.0.2.1:53", "[2001:db8::1]:49152"] {
            assert!(may_answer(peer.parse().unwrap()), "{peer}");
        }
    }
}
