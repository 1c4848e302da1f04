//! A seeded network under virtual time.
