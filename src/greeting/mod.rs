//! The greeting: say anything, and `hi` comes back. Over datagrams and over streams, server and client.
//!
//! | transport | request | answer |
//! |---|---|---|
//! | UDP | any datagram, an empty one too | `hi` |
//! | TCP | any bytes, at most [`MAX_GREETING`]; the end of the stream counts as a greeting too | `hi`, then the server closes |
//!
//! There is no standard for it: the bytes are those of the first two programs of many a socket tutorial.

mod datagram;
mod stream_client;
mod stream_server;

pub use crate::connections::{Config, Refusal};
pub use datagram::{DatagramServer, NotGreeted};
pub use stream_client::{StreamClient, StreamOutcome};
pub use stream_server::{Counters, StreamServer};

/// The default port, TCP and UDP.
pub const PORT: u16 = 8898;

/// The answer to every greeting.
pub const ANSWER: &[u8] = b"hi";

/// The longest greeting over a stream, in bytes. What comes after is thrown away.
pub const MAX_GREETING: usize = 1024;

/// The client over datagrams: its greeting, and the answer it can hold, have at most 1,024 bytes.
pub type DatagramClient = crate::Exchange<MAX_GREETING, 1024>;
