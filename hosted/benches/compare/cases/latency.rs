//! How long the answer to one request takes, when there is no other.

use std::net::SocketAddrV4;
use std::time::Duration;

use smoltalk_hosted::error::Error;

use super::{Service, loopback, peer, serve_host, serve_tap};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::latency::OneByOne;
use crate::place::Tap;

pub static HOST: Case = Case {
    name: "latency-host",
    title: "UDP time on host sockets, one request at a time, asleep between",
    unit: "reply",
    columns: COLUMNS,
    run: |bench, case| on_host(bench, case, Waiting::Asleep),
};

pub static HOST_BUSY: Case = Case {
    name: "latency-host-busy",
    title: "UDP time on host sockets, one request at a time, never asleep",
    unit: "reply",
    columns: COLUMNS,
    run: |bench, case| on_host(bench, case, Waiting::Busy),
};

pub static TAP: Case = Case {
    name: "latency-tap",
    title: "UDP time over TAP, one request at a time, asleep between",
    unit: "reply",
    columns: COLUMNS,
    run: |bench, case| on_tap(bench, case, Waiting::Asleep),
};

pub static TAP_BUSY: Case = Case {
    name: "latency-tap-busy",
    title: "UDP time over TAP, one request at a time, never asleep",
    unit: "reply",
    columns: COLUMNS,
    run: |bench, case| on_tap(bench, case, Waiting::Busy),
};

const COLUMNS: &[Metric] = &[Metric::P50, Metric::P99];

const ASLEEP: &[Goal] = &[Goal::AtMost(Metric::P50, 1.05), Goal::NoneRefused];
const BUSY: &[Goal] = &[Goal::AtMost(Metric::P50, 1.15), Goal::NoneRefused];

/// What `serve` is told, to never sleep.
const BUSY_POLL: &str = "--busy-poll";

const PORT: u16 = 9_100;

/// What a server does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Asleep,
    Busy,
}

impl Waiting {
    fn goals(self) -> &'static [Goal] {
        match self {
            Self::Asleep => ASLEEP,
            Self::Busy => BUSY,
        }
    }

    /// Long enough for the CPU of one that sleeps to sleep too. In a shorter pause some systems keep it awake and some
    /// do not, and the same one does both.
    fn pause(self) -> Duration {
        match self {
            Self::Asleep => Duration::from_micros(300),
            Self::Busy => Duration::ZERO,
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Asleep => &[],
            Self::Busy => &[BUSY_POLL],
        }
    }

    /// A contender, which is stopped at once if it never sleeps: the next is started on the same CPU.
    fn contender(
        self,
        name: &str,
        role: Role,
        addr: SocketAddrV4,
        server: Running,
    ) -> Result<Contender, Error> {
        let load = OneByOne::new(addr, self.pause())
            .map_err(|error| Error::io("the load's socket", &error))?;
        let mut contender = Contender::new(name, role, self.goals(), server, load);
        contender.spins = self == Self::Busy;
        if contender.spins {
            contender.server.pause();
        }
        Ok(contender)
    }
}

fn on_host(bench: &Bench, case: &'static Case, waiting: Waiting) -> Result<CaseResult, Error> {
    let mut addresses = (0..).map(|number| loopback(PORT, number));
    let mut next = || -> SocketAddrV4 { addresses.next().expect("there is always another") };
    let (name, program) = match waiting {
        Waiting::Asleep => ("blocking loop, cached", "udp-one"),
        Waiting::Busy => ("busy loop, cached", "udp-one-busy"),
    };
    let addr = next();
    let server = peer(bench, program, &[&addr])?;
    let mut contenders = vec![waiting.contender(name, Role::Limit, addr, server)?];
    let mut notes = Vec::new();
    for server in bench.options.servers() {
        if waiting == Waiting::Busy && !server.has(BUSY_POLL) {
            notes.push(format!("{} has no {BUSY_POLL}", server.name));
            continue;
        }
        let addr = next();
        let time: Service = ("--time", addr.to_string());
        let running = serve_host(bench, &server, &[time], waiting.options())?;
        contenders.push(waiting.contender(&server.name, Role::Smoltalk, addr, running)?);
    }
    bench.contest(case, contenders, notes)
}

fn on_tap(bench: &Bench, case: &'static Case, waiting: Waiting) -> Result<CaseResult, Error> {
    let (name, program) = match waiting {
        Waiting::Asleep => ("blocking frame reflector", "tap-udp"),
        Waiting::Busy => ("busy frame reflector", "tap-udp-busy"),
    };
    let mut taps = Vec::new();
    let mut contenders = Vec::new();
    let mut notes = Vec::new();
    let mut add = |name: &str, role, start: &dyn Fn(&Tap) -> Result<Running, Error>| {
        let tap = Tap::make(taps.len())?;
        let server = start(&tap)?;
        let addr = SocketAddrV4::new(tap.server(), smoltalk::time::PORT);
        contenders.push(waiting.contender(name, role, addr, server)?);
        taps.push(tap);
        Ok::<_, Error>(())
    };
    add(name, Role::Limit, &|tap| {
        peer(bench, program, &[&tap.name, &tap.server(), &tap.kernel()])
    })?;
    for server in bench.options.servers() {
        if waiting == Waiting::Busy && !server.has(BUSY_POLL) {
            notes.push(format!("{} has no {BUSY_POLL}", server.name));
            continue;
        }
        let time: Service = ("--time", smoltalk::time::PORT.to_string());
        add(&server.name, Role::Smoltalk, &|tap| {
            serve_tap(
                bench,
                &server,
                std::slice::from_ref(&time),
                waiting.options(),
                tap,
            )
        })?;
    }
    bench.contest(case, contenders, notes)
}
