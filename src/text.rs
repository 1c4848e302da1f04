//! What peers send, made safe to show.

use core::fmt::{self, Write as _};

/// Bytes from a peer, shown as one line of text that a terminal cannot mistake for a command.
///
/// Every text of a peer's goes through here on its way to a person; there is no second way. Printable text in
/// any script comes out as it went in. The rest is written as an escape:
///
/// | what | shown as |
/// |---|---|
/// | line feed, carriage return, tab | `\n`, `\r`, `\t` |
/// | the other C0 controls (ESC and BEL among them) and DEL | `\x1b` |
/// | bytes that are not UTF-8, one by one: stray and truncated sequences, overlong forms, surrogates, and C1 controls as single bytes | `\x9b` |
/// | C1 controls in UTF-8 (U+0080 to U+009F) | `\u{9b}` |
/// | the line and paragraph separators (U+2028, U+2029) | `\u{2028}` |
/// | what changes the direction of text: bidi marks, embeddings, overrides, isolates | `\u{202e}` |
/// | what leaves no mark: Unicode's `Default_Ignorable_Code_Point` (zero-width space, word joiner, byte order mark, soft hyphen, fillers, tag characters, ...), interlinear annotation, Egyptian hieroglyph layout | `\u{200b}` |
/// | noncharacters (U+FFFE and its kin) | `\u{fffe}` |
///
/// Joiners and variation selectors leave no mark either, yet emoji (👩‍🚀, ❤️, 1️⃣), Persian, Indic and Mongolian
/// words and Japanese names are not right without them. So they pass, but only directly after a character that
/// they can work on, and only one at a time (a joiner may follow a selector): there is no room in them for
/// hidden text. A character that they can work on is any shown one outside ASCII, and of ASCII the digits, `#`
/// and `*`, of which keycaps are made. The flags of England, Scotland and Wales are spelled with tag
/// characters, in which any hidden text could be, and come out as a black flag and escapes.
///
/// A backslash is shown as it is, so this is for reading, not for reading back. Letters of right-to-left
/// scripts, unassigned and private-use characters and any number of combining marks pass. Nothing is
/// allocated; the output has at most four times the bytes of the input.
///
/// ```
/// use smoltalk::text::Shown;
///
/// assert_eq!(Shown("你好, egg".as_bytes()).to_string(), "你好, egg");
/// assert_eq!(Shown(b"\x1b[2J bye\r\n\xff").to_string(), r"\x1b[2J bye\r\n\xff");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a>(pub &'a [u8]);

impl Shown<'_> {
    /// Whether it is shown exactly as it is: it is UTF-8 and nothing in it needs an escape.
    pub fn is_verbatim(&self) -> bool {
        let mut before = Before::Nothing;
        core::str::from_utf8(self.0).is_ok_and(|text| text.chars().all(|c| before.admits(c)))
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = Before::Nothing;
        for chunk in self.0.utf8_chunks() {
            let valid = chunk.valid();
            let mut unwritten = 0;
            for (at, c) in valid.char_indices() {
                if !before.admits(c) {
                    f.write_str(&valid[unwritten..at])?;
                    escape(c, f)?;
                    unwritten = at + c.len_utf8();
                }
            }
            f.write_str(&valid[unwritten..])?;
            for byte in chunk.invalid() {
                hex(u32::from(*byte), f)?;
                before = Before::Nothing;
            }
        }
        Ok(())
    }
}

fn escape(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_ascii() => hex(u32::from(c), f),
        c => {
            for c in c.escape_unicode() {
                f.write_char(c)?;
            }
            Ok(())
        }
    }
}

/// Two digits by hand: the core library's formatting of integers takes 0.8 KB, which a small machine may have for this
/// alone.
fn hex(byte: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\\x")?;
    for nibble in [byte >> 4 & 0xf, byte & 0xf] {
        f.write_char(char::from_digit(nibble, 16).unwrap_or('?'))?;
    }
    Ok(())
}

/// What the last character was, as far as the next one's being shown depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that a joiner or a selector can work on.
    Nothing,
    /// Something they can work on.
    Base,
    Selector,
}

impl Before {
    /// Whether `c` is shown as it is, after this.
    fn admits(&mut self, c: char) -> bool {
        let before = core::mem::replace(self, Self::Nothing);
        match c {
            '0'..='9' | '#' | '*' => *self = Self::Base,
            ' '..='~' => {}
            // The zero-width joiner and non-joiner, and the Mongolian vowel separator.
            '\u{200c}' | '\u{200d}' | '\u{180e}' => return before != Self::Nothing,
            // Those with the property Variation_Selector.
            '\u{180b}'..='\u{180d}'
            | '\u{180f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{e0100}'..='\u{e01ef}' => {
                if before != Self::Base {
                    return false;
                }
                *self = Self::Selector;
            }
            c if is_hidden(c) => return false,
            _ => *self = Self::Base,
        }
        true
    }
}

/// Whether `c` is a control, leaves no mark, or steers the text around it.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(
            c,
            // Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt), less what `Before` knows.
            // Reserved ranges are in it, so that future versions add nothing.
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
                // Line and paragraph separator; interlinear annotation; Egyptian hieroglyph format controls.
                | '\u{2028}'..='\u{2029}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{13430}'..='\u{1343f}'
                // The noncharacters that are not the last two of a plane.
                | '\u{fdd0}'..='\u{fdef}'
        )
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: impl AsRef<[u8]>) -> String {
        Shown(bytes.as_ref()).to_string()
    }

    #[test]
    fn every_ascii_character_is_shown_or_escaped() {
        for byte in 0..=0x7f_u8 {
            let expected = match byte {
                b'\n' => "\\n".into(),
                b'\r' => "\\r".into(),
                b'\t' => "\\t".into(),
                0x20..=0x7e => char::from(byte).to_string(),
                _ => std::format!("\\x{byte:02x}"),
            };
            assert_eq!(shown([byte]), expected);
        }
    }

    #[test]
    fn terminal_commands_are_shown_not_obeyed() {
        for (sent, expected) in [
            (b"\x1b[2J\x1b[H".as_slice(), r"\x1b[2J\x1b[H"),
            (b"\x1b]0;title\x07", r"\x1b]0;title\x07"),
            (b"\x1b]52;c;aGk=\x1b\\", r"\x1b]52;c;aGk=\x1b\"),
            (b"good\rbad\x08\x7f", r"good\rbad\x08\x7f"),
            // CSI as one byte, and as the character U+009B.
            (b"\x9b31m", r"\x9b31m"),
            (b"\xc2\x9b31m", r"\u{9b}31m"),
            (b"\xc2\x85", r"\u{85}"),
        ] {
            assert_eq!(shown(sent), expected);
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_shown_one_by_one() {
        for (sent, expected) in [
            (b"\xff\xfe".as_slice(), r"\xff\xfe"),
            // A stray continuation byte; a lead byte and what follows is ASCII.
            (b"a\x80b\xc3c", r"a\x80b\xc3c"),
            // Overlong: "/" in two bytes, NUL in two, "/" in three.
            (
                b"\xc0\xaf\xc0\x80\xe0\x80\xaf",
                r"\xc0\xaf\xc0\x80\xe0\x80\xaf",
            ),
            // A surrogate (U+D800), a pair of them (CESU-8), and beyond U+10FFFF.
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
            (b"\xed\xa0\xbd\xed\xb8\x80", r"\xed\xa0\xbd\xed\xb8\x80"),
            (b"\xf4\x90\x80\x80", r"\xf4\x90\x80\x80"),
            // Truncated, at the end and before another character.
            (b"\xe4\xbd", r"\xe4\xbd"),
            (b"\xf0\x9f\x98\xe5\xa5\xbd", "\\xf0\\x9f\\x98好"),
        ] {
            assert_eq!(shown(sent), expected);
        }
    }

    #[test]
    fn what_turns_hides_or_splits_the_line_is_escaped() {
        for c in "\u{200e}\u{200f}\u{61c}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\
                  \u{2069}\u{2028}\u{2029}\u{200b}\u{2060}\u{2064}\u{2065}\u{206f}\u{feff}\u{ad}\u{34f}\
                  \u{115f}\u{3164}\u{ffa0}\u{e0001}\u{e0041}\u{e007f}\u{e0200}\u{fff9}\u{fffb}\u{13430}\
                  \u{1d173}\u{1bca0}\u{fdd0}\u{fffe}\u{ffff}\u{10ffff}\u{180e}\u{fe0f}\u{e0100}\u{200c}\
                  \u{200d}"
            .chars()
        {
            let text = std::format!("a{c}b");
            assert_eq!(shown(&text), std::format!("a{}b", c.escape_unicode()));
            assert!(!Shown(text.as_bytes()).is_verbatim());
        }
    }

    #[test]
    fn text_of_every_script_passes() {
        for text in [
            "",
            r#"~ !"\'`{}"#,
            "金老板: 你好，哪吒！　全角",
            "日本語 葛\u{e0100}城市",
            "한국어 ﾊﾝｶｸ",
            "Ελλάδα Россия résumé re\u{301}sume\u{301}",
            "שלום عربي می\u{200c}خواهم",
            "क\u{94d}\u{200d}ष ᠮᠣᠩᠭᠣᠯ\u{180e}ᠠ",
            "👍🏽 👩\u{200d}👩\u{200d}👧 ❤\u{fe0f}\u{200d}🔥 🏳\u{fe0f}\u{200d}🌈 🇨🇳 1\u{fe0f}\u{20e3}",
            "unassigned \u{378} private \u{e000} replacement \u{fffd}",
        ] {
            assert_eq!(shown(text), text);
            assert!(Shown(text.as_bytes()).is_verbatim());
        }
    }

    #[test]
    fn joiners_and_selectors_pass_one_at_a_time_and_only_after_something() {
        for (sent, expected) in [
            ("\u{200d}好", "\\u{200d}好"),
            ("好\u{200d}\u{200d}", "好\u{200d}\\u{200d}"),
            ("好\u{fe0f}\u{fe0f}", "好\u{fe0f}\\u{fe0f}"),
            ("好\u{200d}\u{fe0f}", "好\u{200d}\\u{fe0f}"),
            ("好\u{fe0f}\u{200d}\u{200d}", "好\u{fe0f}\u{200d}\\u{200d}"),
            ("pay\u{200c}pal \u{fe0f}", "pay\\u{200c}pal \\u{fe0f}"),
            ("\u{202e}\u{fe0f}", "\\u{202e}\\u{fe0f}"),
        ] {
            assert_eq!(shown(sent), expected);
        }
        // Bytes that are not UTF-8 are nothing to work on either.
        assert_eq!(shown(b"\xe5\xa5\xbd\xff\xef\xb8\x8f"), "好\\xff\\u{fe0f}");
    }

    /// Characters of which peers' texts are made when they mean harm, and some of all others.
    fn any_char() -> impl Strategy<Value = char> {
        prop_oneof![
            any::<char>(),
            proptest::char::range('\0', '\u{ff}'),
            proptest::char::range('\u{2000}', '\u{2070}'),
            proptest::char::range('\u{fdd0}', '\u{ffff}'),
            proptest::char::range('\u{e0000}', '\u{e0fff}'),
            Just('好'),
        ]
    }

    fn is_safe(text: &str) -> bool {
        text.chars().all(|c| {
            !c.is_control()
                && !matches!(
                    c,
                    '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}'..='\u{202e}'
                )
                && !matches!(c, '\u{200b}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
                && !matches!(c, '\u{e0000}'..='\u{e00ff}')
        })
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_safe_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let line = shown(&bytes);
            prop_assert!(is_safe(&line), "{line:?}");
            prop_assert!(line.len() <= 4 * bytes.len());
            // What was shown once is shown again without change.
            prop_assert_eq!(shown(&line), line);
        }

        #[test]
        fn any_text_becomes_one_safe_line(chars in proptest::collection::vec(any_char(), 0..60)) {
            let text: String = chars.into_iter().collect();
            let line = shown(&text);
            prop_assert!(is_safe(&line), "{line:?}");
            prop_assert!(line.len() <= 4 * text.len());
            prop_assert_eq!(Shown(text.as_bytes()).is_verbatim(), line == text);
            prop_assert!(Shown(line.as_bytes()).is_verbatim());
        }

        #[test]
        fn printable_ascii_passes_unchanged(text in "[ -~]{0,100}") {
            prop_assert_eq!(shown(&text), text);
        }

        #[test]
        fn printable_text_passes_unchanged(text in r"[\p{L}\p{N}\p{P}\p{S}\p{Zs}&&[^\u{115f}\u{1160}\u{3164}\u{ffa0}]]{0,60}") {
            prop_assert_eq!(shown(&text), text);
        }

        #[test]
        fn text_between_bytes_that_are_not_passes_unchanged(
            words in proptest::collection::vec("[a-z一-龥]{1,5}", 0..10),
        ) {
            let mut bytes = Vec::new();
            let mut expected = String::new();
            for word in &words {
                bytes.extend_from_slice(word.as_bytes());
                bytes.push(0xff);
                expected.push_str(word);
                expected.push_str("\\xff");
            }
            prop_assert_eq!(shown(&bytes), expected);
        }
    }
}
