//! The formatter of the time service, in instructions, which are the same on every machine of a kind: as valgrind's
//! callgrind counts them.

use std::process::Command;

use smoltalk::time::DEFAULT_FORMAT;
use smoltalk_hosted::error::Error;

use crate::PEER;
use crate::contest::{Case, CaseResult, Goal, Metric, Role, Row, Sample};

pub static GENERAL: Case = Case {
    name: "strftime-general",
    title: "strftime: formats of many kinds, on average",
    unit: "format",
    columns: COLUMNS,
    run: |_, case| {
        const GOALS: &[Goal] = &[Goal::AtMost(Metric::Instructions, 0.25)];
        run(case, FORMATS, &[GLIBC, ALONE, smoltalk(GOALS)])
    },
};

pub static DEFAULT: Case = Case {
    name: "strftime-default",
    title: "strftime: the default format, %Y-%m-%d %X",
    unit: "format",
    columns: COLUMNS,
    run: |_, case| {
        const GOALS: &[Goal] = &[Goal::AtMost(Metric::Instructions, 0.10)];
        run(case, &[DEFAULT_FORMAT], &[GLIBC, ALONE, smoltalk(GOALS)])
    },
};

/// From the request to the answer, which is more than a format: the greeting's server does all but that.
pub static REPEATED: Case = Case {
    name: "strftime-repeated",
    title: "strftime: the default format again, in the same second",
    unit: "format",
    columns: COLUMNS,
    run: |_, case| {
        const GOALS: &[Goal] = &[Goal::AtMost(Metric::Instructions, 0.01)];
        let greeting = Writer {
            name: "the greeting's server",
            role: Role::Peer,
            program: "strftime-none",
            goals: &[],
        };
        let time = Writer {
            name: "smoltalk, the time's server",
            role: Role::Smoltalk,
            program: "strftime-server",
            goals: GOALS,
        };
        run(case, &[DEFAULT_FORMAT], &[GLIBC, greeting, time])
    },
};

/// One that writes formats.
struct Writer {
    name: &'static str,
    role: Role,
    /// The peer that does it.
    program: &'static str,
    goals: &'static [Goal],
}

const GLIBC: Writer = Writer {
    name: "glibc, gmtime_r and strftime",
    role: Role::Limit,
    program: "strftime-glibc",
    goals: &[],
};

const ALONE: Writer = Writer {
    name: "glibc, strftime alone",
    role: Role::Peer,
    program: "strftime-glibc-alone",
    goals: &[],
};

const fn smoltalk(goals: &'static [Goal]) -> Writer {
    Writer {
        name: "smoltalk",
        role: Role::Smoltalk,
        program: "strftime-format",
        goals,
    }
}

const COLUMNS: &[Metric] = &[Metric::Instructions];

/// What people ask for, and what is hard: names, weeks, the zone, flags, Unix time.
const FORMATS: &[&str] = &[
    "%Y-%m-%d %X",
    "%c",
    "%-d %_m %e %j",
    "%d.%m.%Y",
    "%H:%M %Z",
    "%A, %d. %B %Y",
    "%G-W%V-%u",
    "%s %z",
    "%I:%M %p",
    "%F %T",
];

/// How often each format is written, in two runs: the difference has no start of the program in it.
const TIMES: [u32; 2] = [100, 1_100];

fn run(case: &'static Case, formats: &[&str], writers: &[Writer]) -> Result<CaseResult, Error> {
    let mut rows = Vec::new();
    for writer in writers {
        let [few, many] = TIMES.map(|times| instructions(writer.program, times, formats));
        let more = (many? - few?) as f64;
        let written = f64::from(TIMES[1] - TIMES[0]) * formats.len() as f64;
        rows.push(Row {
            name: writer.name.to_owned(),
            role: writer.role,
            group: 0,
            goals: writer.goals,
            samples: vec![Sample::new(&[(Metric::Instructions, more / written)])],
        });
    }
    let notes = Vec::new();
    Ok(CaseResult { case, rows, notes })
}

/// How many instructions the benchmark takes as `peer`, from its start to its end.
fn instructions(peer: &str, times: u32, formats: &[&str]) -> Result<u64, Error> {
    let failed = |error: std::io::Error| Error::io("valgrind", &error);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().map_err(failed)?)
        .args([PEER, peer, &times.to_string()])
        .args(formats)
        // glibc looks for its zone in each call, and finds this one without reading a file.
        .env("TZ", "UTC0")
        .output()
        .map_err(|error| failed(error).with_hint("it counts the instructions; install it"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(Error::failed(format!("valgrind {peer}: {}", text.trim()))),
    }
}
