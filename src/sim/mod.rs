//! A seeded network under virtual time, for tests: of this crate and of yours.
//!
//! Time is what the test says it is, and all chance comes from a seed, so that a run that failed fails again. A
//! test moves its clock to the earliest of what the services want ([`Pumped::deadline`](crate::Pumped)) and what
//! the network brings (`next_arrival`), and no further: a stack's own deadline knows nothing of frames on the way.
//!
//! | | for |
//! |---|---|
//! | [`DatagramNet`] | datagram services: any number of hosts, without a stack |
//! | [`StreamPair`] | stream services: two ends, cut into pieces as chance will |
//! | `Ethernet` and `EthernetPort` (feature `smoltcp`) | whole stacks: frames between two devices |

mod datagrams;
#[cfg(feature = "smoltcp")]
mod ethernet;
mod impairments;
pub mod script;
mod streams;

pub use crate::random::Rng;
pub use datagrams::{DatagramCounters, DatagramHost, DatagramNet, HostId};
#[cfg(feature = "smoltcp")]
pub use ethernet::{Ethernet, EthernetCounters, EthernetPort, Full, MAX_FRAME};
pub use impairments::Impairments;
pub use streams::{Reset, StreamEnd, StreamPair, StreamSide};
