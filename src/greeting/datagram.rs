//! The greeting's server over datagrams.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use super::ANSWER;
use crate::{DatagramService, Instant, Now, Transmit, may_answer};

/// Answers every datagram with `hi`. Takes 32 bytes: it remembers one peer, the one to be answered next.
#[derive(Clone, Debug, Default)]
pub struct DatagramServer {
    answer_to: Option<SocketAddr>,
}

impl DatagramServer {
    /// A server with nobody to answer.
    pub const fn new() -> Self {
        Self { answer_to: None }
    }
}

impl DatagramService for DatagramServer {
    const MAX_DATAGRAM: usize = ANSWER.len();
    type Reject = NotGreeted;

    fn handle_datagram(&mut self, _: Now, from: SocketAddr, _: &[u8]) -> Result<(), NotGreeted> {
        if !may_answer(from) {
            return Err(NotGreeted::Unanswerable);
        }
        if self.answer_to.is_some() {
            return Err(NotGreeted::Busy);
        }
        self.answer_to = Some(from);
        Ok(())
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        let room = buf.get_mut(..ANSWER.len())?;
        let to = self.answer_to.take()?;
        room.copy_from_slice(ANSWER);
        Some(Transmit {
            to,
            len: ANSWER.len(),
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Why a datagram was not greeted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotGreeted {
    /// Its sender cannot or must not be answered: see [`may_answer`].
    Unanswerable,
    /// The last answer was not taken out by `poll_transmit` yet. Does not happen under [`pump`](crate::pump).
    Busy,
}

impl fmt::Display for NotGreeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unanswerable => "the sender's address must not be answered",
            Self::Busy => "the last answer is not sent yet",
        })
    }
}

impl Error for NotGreeted {}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now::monotonic(Instant::ZERO);

    #[test]
    fn every_datagram_is_answered_the_empty_one_too() {
        let mut server = DatagramServer::new();
        let mut buf = [0; DatagramServer::MAX_DATAGRAM];
        let client: SocketAddr = "192.0.2.7:40000".parse().unwrap();
        for payload in [b"hello".as_slice(), b"", b"\xff\x00", &[0x41; 2000]] {
            server.handle_datagram(NOW, client, payload).unwrap();
            assert_eq!(
                server.poll_transmit(NOW, &mut buf),
                Some(Transmit { to: client, len: 2 })
            );
            assert_eq!(&buf, b"hi");
            assert_eq!(server.poll_transmit(NOW, &mut buf), None);
        }
    }

    #[test]
    fn a_second_datagram_before_the_first_answer_is_refused_not_mixed_up() {
        let mut server = DatagramServer::new();
        let (one, two) = (
            "192.0.2.7:1".parse().unwrap(),
            "192.0.2.7:2".parse().unwrap(),
        );
        server.handle_datagram(NOW, one, b"a").unwrap();
        assert_eq!(
            server.handle_datagram(NOW, two, b"b"),
            Err(NotGreeted::Busy)
        );
        assert_eq!(
            server.poll_transmit(NOW, &mut [0; 2]).map(|t| t.to),
            Some(one)
        );
    }

    #[test]
    fn two_servers_cannot_be_set_on_each_other() {
        let mut server = DatagramServer::new();
        let other = "192.0.2.7:8898".parse().unwrap();
        assert_eq!(
            server.handle_datagram(NOW, other, b"hi"),
            Err(NotGreeted::Unanswerable)
        );
        assert_eq!(server.poll_transmit(NOW, &mut [0; 2]), None);
    }
}
