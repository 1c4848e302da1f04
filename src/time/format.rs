//! strftime, as glibc and Python do it in the C locale.

use core::error::Error;
use core::fmt;

use chrono::{Datelike, NaiveDate};

use crate::Wall;

/// Writes the time `wall` into `out` the way `format` says, and returns how many bytes that took.
///
/// It is `wcsftime` of the GNU C Library 2.36 in the C locale, and so Python 3.11's `time.strftime` on Linux, byte
/// for byte. One pass, no buffer of its own, a few hundred bytes of stack. The result is UTF-8.
///
/// A directive is `%`, then any number of flags, a width, one modifier, and a letter:
///
/// | part | means |
/// |---|---|
/// | `_` `-` `0` | pad a number with spaces, not at all, or with zeros; the last one counts. `0` pads text with zeros too |
/// | `^` | upper case |
/// | `#` | the other case: upper for names of days and months, lower for `%p` and `%Z` |
/// | width | at least so many characters, padded on the left; the letter's own width (`%d` has 2) is the least, unless the flag is `-` |
/// | `E` `O` | another calendar or other digits, which the C locale does not have: no effect, where the letter allows it |
///
/// | letter | writes |
/// |---|---|
/// | `%a` `%A` | `Sun`, `Sunday` |
/// | `%b` `%h` `%B` | `Nov`, `Nov`, `November` |
/// | `%c` | `%a %b %e %H:%M:%S %Y` |
/// | `%C` | the year divided by 100 and rounded down, not padded |
/// | `%d` `%e` | day of the month: `02`, ` 2` |
/// | `%D` `%x` | `%m/%d/%y` |
/// | `%F` | `%Y-%m-%d` |
/// | `%g` `%G` `%V` | ISO 8601 week: the year it belongs to in two digits and in full, its number `01` to `53` |
/// | `%H` `%k` | hour, `00` to `23` and ` 0` to `23` |
/// | `%I` `%l` | hour, `01` to `12` and ` 1` to `12` |
/// | `%j` | day of the year, `001` to `366` |
/// | `%m` `%M` `%S` | month, minute, second, in two digits |
/// | `%n` `%t` `%%` | newline, tab, `%` |
/// | `%p` `%P` | `AM` or `PM`, `am` or `pm` |
/// | `%r` `%R` `%T` `%X` | `%I:%M:%S %p`, `%H:%M`, `%H:%M:%S`, `%H:%M:%S` |
/// | `%s` | [`Wall::unix_seconds`] |
/// | `%u` `%w` | day of the week: Monday is 1 and Sunday 7; Sunday is 0 and Saturday 6 |
/// | `%U` `%W` | week of the year, where the first Sunday (Monday) begins week 1 |
/// | `%y` `%Y` | year in two digits; in full, not padded, negative before the year 0 |
/// | `%z` `%Z` | the zone's offset as `+hhmm`; its name |
///
/// Anything else comes back as it was written (`%Q`, `%+`, `%:z`, `%Ed`), padded to the width if it has one. So does a
/// `%` that ends the format. Two oddities of glibc's are kept: `%E%` and `%O%` come back as `%`, and `%#Eb` as `%#EB`.
///
/// Where others answer otherwise:
/// - Python refuses a format with a NUL character, and so does this. C ends the format there.
/// - Python returns an empty string when the result does not fit in a buffer of about 256 times the format; here it is
///   [`FormatError::NoRoom`] when it does not fit in `out`.
/// - Case flags change ASCII letters only, as they do in the C locale. A Python whose `LC_CTYPE` is of UTF-8 writes
///   the unknown directive `%^é` as `%^É`.
/// - glibc 2.38 and later ignore case flags in `%Z`, and its width if the flag is `-`.
/// - `%s` is the time it was given. glibc computes it back from the local time, which fails where a zone has the
///   same local time twice without calling one of them daylight saving time.
///
/// # Errors
/// See [`FormatError`]. What was written to `out` until then means nothing.
pub fn format(format: &str, wall: &Wall, out: &mut [u8]) -> Result<usize, FormatError> {
    let moment = Moment::new(wall)?;
    let mut writer = Writer { out, len: 0 };
    moment.write(format, &mut writer)?;
    Ok(writer.len)
}

/// Why there is no formatted time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The result is longer than the buffer.
    NoRoom,
    /// The format has a NUL character.
    Nul,
    /// The date is not in the calendar's range, which is the years -262143 to 262142.
    OutOfRange,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "the formatted time is too long",
            Self::Nul => "the format has a NUL character",
            Self::OutOfRange => "the date is outside the years -262143 to 262142",
        })
    }
}

impl Error for FormatError {}

/// A wall clock's time as people there read it.
struct Moment<'a> {
    wall: &'a Wall,
    date: NaiveDate,
    hour: u32,
    minute: u32,
    second: u32,
}

/// What stands between the `%` and the letter of a directive.
#[derive(Clone, Copy, Default)]
struct Spec {
    /// The flag `_`, `-` or `0`, and 0 if there is none.
    pad: u8,
    upper: bool,
    other_case: bool,
    /// In characters; 0 if there is none.
    width: u32,
}

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl<'a> Moment<'a> {
    fn new(wall: &'a Wall) -> Result<Self, FormatError> {
        let local = wall
            .unix_seconds
            .checked_add(i64::from(wall.zone.offset_seconds()))
            .ok_or(FormatError::OutOfRange)?;
        let date = i32::try_from(local.div_euclid(86_400))
            .ok()
            .and_then(NaiveDate::from_epoch_days)
            .ok_or(FormatError::OutOfRange)?;
        let second_of_day = local.rem_euclid(86_400) as u32;
        Ok(Self {
            wall,
            date,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        })
    }

    fn write(&self, format: &str, writer: &mut Writer<'_>) -> Result<(), FormatError> {
        let format = format.as_bytes();
        let mut at = 0;
        while let Some(&byte) = format.get(at) {
            match byte {
                b'%' => match format.get(at + 1) {
                    // Most directives are a letter and nothing else, so they have a way of their own.
                    Some(&letter @ (b'A'..=b'D' | b'F'..=b'N' | b'P'..=b'Z' | b'a'..=b'z')) => {
                        if !self.write_field(letter, None, Spec::default(), writer)? {
                            writer.text(&[byte, letter])?;
                        }
                        at += 2;
                    }
                    _ => at = self.write_directive(format, at, writer)?,
                },
                0 => return Err(FormatError::Nul),
                byte => {
                    writer.byte(byte)?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes what the directive at `percent` stands for, and returns where the format goes on after it.
    #[inline(never)]
    fn write_directive(
        &self,
        format: &[u8],
        percent: usize,
        writer: &mut Writer<'_>,
    ) -> Result<usize, FormatError> {
        let mut at = percent + 1;
        let mut spec = Spec::default();
        loop {
            match format.get(at) {
                Some(&pad @ (b'_' | b'-' | b'0')) => spec.pad = pad,
                Some(b'^') => spec.upper = true,
                Some(b'#') => spec.other_case = true,
                _ => break,
            }
            at += 1;
        }
        while let Some(digit @ b'0'..=b'9') = format.get(at) {
            spec.width = spec
                .width
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'));
            at += 1;
        }
        let mut letter = format.get(at).copied();
        let modifier = letter.filter(|byte| matches!(byte, b'E' | b'O'));
        if modifier.is_some() {
            at += 1;
            letter = format.get(at).copied();
        }
        let mut end = at;
        let mut from = percent;
        if let Some(letter) = letter {
            if letter == 0 {
                return Err(FormatError::Nul);
            }
            end += 1;
            if self.write_field(letter, modifier, spec, writer)? {
                return Ok(end);
            }
            // Two oddities of glibc's: it looks for the directive's beginning from its end, and finds the wrong
            // `%`; and it has changed the case for a month's name before it looks at the modifier.
            match letter {
                b'%' => from = at,
                b'b' | b'B' | b'h' => spec.upper |= spec.other_case,
                _ => {}
            }
            // The whole character, which may have more bytes than the first.
            while format.get(end).is_some_and(|&byte| is_continuation(byte)) {
                end += 1;
            }
        }
        let start = writer.len;
        writer.text(format.get(from..end).unwrap_or_default())?;
        writer.finish(start, spec.upper, spec)?;
        Ok(end)
    }

    /// Writes what `letter` stands for, and returns whether it stands for anything.
    // Inlined into a loop, all that does not change there would be computed before it: every field for every format.
    #[inline(never)]
    fn write_field(
        &self,
        letter: u8,
        modifier: Option<u8>,
        spec: Spec,
        writer: &mut Writer<'_>,
    ) -> Result<bool, FormatError> {
        let start = writer.len;
        let date = self.date;
        let mut upper = spec.upper;
        match (letter, modifier) {
            // The letters that allow no modifier, or not this one.
            (b'a' | b'A' | b'D' | b'F' | b'%', Some(_))
            | (b'c' | b'x' | b'X' | b'Y', Some(b'O'))
            | (
                b'b' | b'B' | b'd' | b'e' | b'g' | b'G' | b'h' | b'H' | b'I' | b'j' | b'k' | b'l'
                | b'm' | b'M' | b'S' | b'U' | b'V' | b'w' | b'W',
                Some(b'E'),
            ) => return Ok(false),

            (b'd', _) => writer.two_digits(date.day(), spec)?,
            (b'H', _) => writer.two_digits(self.hour, spec)?,
            (b'I', _) => writer.two_digits(self.hour12(), spec)?,
            (b'm', _) => writer.two_digits(date.month(), spec)?,
            (b'M', _) => writer.two_digits(self.minute, spec)?,
            (b'S', _) => writer.two_digits(self.second, spec)?,
            (b'y', _) => writer.two_digits(date.year().rem_euclid(100) as u32, spec)?,
            (b'e', _) => writer.spaced(date.day(), spec)?,
            (b'k', _) => writer.spaced(self.hour, spec)?,
            (b'l', _) => writer.spaced(self.hour12(), spec)?,
            (b'Y', _) => writer.year(date.year(), spec)?,
            (b'C', _) => writer.number(date.year().div_euclid(100), 1, spec)?,
            (b'j', _) => writer.number(date.ordinal() as i32, 3, spec)?,
            (b'u', _) => writer.number(date.weekday().number_from_monday() as i32, 1, spec)?,
            (b'w', _) => writer.number(date.weekday().num_days_from_sunday() as i32, 1, spec)?,
            (b'U', _) => {
                let weekday = date.weekday().num_days_from_sunday();
                writer.two_digits((date.ordinal0() + 7 - weekday) / 7, spec)?;
            }
            (b'W', _) => {
                let weekday = date.weekday().num_days_from_monday();
                writer.two_digits((date.ordinal0() + 7 - weekday) / 7, spec)?;
            }
            (b'V', _) => writer.two_digits(date.iso_week().week(), spec)?,
            (b'G', _) => writer.year(date.iso_week().year(), spec)?,
            (b'g', _) => {
                writer.two_digits(date.iso_week().year().rem_euclid(100) as u32, spec)?;
            }
            (b'z', _) => self.write_offset(writer, spec)?,

            // What follows is text: written first, then changed in case, then moved aside for the padding.
            (b'a' | b'A', _) => {
                upper |= spec.other_case;
                let day = date.weekday().num_days_from_sunday() as usize;
                writer.name(&DAYS, day, letter == b'A')?;
                writer.finish(start, upper, spec)?;
            }
            (b'b' | b'h' | b'B', _) => {
                upper |= spec.other_case;
                writer.name(&MONTHS, date.month0() as usize, letter == b'B')?;
                writer.finish(start, upper, spec)?;
            }
            (b'p' | b'P', _) => {
                let lower = letter == b'P' || spec.other_case;
                writer.text(match (self.hour < 12, lower) {
                    (true, false) => b"AM",
                    (true, true) => b"am",
                    (false, false) => b"PM",
                    (false, true) => b"pm",
                })?;
                writer.finish(start, upper && !lower, spec)?;
            }
            (b'Z', _) => {
                writer.text(self.wall.zone.name().as_bytes())?;
                if spec.other_case {
                    writer.written(start).make_ascii_lowercase();
                }
                writer.finish(start, upper && !spec.other_case, spec)?;
            }
            (b's', _) => {
                writer.digits(self.wall.unix_seconds, b' ', 0)?;
                writer.finish(start, false, spec)?;
            }
            (b'T' | b'X', _) => {
                self.write_time(self.hour, writer)?;
                writer.finish(start, false, spec)?;
            }
            (b'r', _) => {
                self.write_time(self.hour12(), writer)?;
                self.write(" %p", writer)?;
                writer.finish(start, false, spec)?;
            }
            (b'c' | b'D' | b'F' | b'R' | b'x', _) => {
                let parts = match letter {
                    b'c' => "%a %b %e %T %Y",
                    b'F' => "%Y-%m-%d",
                    b'R' => "%H:%M",
                    _ => "%m/%d/%y",
                };
                self.write(parts, writer)?;
                writer.finish(start, upper, spec)?;
            }
            (b'n' | b't' | b'%', _) => {
                writer.text(match letter {
                    b'n' => b"\n",
                    b't' => b"\t",
                    _ => b"%",
                })?;
                writer.finish(start, false, spec)?;
            }

            _ => return Ok(false),
        }
        Ok(true)
    }

    fn hour12(&self) -> u32 {
        match self.hour % 12 {
            0 => 12,
            hour => hour,
        }
    }

    fn write_time(&self, hour: u32, writer: &mut Writer<'_>) -> Result<(), FormatError> {
        let ([h, hh], [m, mm], [s, ss]) = (two(hour), two(self.minute), two(self.second));
        writer.text(&[h, hh, b':', m, mm, b':', s, ss])
    }

    /// The zone's offset: glibc pads the sign and the number each to the whole width.
    fn write_offset(&self, writer: &mut Writer<'_>, spec: Spec) -> Result<(), FormatError> {
        let offset = self.wall.zone.offset_seconds();
        let start = writer.len;
        writer.text(if offset < 0 { b"-" } else { b"+" })?;
        writer.finish(start, false, spec)?;
        let minutes = offset.abs() / 60;
        writer.number(minutes / 60 * 100 + minutes % 60, 4, spec)
    }
}

/// Two digits, for a number below 100.
fn two(value: u32) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

/// Whether a byte of UTF-8 is not the first of its character (RFC 3629, section 3).
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

impl Spec {
    /// Neither padding nor width.
    fn is_plain(&self) -> bool {
        self.pad == 0 && self.width == 0
    }
}

/// The caller's buffer, and how much of it is written.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    /// The next `count` bytes, to be written at once.
    fn reserve(&mut self, count: usize) -> Result<&mut [u8], FormatError> {
        let end = self.len.saturating_add(count);
        let field = self.out.get_mut(self.len..end).ok_or(FormatError::NoRoom)?;
        self.len = end;
        Ok(field)
    }

    fn byte(&mut self, byte: u8) -> Result<(), FormatError> {
        *self.out.get_mut(self.len).ok_or(FormatError::NoRoom)? = byte;
        self.len += 1;
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(), FormatError> {
        self.reserve(text.len())?.copy_from_slice(text);
        Ok(())
    }

    /// What was written since the length was `start`.
    fn written(&mut self, start: usize) -> &mut [u8] {
        self.out.get_mut(start..self.len).unwrap_or_default()
    }

    fn name(&mut self, names: &[&str], index: usize, whole: bool) -> Result<(), FormatError> {
        let name = names.get(index).copied().unwrap_or("?");
        let name = if whole {
            name
        } else {
            name.get(..3).unwrap_or(name)
        };
        self.text(name.as_bytes())
    }

    /// Puts text written since `start` in upper case, and moves it aside for the padding it needs.
    fn finish(&mut self, start: usize, upper: bool, spec: Spec) -> Result<(), FormatError> {
        let text = self.written(start);
        if upper {
            text.make_ascii_uppercase();
        }
        if spec.width == 0 {
            return Ok(());
        }
        let characters = text.iter().filter(|&&byte| !is_continuation(byte)).count();
        let bytes = text.len();
        let padding = (spec.width as usize).saturating_sub(characters);
        self.reserve(padding)?;
        let field = self.written(start);
        for at in (0..bytes).rev() {
            field.swap(at, at + padding);
        }
        let fill = if spec.pad == b'0' { b'0' } else { b' ' };
        field.iter_mut().take(padding).for_each(|byte| *byte = fill);
        Ok(())
    }

    /// A number below 100 in two digits, or as the flags and the width say.
    fn two_digits(&mut self, value: u32, spec: Spec) -> Result<(), FormatError> {
        if spec.is_plain() {
            self.text(&two(value))
        } else {
            self.number(value as i32, 2, spec)
        }
    }

    /// A number below 100 that is padded with a space unless the flags say otherwise.
    fn spaced(&mut self, value: u32, mut spec: Spec) -> Result<(), FormatError> {
        if spec.pad == 0 {
            spec.pad = b'_';
        }
        self.number(value as i32, 2, spec)
    }

    fn year(&mut self, year: i32, spec: Spec) -> Result<(), FormatError> {
        if spec.is_plain() && (1000..=9999).contains(&year) {
            let ([a, b], [c, d]) = (two(year as u32 / 100), two(year as u32 % 100));
            self.text(&[a, b, c, d])
        } else {
            self.number(year, 1, spec)
        }
    }

    /// A number in at least `least` digits, or as the flags and the width say.
    #[inline(never)]
    fn number(&mut self, value: i32, least: u32, spec: Spec) -> Result<(), FormatError> {
        let (fill, least) = match spec.pad {
            b'-' => (b' ', spec.width),
            b'_' => (b' ', spec.width.max(least)),
            _ => (b'0', spec.width.max(least)),
        };
        self.digits(value.into(), fill, least as usize)
    }

    /// A number in at least `least` characters: zeros come after its sign, spaces before it.
    #[inline(never)]
    fn digits(&mut self, value: i64, fill: u8, least: usize) -> Result<(), FormatError> {
        let mut rest = value.unsigned_abs();
        let count = rest.checked_ilog10().map_or(1, |log| log as usize + 1);
        let is_negative = value < 0;
        let field = self.reserve((count + usize::from(is_negative)).max(least))?;
        let (padding, digits) = field.split_at_mut(field.len() - count);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        padding.fill(fill);
        if is_negative {
            let sign = match fill {
                b'0' => padding.first_mut(),
                _ => padding.last_mut(),
            };
            if let Some(sign) = sign {
                *sign = b'-';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zone;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    /// Sunday, 2026-11-22 16:03:09 UTC: 17:03:09 in Berlin.
    const UNIX: i64 = 1_795_363_389;

    fn berlin() -> Wall {
        Wall {
            unix_seconds: UNIX,
            nanoseconds: 987_654_321,
            zone: Zone::new(3_600, "CET").unwrap(),
        }
    }

    fn formatted(format: &str, wall: &Wall) -> String {
        let mut out = [0; 512];
        let len = super::format(format, wall, &mut out).unwrap();
        core::str::from_utf8(&out[..len]).unwrap().to_string()
    }

    fn check(table: &[(&str, &str)], wall: &Wall) {
        for (format, expected) in table {
            assert_eq!(formatted(format, wall), *expected, "{format:?}");
        }
    }

    #[test]
    fn every_letter() {
        check(
            &[
                ("%a|%A", "Sun|Sunday"),
                ("%b|%h|%B", "Nov|Nov|November"),
                ("%c", "Sun Nov 22 17:03:09 2026"),
                ("%C|%y|%Y", "20|26|2026"),
                ("%d|%e|%m", "22|22|11"),
                ("%D|%x|%F", "11/22/26|11/22/26|2026-11-22"),
                ("%g|%G|%V", "26|2026|47"),
                ("%H|%I|%k|%l", "17|05|17| 5"),
                ("%j|%u|%w|%U|%W", "326|7|0|47|46"),
                ("%M|%S", "03|09"),
                ("%n|%t|%%", "\n|\t|%"),
                ("%p|%P", "PM|pm"),
                ("%r|%R|%T|%X", "05:03:09 PM|17:03|17:03:09|17:03:09"),
                ("%s", "1795363389"),
                ("%z|%Z", "+0100|CET"),
                ("现在是 %H 时 🕰", "现在是 17 时 🕰"),
                ("", ""),
            ],
            &berlin(),
        );
    }

    #[test]
    fn flags_and_widths() {
        check(
            &[
                ("%-H|%_H|%0H|%-M|%_M|%0k", "17|17|17|3| 3|17"),
                ("%5d|%_5d|%-5d|%05e|%5e", "00022|   22|   22|00022|   22"),
                ("%-_5M|%_-5M|%0_5M", "    3|    3|    3"),
                ("%10Y|%_10Y|%-10Y", "0000002026|      2026|      2026"),
                ("%12s|%012s|%_12s", "  1795363389|001795363389|  1795363389"),
                (
                    "%^a|%^B|%#a|%#B|%^c",
                    "SUN|NOVEMBER|SUN|NOVEMBER|SUN NOV 22 17:03:09 2026",
                ),
                (
                    "%#p|%^P|%#^p|%#Z|%^Z|%#c",
                    "pm|pm|pm|cet|CET|Sun Nov 22 17:03:09 2026",
                ),
                (
                    "%6Z|%06Z|%-6Z|%6a|%06a",
                    "   CET|000CET|   CET|   Sun|000Sun",
                ),
                (
                    "%12F|%012F|%7R|%3%|%2n",
                    "  2026-11-22|002026-11-22|  17:03|  %| \n",
                ),
                (
                    "%z|%6z|%_6z|%-6z|%06z",
                    "+0100|     +000100|     +   100|     +   100|00000+000100",
                ),
                ("%Ex|%EY|%Od|%OM|%Es", "11/22/26|2026|22|03|1795363389"),
            ],
            &berlin(),
        );
    }

    #[test]
    fn what_is_no_directive_comes_back() {
        check(
            &[
                ("%", "%"),
                ("100%", "100%"),
                ("%5", "   %5"),
                ("%05", "00%05"),
                ("%E", "%E"),
                ("%Q|%L|%v|%N|%+|%+4Y|%:z", "%Q|%L|%v|%N|%+|%+4Y|%:z"),
                ("%Ed|%OY|%Oc|%Ea|%EOd", "%Ed|%OY|%Oc|%Ea|%EOd"),
                ("%6Ed|%06Ed|%^q|%^6q", "  %6Ed|0%06Ed|%^Q|  %^6Q"),
                ("%5^B", "  %5^B"),
                ("%#Eb|%#Ea|%#Q", "%#EB|%#Ea|%#Q"),
                ("%E%|%5O%", "%|    %"),
                ("%é|%^é|%4现|%^5🕰|", "%é|%^é| %4现| %^5🕰|"),
                ("%%d|%%%d", "%d|%22"),
            ],
            &berlin(),
        );
    }

    #[test]
    fn midnight_and_noon() {
        for (hour, expected) in [
            (0, "00|12| 0|12|AM|12:00:00 AM"),
            (1, "01|01| 1| 1|AM|01:00:00 AM"),
            (11, "11|11|11|11|AM|11:00:00 AM"),
            (12, "12|12|12|12|PM|12:00:00 PM"),
            (13, "13|01|13| 1|PM|01:00:00 PM"),
            (23, "23|11|23|11|PM|11:00:00 PM"),
        ] {
            let wall = Wall::utc(hour * 3_600);
            assert_eq!(formatted("%H|%I|%k|%l|%p|%r", &wall), expected);
        }
    }

    #[test]
    fn seldom_years() {
        for (unix, expected) in [
            (0, "1970|70|19|1970-01-01|0|1970-W01"),
            (-1, "1969|69|19|1969-12-31|-1|1970-W01"),
            (-62_135_596_800, "1|01|0|1-01-01|-62135596800|1-W01"),
            (-62_135_596_801, "0|00|0|0-12-31|-62135596801|0-W52"),
            (-62_167_219_201, "-1|99|-1|-1-12-31|-62167219201|-1-W52"),
            (
                253_402_300_800,
                "10000|00|100|10000-01-01|253402300800|9999-W52",
            ),
            (1_230_768_000, "2009|09|20|2009-01-01|1230768000|2009-W01"),
            (1_230_552_000, "2008|08|20|2008-12-29|1230552000|2009-W01"),
            (1_262_476_800, "2010|10|20|2010-01-03|1262476800|2009-W53"),
        ] {
            let wall = Wall::utc(unix);
            assert_eq!(formatted("%Y|%y|%C|%F|%s|%G-W%V", &wall), expected);
        }
        let wall = Wall::utc(-62_167_219_201);
        check(
            &[
                ("%5Y|%_5Y|%-5Y|%05Y", "-0001|   -1|   -1|-0001"),
                ("%15s|%015s", "   -62167219201|000-62167219201"),
            ],
            &wall,
        );
    }

    #[test]
    fn zones() {
        for (offset, name, expected) in [
            (20_700, "+0545", "+0545 +0545"),
            (-12_600, "NST", "-0330 NST"),
            (-2_670, "MMT", "-0044 MMT"),
            (-59, "-00", "-0000 -00"),
            (86_399, "", "+2359 "),
        ] {
            let wall = Wall {
                zone: Zone::new(offset, name).unwrap(),
                ..Wall::utc(UNIX)
            };
            assert_eq!(formatted("%z %Z", &wall), expected);
        }
    }

    #[test]
    fn errors() {
        let mut out = [0; 8];
        assert_eq!(
            super::format("%Y-%m-%d", &berlin(), &mut out),
            Err(FormatError::NoRoom)
        );
        assert_eq!(super::format("%Y-%m-", &berlin(), &mut out), Ok(8));
        assert_eq!(
            super::format("%9Y", &berlin(), &mut out),
            Err(FormatError::NoRoom)
        );
        assert_eq!(super::format("%8Y", &berlin(), &mut out), Ok(8));
        for wide in [
            "%9999999999Y",
            "%99999999999999999999999999a",
            "%_2147483648s",
        ] {
            assert_eq!(
                super::format(wide, &berlin(), &mut out),
                Err(FormatError::NoRoom)
            );
        }
        for nul in ["\0", "%\0", "%-5E\0", "%d\0"] {
            assert_eq!(
                super::format(nul, &berlin(), &mut out),
                Err(FormatError::Nul)
            );
        }
        let (first, last) = (-8_334_601_228_800, 8_210_266_876_799);
        for unix in [first, last] {
            assert_eq!(
                super::format("%s", &Wall::utc(unix), &mut [0; 20]),
                Ok(14 - usize::from(unix > 0))
            );
        }
        for unix in [first - 1, last + 1, i64::MIN, i64::MAX] {
            assert_eq!(
                super::format("", &Wall::utc(unix), &mut out),
                Err(FormatError::OutOfRange)
            );
        }
        let east = Wall {
            unix_seconds: last,
            ..berlin()
        };
        assert_eq!(
            super::format("", &east, &mut out),
            Err(FormatError::OutOfRange)
        );
    }

    fn any_wall() -> impl Strategy<Value = Wall> {
        let unix = prop_oneof![any::<i64>(), -8_334_601_228_800..8_210_266_876_800_i64];
        (unix, -86_399..86_400, "[A-Z+0-9é]{0,3}").prop_map(|(unix_seconds, offset, name)| Wall {
            unix_seconds,
            nanoseconds: 0,
            zone: Zone::new(offset, &name).unwrap(),
        })
    }

    fn any_format() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "(%[-_0^#+EO]{0,3}[0-9]{0,3}[EO]?[a-zA-Z%é现]){0,9}",
            "[-%_0-9^#EOa-zA-Z]{0,40}",
        ]
    }

    proptest! {
        #[test]
        fn anything_fits_or_is_refused(format in any_format(), wall in any_wall(), room in 0..600_usize) {
            let mut out = [0xff; 600];
            match super::format(&format, &wall, &mut out[..room]) {
                Ok(len) => {
                    prop_assert!(len <= room);
                    prop_assert!(core::str::from_utf8(&out[..len]).is_ok());
                    // The same in a buffer that has not a byte to spare, and no more with one byte less.
                    let mut exact = [0; 600];
                    prop_assert_eq!(super::format(&format, &wall, &mut exact[..len]), Ok(len));
                    prop_assert_eq!(&exact[..len], &out[..len]);
                    if len > 0 {
                        prop_assert_eq!(
                            super::format(&format, &wall, &mut exact[..len - 1]),
                            Err(FormatError::NoRoom)
                        );
                    }
                }
                Err(FormatError::Nul) => prop_assert!(format.contains('\0')),
                Err(FormatError::NoRoom | FormatError::OutOfRange) => {}
            }
            prop_assert!(out[room..].iter().all(|&byte| byte == 0xff));
        }
    }
}
