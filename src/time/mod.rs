//! The time service.

/// The service's default port (UDP).
pub const PORT: u16 = 9000;
