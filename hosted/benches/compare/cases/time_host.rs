//! The time over UDP on host sockets.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltalk_hosted::error::Error;

use super::{loopback, peer, python, serve_host};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::requests::Requests;

pub static CASE: Case = Case {
    name: "udp-time-host",
    title: "UDP time on host sockets, 64 requests under way",
    unit: "reply",
    columns: &[Metric::Rate, Metric::Cpu],
    run,
};

const GOALS: &[Goal] = &[
    Goal::AtLeast(Metric::Rate, 0.95),
    Goal::AtMost(Metric::Cpu, 1.05),
    Goal::NoneRefused,
];

const UNDER_WAY: usize = 64;
const PORT: u16 = 9_000;

fn run(bench: &Bench, case: &'static Case) -> Result<CaseResult, Error> {
    let mut contenders = Vec::new();
    let mut notes = Vec::new();
    let mut add = |name: &str, role, addr, server: Running| {
        let load = Requests::new(addr, vec![Ipv4Addr::LOCALHOST], UNDER_WAY)
            .map_err(|error| Error::io("the load's socket", &error))?;
        contenders.push(Contender {
            name: name.to_owned(),
            role,
            goals: if role == Role::Smoltalk { GOALS } else { &[] },
            server,
            load: Box::new(load),
            spins: false,
        });
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
        let running = serve_host(bench, &server, "--time", addr)?;
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
