//! A connection without a network, which cuts what is written into pieces as chance will.

use core::error::Error;
use core::fmt;

use heapless::Vec;

use crate::random::Rng;
use crate::{Received, StreamTransport};

/// A connection of two ends, with up to `BYTES` bytes on the way in each direction.
///
/// Reading gets the next 1 to `longest_piece` of the bytes that are there, and writing the same of the room that
/// is there: so services see their messages split and merged in every way. Takes `2 * BYTES` and some bytes.
#[derive(Debug)]
pub struct StreamPair<const BYTES: usize> {
    /// What each side has written and the other not yet read.
    pipes: [Pipe<BYTES>; 2],
    reset: bool,
    longest_piece: usize,
    rng: Rng,
}

#[derive(Debug, Default)]
struct Pipe<const BYTES: usize> {
    bytes: Vec<u8, BYTES>,
    /// Nothing more will be written.
    ended: bool,
    /// The reader has heard that.
    end_told: bool,
}

/// One end of a [`StreamPair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamSide {
    /// The end that connected, say.
    Client,
    /// The other.
    Server,
}

impl<const BYTES: usize> StreamPair<BYTES> {
    /// An open connection. A `longest_piece` of 1 is one byte for each segment.
    pub fn new(seed: u64, longest_piece: usize) -> Self {
        Self {
            pipes: [Pipe::default(), Pipe::default()],
            reset: false,
            longest_piece: longest_piece.max(1),
            rng: Rng::new(seed),
        }
    }

    /// One end, to be pumped.
    pub fn end(&mut self, side: StreamSide) -> StreamEnd<'_, BYTES> {
        let [client, server] = &mut self.pipes;
        let (written, unread) = match side {
            StreamSide::Client => (client, server),
            StreamSide::Server => (server, client),
        };
        StreamEnd {
            written,
            unread,
            reset: &mut self.reset,
            longest_piece: self.longest_piece,
            rng: &mut self.rng,
        }
    }

    /// Whether either end has been reset.
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// Whether there are bytes on the way that an end could read.
    pub fn is_busy(&self) -> bool {
        self.pipes.iter().any(|pipe| !pipe.bytes.is_empty())
    }
}

/// One end of a [`StreamPair`] at work.
#[derive(Debug)]
pub struct StreamEnd<'p, const BYTES: usize> {
    written: &'p mut Pipe<BYTES>,
    unread: &'p mut Pipe<BYTES>,
    reset: &'p mut bool,
    longest_piece: usize,
    rng: &'p mut Rng,
}

impl<const BYTES: usize> StreamEnd<'_, BYTES> {
    /// How much of `available` bytes is in the next piece.
    fn piece(&mut self, available: usize) -> usize {
        let most = available.min(self.longest_piece);
        if most == 0 {
            return 0;
        }
        1 + self.rng.below(most as u64) as usize
    }
}

impl<const BYTES: usize> StreamTransport for StreamEnd<'_, BYTES> {
    type Error = Reset;

    fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> Result<Received, Reset> {
        let piece = self.piece(self.unread.bytes.len());
        if piece > 0 {
            let bytes = &mut self.unread.bytes;
            let consumed = f(bytes.get(..piece).unwrap_or_default()).min(piece);
            bytes.rotate_left(consumed);
            bytes.truncate(bytes.len() - consumed);
            return Ok(Received::Data(consumed));
        }
        if self.unread.ended {
            self.unread.end_told = true;
            return Ok(Received::End);
        }
        if *self.reset {
            return Err(Reset);
        }
        Ok(Received::Nothing)
    }

    fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, Reset> {
        let unheard = self.unread.ended && !self.unread.end_told;
        if *self.reset && self.unread.bytes.is_empty() && !unheard {
            return Err(Reset);
        }
        if *self.reset || self.written.ended {
            f(&mut []);
            return Ok(0);
        }
        let before = self.written.bytes.len();
        let piece = self.piece(BYTES - before);
        // It is at most what is free.
        let _ = self.written.bytes.resize(before + piece, 0);
        let room = self.written.bytes.get_mut(before..).unwrap_or_default();
        let len = f(room).min(piece);
        self.written.bytes.truncate(before + len);
        Ok(len)
    }

    fn close(&mut self) {
        self.written.ended = true;
    }

    fn abort(&mut self) {
        *self.reset = true;
        // Who resets does not want to read any more.
        self.unread.bytes.clear();
    }

    fn is_closed(&self) -> bool {
        *self.reset || (self.written.ended && self.unread.ended && self.unread.bytes.is_empty())
    }
}

/// The connection was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was reset")
    }
}

impl Error for Reset {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec as StdVec;

    fn write(pair: &mut StreamPair<8>, side: StreamSide, bytes: &[u8]) -> usize {
        pair.end(side)
            .send(|room| {
                let len = room.len().min(bytes.len());
                room[..len].copy_from_slice(&bytes[..len]);
                len
            })
            .unwrap()
    }

    #[test]
    fn bytes_come_in_order_whatever_the_pieces() {
        for seed in 0..50 {
            let mut pair = StreamPair::<8>::new(seed, 3);
            let message: StdVec<u8> = (0..100).collect();
            let (mut sent, mut got) = (0, StdVec::new());
            while got.len() < message.len() {
                sent += write(&mut pair, StreamSide::Client, &message[sent..]);
                let piece = pair.end(StreamSide::Server).recv(|data| {
                    assert!((1..=3).contains(&data.len()));
                    got.extend_from_slice(data);
                    data.len()
                });
                assert!(piece.is_ok(), "seed {seed}");
            }
            assert_eq!(got, message, "seed {seed}");
        }
    }

    #[test]
    fn what_was_written_before_the_end_and_before_a_reset_can_be_read() {
        let mut pair = StreamPair::<8>::new(1, 8);
        assert!(write(&mut pair, StreamSide::Server, b"a") == 1);
        pair.end(StreamSide::Server).close();
        pair.end(StreamSide::Server).abort();
        let mut client = pair.end(StreamSide::Client);
        assert_eq!(client.send(|room| room.len()), Ok(0));
        assert_eq!(client.recv(|data| data.len()), Ok(Received::Data(1)));
        assert_eq!(client.send(|room| room.len()), Ok(0));
        assert_eq!(client.recv(|data| data.len()), Ok(Received::End));
        assert_eq!(client.send(|room| room.len()), Err(Reset));
        assert!(client.is_closed());
    }

    #[test]
    fn a_full_pipe_has_no_room() {
        let mut pair = StreamPair::<8>::new(1, 1);
        for _ in 0..8 {
            assert_eq!(write(&mut pair, StreamSide::Client, b"x"), 1);
        }
        assert_eq!(write(&mut pair, StreamSide::Client, b"x"), 0);
    }
}
