//! Small talk for small machines.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod chat;
mod exchange;
pub mod greeting;
mod instant;
mod ports;
#[cfg(any(feature = "sim", feature = "smoltcp"))]
mod random;
mod service;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "smoltcp")]
pub mod smoltcp;
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
