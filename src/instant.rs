//! Time as the core is told it: a monotonic [`Instant`] for timeouts and, where the machine knows it,
//! the [`Wall`] clock's time for people.

use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// A point on the driver's monotonic clock, in microseconds since a moment the driver chose (its start, as a rule).
///
/// It never goes back, knows nothing of dates, and takes 8 bytes. Arithmetic saturates: a deadline too far
/// away to be told is the farthest one that can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The driver's starting point.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The instant `micros` microseconds after the driver's starting point.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The instant `millis` milliseconds after the driver's starting point.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The instant `secs` seconds after the driver's starting point.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the driver's starting point.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, and zero where `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

/// `duration` in microseconds, or the most that 64 bits hold. [`Duration::as_micros`] takes 128 bits for it,
/// which are dear where registers have 32.
#[inline(never)]
pub(crate) fn micros(duration: Duration) -> u64 {
    let micros = duration.as_secs().saturating_mul(1_000_000);
    micros.saturating_add(duration.subsec_micros().into())
}

/// The smaller of two deadlines, where `None` is "never".
///
/// A driver folds every deadline it was given with this and sleeps until the result.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What time it is, as the driver tells every service on every call.
///
/// The two clocks are apart because they answer different questions, and because a microcontroller has the
/// first from its first instruction and the second only once somebody has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For timeouts: it never goes back.
    pub monotonic: Instant,
    /// For people: `None` until the machine knows it.
    pub wall: Option<Wall>,
}

impl Now {
    /// A machine that does not know the date (yet).
    pub const fn monotonic(monotonic: Instant) -> Self {
        Self {
            monotonic,
            wall: None,
        }
    }
}

/// A wall clock's time, and the zone in which people there read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    /// Seconds since 1970-01-01 00:00:00 UTC, leap seconds not counted (POSIX time).
    pub unix_seconds: i64,
    /// Nanoseconds into that second, below 1,000,000,000.
    pub nanoseconds: u32,
    /// The zone in force at that moment.
    pub zone: Zone,
}

impl Wall {
    /// `unix_seconds` in UTC.
    pub const fn utc(unix_seconds: i64) -> Self {
        Self {
            unix_seconds,
            nanoseconds: 0,
            zone: Zone::UTC,
        }
    }
}

/// A time zone as it is at one moment: how far from UTC, and what people call it. 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    offset_seconds: i32,
    /// The name, zeros, and last the name's length: 8 bytes in one, which are compared in one go.
    name: [u8; Self::MAX_NAME + 1],
}

impl Zone {
    /// The longest abbreviation, in bytes. The longest in use has 6 (POSIX asks for at least that).
    pub const MAX_NAME: usize = 7;

    /// Coordinated Universal Time.
    pub const UTC: Self = Self {
        offset_seconds: 0,
        name: *b"UTC\0\0\0\0\x03",
    };

    /// A zone `offset_seconds` east of UTC that people call `name` (`CET`, `+0545`).
    ///
    /// `None` if the offset is a day or more, or the name is longer than [`Zone::MAX_NAME`] bytes.
    pub fn new(offset_seconds: i32, name: &str) -> Option<Self> {
        if offset_seconds.unsigned_abs() >= 86_400 || name.len() > Self::MAX_NAME {
            return None;
        }
        let mut bytes = [0; Self::MAX_NAME + 1];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[Self::MAX_NAME] = name.len() as u8;
        Some(Self {
            offset_seconds,
            name: bytes,
        })
    }

    /// Seconds east of UTC, less than a day either way.
    pub const fn offset_seconds(&self) -> i32 {
        self.offset_seconds
    }

    /// The abbreviation that `%Z` writes.
    pub fn name(&self) -> &str {
        // Made from a `&str` of this very length, so it is UTF-8; the fallback keeps the core free of panics.
        let (bytes, len) = self.name_and_len();
        core::str::from_utf8(&bytes[..len]).unwrap_or("")
    }

    /// The bytes of [`name`](Self::name) and some more, and how many they are: at most [`Zone::MAX_NAME`].
    pub(crate) const fn name_and_len(&self) -> (&[u8; Self::MAX_NAME + 1], usize) {
        (&self.name, self.name[Self::MAX_NAME] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(
            Instant::FAR_FUTURE + Duration::from_secs(1),
            Instant::FAR_FUTURE
        );
        assert_eq!(Instant::ZERO + Duration::MAX, Instant::FAR_FUTURE);
        assert_eq!(
            Instant::from_secs(1) - Duration::from_secs(2),
            Instant::ZERO
        );
        assert_eq!(
            Instant::ZERO.saturating_since(Instant::from_secs(1)),
            Duration::ZERO
        );
    }

    #[test]
    fn earliest_treats_none_as_never() {
        let (one, two) = (Some(Instant::from_secs(1)), Some(Instant::from_secs(2)));
        assert_eq!(earliest(one, two), one);
        assert_eq!(earliest(None, two), two);
        assert_eq!(earliest(one, None), one);
        assert_eq!(earliest(None, None), None);
    }

    #[test]
    fn a_zone_refuses_what_it_cannot_hold() {
        assert_eq!(
            Zone::new(20_700, "+0545").map(|z| z.offset_seconds()),
            Some(20_700)
        );
        assert_eq!(Zone::new(0, "").as_ref().map(Zone::name), Some(""));
        assert_eq!(Zone::new(86_400, "X"), None);
        assert_eq!(Zone::new(0, "TOOLONGX"), None);
        assert_eq!(Zone::UTC.name(), "UTC");
    }
}
