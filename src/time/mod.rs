//! The time service: ask with a strftime format, and the time comes back, written that way.
//!
//! | transport | request | answer |
//! |---|---|---|
//! | UDP | a format in UTF-8, at most [`MAX_FORMAT`] bytes; an empty one means [`DEFAULT_FORMAT`] | the local time in that format, at most [`MAX_ANSWER`] bytes, nor 8 times the request (but 64 bytes are always allowed) |
//!
//! There is no standard for it: port, default format and the plain bytes are those of the time server of many a
//! socket tutorial. What a format means is ISO C's (C17, section 7.27.3.5) and POSIX's (POSIX.1-2017,
//! `strftime`) with the extensions of the GNU C Library ("Formatting Calendar Time" in its manual): see
//! [`format`](fn@format).
//!
//! # What is not answered
//! A request over [`MAX_FORMAT`] bytes, invalid UTF-8, a format with a NUL character, and one whose answer
//! would be longer than allowed. There is no partial answer and no error on the wire: the sender's retries end,
//! and the server's [`Counters`] tell why. Nor is there an answer before the machine knows the date.
//!
//! An answer can be empty (`%Z` in a zone without a name). It is sent, as Python would: a datagram without
//! payload is legal (RFC 768).

mod cache;
mod calendar;
mod format;
mod server;

pub use format::{FormatError, format};
pub use server::{CachingServer, Counters, NotAnswered, Server};

/// The default port (UDP).
pub const PORT: u16 = 9000;

/// What an empty request means: `2026-11-22 16:03:59`.
pub const DEFAULT_FORMAT: &str = "%Y-%m-%d %X";

/// The longest request, in bytes.
pub const MAX_FORMAT: usize = 256;

/// The longest answer, in bytes.
pub const MAX_ANSWER: usize = 512;

/// The client: sends one format of up to [`MAX_FORMAT`] bytes until an answer of up to [`MAX_ANSWER`] bytes
/// comes. Takes 768 and some 200 bytes. The answer is the server's: not safe to show on a terminal.
pub type Client = crate::Exchange<MAX_FORMAT, MAX_ANSWER>;
