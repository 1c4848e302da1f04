//! The protocol's message and its timestamps (RFC 4330, sections 3 and 4).

use super::MESSAGE_LEN;
use crate::{Duration, Wall};

/// A point in time in units of 2⁻³² seconds. 8 bytes.
///
/// It counts from 1900 and wraps every 136 years. Which turn is meant is told by the first bit (RFC 4330,
/// section 3): set from 1968-01-20 03:14:08 to 2036-02-07 06:28:15 UTC, and clear from then to 2104.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp(u64);

/// Seconds from 1900-01-01 to 1970-01-01.
const UNIX_EPOCH: i64 = 2_208_988_800;

impl Timestamp {
    /// "Not known."
    pub const UNKNOWN: Self = Self(0);

    /// The timestamp with these 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its 64 bits: seconds, then fractions.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The timestamp of `wall`, to a nanosecond. Years before 1968 and after 2103 come out as others.
    pub const fn from_wall(wall: &Wall) -> Self {
        let seconds = wall.unix_seconds.wrapping_add(UNIX_EPOCH) as u64;
        let fraction = ((wall.nanoseconds as u64) << 32) / 1_000_000_000;
        Self((seconds << 32) | fraction)
    }

    /// Its time in UTC, between 1968 and 2104.
    pub const fn to_wall(self) -> Wall {
        let era = if self.0 >> 63 == 0 { 1_i64 << 32 } else { 0 };
        let mut wall = Wall::utc((self.0 >> 32) as i64 + era - UNIX_EPOCH);
        wall.nanoseconds = (((self.0 & 0xffff_ffff) * 1_000_000_000) >> 32) as u32;
        wall
    }

    /// The timestamp `micros` microseconds later, or earlier if that is negative.
    pub const fn plus_micros(self, micros: i64) -> Self {
        let seconds = micros.div_euclid(1_000_000);
        let fraction = (micros.rem_euclid(1_000_000) << 32) / 1_000_000;
        Self(self.0.wrapping_add(((seconds << 32) + fraction) as u64))
    }

    /// Microseconds from `earlier` to `self`, rounded, the short way round: negative if `earlier` is in fact later.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        let difference = self.0.wrapping_sub(earlier.0) as i64;
        let fraction = (difference & 0xffff_ffff) * 1_000_000;
        (difference >> 32) * 1_000_000 + ((fraction + (1 << 31)) >> 32)
    }
}

/// A duration in units of 2⁻¹⁶ seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Short(pub(super) u32);

impl Short {
    /// The limit for the delay and the dispersion of a server that knows the time (RFC 4330, section 5).
    pub(super) const ONE_SECOND: Duration = Duration::from_secs(1);

    pub(super) const fn duration(self) -> Duration {
        Duration::from_micros((self.0 as u64 * 1_000_000) >> 16)
    }
}

/// Who is speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u8);

impl Mode {
    pub(super) const CLIENT: Self = Self(3);
    pub(super) const SERVER: Self = Self(4);
}

/// The version that requests are made in.
pub(super) const VERSION: u8 = 4;

/// The leap indicator of a server that does not know the time.
pub(super) const LEAP_UNKNOWN: u8 = 3;

/// A message, as it is on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) leap: u8,
    pub(super) version: u8,
    pub(super) mode: u8,
    pub(super) stratum: u8,
    pub(super) poll: u8,
    pub(super) precision: i8,
    pub(super) root_delay: Short,
    pub(super) root_dispersion: Short,
    pub(super) reference: [u8; 4],
    pub(super) reference_time: Timestamp,
    pub(super) originate: Timestamp,
    pub(super) receive: Timestamp,
    pub(super) transmit: Timestamp,
}

impl Message {
    /// The message at the beginning of `payload`. `None` if that is too short for one.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<MESSAGE_LEN>()?;
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let timestamp = |at: usize| Timestamp(u64::from(word(at)) << 32 | u64::from(word(at + 4)));
        Some(Self {
            leap: bytes[0] >> 6,
            version: bytes[0] >> 3 & 7,
            mode: bytes[0] & 7,
            stratum: bytes[1],
            poll: bytes[2],
            precision: bytes[3] as i8,
            root_delay: Short(word(4)),
            root_dispersion: Short(word(8)),
            reference: word(12).to_be_bytes(),
            reference_time: timestamp(16),
            originate: timestamp(24),
            receive: timestamp(32),
            transmit: timestamp(40),
        })
    }

    /// Writes the message to the beginning of `buf`. `None` if there is no room.
    pub(super) fn emit(&self, buf: &mut [u8]) -> Option<usize> {
        let bytes = buf.first_chunk_mut::<MESSAGE_LEN>()?;
        let head = [
            self.leap << 6 | self.version << 3 | self.mode,
            self.stratum,
            self.poll,
            self.precision as u8,
        ];
        let words = [
            head,
            self.root_delay.0.to_be_bytes(),
            self.root_dispersion.0.to_be_bytes(),
            self.reference,
        ];
        let timestamps = [
            self.reference_time,
            self.originate,
            self.receive,
            self.transmit,
        ];
        let (front, back) = bytes.split_at_mut(16);
        for (room, word) in front.chunks_exact_mut(4).zip(words) {
            room.copy_from_slice(&word);
        }
        for (room, timestamp) in back.chunks_exact_mut(8).zip(timestamps) {
            room.copy_from_slice(&timestamp.0.to_be_bytes());
        }
        Some(MESSAGE_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_turn_of_2036_is_a_second_like_any_other() {
        // RFC 4330, section 3: the first era ends at 2036-02-07 06:28:16 UTC.
        let turn = 2_085_978_496;
        for (unix, bits) in [
            (-61_505_152, 1 << 63),
            (0, 2_208_988_800 << 32),
            (turn - 1, 0xffff_ffff << 32),
            (turn, 0),
            (turn + 1, 1 << 32),
            (4_233_462_143, 0x7fff_ffff << 32),
        ] {
            assert_eq!(Timestamp(bits).to_wall(), Wall::utc(unix));
            assert_eq!(Timestamp::from_wall(&Wall::utc(unix)), Timestamp(bits));
        }
        let before = Timestamp::from_wall(&Wall::utc(turn - 1));
        let after = Timestamp::from_wall(&Wall::utc(turn + 1));
        assert_eq!(after.micros_since(before), 2_000_000);
        assert_eq!(before.micros_since(after), -2_000_000);
        assert_eq!(before.plus_micros(2_000_000), after);
        assert_eq!(after.plus_micros(-2_000_000), before);
    }

    #[test]
    fn a_request_is_these_bytes() {
        let mut buf = [0xee; MESSAGE_LEN + 1];
        let request = Message {
            version: VERSION,
            mode: Mode::CLIENT.0,
            transmit: Timestamp(0x0102_0304_0506_0708),
            ..Message::default()
        };
        assert_eq!(request.emit(&mut buf), Some(MESSAGE_LEN));
        assert_eq!(buf[0], 0x23);
        assert_eq!(buf[1..40], [0; 39]);
        assert_eq!(buf[40..], [1, 2, 3, 4, 5, 6, 7, 8, 0xee]);
        assert_eq!(Message::parse(&buf), Some(request));
        assert_eq!(Message::parse(&buf[..47]), None);
        assert_eq!(request.emit(&mut [0; 47]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in proptest::array::uniform32(any::<u8>()), rest in proptest::array::uniform16(any::<u8>())) {
            let mut wire = [0; MESSAGE_LEN];
            wire[..32].copy_from_slice(&bytes);
            wire[32..].copy_from_slice(&rest);
            let mut again = [0; MESSAGE_LEN];
            Message::parse(&wire).unwrap().emit(&mut again);
            prop_assert_eq!(wire, again);
        }

        #[test]
        fn times_survive_the_way_there_and_back(unix in -61_505_152_i64..4_233_462_144, nanoseconds in 0..1_000_000_000_u32) {
            let wall = Wall { nanoseconds, ..Wall::utc(unix) };
            let back = Timestamp::from_wall(&wall).to_wall();
            prop_assert_eq!(back.unix_seconds, unix);
            prop_assert!(nanoseconds - back.nanoseconds <= 1);
        }

        #[test]
        fn sums_and_differences_agree(bits in any::<u64>(), micros in -1_000_000_000_000_000_i64..1_000_000_000_000_000) {
            let (start, end) = (Timestamp(bits), Timestamp(bits).plus_micros(micros));
            prop_assert_eq!(end.micros_since(start), micros);
        }
    }
}
