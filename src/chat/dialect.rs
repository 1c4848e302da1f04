//! How messages are written into datagrams: the only place that knows.

use super::{MAX_TEXT, Reject};

/// The form of a message on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The tutorial's: the text in UTF-8 is the datagram. No receipts.
    #[default]
    Plain,
}

impl Dialect {
    /// The longest datagram in any dialect, in bytes.
    pub(super) const MAX_DATAGRAM: usize = MAX_TEXT;

    /// The text in a datagram.
    pub(super) fn decode(self, datagram: &[u8]) -> Result<&str, Reject> {
        match self {
            Self::Plain => match datagram.len() {
                0 => Err(Reject::Empty),
                1..=MAX_TEXT => core::str::from_utf8(datagram).map_err(|_| Reject::NotUtf8),
                _ => Err(Reject::TooLong),
            },
        }
    }

    /// Writes the datagram for `text` into `buf` and returns its length; `None` if `buf` is too short.
    pub(super) fn encode(self, text: &str, buf: &mut [u8]) -> Option<usize> {
        match self {
            Self::Plain => {
                buf.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
                Some(text.len())
            }
        }
    }
}
