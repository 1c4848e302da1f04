//! strftime, as glibc and Python do it in the C locale.

use core::error::Error;
use core::fmt;

use super::DEFAULT_FORMAT;
use super::calendar::Moment;
use crate::Wall;

/// Writes the time `wall` into `out` the way `format` says, and returns how many bytes that took.
///
/// It is `wcsftime` of the GNU C Library 2.36 in the C locale, and so Python 3.11's `time.strftime` on Linux, byte
/// for byte. One pass, no buffer of its own, a few hundred bytes of stack. The result is UTF-8. On a 64-bit machine
/// `%Y-%m-%d %X` takes some 150 instructions, and any other format some 100 and 30 to 60 for each directive.
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
/// See [`FormatError`]. What was written to `out` until then means nothing, nor does what comes after the result.
pub fn format(format: &str, wall: &Wall, out: &mut [u8]) -> Result<usize, FormatError> {
    let moment = Moment::new(wall).ok_or(FormatError::OutOfRange)?;
    // What most ask for has a way of its own, where every byte has its place.
    if format == DEFAULT_FORMAT
        && let Some(len) = write_default(&moment, out)
    {
        return Ok(len);
    }
    let clock = Clock { wall, moment };
    let format = format.as_bytes();
    clock
        .write(format, out)
        .ok_or_else(|| match format.contains(&0) {
            true => FormatError::Nul,
            false => FormatError::NoRoom,
        })
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

/// The time that is written.
struct Clock<'a> {
    wall: &'a Wall,
    moment: Moment,
}

/// What stands between the `%` and the letter of a directive.
#[derive(Clone, Copy, Default)]
struct Spec {
    pad: Option<Pad>,
    upper: bool,
    other_case: bool,
    /// In characters; 0 if there is none.
    width: u32,
}

/// What goes before a number that is shorter than it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pad {
    /// The flag `0`.
    Zeros,
    /// The flag `_`.
    Spaces,
    /// The flag `-`: spaces too, and only if there is a width.
    Nothing,
}

/// A name, and in the last byte its length.
type Name = [u8; 10];

const DAYS: [Name; 7] = [
    name("Sunday"),
    name("Monday"),
    name("Tuesday"),
    name("Wednesday"),
    name("Thursday"),
    name("Friday"),
    name("Saturday"),
];

const MONTHS: [Name; 12] = [
    name("January"),
    name("February"),
    name("March"),
    name("April"),
    name("May"),
    name("June"),
    name("July"),
    name("August"),
    name("September"),
    name("October"),
    name("November"),
    name("December"),
];

const fn name(name: &str) -> Name {
    let mut bytes = [0; 10];
    bytes[9] = name.len() as u8;
    bytes
        .split_at_mut(name.len())
        .0
        .copy_from_slice(name.as_bytes());
    bytes
}

// Each of these writes at the beginning of `out`, and returns how many bytes that took, or `None` where there was no
// room for them.
impl Clock<'_> {
    /// Everything `format` says. `None` also if it has a NUL character.
    fn write(&self, mut format: &[u8], out: &mut [u8]) -> Option<usize> {
        let room = out.len();
        let mut rest = out;
        while let [byte, after @ ..] = format {
            if *byte != b'%' {
                let field;
                (field, rest) = rest.split_first_mut()?;
                *field = *byte;
                if *byte == 0 {
                    return None;
                }
                format = after;
                continue;
            }
            // Most directives are a letter and nothing else, so they have a way of their own.
            let (text, len, taken) = match *after {
                [flag @ (b'-' | b'_'), letter, ..] => {
                    let (text, len) = self.short_with(flag, letter);
                    (text, len, 3)
                }
                [letter, ..] => {
                    let (text, len) = self.short(letter);
                    (text, len, 2)
                }
                [] => (0, 0, 0),
            };
            let (len, taken) = match (len, after.first()) {
                (0, Some(&letter)) if is_long(letter) => (self.write_long(letter, rest)?, 2),
                (0, _) => self.write_directive(format, rest)?,
                _ => (write_beginning(&text.to_le_bytes(), len, rest)?, taken),
            };
            rest = rest.get_mut(len..)?;
            format = format.get(taken..)?;
        }
        Some(room - rest.len())
    }

    /// What `letter` stands for without flags and width, where that has at most 8 bytes (the first one lowest), and
    /// how many it has. 0 where it is longer, unusual, empty or nothing.
    // Inlined into a loop, all that does not change there would be computed before it: every field for every format.
    #[inline(never)]
    fn short(&self, letter: u8) -> (u64, usize) {
        const NONE: (u64, usize) = (0, 0);
        let moment = &self.moment;
        let two = |number: u32| (u64::from(two(number)), 2);
        let spaced = |number: u32| (u64::from(spaced(number)), 2);
        let year = |of: &Moment| match of.century {
            10..100 => (four(of.century as u32, of.year_of_century), 4),
            _ => NONE,
        };
        let three_of = |name: &Name| {
            let [a, b, c, ..] = *name;
            (bytes([a, b, c]), 3)
        };
        match letter {
            b'd' => two(moment.day),
            b'H' => two(moment.hour),
            b'I' => two(moment.hour12()),
            b'm' => two(moment.month),
            b'M' => two(moment.minute),
            b'S' => two(moment.second),
            b'y' => two(moment.year_of_century),
            b'e' => spaced(moment.day),
            b'k' => spaced(moment.hour),
            b'l' => spaced(moment.hour12()),
            b'U' => two(moment.week_from_sunday()),
            b'W' => two(moment.week_from_monday()),
            b'V' => two(moment.thursday().day_of_year() / 7 + 1),
            b'g' => two(moment.thursday().year_of_century),
            b'G' => year(&moment.thursday()),
            b'Y' => year(moment),
            b'j' => {
                let day = moment.day_of_year() + 1;
                (four(day / 100, day % 100) >> 8, 3)
            }
            b'u' => (u64::from(b'1') + u64::from(moment.days_from_monday()), 1),
            b'w' => (u64::from(b'0') + u64::from(moment.days_from_sunday()), 1),
            b'a' => three_of(day_name(moment)),
            b'b' | b'h' => three_of(month_name(moment)),
            b'p' if moment.hour < 12 => (bytes(*b"AM"), 2),
            b'p' => (bytes(*b"PM"), 2),
            b'P' if moment.hour < 12 => (bytes(*b"am"), 2),
            b'P' => (bytes(*b"pm"), 2),
            b'T' | b'X' => (u64::from_le_bytes(time(moment.hour, moment)), 8),
            b'D' | b'x' => {
                let numbers = u64::from(moment.month)
                    | u64::from(moment.day) << 24
                    | u64::from(moment.year_of_century) << 48;
                (digits(numbers, APART) + bytes(*b"00/00/00"), 8)
            }
            b'R' => (
                u64::from_le_bytes(time(moment.hour, moment)) & 0xff_ffff_ffff,
                5,
            ),
            b'z' => {
                let offset = self.wall.zone.offset_seconds();
                let sign = if offset < 0 { b'-' } else { b'+' };
                let minutes = offset.unsigned_abs() / 60;
                (u64::from(sign) | four(minutes / 60, minutes % 60) << 8, 5)
            }
            b'Z' => {
                let (&name, len) = self.wall.zone.name_and_len();
                (u64::from_le_bytes(name), len)
            }
            b'n' => (bytes(*b"\n"), 1),
            b't' => (bytes(*b"\t"), 1),
            b'%' => (bytes(*b"%"), 1),
            _ => NONE,
        }
    }

    /// What [`short`](Self::short) tells of a number of two digits, with the flag `-` or `_`.
    fn short_with(&self, flag: u8, letter: u8) -> (u64, usize) {
        if !b"HIMSdeklmy".contains(&letter) {
            return (0, 0);
        }
        let (text, len) = self.short(letter);
        match (text as u8, flag) {
            (b'0' | b' ', b'-') => (text >> 8, 1),
            (b'0', _) => (text ^ 0x10, len),
            _ => (text, len),
        }
    }

    /// What one of the letters of [`is_long`] stands for, without flags and width.
    #[inline(never)]
    fn write_long(&self, letter: u8, out: &mut [u8]) -> Option<usize> {
        let moment = &self.moment;
        let year = Number::new(moment.year(), 1);
        match letter {
            b'A' => write_name(day_name(moment), out),
            b'B' => write_name(month_name(moment), out),
            b'F' => {
                let len = write_number(year, Spec::default(), out)?;
                let numbers = u64::from(moment.month) << 8 | u64::from(moment.day) << 32;
                let rest = digits(numbers, 1 << 8 | 1 << 32) + bytes(*b"-00-00");
                Some(len + write_beginning(&rest.to_le_bytes(), 6, out.get_mut(len..)?)?)
            }
            b'r' => {
                let field = out.first_chunk_mut::<11>()?;
                field[..8].copy_from_slice(&time(moment.hour12(), moment));
                field[8..].copy_from_slice(if moment.hour < 12 { b" AM" } else { b" PM" });
                Some(field.len())
            }
            b'c' => {
                // %a %b %e %T %Y
                let (field, rest) = out.split_first_chunk_mut::<20>()?;
                *field = [b' '; 20];
                field[..3].copy_from_slice(&day_name(moment)[..3]);
                field[4..7].copy_from_slice(&month_name(moment)[..3]);
                field[8..10].copy_from_slice(&spaced(moment.day).to_le_bytes());
                field[11..19].copy_from_slice(&time(moment.hour, moment));
                Some(field.len() + write_number(year, Spec::default(), rest)?)
            }
            // `%s`
            _ => write_padded(self.wall.unix_seconds, b' ', 0, out),
        }
    }

    /// What the directive stands for with which `format` begins. Returns how many bytes were written, and how long the
    /// directive is.
    #[inline(never)]
    fn write_directive(&self, format: &[u8], out: &mut [u8]) -> Option<(usize, usize)> {
        let mut at = 1;
        let mut spec = Spec::default();
        loop {
            match format.get(at) {
                Some(b'0') => spec.pad = Some(Pad::Zeros),
                Some(b'_') => spec.pad = Some(Pad::Spaces),
                Some(b'-') => spec.pad = Some(Pad::Nothing),
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
        let mut from = 0;
        if let Some(letter) = letter {
            if letter == 0 {
                return None;
            }
            let end = at + 1;
            if modifier.is_none_or(|modifier| allows(letter, modifier)) {
                if let Some(number) = self.moment.number(letter) {
                    return Some((write_number(number, spec, out)?, end));
                }
                if is_long(letter) || b"%DPRTXZabhnptxz".contains(&letter) {
                    return Some((self.write_text(letter, spec, out)?, end));
                }
            }
            // Two oddities of glibc's: it looks for the directive's beginning from its end, and finds the wrong
            // `%`; and it has changed the case for a month's name before it looks at the modifier.
            match letter {
                b'%' => from = at,
                b'b' | b'B' | b'h' => spec.upper |= spec.other_case,
                _ => {}
            }
            // The letter may be the first byte of several. The others count for no width, and come as they are.
            at = end;
        }
        let len = copy(format.get(from..at)?, out)?;
        Some((finish(len, spec.upper, spec, out)?, at))
    }

    /// The text that `letter` stands for: written first, then changed in case, then moved aside for the padding.
    fn write_text(&self, letter: u8, spec: Spec, out: &mut [u8]) -> Option<usize> {
        if letter == b'z' {
            return self.write_offset(spec, out);
        }
        let len = match is_long(letter) {
            true => self.write_long(letter, out)?,
            false => {
                let (text, len) = self.short(letter);
                write_beginning(&text.to_le_bytes(), len, out)?
            }
        };
        let upper = match letter {
            b'a' | b'A' | b'b' | b'B' | b'h' => spec.upper || spec.other_case,
            b'p' | b'Z' if spec.other_case => {
                out.get_mut(..len)?.make_ascii_lowercase();
                false
            }
            b'P' | b'r' => false,
            _ => spec.upper,
        };
        finish(len, upper, spec, out)
    }

    /// `%z`: the sign and the number are padded each to the whole width.
    fn write_offset(&self, spec: Spec, out: &mut [u8]) -> Option<usize> {
        let offset = self.wall.zone.offset_seconds();
        let len = write_array([if offset < 0 { b'-' } else { b'+' }], out)?;
        let len = finish(len, false, spec, out)?;
        let minutes = offset.abs() / 60;
        let number = Number::new(minutes / 60 * 100 + minutes % 60, 4);
        Some(len + write_number(number, spec, out.get_mut(len..)?)?)
    }
}

/// [`DEFAULT_FORMAT`]. `None` also if the year has not four digits.
fn write_default(moment: &Moment, out: &mut [u8]) -> Option<usize> {
    let field = out.first_chunk_mut::<19>()?;
    field[..8].copy_from_slice(&year_and_month(moment)?);
    field[8..10].copy_from_slice(&two(moment.day).to_le_bytes());
    field[10] = b' ';
    field[11..].copy_from_slice(&time(moment.hour, moment));
    Some(field.len())
}

/// Whether the letter may have the modifier `E` or `O`.
fn allows(letter: u8, modifier: u8) -> bool {
    match letter {
        b'a' | b'A' | b'D' | b'F' | b'%' => false,
        b'c' | b'x' | b'X' | b'Y' => modifier == b'E',
        b'b' | b'B' | b'd' | b'e' | b'g' | b'G' | b'h' | b'H' | b'I' | b'j' | b'k' | b'l'
        | b'm' | b'M' | b'S' | b'U' | b'V' | b'w' | b'W' => modifier == b'O',
        _ => true,
    }
}

/// A number, and how it is written where flags and width do not say otherwise.
#[derive(Clone, Copy)]
struct Number {
    value: i32,
    /// In at least so many characters.
    least: u16,
    pad: Pad,
}

impl Number {
    fn new(value: i32, least: u16) -> Self {
        Self {
            value,
            least,
            pad: Pad::Zeros,
        }
    }

    /// A number padded with a space to two characters.
    fn spaced(value: u32) -> Self {
        Self {
            value: value as i32,
            least: 2,
            pad: Pad::Spaces,
        }
    }
}

impl Moment {
    /// The number that `letter` stands for, if it is one, for flags and widths to work on. Without them it is text of
    /// a known length, and [`Clock::short`] writes it in a quarter of the steps.
    // Inlined, everything would be computed before it is known what is asked for.
    #[inline(never)]
    fn number(&self, letter: u8) -> Option<Number> {
        Some(match letter {
            b'e' => Number::spaced(self.day),
            b'k' => Number::spaced(self.hour),
            b'l' => Number::spaced(self.hour12()),
            b'Y' => Number::new(self.year(), 1),
            b'C' => Number::new(self.century, 1),
            b'j' => Number::new(self.day_of_year() as i32 + 1, 3),
            b'u' => Number::new(self.days_from_monday() as i32 + 1, 1),
            b'w' => Number::new(self.days_from_sunday() as i32, 1),
            b'U' => Number::new(self.week_from_sunday() as i32, 2),
            b'W' => Number::new(self.week_from_monday() as i32, 2),
            b'V' => Number::new(self.thursday().day_of_year() as i32 / 7 + 1, 2),
            b'G' => Number::new(self.thursday().year(), 1),
            b'g' => Number::new(self.thursday().year_of_century as i32, 2),
            b'd' => Number::new(self.day as i32, 2),
            b'H' => Number::new(self.hour as i32, 2),
            b'I' => Number::new(self.hour12() as i32, 2),
            b'm' => Number::new(self.month as i32, 2),
            b'M' => Number::new(self.minute as i32, 2),
            b'S' => Number::new(self.second as i32, 2),
            b'y' => Number::new(self.year_of_century as i32, 2),
            _ => return None,
        })
    }
}

/// `%H:%M:%S`, with the hour given.
fn time(hour: u32, moment: &Moment) -> [u8; 8] {
    let numbers = u64::from(hour) | u64::from(moment.minute) << 24 | u64::from(moment.second) << 48;
    (digits(numbers, APART) + bytes(*b"00:00:00")).to_le_bytes()
}

/// The places of three numbers with a byte between them.
const APART: u64 = 1 | 1 << 24 | 1 << 48;

/// `%Y-%m-`, if the year has four digits.
fn year_and_month(moment: &Moment) -> Option<[u8; 8]> {
    const PLACES: u64 = 1 | 1 << 16 | 1 << 40;
    let 10..100 = moment.century else { return None };
    let numbers = u64::from(moment.century as u32)
        | u64::from(moment.year_of_century) << 16
        | u64::from(moment.month) << 40;
    Some((digits(numbers, PLACES) + bytes(*b"0000-00-")).to_le_bytes())
}

/// Whether the letter stands for text that may have more than 8 bytes.
fn is_long(letter: u8) -> bool {
    matches!(letter, b'A' | b'B' | b'F' | b'c' | b'r' | b's')
}

fn day_name(moment: &Moment) -> &'static Name {
    let day = moment.days_from_sunday() as usize;
    DAYS.get(day).unwrap_or(&DAYS[0])
}

fn month_name(moment: &Moment) -> &'static Name {
    let month = moment.month as usize - 1;
    MONTHS.get(month).unwrap_or(&MONTHS[0])
}

/// Up to 8 bytes as a number, the first one lowest.
const fn bytes<const N: usize>(text: [u8; N]) -> u64 {
    let mut bytes = [0; 8];
    bytes.split_at_mut(N).0.copy_from_slice(&text);
    u64::from_le_bytes(bytes)
}

/// Two digits, for a number below 100.
fn two(number: u32) -> u16 {
    digits(number.into(), 1) as u16 + u16::from_le_bytes(*b"00")
}

/// Two characters, for a number below 100: a space in place of the first zero.
fn spaced(number: u32) -> u16 {
    two(number) ^ if number < 10 { 0x10 } else { 0 }
}

/// Four digits, for two numbers below 100.
fn four(first: u32, second: u32) -> u64 {
    let numbers = u64::from(first) | u64::from(second) << 16;
    digits(numbers, 1 | 1 << 16) + bytes(*b"0000")
}

/// The digits, as numbers, of several numbers below 100: the tens in the lower byte. Each number has two bytes, the
/// first of them where `places` has a 1; all other bytes are 0, and stay so.
fn digits(numbers: u64, places: u64) -> u64 {
    // 103 / 1024 is a tenth, nearly enough.
    let tens = ((numbers * 103) >> 10) & (places * 0x0f);
    // number * 256 - tens * 10 * 256 + tens
    (numbers << 8) - tens * 2_559
}

/// Whether a byte of UTF-8 is not the first of its character (RFC 3629, section 3).
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// `text`, all of it.
fn copy(text: &[u8], out: &mut [u8]) -> Option<usize> {
    out.get_mut(..text.len())?.copy_from_slice(text);
    Some(text.len())
}

/// What [`copy`] does, for a length that the compiler knows.
fn write_array<const N: usize>(text: [u8; N], out: &mut [u8]) -> Option<usize> {
    *out.first_chunk_mut()? = text;
    Some(N)
}

fn write_name(name: &Name, out: &mut [u8]) -> Option<usize> {
    write_beginning(name, usize::from(name[9]), out)
}

/// The first `len` bytes of `text`. Where there is room, all of them are written, since the compiler knows how many
/// they are; those that are too many are written over by what comes next.
fn write_beginning<const N: usize>(text: &[u8; N], len: usize, out: &mut [u8]) -> Option<usize> {
    match out.first_chunk_mut() {
        Some(field) => {
            *field = *text;
            Some(len)
        }
        None => copy(text.get(..len)?, out),
    }
}

/// Puts the `len` bytes of text in upper case, and moves them aside for the padding they need.
#[inline]
fn finish(len: usize, upper: bool, spec: Spec, out: &mut [u8]) -> Option<usize> {
    if upper || spec.width > 0 {
        change(len, upper, spec, out)
    } else {
        Some(len)
    }
}

/// What [`finish`] does where there is something to do.
#[inline(never)]
fn change(len: usize, upper: bool, spec: Spec, out: &mut [u8]) -> Option<usize> {
    let text = out.get_mut(..len)?;
    if upper {
        text.make_ascii_uppercase();
    }
    let characters = text.iter().filter(|&&byte| !is_continuation(byte)).count();
    let padding = (spec.width as usize).saturating_sub(characters);
    let field = out.get_mut(..len.saturating_add(padding))?;
    field.copy_within(..len, padding);
    let fill = if spec.pad == Some(Pad::Zeros) {
        b'0'
    } else {
        b' '
    };
    field.iter_mut().take(padding).for_each(|byte| *byte = fill);
    Some(field.len())
}

/// A number, as the flags and the width say.
fn write_number(number: Number, spec: Spec, out: &mut [u8]) -> Option<usize> {
    let pad = spec.pad.unwrap_or(number.pad);
    let least = match pad {
        Pad::Nothing => spec.width,
        Pad::Zeros | Pad::Spaces => spec.width.max(number.least.into()),
    };
    if let (value @ 0..=9999, 0..=4) = (number.value, least)
        && let Some(field) = out.first_chunk_mut::<4>()
    {
        // All four digits and the padding in one go, first things in the lowest byte. What sticks out at the end is
        // written over by what comes next.
        let value = value as u32;
        let characters = four(value / 100, value % 100) as u32;
        // How many bits are zeros that nobody needs; the last digit always stays.
        let zeros = (characters & 0x0f0f_0f0f | 1 << 24).trailing_zeros() & !7;
        let spaces = match pad {
            Pad::Zeros => 0,
            Pad::Spaces | Pad::Nothing => 0x1010_1010 & ((1 << zeros) - 1),
        };
        let skipped = zeros.min(32 - 8 * least);
        *field = ((characters ^ spaces) >> skipped).to_le_bytes();
        return Some(4 - skipped as usize / 8);
    }
    let fill = match pad {
        Pad::Zeros => b'0',
        Pad::Spaces | Pad::Nothing => b' ',
    };
    write_padded(number.value.into(), fill, least as usize, out)
}

/// A number in at least `least` characters: zeros come after its sign, spaces before it.
#[inline(never)]
fn write_padded(value: i64, fill: u8, least: usize, out: &mut [u8]) -> Option<usize> {
    let mut rest = value.unsigned_abs();
    let (mut count, mut power) = (1, 10);
    // The absolute value of an `i64` has at most 19 digits, so this power is never more than 10^19.
    while rest >= power {
        count += 1;
        power *= 10;
    }
    let is_negative = value < 0;
    let len = (count + usize::from(is_negative)).max(least);
    let (padding, digits) = out.get_mut(..len)?.split_at_mut(len - count);
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
    Some(len)
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
