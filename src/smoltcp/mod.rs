//! The services on the [smoltcp](https://docs.rs/smoltcp) TCP/IP stack: transports over its sockets, a pool of
//! listeners, and the loop that moves one packet at a time.
//!
//! A [`Stack`] owns the device, smoltcp's interface and its sockets. [`Stack::turn`] does all the work:
//!
//! ```text
//! serve ── send ──┐         serve: your closure, which pumps every service
//!   ┌─────────────┘         send:  what the sockets hold goes to the device
//!   └─> take in one frame ── serve ── send ──> ... until there are no more frames, or the budget is used up
//! ```
//!
//! The stack takes in one frame and then lets the services answer it, because a burst would overrun the small
//! buffers of its sockets otherwise, and smoltcp drops without a word what they cannot hold.
//!
//! Memory comes from the caller and is never given back to anybody else: [`SocketMemory`] for the sockets,
//! [`UdpBuffers`] and [`TcpBuffers`] for what the sockets hold. See `examples/loopback.rs` for the smallest
//! complete server.
//!
//! smoltcp is configured at compile time, by features or by environment variables (`SMOLTCP_…`; see its
//! documentation): this crate asks for 8 interface addresses and leaves the rest to you. The neighbour cache
//! (8 by default) is worth raising on a machine that many others on the same link talk to.

mod address;
mod autoconfiguration;
mod dial;
mod link;
mod listener;
#[cfg(feature = "ipv6")]
mod ndisc;
mod news;
#[cfg(feature = "slaac")]
mod slaac;
mod stack;
mod table;
mod tcp;
mod udp;

pub use autoconfiguration::{AddressEvent, Lease};
pub use dial::{ConnectError, Dial};
pub use listener::{Listener, ListenerCounters, StreamsPumped};
pub use stack::{BindError, ConfigError, Sockets, Stack, StackConfig, Turn};
pub use table::{SocketEntry, SocketMemory, SocketSlices};
pub use tcp::{Gone, KEEP_ALIVE, TIMEOUT, TcpBuffers, TcpTransport};
pub use udp::{UdpBuffers, UdpCounters, UdpSocket, UdpTransport};

/// Room for one socket, a smoltcp type: 488 bytes on a 64-bit machine, 336 on a 32-bit one with IPv4 alone.
pub use ::smoltcp::iface::SocketStorage;
