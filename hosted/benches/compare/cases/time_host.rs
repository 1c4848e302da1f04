//! The time over UDP on host sockets.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltalk_hosted::error::Error;

use super::{loopback, peer, python, serve_host};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::requests::{Requests, Sending};

pub static CASE: Case = Case {
    name: "udp-time-host",
    title: "UDP time on host sockets, 64 requests under way",
    unit: "reply",
    columns: &[Metric::Cpu, Metric::Rate],
    run: |bench, case| run(bench, case, Sending::Plain, GOALS),
};

/// It says what a server gains from requests that come together, and has no goals of its own.
pub static BURST: Case = Case {
    name: "udp-time-host-burst",
    title: "UDP time on host sockets, requests sent 16 at a time (UDP_SEGMENT)",
    unit: "reply",
    columns: &[Metric::Cpu, Metric::Rate],
    run: |bench, case| run(bench, case, Sending::Burst, &[Goal::NoneRefused]),
};

/// The CPU time is that of a server that answers in one piece, which one that does not cannot reach.
const GOALS: &[Goal] = &[
    Goal::AtLeast(Metric::Rate, 0.95),
    Goal::AtMost(Metric::Cpu, 0.80),
    Goal::NoneRefused,
];

const UNDER_WAY: usize = 64;
const PORT: u16 = 9_000;

fn run(
    bench: &Bench,
    case: &'static Case,
    sending: Sending,
    goals: &'static [Goal],
) -> Result<CaseResult, Error> {
    let mut contenders = Vec::new();
    let mut notes = Vec::new();
    let mut add = |name: &str, role, addr, server: Running| {
        let load = Requests::new(addr, vec![Ipv4Addr::LOCALHOST], UNDER_WAY, sending)
            .map_err(|error| Error::io("the load's socket", &error))?;
        contenders.push(Contender::new(name, role, goals, server, load));
        Ok::<_, Error>(())
    };
    let mut addresses = (0..).map(|number| loopback(PORT, number));
    let mut next = || -> SocketAddrV4 { addresses.next().expect("there is always another") };
    for (name, role, program) in [
        ("recvmmsg, sendmmsg, cached", Role::Limit, "udp-mmsg"),
        ("the same with UDP_SEGMENT", Role::Peer, "udp-segment"),
        ("std loop, chrono", Role::Peer, "udp-std"),
        ("tokio, chrono", Role::Peer, "udp-tokio"),
    ] {
        if role == Role::Limit || bench.wants(name) {
            let addr = next();
            add(name, role, addr, peer(bench, program, &[&addr])?)?;
        }
    }
    for server in bench.options.servers() {
        let addr = next();
        let running = serve_host(bench, &server, &[("--time", addr.to_string())], &[])?;
        add(&server.name, Role::Smoltalk, addr, running)?;
    }
    if bench.wants("Python") {
        let addr = next();
        let arguments: [&dyn std::fmt::Display; 2] = [addr.ip(), &addr.port()];
        if let Some(server) = python(bench, "time_server.py", &arguments, &mut notes) {
            add("Python", Role::Peer, addr, server)?;
        }
    }
    bench.contest(case, contenders, notes)
}
