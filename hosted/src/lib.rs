//! smoltalk on a machine with an operating system: the services of the `smoltalk` crate on host sockets and, by
//! way of smoltcp, on a TAP device.
//!
//! - [`Network`](network::Network): datagrams and streams on either stack, and the one event loop;
//! - [`Clock`](clock::Clock): the two clocks that the core wants to be told;
//! - [`TapDevice`](tap::TapDevice): a TAP device for smoltcp;
//! - [`Error`](error::Error): what a person reads and an exit code tells.

pub mod clock;
pub mod error;
pub mod lab;
pub mod network;
pub mod owner;
pub mod tap;
