//! The time as every peer tells it.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Formats the time that it is now, as Rust programs do.
pub fn write_now(text: &mut String) {
    text.clear();
    // A String takes everything.
    let _ = write!(text, "{}", chrono::Utc::now().format("%Y-%m-%d %X"));
}

/// The same, formatted once a second.
#[derive(Debug, Default)]
pub struct Cached {
    second: u64,
    text: String,
}

impl Cached {
    #[allow(clippy::disallowed_methods, reason = "a peer reads the clock")]
    pub fn get(&mut self) -> &[u8] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = now.map_or(0, |now| now.as_secs());
        if second != self.second {
            self.second = second;
            write_now(&mut self.text);
        }
        self.text.as_bytes()
    }
}
