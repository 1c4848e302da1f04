//! Answers of this second, for requests that come again within it.

use crate::{Wall, Zone};

/// The longest format, and the longest answer, that are kept.
const LONGEST: usize = 64;

/// The last answers to up to `N` formats. Takes 152 bytes each, and none at all where `N` is 0.
///
/// What a format's answer depends on is all of it the key: the format, the second, and the zone with its name. So an
/// answer is never a stale one, whichever way the clock is set and wherever the machine is taken.
#[derive(Clone, Debug)]
pub struct Cache<const N: usize> {
    entries: [Entry; N],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    unix_seconds: i64,
    zone: Zone,
    /// More than [`LONGEST`] while there is nothing here.
    format_len: u8,
    answer_len: u8,
    format: [u8; LONGEST],
    answer: [u8; LONGEST],
}

impl Entry {
    fn is_of(&self, wall: &Wall) -> bool {
        self.unix_seconds == wall.unix_seconds && self.zone == wall.zone
    }
}

impl<const N: usize> Cache<N> {
    pub const fn new() -> Self {
        Self {
            entries: [Entry {
                unix_seconds: 0,
                zone: Zone::UTC,
                format_len: u8::MAX,
                answer_len: 0,
                format: [0; LONGEST],
                answer: [0; LONGEST],
            }; N],
        }
    }

    /// Copies the answer to `format` at `wall` into `out`, and says how long it is. `None`: it is not here, or `out`
    /// has not [`LONGEST`] bytes.
    #[inline]
    pub fn copy(&self, format: &[u8], wall: &Wall, out: &mut [u8]) -> Option<usize> {
        let entry = self.entries.iter().find(|entry| {
            usize::from(entry.format_len) == format.len()
                && entry.is_of(wall)
                && begins_with(&entry.format, format)
        })?;
        // A length that the compiler knows makes it a few instructions.
        *out.first_chunk_mut()? = entry.answer;
        Some(entry.answer_len.into())
    }

    /// Keeps an answer, if it and its format are short enough. It takes the place of one of another second or, where
    /// all are of this one, of the one that `any` chooses.
    pub fn keep(&mut self, format: &[u8], wall: &Wall, answer: &[u8], any: u64) {
        if N == 0 || format.len() > LONGEST || answer.len() > LONGEST {
            return;
        }
        let old = self.entries.iter().position(|entry| !entry.is_of(wall));
        let index = old.unwrap_or(any as usize % N);
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        entry.unix_seconds = wall.unix_seconds;
        entry.zone = wall.zone;
        entry.format_len = format.len() as u8;
        entry.answer_len = answer.len() as u8;
        entry.format[..format.len()].copy_from_slice(format);
        entry.answer[..answer.len()].copy_from_slice(answer);
    }
}

/// `kept.starts_with(asked)`, in a few instructions for what most ask for: formats of 8 to 16 bytes, and an empty one.
#[inline]
fn begins_with(kept: &[u8; LONGEST], asked: &[u8]) -> bool {
    match (asked.first_chunk::<8>(), asked.last_chunk::<8>()) {
        (Some(first), Some(last)) if asked.len() <= 16 => {
            kept.first_chunk() == Some(first)
                && kept.get(asked.len() - 8..).and_then(<[u8]>::first_chunk) == Some(last)
        }
        _ => asked.is_empty() || kept.starts_with(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_from_every_other() {
        let kept: [u8; LONGEST] = core::array::from_fn(|index| b'a' + index as u8 % 26);
        for len in 0..=LONGEST {
            let mut asked = kept;
            assert!(begins_with(&kept, &asked[..len]));
            for index in 0..len {
                asked[index] ^= 1;
                assert!(!begins_with(&kept, &asked[..len]), "byte {index} of {len}");
                asked[index] ^= 1;
            }
        }
        assert!(!begins_with(&kept, &[b'a'; LONGEST + 1]));
    }
}
