//! Small talk for small machines: a greeting over TCP and UDP, a chat and a time service, each written once,
//! without a heap, an operating system or a socket, and run on whatever moves its bytes: [smoltcp] on a
//! microcontroller or behind a TAP device, the sockets of an operating system, or a test that owns the clock.
//!
//! # Layers
//!
//! ```text
//!   your program             a person's text, a display, counters        inherent methods: send_message, poll_event
//!      |
//!   services                 greeting   chat   time                      DatagramService, StreamService
//!      |
//!   pumps                    pump   pump_stream   pump_timeout           the one place where the two sides meet
//!      |
//!   transports               one socket or connection each               DatagramTransport, StreamTransport
//!      |
//!   stack                    smoltcp, the host's sockets, a simulated network
//! ```
//!
//! - A **service** is a protocol's rules as a state machine. It never sees a socket, a clock, a thread or an
//!   allocator: it is told the time, is handed bytes, and writes into buffers that the caller owns. See
//!   [`greeting`], [`chat`] and [`time`]; each has a server and a client. [`discard`] and [`chargen`] are servers
//!   for bulk data. [`Exchange`] is the client of all that ask one question over datagrams.
//! - A **transport** is a socket that never blocks. The `smoltcp` feature brings transports over smoltcp's
//!   sockets; on an operating system they are a page of code (see the `std_net` example).
//! - A **pump** moves bytes between the two, and knows nothing of either.
//! - The **driver** is your loop: it owns the clock, the sockets and the buffers, and sleeps.
//!
//! # The driving contract
//!
//! One mutation, then drain. After each `handle_...` call a service may have something to say, so it is polled
//! until it has not; only then comes the next call. The pumps keep to that order, so a driver need only do
//! three things, over and over: take the time, pump, and sleep until the earliest deadline or until something
//! arrives.
//!
//! ```
//! use smoltalk::{DatagramService, DatagramTransport, Instant, Now, earliest, greeting, pump, time};
//!
//! /// What the machine has to offer: two clocks, and a way to wait.
//! trait Board {
//!     fn now(&self) -> Now;
//!     /// Returns when a socket has something, or at the deadline, or earlier. `None`: no deadline.
//!     fn sleep(&mut self, until: Option<Instant>);
//! }
//!
//! fn serve<T: DatagramTransport>(
//!     board: &mut impl Board,
//!     greeting_socket: &mut T,
//!     time_socket: &mut T,
//! ) -> Result<(), T::Error> {
//!     let mut greeting = greeting::DatagramServer::new();
//!     let mut time = time::Server::new();
//!     // As long as the longest datagram that any of them writes.
//!     let mut scratch = [0; time::Server::MAX_DATAGRAM];
//!     loop {
//!         // One reading of the clocks for the whole turn.
//!         let now = board.now();
//!         // At most 32 datagrams each, so that neither keeps the other waiting.
//!         let first = pump(&mut greeting, greeting_socket, now, &mut scratch, 32)?;
//!         let second = pump(&mut time, time_socket, now, &mut scratch, 32)?;
//!         // `more`: the budget ended before the datagrams did, so there is no time to sleep.
//!         if !first.more && !second.more {
//!             board.sleep(earliest(first.deadline, second.deadline));
//!         }
//!     }
//! }
//! ```
//!
//! A service does not need a pump to be driven, and a test does without one:
//!
//! ```
//! use smoltalk::{DatagramService, Instant, Now, Transmit, greeting};
//!
//! let mut server = greeting::DatagramServer::new();
//! let now = Now::monotonic(Instant::ZERO);
//! let client = "192.0.2.7:40000".parse()?;
//!
//! server.handle_datagram(now, client, b"hello")?;
//! let mut buf = [0; greeting::DatagramServer::MAX_DATAGRAM];
//! assert_eq!(server.poll_transmit(now, &mut buf), Some(Transmit { to: client, len: 2 }));
//! assert_eq!(&buf, b"hi");
//! assert_eq!(server.poll_transmit(now, &mut buf), None);
//! assert_eq!(server.poll_timeout(), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Streams are driven alike, with one [`ConnId`] for each connection: [`pump_stream`] for every connection that
//! has data, room or an end to tell of, [`pump_timeout`] once a turn, and [`pump_stream`] again for each
//! connection that [`StreamService::poll_ready`] names.
//!
//! # Time
//!
//! The driver makes the time. [`Instant`] is monotonic and counts microseconds; the wall clock's time is beside
//! it in [`Now`], as an `Option`, because a microcontroller may not have it (yet). A service that needs it and
//! does not get it answers nothing rather than something wrong.
//!
//! # What peers send
//!
//! No datagram, segment or connection from a peer can panic, block, or make anything grow. A datagram that is
//! not accepted is counted and dropped; it never ends a loop. Every table has a fixed capacity, a const generic
//! with its cost in bytes documented; when one is full, the call returns an error or the oldest gives way and
//! is counted. Text from a peer goes through [`text::Shown`] before a person sees it.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `ipv4`, `ipv6` (default) | the IP versions of the `smoltcp` feature; at least one must be on |
//! | `smoltcp` | [`smoltcp`](https://docs.rs/smoltcp)'s sockets as transports, and the loop that polls them. No heap either |
//! | `dhcp` | besides `smoltcp`: an IPv4 address from a DHCP server. Turns `ipv4` on |
//! | `slaac` | besides `smoltcp`: IPv6 addresses made of what routers say. Turns `ipv6` on |
//! | `sim` | a network under virtual time that loses, delays and repeats what you tell it to, from a seed |
//!
//! Without features the crate is the services and the contract, for a stack of your own.
//!
//! [smoltcp]: https://docs.rs/smoltcp
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

/// The Rust code in these pages is compiled and run with the documentation's.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/driving.md")]
    mod driving {}
    #[doc = include_str!("../docs/tutorial.md")]
    mod tutorial {}
}

pub mod chargen;
pub mod chat;
mod connections;
pub mod discard;
mod exchange;
pub mod greeting;
mod instant;
mod ports;
mod random;
mod service;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "smoltcp")]
pub mod smoltcp;
pub mod sntp;
pub mod text;
pub mod time;
mod transport;

pub use exchange::{Exchange, ExchangeError, Outcome, Retry};
pub use instant::{Duration, Instant, Now, Wall, Zone, earliest};
pub use ports::{InUse, Ports, Protocol};
pub use service::{
    ConnId, DatagramService, Flow, StreamService, Transmit, Unreachable, may_answer,
};
pub use transport::{
    Arrival, DatagramTransport, Pumped, Received, Sent, StreamPumped, StreamTransport, pump,
    pump_stream, pump_timeout,
};
