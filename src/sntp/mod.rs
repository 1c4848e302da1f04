//! The time of day over the network: the Simple Network Time Protocol, version 4 (RFC 4330), client and server.
//!
//! A machine without a clock chip asks a server what time it is, and then keeps the time by its monotonic clock:
//! [`Client`] makes the [`Wall`](crate::Wall) of a [`Now`](crate::Now) out of its [`Instant`](crate::Instant),
//! and learns how fast that clock runs. [`Server`] answers such clients with the time it is told.
//!
//! | byte | | RFC 4330, section 4 |
//! |---|---|---|
//! | 0 | leap indicator (2 bits), version (3), mode (3) | 3 asks, 4 answers |
//! | 1 | stratum | 0: no time but a four-letter code, 1 to 15: the server's distance from a clock |
//! | 2, 3 | poll interval, precision | exponents of 2, in seconds |
//! | 4 | root delay, root dispersion | 16.16 seconds each |
//! | 12 | reference identifier | or the four-letter code |
//! | 16 | reference, originate, receive and transmit timestamp | 32.32 seconds each |
//!
//! All numbers are big-endian. What follows the 48 bytes (extensions, a key and its digest) is not read, and
//! answers have none: there is no authentication, and whoever can see the requests can forge an answer.

mod client;
mod message;
mod server;

pub use client::{Client, ClientCounters, Config, Event, Kiss, NotTaken};
pub use message::Timestamp;
pub use server::{NotAnswered, STRATUM, Server, ServerCounters};

/// The default port, UDP.
pub const PORT: u16 = 123;

/// The length of a request and of an answer, in bytes.
pub const MESSAGE_LEN: usize = 48;
