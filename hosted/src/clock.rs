//! The machine's clocks, as the core is told of them.

use std::cell::Cell;
use std::error::Error as StdError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use smoltalk::{Instant, Now, Wall, Zone};
use tz::{TimeZone, TimeZoneSettings};

/// A monotonic clock that starts with it, and the wall clock in the zone that the environment asks for.
///
/// The zone is that of `TZ` (a name, `:` and a file, or a POSIX rule), or of `/etc/localtime` where `TZ` is not
/// set. As glibc does, a `TZ` that means nothing is taken for UTC.
#[derive(Debug)]
pub struct Clock {
    start: StdInstant,
    /// The wall clock where it stands still.
    fixed: Option<i64>,
    zone: LocalZone,
    /// The second for which the zone was looked up last, and what came out.
    looked_up: Cell<Option<(i64, Zone)>>,
}

impl Clock {
    /// The system's clocks.
    #[allow(
        clippy::disallowed_methods,
        reason = "everybody else gets the time from here"
    )]
    pub fn system() -> Self {
        Self {
            start: StdInstant::now(),
            fixed: None,
            zone: LocalZone::from_environment(),
            looked_up: Cell::new(None),
        }
    }

    /// A wall clock that stands still at `unix_seconds`, seconds since 1970-01-01 00:00:00 UTC. Timeouts run on.
    pub fn fixed(unix_seconds: i64) -> Self {
        Self {
            fixed: Some(unix_seconds),
            ..Self::system()
        }
    }

    /// The monotonic clock alone, which costs less.
    pub fn monotonic(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Both clocks.
    #[allow(
        clippy::disallowed_methods,
        reason = "everybody else gets the time from here"
    )]
    pub fn now(&self) -> Now {
        let (unix_seconds, nanoseconds) = match self.fixed {
            Some(seconds) => (seconds, 0),
            None => since_epoch(SystemTime::now()),
        };
        Now {
            monotonic: self.monotonic(),
            wall: Some(Wall {
                unix_seconds,
                nanoseconds,
                zone: self.zone_at(unix_seconds),
            }),
        }
    }

    fn zone_at(&self, unix_seconds: i64) -> Zone {
        match self.looked_up.get() {
            Some((second, zone)) if second == unix_seconds => zone,
            _ => {
                let zone = self.zone.at(unix_seconds);
                self.looked_up.set(Some((unix_seconds, zone)));
                zone
            }
        }
    }
}

/// Seconds (rounded down) and nanoseconds since the epoch, also before it.
fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs().cast_signed(), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = -before.as_secs().cast_signed();
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanos => (seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// Where zones are, and how their files are read.
const ZONES: TimeZoneSettings<'static> =
    TimeZoneSettings::new(TimeZoneSettings::DEFAULT_DIRECTORIES, read_zone);

/// More than any zone's file has, in bytes: the longest have four thousand.
const LONGEST_ZONE: u64 = 256 << 10;

/// Reads the file of a zone. `TZ` may name any file, and some never end, or never open.
fn read_zone(path: &str) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync + 'static>> {
    let no_zone = || io::Error::from(io::ErrorKind::InvalidData);
    if !fs::metadata(path)?.is_file() {
        return Err(no_zone().into());
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LONGEST_ZONE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_ZONE {
        return Err(no_zone().into());
    }
    Ok(bytes)
}

/// The zone of this place, over all time.
#[derive(Debug)]
enum LocalZone {
    Rules(TimeZone),
    Always(Zone),
}

impl LocalZone {
    fn from_environment() -> Self {
        match std::env::var_os("TZ") {
            None => ZONES
                .parse_local()
                .map_or(Self::Always(Zone::UTC), Self::Rules),
            Some(tz) => Self::from_tz(&tz.to_string_lossy()),
        }
    }

    /// What `TZ=tz` means to glibc.
    fn from_tz(tz: &str) -> Self {
        // A rule that names a summer time and not when it is: glibc takes the rules of the United States.
        let with_rules = || ZONES.parse_posix_tz(&format!("{tz},M3.2.0,M11.1.0"));
        if tz.is_empty() || tz == ":" {
            return Self::Always(Zone::UTC);
        }
        ZONES
            .parse_posix_tz(tz)
            .or_else(|_| with_rules())
            .map_or_else(|_| Self::Always(misunderstood(tz)), Self::Rules)
    }

    fn at(&self, unix_seconds: i64) -> Zone {
        match self {
            Self::Always(zone) => *zone,
            Self::Rules(rules) => rules
                .find_local_time_type(unix_seconds)
                .ok()
                .and_then(|local| Zone::new(local.ut_offset(), local.time_zone_designation()))
                .unwrap_or(Zone::UTC),
        }
    }
}

/// UTC, under the name that glibc gives it when it reads no more out of `TZ` than a name.
fn misunderstood(tz: &str) -> Zone {
    let name = tz
        .find(|c: char| !c.is_ascii_alphabetic())
        .map_or(tz, |end| &tz[..end]);
    if name.len() < 3 {
        return Zone::UTC;
    }
    Zone::new(0, name).unwrap_or(Zone::UTC)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What `TZ=tz` is at `unix_seconds`: offset and name.
    fn zone(tz: &str, unix_seconds: i64) -> (i32, String) {
        let zone = LocalZone::from_tz(tz).at(unix_seconds);
        (zone.offset_seconds(), zone.name().to_owned())
    }

    /// 2023-11-14 and 2023-07-14.
    const WINTER: i64 = 1_700_000_000;
    const SUMMER: i64 = 1_689_300_000;

    #[test]
    fn rules_and_nonsense_are_read_as_glibc_reads_them() {
        for (tz, at, offset, name) in [
            ("", WINTER, 0, "UTC"),
            (":", WINTER, 0, "UTC"),
            ("UTC0", WINTER, 0, "UTC"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", WINTER, 3_600, "CET"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", SUMMER, 7_200, "CEST"),
            ("EST5EDT4", SUMMER, -14_400, "EDT"),
            ("<+0545>-5:45", WINTER, 20_700, "+0545"),
            ("XYZ", WINTER, 0, "XYZ"),
            ("Foo/Bar", WINTER, 0, "Foo"),
            ("no", WINTER, 0, "UTC"),
            ("../../etc/passwd", WINTER, 0, "UTC"),
            ("/no/such/file", WINTER, 0, "UTC"),
            // They never end.
            ("/dev/zero", WINTER, 0, "UTC"),
            (":/dev/zero", WINTER, 0, "UTC"),
            (":/proc/self", WINTER, 0, "UTC"),
        ] {
            assert_eq!(zone(tz, at), (offset, name.to_owned()), "TZ={tz}");
        }
    }

    #[test]
    fn a_fixed_clock_stands_still_while_timeouts_run() {
        let clock = Clock::fixed(-1);
        let (first, second) = (clock.now(), clock.now());
        assert_eq!(first.wall, second.wall);
        assert_eq!(first.wall.map(|wall| wall.unix_seconds), Some(-1));
        assert!(second.monotonic >= first.monotonic);
    }

    #[test]
    fn before_the_epoch_nanoseconds_still_count_forward() {
        assert_eq!(
            since_epoch(UNIX_EPOCH - Duration::from_nanos(1)),
            (-1, 999_999_999)
        );
        assert_eq!(since_epoch(UNIX_EPOCH - Duration::from_secs(1)), (-1, 0));
        assert_eq!(
            since_epoch(UNIX_EPOCH + Duration::from_millis(1_500)),
            (1, 500_000_000)
        );
    }
}
