//! What connections cost that say nothing: the same load beside few and beside many of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use smoltalk_hosted::error::Error;

use super::{Service, loopback, serve_host, serve_tap};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Load, Metric, Role, Tally};
use crate::load::greetings::Greetings;
use crate::load::idle::Idle;
use crate::load::requests::{Requests, Sending};
use crate::options::Server;
use crate::place::Tap;

pub static UDP_HOST: Case = Case {
    name: "idle-udp-host",
    title: "UDP time on host sockets, beside idle TCP connections",
    unit: "reply",
    columns: COLUMNS,
    run: |bench, case| run(bench, case, Stack::Host, Active::Udp),
};

pub static UDP_TAP: Case = Case {
    name: "idle-udp-tap",
    title: "UDP time over TAP, beside idle TCP connections",
    unit: "reply",
    columns: COLUMNS,
    run: |bench, case| run(bench, case, Stack::Tap, Active::Udp),
};

pub static TCP_HOST: Case = Case {
    name: "idle-tcp-host",
    title: "TCP greeting on host sockets, beside idle TCP connections",
    unit: "connection",
    columns: COLUMNS,
    run: |bench, case| run(bench, case, Stack::Host, Active::Tcp),
};

pub static TCP_TAP: Case = Case {
    name: "idle-tcp-tap",
    title: "TCP greeting over TAP, beside idle TCP connections",
    unit: "connection",
    columns: COLUMNS,
    run: |bench, case| run(bench, case, Stack::Tap, Active::Tcp),
};

const COLUMNS: &[Metric] = &[Metric::Cpu, Metric::Rate];
const GOALS: &[Goal] = &[Goal::AtMost(Metric::Cpu, 1.02), Goal::NoneRefused];

/// The first is what the others are compared with, the last is what the goal is for.
const CONNECTIONS: [usize; 3] = [16, 256, 4_096];

const UNDER_WAY: usize = 64;
const CLIENTS: usize = 32;
const TIME_PORT: u16 = 9_200;
const GREETING_PORT: u16 = 9_300;

/// Long enough for nobody to be thought gone.
const PATIENT: &[&str] = &["--idle-timeout", "3600"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    Host,
    Tap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Active {
    Udp,
    Tcp,
}

/// A server, its link if it has one, and where it is.
struct Place {
    server: Running,
    tap: Option<Tap>,
    time: SocketAddrV4,
    greeting: SocketAddrV4,
}

fn run(
    bench: &Bench,
    case: &'static Case,
    stack: Stack,
    active: Active,
) -> Result<CaseResult, Error> {
    let mut contenders = Vec::new();
    let mut notes = Vec::new();
    let mut taps = Vec::new();
    let mut held = Vec::new();
    for (group, server) in bench.options.servers().iter().enumerate() {
        for (nth, count) in CONNECTIONS.into_iter().enumerate() {
            let number = group * CONNECTIONS.len() + nth;
            let place = place(bench, stack, server, number)?;
            let name = format!("{}, {count} idle", server.name);
            let idle = match Idle::open(place.greeting.into(), count) {
                Ok(idle) => Rc::new(idle),
                Err(error) if nth > 0 => {
                    notes.push(format!("{name}: cannot be held: {error}"));
                    continue;
                }
                Err(error) => return Err(Error::io(name, &error)),
            };
            held.push((name.clone(), idle.clone()));
            let load = Beside {
                load: load(&place, active).map_err(|error| Error::io("the load", &error))?,
                _idle: idle,
            };
            let last = nth == CONNECTIONS.len() - 1;
            let role = if nth == 0 {
                Role::Limit
            } else {
                Role::Smoltalk
            };
            let goals = if last { GOALS } else { &[] };
            let mut contender = Contender::new(&name, role, goals, place.server, load);
            contender.group = group;
            contenders.push(contender);
            taps.extend(place.tap);
        }
    }
    // The servers end with the contest.
    bench.contest_then(case, contenders, notes, || {
        let closed = held.iter().map(|(name, idle)| (name, idle.closed()));
        closed
            .filter(|(_, closed)| *closed > 0)
            .map(|(name, closed)| format!("{name}: {closed} of them were closed meanwhile"))
            .collect()
    })
}

fn place(bench: &Bench, stack: Stack, server: &Server, number: usize) -> Result<Place, Error> {
    let services = |time: String, greeting: String| -> [Service; 2] {
        [("--time", time), ("--greeting-tcp", greeting)]
    };
    Ok(match stack {
        Stack::Host => {
            let time = loopback(TIME_PORT, number);
            let greeting = loopback(GREETING_PORT, number);
            let services = services(time.to_string(), greeting.to_string());
            Place {
                server: serve_host(bench, server, &services, PATIENT)?,
                tap: None,
                time,
                greeting,
            }
        }
        Stack::Tap => {
            let tap = Tap::make(number)?;
            let (time, greeting) = (smoltalk::time::PORT, smoltalk::greeting::PORT);
            let services = services(time.to_string(), greeting.to_string());
            Place {
                server: serve_tap(bench, server, &services, PATIENT, &tap)?,
                time: SocketAddrV4::new(tap.server(), time),
                greeting: SocketAddrV4::new(tap.server(), greeting),
                tap: Some(tap),
            }
        }
    })
}

fn load(place: &Place, active: Active) -> io::Result<Box<dyn Load>> {
    Ok(match active {
        Active::Udp => {
            let (source, sending) = match &place.tap {
                Some(tap) => (tap.kernel(), Sending::Burst),
                None => (Ipv4Addr::LOCALHOST, Sending::Plain),
            };
            Box::new(Requests::new(place.time, vec![source], UNDER_WAY, sending)?)
        }
        Active::Tcp => Box::new(Greetings::new(place.greeting.into(), CLIENTS)?),
    })
}

/// A load, and connections beside it.
struct Beside {
    load: Box<dyn Load>,
    _idle: Rc<Idle>,
}

impl Load for Beside {
    fn run(&mut self, time: Duration) -> io::Result<Tally> {
        self.load.run(time)
    }
}
