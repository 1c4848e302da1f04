//! The reply of a station that nobody attends.

use core::net::SocketAddr;

use heapless::{HistoryBuf, String};

use crate::{Duration, Instant, Now, may_answer};

/// The longest automatic reply, in bytes of UTF-8. Its length is the most that a forged sender can gain from
/// having a station write to somebody else.
pub const MAX_AUTO_REPLY: usize = 64;

/// The most automatic replies a second, to all peers together; as many may go out at once after a second
/// without any.
pub const AUTO_REPLIES_PER_SECOND: u32 = 32;

/// The time in which one more reply is earned.
const EARNED_IN: Duration = Duration::from_micros(1_000_000 / AUTO_REPLIES_PER_SECOND as u64);

/// How many peers are remembered for their cooldown, at 40 bytes each: a second's worth.
const REMEMBERED: usize = AUTO_REPLIES_PER_SECOND as usize;

/// Decides who is answered. 1,424 bytes on a 64-bit machine.
#[derive(Clone, Debug)]
pub(super) struct AutoReply {
    text: String<MAX_AUTO_REPLY>,
    cooldown: Duration,
    /// The last peers that were answered, and when; the least recent gives way.
    answered: HistoryBuf<(SocketAddr, Instant), REMEMBERED>,
    /// When all replies of a second will have been earned again: a token bucket in a single number (the
    /// "virtual scheduling" of ITU-T I.371).
    whole_at: Instant,
    /// The peer to be answered next.
    to: Option<SocketAddr>,
}

impl AutoReply {
    /// Replies with `text`; not at all if it is empty, since an empty message is none.
    pub(super) fn new(text: String<MAX_AUTO_REPLY>, cooldown: Duration) -> Self {
        Self {
            text,
            cooldown,
            answered: HistoryBuf::new(),
            whole_at: Instant::ZERO,
            to: None,
        }
    }

    /// Whether there is anything to reply with.
    pub(super) fn is_on(&self) -> bool {
        !self.text.is_empty()
    }

    /// Takes note of a message; a reply may be due now. Returns whether one is.
    pub(super) fn hear(&mut self, now: Now, from: SocketAddr, text: &str) -> bool {
        let now = now.monotonic;
        let is_echo = text == self.text;
        if self.to.is_some() || is_echo || !may_answer(from) || self.is_cooling(now, from) {
            return false;
        }
        let earned_by = self.whole_at.max(now) + EARNED_IN;
        if earned_by > now + EARNED_IN * AUTO_REPLIES_PER_SECOND {
            return false;
        }
        self.whole_at = earned_by;
        self.answered.write((from, now));
        self.to = Some(from);
        true
    }

    fn is_cooling(&self, now: Instant, peer: SocketAddr) -> bool {
        self.answered
            .iter()
            .any(|&(answered, at)| answered == peer && now < at + self.cooldown)
    }

    /// The reply that is due, for the peer that [`sent`](Self::sent) forgets.
    pub(super) fn due(&self) -> Option<(SocketAddr, &str)> {
        self.to.map(|to| (to, self.text.as_str()))
    }

    /// The reply that was due is sent.
    pub(super) fn sent(&mut self) {
        self.to = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn peer(number: u32) -> SocketAddr {
        (core::net::Ipv4Addr::from(0xc612_0000 | number), 8081).into()
    }

    fn away() -> AutoReply {
        AutoReply::new("away".try_into().unwrap(), Duration::from_secs(5))
    }

    /// Whether a message of that peer's at that time is answered.
    fn answers(reply: &mut AutoReply, micros: u64, from: SocketAddr) -> bool {
        let is_due = reply.hear(at(micros), from, "hello");
        assert_eq!(reply.due(), is_due.then_some((from, "away")));
        reply.sent();
        is_due
    }

    #[test]
    fn a_peer_is_answered_once_per_cooldown_to_the_microsecond() {
        let mut reply = away();
        assert!(answers(&mut reply, 1_000, peer(1)));
        assert!(!answers(&mut reply, 1_000, peer(1)));
        // Others have their own cooldown; another port is another peer.
        assert!(answers(&mut reply, 2_000, peer(2)));
        assert!(answers(&mut reply, 2_000, (peer(1).ip(), 8082).into()));
        assert!(!answers(&mut reply, 5_000_999, peer(1)));
        assert!(answers(&mut reply, 5_001_000, peer(1)));
        // Messages that were not answered do not start it again; the answer did.
        assert!(!answers(&mut reply, 10_000_999, peer(1)));
        assert!(answers(&mut reply, 10_001_000, peer(1)));
    }

    #[test]
    fn all_peers_together_have_a_budget() {
        let mut reply = away();
        let answered = |reply: &mut AutoReply, micros, peers: core::ops::Range<u32>| {
            peers.filter(|&n| answers(reply, micros, peer(n))).count()
        };
        let start = 60_000_000;
        assert_eq!(answered(&mut reply, start, 0..1_000), 32);
        // The next is earned a 32nd of a second later, not a microsecond before.
        assert_eq!(answered(&mut reply, start + 31_249, 1_000..2_000), 0);
        assert_eq!(answered(&mut reply, start + 31_250, 2_000..3_000), 1);
        // A flood for ten seconds gets ten seconds' worth.
        let flood: usize = (0..10_000)
            .map(|ms| {
                let first = 10_000 + ms as u32 * 4;
                answered(&mut reply, start + 31_250 + ms * 1_000, first..first + 4)
            })
            .sum();
        assert_eq!(flood, 319);
        // A long silence earns no more than one second's worth.
        assert_eq!(answered(&mut reply, 600_000_000, 90_000..91_000), 32);
    }

    #[test]
    fn when_too_many_were_answered_the_least_recent_is_forgotten() {
        let mut reply = away();
        assert!(answers(&mut reply, 0, peer(0)));
        for n in 1..32 {
            assert!(answers(&mut reply, u64::from(n) * 100_000, peer(n)));
        }
        assert!(!answers(&mut reply, 3_200_000, peer(0)));
        assert!(answers(&mut reply, 3_200_000, peer(32)));
        assert!(answers(&mut reply, 3_300_000, peer(0)));
        // The second least recent went with that; the third is still remembered.
        assert!(!answers(&mut reply, 3_400_000, peer(2)));
        assert!(answers(&mut reply, 3_400_000, peer(1)));
    }

    #[test]
    fn some_are_never_answered() {
        let mut reply = away();
        assert!(!reply.hear(at(0), peer(1), "away"));
        for from in [
            "192.0.2.1:0",
            "192.0.2.1:7",
            "192.0.2.1:9000",
            "224.0.0.1:8081",
        ] {
            assert!(!answers(&mut reply, 0, from.parse().unwrap()), "{from}");
        }
        // None of that has used up anything.
        assert!(answers(&mut reply, 0, peer(1)));
        assert_eq!(
            (0..99)
                .filter(|&n| answers(&mut reply, 0, peer(100 + n)))
                .count(),
            31
        );
    }

    #[test]
    fn a_reply_that_was_not_taken_out_yet_is_not_replaced() {
        let mut reply = away();
        assert!(reply.hear(at(0), peer(1), "hello"));
        assert!(!reply.hear(at(0), peer(2), "hello"));
        assert_eq!(reply.due(), Some((peer(1), "away")));
        reply.sent();
        assert!(answers(&mut reply, 0, peer(2)));
    }

    #[test]
    fn a_cooldown_may_be_nothing_or_for_ever() {
        let mut never = AutoReply::new("away".try_into().unwrap(), Duration::ZERO);
        assert!(answers(&mut never, 0, peer(1)) && answers(&mut never, 0, peer(1)));
        let mut ever = AutoReply::new("away".try_into().unwrap(), Duration::MAX);
        assert!(answers(&mut ever, 0, peer(1)));
        assert!(!answers(&mut ever, u64::MAX - 1, peer(1)));
    }
}
