//! The chat: messages between named contacts, over datagrams.
//!
//! | | |
//! |---|---|
//! | transport | UDP, port [`PORT`] by default |
//! | datagram | the text itself in UTF-8, 1 to [`MAX_TEXT`] bytes, no header and no end mark |
//! | answer | whatever the other person writes; none is needed |
//!
//! There is no standard for it: the bytes are those of the chat in many a socket tutorial, and its programs
//! are understood. Datagrams carry no number, so the chat shows what comes as it comes: a message that the
//! network loses is lost without news (unless the network itself tells, see [`Event::Undelivered`]), one that
//! it doubles is shown twice, and two that overtake each other are shown in the order of their arrival.
//!
//! Who wrote is known by address and port alone, which anyone on the way can forge: the chat is for a network
//! whose people trust each other.
//!
//! ```
//! use smoltalk::chat::{Chat, Config, ContactBook, Event, Peer};
//! use smoltalk::{DatagramService, Instant, Now};
//!
//! let mut book = ContactBook::new();
//! let egg = book.add("egg", "192.0.2.7:8081".parse()?)?;
//! let mut chat = Chat::<4, 8>::new(book, Config::default());
//! let now = Now::monotonic(Instant::ZERO);
//!
//! // What a program does: write, and see what came.
//! chat.send_message(now, Peer::Contact(egg), "你好")?;
//! // What the pump does for it.
//! let mut buf = [0; Chat::<4, 8>::MAX_DATAGRAM];
//! let transmit = chat.poll_transmit(now, &mut buf).expect("one message waits");
//! assert_eq!(&buf[..transmit.len], "你好".as_bytes());
//! chat.handle_datagram(now, transmit.to, b"hello")?;
//!
//! while let Some(event) = chat.poll_event() {
//!     if let Event::Message { from: Peer::Contact(id), text, .. } = event {
//!         // Never without `Shown`: a peer's text may hold commands for the terminal.
//!         println!("{}: {}", chat.book().name(id), smoltalk::text::Shown(text.as_bytes()));
//!         chat.mark_read(id);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod auto_reply;
mod contacts;
mod conversation;
mod dialect;
mod service;

pub use auto_reply::{AUTO_REPLIES_PER_SECOND, MAX_AUTO_REPLY};
pub use contacts::{ContactBook, ContactError, ContactId, MAX_NAME};
pub use conversation::Conversation;
pub use dialect::Dialect;
pub use service::{Chat, Config, Counters, Event, Peer, Reject, SendError};

/// The default port (UDP).
pub const PORT: u16 = 8081;

/// The longest message, in bytes of UTF-8: 341 Chinese characters. It fits one datagram without
/// fragmentation on every network of IPv6 (RFC 8200, section 5: an MTU of at least 1,280 bytes).
pub const MAX_TEXT: usize = 1024;
