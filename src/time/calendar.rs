//! The Gregorian calendar, before its invention too, in few and small steps.

use crate::Wall;

/// A wall clock's time as people there read it.
///
/// The date is found as in C. Neri and L. Schneider, "Euclidean affine functions and their application to calendar
/// algorithms" (2022): years begin in March, so that a leap day is a year's last, and a multiplication and a shift
/// take the place of tables and of most divisions. It takes some 60 instructions, where a calendar with tables took
/// 150, and 2 KB of flash.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Days since [`EPOCH`]; not before it.
    days: u32,
    /// The year divided by 100 and rounded down.
    pub century: i32,
    /// The last two digits of the year, as they are counted forward: the year -1 has 99.
    pub year_of_century: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// Days since the last first of March.
    day_from_march: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
}

/// What has days counted from 0: the first of March of this year, the first of a cycle of 400 years.
const EPOCH_YEAR: i32 = -262_400;

/// From there to 1970-01-01, in days.
const EPOCH: i64 = 656 * DAYS_IN_CYCLE as i64 + 719_468;

const DAYS_IN_CYCLE: u32 = 146_097;
const SECONDS_IN_DAY: u32 = 86_400;

/// The first day and the last one: -262143-01-01 and 262142-12-31.
const DAYS: core::ops::RangeInclusive<u32> = 93_808..=191_585_336;

impl Moment {
    /// `None` outside the years -262143 to 262142.
    pub fn new(wall: &Wall) -> Option<Self> {
        let zone = i64::from(wall.zone.offset_seconds());
        let seconds = wall
            .unix_seconds
            .checked_add(EPOCH * i64::from(SECONDS_IN_DAY) + zone)?;
        let seconds = u64::try_from(seconds).ok()?;
        let days = u32::try_from(seconds / u64::from(SECONDS_IN_DAY)).ok()?;
        if !DAYS.contains(&days) {
            return None;
        }
        // Less than a day, so the lower halves say all.
        let second = (seconds as u32).wrapping_sub(days.wrapping_mul(SECONDS_IN_DAY));
        let minute = second / 60;
        Some(Self {
            hour: minute / 60,
            minute: minute % 60,
            second: second % 60,
            ..Self::midnight(days)
        })
    }

    /// The day that begins `days` after [`EPOCH`].
    #[inline]
    fn midnight(days: u32) -> Self {
        let quarters = 4 * days + 3;
        let centuries = quarters / DAYS_IN_CYCLE;
        let quarters = (quarters % DAYS_IN_CYCLE) | 3;
        // The quotient by 1,461, the days in four years, is the year; the remainder is 4 times the day and 3.
        let year = quarters / 1_461;
        let day_from_march = quarters % 1_461 / 4;
        // 153 days are five months, 31 30 31 30 31: the upper half is the month, the lower one leads to its day.
        let months = 2_141 * day_from_march + 197_913;
        let (month, day) = (months >> 16, (months & 0xffff) / 2_141 + 1);

        // Our year ends in December.
        let (year, month) = if month > 12 {
            (year + 1, month - 12)
        } else {
            (year, month)
        };
        let (centuries, year_of_century) = if year == 100 {
            (centuries + 1, 0)
        } else {
            (centuries, year)
        };
        Self {
            days,
            century: centuries as i32 + EPOCH_YEAR / 100,
            year_of_century,
            month,
            day,
            day_from_march,
            hour: 0,
            minute: 0,
            second: 0,
        }
    }

    /// The year, negative before the year 0.
    pub fn year(&self) -> i32 {
        self.century * 100 + self.year_of_century as i32
    }

    /// Days since the first of January, 0 to 365.
    pub fn day_of_year(&self) -> u32 {
        if self.month <= 2 {
            return self.day_from_march - 306;
        }
        let is_leap = match self.year_of_century {
            0 => self.century % 4 == 0,
            year => year % 4 == 0,
        };
        self.day_from_march + 59 + u32::from(is_leap)
    }

    /// Days since Sunday.
    pub fn days_from_sunday(&self) -> u32 {
        // The epoch was a Wednesday.
        (self.days + 3) % 7
    }

    /// Days since Monday.
    pub fn days_from_monday(&self) -> u32 {
        (self.days + 2) % 7
    }

    /// Weeks of the year, where the first Sunday begins week 1.
    pub fn week_from_sunday(&self) -> u32 {
        (self.day_of_year() + 7 - self.days_from_sunday()) / 7
    }

    /// Weeks of the year, where the first Monday begins week 1.
    pub fn week_from_monday(&self) -> u32 {
        (self.day_of_year() + 7 - self.days_from_monday()) / 7
    }

    /// The Thursday of this day's week, which begins on Monday: its year is that of the ISO 8601 week, and its day of
    /// the year tells the week's number.
    pub fn thursday(&self) -> Self {
        Self::midnight(self.days + 3 - self.days_from_monday())
    }

    /// The hour as clocks with twelve of them show it, 1 to 12.
    pub fn hour12(&self) -> u32 {
        match self.hour % 12 {
            0 => 12,
            hour => hour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    const FIRST: i32 = -96_465_292;
    const LAST: i32 = 95_026_236;

    fn same_as_in_chrono(days: i32) {
        let date = NaiveDate::from_epoch_days(days).unwrap();
        let ours = Moment::new(&Wall::utc(i64::from(days) * 86_400)).unwrap();
        assert_eq!(
            (ours.year(), ours.month, ours.day, ours.day_of_year()),
            (date.year(), date.month(), date.day(), date.ordinal0()),
            "{date}"
        );
        assert_eq!(
            (ours.century, ours.year_of_century as i32),
            (date.year().div_euclid(100), date.year().rem_euclid(100)),
            "{date}"
        );
        let weekday = date.weekday();
        assert_eq!(
            (ours.days_from_sunday(), ours.days_from_monday()),
            (
                weekday.num_days_from_sunday(),
                weekday.num_days_from_monday()
            ),
            "{date}"
        );
        let (week, thursday) = (date.iso_week(), ours.thursday());
        assert_eq!(
            (thursday.year(), thursday.day_of_year() / 7),
            (week.year(), week.week0()),
            "{date}"
        );
    }

    #[test]
    fn every_day_of_a_cycle_and_more_is_as_in_chrono() {
        let (ends, cycles) = (500, 2 * DAYS_IN_CYCLE as i32);
        (FIRST..FIRST + ends).for_each(same_as_in_chrono);
        (LAST - ends..=LAST).for_each(same_as_in_chrono);
        // From 1600 on, and around the year 0.
        (-135_140..cycles - 135_140).for_each(same_as_in_chrono);
        (-719_528 - cycles / 2..-719_528 + cycles / 2).for_each(same_as_in_chrono);
    }

    #[test]
    fn a_day_before_the_first_and_one_after_the_last_there_is_nothing() {
        let seconds = |days: i32| i64::from(days) * 86_400;
        for unix in [seconds(FIRST), seconds(LAST + 1) - 1] {
            assert!(Moment::new(&Wall::utc(unix)).is_some(), "{unix}");
        }
        for unix in [
            seconds(FIRST) - 1,
            seconds(LAST + 1),
            seconds(FIRST - 93_808) - 1,
            // Where the lower half of the number of days is one that there is.
            seconds(0) + (86_400 << 32),
            i64::MIN,
            i64::MAX,
        ] {
            assert!(Moment::new(&Wall::utc(unix)).is_none(), "{unix}");
        }
    }

    proptest! {
        #[test]
        fn any_day_is_as_in_chrono(days in FIRST..=LAST) {
            same_as_in_chrono(days);
        }

        #[test]
        fn any_second_of_a_day_is_told(second in 0..86_400_u32, days in -100_000..100_000_i64) {
            let ours = Moment::new(&Wall::utc(days * 86_400 + i64::from(second))).unwrap();
            prop_assert_eq!((ours.hour * 60 + ours.minute) * 60 + ours.second, second);
            prop_assert!(ours.hour < 24 && ours.minute < 60 && ours.second < 60);
            prop_assert_eq!(ours.hour12() % 12, ours.hour % 12);
            prop_assert!((1..=12).contains(&ours.hour12()));
        }
    }
}
