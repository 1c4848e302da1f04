//! What passed between two people, in numbers.

use crate::Instant;

/// The state of the conversation with one contact. The messages themselves are the program's to keep.
/// 72 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Messages given to the transport.
    pub sent: u64,
    /// Of those, messages of which the network said that they did not arrive.
    pub undelivered: u64,
    /// Messages that came.
    pub received: u64,
    /// Of those, messages since the last [`Chat::mark_read`](super::Chat::mark_read).
    pub unread: u64,
    /// When the last message came.
    pub last_heard: Option<Instant>,
    /// When the last message to the contact was written.
    pub last_written: Option<Instant>,
    /// The place of the last message sent to the contact among all that were sent: 0 if there is none.
    pub(super) last_turn: u64,
}
