//! `time::format` against its model: Python's `time.strftime` on this machine, byte for byte.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use chrono::NaiveDate;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use smoltalk::time::{CachingServer, FormatError, MAX_ANSWER, Server};
use smoltalk::{DatagramService, Instant, Now, Wall, Zone};

/// One JSON string a line; the formats of the tests over the wire too.
const FORMATS: &str = include_str!("python/formats.txt");

/// As rules (POSIX.1-2017, section 8.3), so that the machine need not have a zone database.
const ZONES: [(&str, &str); 8] = [
    ("UTC", "UTC0"),
    ("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"),
    ("America/New_York", "EST5EDT,M3.2.0,M11.1.0"),
    ("Asia/Kathmandu", "<+0545>-5:45"),
    ("Asia/Shanghai", "CST-8"),
    (
        "Australia/Lord_Howe",
        "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    ),
    ("Africa/Monrovia until 1972", "MMT0:44:30"),
    ("less than a minute west", "<-00>0:00:59"),
];

/// For each zone, and so as many more formats as that.
const RANDOM_FORMATS: usize = 3_000;

#[test]
fn every_listed_format_at_seldom_times_is_as_in_python() {
    let formats = listed_formats();
    assert!(formats.len() >= 130, "only {} formats", formats.len());
    let times = seldom_times();
    assert!(times.len() >= 60, "only {} times", times.len());
    let mut compared = 0;
    for zone in ZONES {
        let questions: Vec<_> = times
            .iter()
            .flat_map(|&unix| formats.iter().map(move |format| (unix, format.clone())))
            .collect();
        compared += compare(zone, &questions, "");
    }
    println!(
        "{compared} answers are the same: {} formats at {} times in {} zones",
        formats.len(),
        times.len(),
        ZONES.len()
    );
}

#[test]
fn every_flag_width_modifier_and_letter_together_are_as_in_python() {
    let flags = [
        "", "_", "-", "0", "^", "#", "^#", "_^", "0#", "-_", "_0", "0-",
    ];
    let mut formats = Vec::new();
    for flags in flags {
        for width in ["", "1", "3", "5", "17", "31"] {
            for modifier in ["", "E", "O"] {
                formats.extend((' '..='~').map(|c| format!("%{flags}{width}{modifier}{c}|")));
            }
        }
    }
    let times = [at(2026, 5, 3, 9, 4, 5), at(-12, 12, 31, 0, 59, 0)];
    let questions: Vec<_> = times
        .iter()
        .flat_map(|&unix| formats.iter().map(move |format| (unix, format.clone())))
        .collect();
    let zone = ("America/Caracas until 2016", "<-0430>4:30");
    let compared = compare(zone, &questions, "");
    println!("{compared} answers are the same");
}

#[test]
fn random_formats_at_random_times_are_as_in_python() {
    let seed = match std::env::var("SMOLTALK_SEED") {
        Ok(seed) => seed.parse().expect("SMOLTALK_SEED is a number"),
        Err(_) => 20_261_122_u64,
    };
    println!("SMOLTALK_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    );
    let mut compared = 0;
    for zone in ZONES {
        let questions: Vec<_> = (0..RANDOM_FORMATS)
            .map(|_| question().new_tree(&mut runner).unwrap().current())
            .collect();
        compared += compare(zone, &questions, &format!(" (SMOLTALK_SEED={seed})"));
    }
    println!("{compared} answers are the same");
}

#[test]
fn what_python_refuses_is_refused() {
    for format in ["\0", "%Y\0", "%\0", "%5E\0", "%Y %\0 %d"] {
        let (versions, answers) = ask_python("UTC0", &[(0, format.to_owned())]);
        let [answer] = &answers[..] else {
            panic!("{versions}: {} answers to one question", answers.len())
        };
        if versions.starts_with("python 3.11.") {
            assert_eq!(answer.text, None, "{versions}: {format:?}");
        }
        assert_eq!(
            smoltalk::time::format(format, &Wall::utc(0), &mut [0; MAX_ANSWER]),
            Err(FormatError::Nul),
            "{format:?}"
        );
    }
}

#[test]
fn every_listed_format_is_answered_over_the_wire() {
    // A Wednesday in September, where names are longest.
    let now = Now {
        monotonic: Instant::ZERO,
        wall: Some(Wall::utc(at(2026, 9, 23, 12, 0, 0))),
    };
    let mut servers = (Server::new(), CachingServer::<4>::new());
    for format in listed_formats() {
        let (mut plain, mut fresh, mut remembered) =
            ([0; MAX_ANSWER], [0; MAX_ANSWER], [0; MAX_ANSWER]);
        let answer = ask(&mut servers.0, now, &format, &mut plain);
        for out in [&mut fresh, &mut remembered] {
            assert_eq!(ask(&mut servers.1, now, &format, out), answer, "{format:?}");
        }
    }
}

/// What `server` answers.
fn ask<'b>(
    server: &mut impl DatagramService,
    now: Now,
    format: &str,
    out: &'b mut [u8; MAX_ANSWER],
) -> &'b [u8] {
    let client = "192.0.2.7:40000".parse().unwrap();
    server
        .handle_datagram(now, client, format.as_bytes())
        .unwrap_or_else(|why| panic!("{format:?}: {why}"));
    let transmit = server.poll_transmit(now, out).unwrap();
    &out[..transmit.len]
}

/// Asks Python and `time::format` the same questions, and returns how many there were.
fn compare((name, tz): (&str, &str), questions: &[(i64, String)], note: &str) -> usize {
    let (versions, answers) = ask_python(tz, questions);
    assert_eq!(answers.len(), questions.len(), "{versions}");
    // The fields of "python 3.11.2 glibc 2.36".
    let mut fields = versions.split(' ').skip(2);
    assert_eq!(
        fields.next(),
        Some("glibc"),
        "{versions}: the model is the GNU C Library"
    );
    let zone_names_changed = fields.next().is_some_and(|version| {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(2), Some(38_u32))
    });
    let mut compared = 0;
    let mut differences = String::new();
    let mut out = [0; MAX_ANSWER];
    for ((unix, format), python) in questions.iter().zip(&answers) {
        if zone_names_changed && flags_a_zone_name(format) {
            continue;
        }
        compared += 1;
        let wall = Wall {
            unix_seconds: *unix,
            nanoseconds: 0,
            zone: python.zone,
        };
        let ours = smoltalk::time::format(format, &wall, &mut out).map(|len| &out[..len]);
        let same = match (&ours, &python.text) {
            (Ok(ours), Some(python)) => ours == python,
            // Python has its own idea of "too long", and then says nothing.
            (Err(FormatError::NoRoom), Some(python)) => {
                python.len() > MAX_ANSWER || python.is_empty()
            }
            _ => false,
        };
        if !same && differences.len() < 4_000 {
            let ours = ours.map(String::from_utf8_lossy);
            let python = python.text.as_deref().map(String::from_utf8_lossy);
            writeln!(
                differences,
                "{format:?} at {unix}: {ours:?}, Python says {python:?}"
            )
            .unwrap();
        }
    }
    assert!(
        differences.is_empty(),
        "{name} (TZ={tz}), {versions}{note}:\n{differences}"
    );
    compared
}

/// Whether the format has a `%Z` with flags, which glibc 2.38 and later treat differently (see `time::format`).
fn flags_a_zone_name(format: &str) -> bool {
    format.split('%').any(|directive| {
        directive
            .trim_start_matches(|c: char| "_-0^#EO".contains(c) || c.is_ascii_digit())
            .starts_with('Z')
            && directive.contains(['-', '^', '#'])
    })
}

struct Answer {
    zone: Zone,
    /// `None` where Python refuses.
    text: Option<Vec<u8>>,
}

fn ask_python(tz: &str, questions: &[(i64, String)]) -> (String, Vec<Answer>) {
    let mut input = String::new();
    for (unix, format) in questions {
        writeln!(input, "{unix} {}", hex(format)).unwrap();
    }
    let mut python = Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/python/strftime_oracle.py"
        ))
        .env("TZ", tz)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("this test compares with Python and needs `python3` in the PATH: {error}")
        });
    // It reads all its input before it writes, so neither can wait for the other.
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle ended with {output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    let mut lines = output.lines();
    let versions = lines.next().unwrap().to_owned();
    let answers = lines
        .map(|line| {
            let [offset, zone, text] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not an answer: {line}")
            };
            let zone = String::from_utf8(unhex(zone)).unwrap();
            Answer {
                zone: Zone::new(offset.parse().unwrap(), &zone).unwrap(),
                text: text.strip_prefix('+').map(unhex),
            }
        })
        .collect();
    (versions, answers)
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn listed_formats() -> Vec<String> {
    FORMATS.lines().map(unquote).collect()
}

/// A JSON string, of whose escapes the list uses four.
fn unquote(line: &str) -> String {
    let quoted = line
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_else(|| panic!("not a JSON string: {line}"));
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\')) => c,
                other => panic!("the escape {other:?} is not for this list: {line}"),
            },
            c => c,
        });
    }
    text
}

fn at(year: i32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> i64 {
    let date = NaiveDate::from_ymd_opt(year, month, day).unwrap();
    let time = date.and_hms_opt(hour, minute, second).unwrap();
    time.and_utc().timestamp()
}

/// Where calendars go wrong.
fn seldom_times() -> Vec<i64> {
    let mut times = vec![0, 1, -1, 59, 60, -86_400];
    times.extend([i32::MAX.into(), i64::from(i32::MAX) + 1, i32::MIN.into()]);
    times.extend([u32::MAX.into(), 999_999_999, 1_000_000_000]);
    // Around new year every way an ISO week can fall: each first weekday, in common and leap years.
    for year in [1970, 1999, 2000, 2004, 2005, 2008, 2009, 2010, 2012, 2015] {
        times.extend([at(year, 1, 1, 12, 0, 0), at(year, 12, 31, 12, 0, 0)]);
    }
    for year in [2016, 2017, 2018, 2019, 2020, 2021, 2024, 2026, 2027, 2028] {
        times.extend([at(year, 1, 3, 12, 0, 0), at(year, 12, 29, 12, 0, 0)]);
    }
    // Leap days, and days that are none.
    for year in [1600, 1900, 1972, 2000, 2016, 2024, 2100, 2400] {
        times.extend([
            at(year, 2, 28, 23, 59, 59),
            at(year, 3, 1, 0, 0, 0) - 43_200,
        ]);
    }
    // Midnight and noon.
    for hour in [0, 1, 9, 11, 12, 13, 21, 23] {
        times.extend([at(2026, 11, 22, hour, 0, 0), at(2026, 5, 6, hour, 59, 59)]);
    }
    // Daylight saving time begins and ends, and local times happen twice.
    for moment in [
        at(2026, 3, 29, 1, 0, 0),
        at(2026, 10, 25, 1, 0, 0),
        at(2026, 3, 8, 7, 0, 0),
        at(2026, 11, 1, 6, 0, 0),
        at(2026, 4, 4, 15, 0, 0),
        at(2026, 10, 3, 15, 30, 0),
    ] {
        times.extend([moment - 1_800, moment - 1, moment, moment + 900]);
    }
    // Years that do not have four digits, and the ends of the calendar (a day inside: zones move the clock).
    for year in [
        -262_143, -10_000, -9_999, -1_000, -401, -101, -100, -99, -1, 0, 1, 9, 10, 99, 100, 101,
        999, 1_000, 9_999, 10_000, 99_999, 100_000, 262_142,
    ] {
        times.extend([at(year, 1, 2, 0, 0, 0), at(year, 12, 30, 23, 59, 59)]);
    }
    times
}

fn question() -> impl Strategy<Value = (i64, String)> {
    let unix = prop_oneof![
        3 => at(1900, 1, 1, 0, 0, 0)..at(2100, 1, 1, 0, 0, 0),
        1 => at(-9_999, 1, 1, 0, 0, 0)..at(10_000, 1, 1, 0, 0, 0),
        1 => at(-262_143, 1, 2, 0, 0, 0)..at(262_142, 12, 30, 0, 0, 0),
    ];
    // The letters that mean something come often, and so do several parts in a row.
    let directive = "%[-_0^#]{0,3}([1-9][0-9]?|[1-9][0-9]{2,9})?[EO]?[aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%]";
    let piece = prop_oneof![
        6 => directive,
        1 => "%[-_0^#+EO:0-9.]{0,4}",
        1 => "%[-_0^#+EO:0-9.]{0,4}[!-~ éß现🕰\u{301}]",
        1 => "[^%\0]{0,3}",
        1 => "[ -~]{0,3}",
    ];
    (unix, vec(piece, 0..6).prop_map(|pieces| pieces.concat()))
}
