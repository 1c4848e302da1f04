//! The clients.

pub mod greetings;
pub mod requests;
