//! What a bad network does to what it carries.

use crate::random::Rng;
use crate::{Duration, Instant};

/// How often a network loses, doubles and delays what it carries. The default is a perfect one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairments {
    /// How many of 1,000 are lost.
    pub loss: u16,
    /// How many of 1,000 arrive twice.
    pub duplication: u16,
    /// How many of 1,000 IP packets arrive with one bit turned over. In frames only: datagrams have a checksum.
    pub corruption: u16,
    /// The shortest and the longest time on the way, and any in between. What was sent earlier may so arrive
    /// later.
    pub delay: (Duration, Duration),
}

impl Impairments {
    /// `loss` and `duplication` of so many in 1,000 each, and between 0 and `most` on the way.
    pub const fn rough(loss: u16, duplication: u16, most: Duration) -> Self {
        Self {
            loss,
            duplication,
            corruption: 0,
            delay: (Duration::ZERO, most),
        }
    }

    /// When what is sent at `now` arrives: never, once or twice.
    pub(super) fn arrivals(
        &self,
        rng: &mut Rng,
        now: Instant,
    ) -> impl Iterator<Item = Instant> + use<> {
        // The same count of numbers whatever happens, so that one rate can be changed and the rest stay.
        let (lost, doubled) = (happens(rng, self.loss), happens(rng, self.duplication));
        let copies = if lost { 0 } else { 1 + usize::from(doubled) };
        let arrivals = [self.arrival(rng, now), self.arrival(rng, now)];
        arrivals.into_iter().take(copies)
    }

    fn arrival(&self, rng: &mut Rng, now: Instant) -> Instant {
        let (least, most) = self.delay;
        let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
        now + least + Duration::from_micros(rng.below(spread.saturating_add(1)))
    }

    /// The bit to turn over in `bits` of them.
    #[cfg(feature = "smoltcp")]
    pub(super) fn corrupted_bit(&self, rng: &mut Rng, bits: usize) -> Option<usize> {
        let corrupted = happens(rng, self.corruption);
        let bit = rng.below(bits as u64);
        (corrupted && bits > 0).then_some(bit as usize)
    }
}

fn happens(rng: &mut Rng, per_mille: u16) -> bool {
    rng.below(1_000) < u64::from(per_mille)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_network_delivers_once_and_at_once() {
        let mut rng = Rng::new(1);
        let now = Instant::from_secs(3);
        for _ in 0..100 {
            assert!(Impairments::default().arrivals(&mut rng, now).eq([now]));
        }
    }

    #[test]
    fn rates_are_kept_and_delays_stay_within_their_bounds() {
        let mut rng = Rng::new(2);
        let rough = Impairments {
            delay: (Duration::from_millis(1), Duration::from_millis(5)),
            ..Impairments::rough(200, 50, Duration::ZERO)
        };
        let now = Instant::from_secs(3);
        let (mut lost, mut doubled) = (0, 0);
        for _ in 0..10_000 {
            let mut count = 0;
            for arrival in rough.arrivals(&mut rng, now) {
                count += 1;
                let delay = arrival.saturating_since(now);
                assert!(
                    delay >= rough.delay.0 && delay <= rough.delay.1,
                    "{delay:?}"
                );
            }
            lost += u32::from(count == 0);
            doubled += u32::from(count == 2);
        }
        assert!((1_800..2_200).contains(&lost), "{lost}");
        assert!((300..500).contains(&doubled), "{doubled}");
    }
}
