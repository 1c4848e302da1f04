//! One TCP connection that carries as much as it can, filled with the characters of RFC 864.

use std::net::SocketAddrV4;

use smoltalk_hosted::error::Error;

use super::{Service, peer, serve_tap};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::bulk::{Bulk, Direction};
use crate::place::Tap;

pub static OUT: Case = Case {
    name: "bulk-tap-out",
    title: "chargen over TAP: one connection, sent to the kernel",
    unit: "MB",
    columns: &[Metric::Rate, Metric::Cpu],
    run: |bench, case| {
        const GOALS: &[Goal] = &[Goal::AtLeast(Metric::Rate, 2.0), Goal::NoneRefused];
        run(bench, case, Direction::Out, GOALS)
    },
};

pub static IN: Case = Case {
    name: "bulk-tap-in",
    title: "discard over TAP: one connection, sent by the kernel",
    unit: "MB",
    columns: &[Metric::Rate, Metric::Cpu],
    run: |bench, case| {
        const GOALS: &[Goal] = &[Goal::AtLeast(Metric::Rate, 0.8), Goal::NoneRefused];
        run(bench, case, Direction::In, GOALS)
    },
};

fn run(
    bench: &Bench,
    case: &'static Case,
    direction: Direction,
    goals: &'static [Goal],
) -> Result<CaseResult, Error> {
    // As /etc/services has them.
    let (option, port) = match direction {
        Direction::Out => ("--chargen", 19),
        Direction::In => ("--discard", 9),
    };
    let mut taps = Vec::new();
    let mut contenders = Vec::new();
    let mut notes = Vec::new();
    let mut add = |name: &str, role, server: Running, tap: Tap| {
        let addr = SocketAddrV4::new(tap.server(), port);
        let load = Bulk::new(addr.into(), direction);
        contenders.push(Contender::new(name, role, goals, server, load));
        taps.push(tap);
    };
    let mut numbers = 0..;
    let mut next = || -> usize { numbers.next().expect("there is always another") };

    let veth = Tap::named(next());
    let kernel = peer(bench, "kernel-bulk", &[&veth.name, &veth.server()])?;
    veth.connect()?;
    add("the kernel, over veth", Role::Limit, kernel, veth);
    let name = "smoltcp, as in its benchmark";
    if bench.wants(name) {
        let tap = Tap::make(next())?;
        let arguments: [&dyn std::fmt::Display; 3] = [&tap.name, &tap.server(), &tap.kernel()];
        let server = peer(bench, "smoltcp-bulk", &arguments)?;
        add(name, Role::Peer, server, tap);
    }
    for server in bench.options.servers() {
        if !server.has(option) {
            notes.push(format!("{} has no {option}", server.name));
            continue;
        }
        let tap = Tap::make(next())?;
        let service: Service = (option, port.to_string());
        let running = serve_tap(bench, &server, &[service], &[], &tap)?;
        add(&server.name, Role::Smoltalk, running, tap);
    }
    bench.contest(case, contenders, notes)
}
