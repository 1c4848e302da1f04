//! The chat.

/// The default port (UDP).
pub const PORT: u16 = 8081;
