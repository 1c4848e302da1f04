//! A seeded network under virtual time.

pub mod script;
