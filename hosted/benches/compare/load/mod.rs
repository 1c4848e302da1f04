//! The clients.

pub mod bulk;
pub mod greetings;
pub mod idle;
pub mod latency;
pub mod requests;
