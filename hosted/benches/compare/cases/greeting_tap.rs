//! The greeting over TCP on a TAP device.

use std::net::SocketAddrV4;

use smoltalk_hosted::error::Error;

use super::{peer, serve_tap};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::greetings::Greetings;
use crate::place::Tap;

pub static FEW: Case = Case {
    name: "tcp-greeting-tap-32",
    title: "TCP greeting over TAP, 32 clients",
    unit: "connection",
    columns: &[Metric::Cpu, Metric::Rate],
    run: |bench, case| run(bench, case, 32),
};

pub static MANY: Case = Case {
    name: "tcp-greeting-tap-1024",
    title: "TCP greeting over TAP, 1,024 clients",
    unit: "connection",
    columns: &[Metric::Cpu, Metric::Rate],
    run: |bench, case| run(bench, case, 1_024),
};

const GOALS: &[Goal] = &[
    Goal::AtLeast(Metric::Rate, 0.95),
    Goal::AtMost(Metric::Cpu, 1.10),
    Goal::NoneRefused,
];

const PORT: u16 = smoltalk::greeting::PORT;

fn run(bench: &Bench, case: &'static Case, clients: usize) -> Result<CaseResult, Error> {
    let mut contenders = Vec::new();
    let mut taps = Vec::new();
    let mut add = |name: &str, role, start: &dyn Fn(&Tap) -> Result<Running, Error>| {
        let tap = Tap::make(taps.len())?;
        let server = start(&tap)?;
        let addr = SocketAddrV4::new(tap.server(), PORT);
        let load = Greetings::new(addr.into(), clients)
            .map_err(|error| Error::io("the load's sockets", &error))?;
        taps.push(tap);
        contenders.push(Contender::new(name, role, GOALS, server, load));
        Ok::<_, Error>(())
    };
    for (name, role, program) in [
        ("stateless responder", Role::Limit, "tap-tcp"),
        ("smoltcp, a fixed pool", Role::Peer, "smoltcp-tcp"),
    ] {
        if role == Role::Limit || bench.wants(name) {
            add(name, role, &|tap| {
                let pool = 2 * clients;
                peer(
                    bench,
                    program,
                    &[&tap.name, &tap.server(), &tap.kernel(), &pool],
                )
            })?;
        }
    }
    for server in bench.options.servers() {
        add(&server.name, Role::Smoltalk, &|tap| {
            serve_tap(
                bench,
                &server,
                &[("--greeting-tcp", PORT.to_string())],
                &[],
                tap,
            )
        })?;
    }
    bench.contest(case, contenders, Vec::new())
}
