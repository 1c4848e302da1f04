//! The greeting over TCP on host sockets.

use std::net::SocketAddrV4;

use smoltalk_hosted::error::Error;

use super::{loopback, peer, python, serve_host};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::greetings::Greetings;

pub static CASE: Case = Case {
    name: "tcp-greeting-host",
    title: "TCP greeting on host sockets, 32 clients",
    unit: "connection",
    columns: &[Metric::Cpu, Metric::Rate],
    run,
};

const GOALS: &[Goal] = &[Goal::AtMost(Metric::Cpu, 1.05), Goal::NoneRefused];

const CLIENTS: usize = 32;
const PORT: u16 = 8_898;

fn run(bench: &Bench, case: &'static Case) -> Result<CaseResult, Error> {
    let mut contenders = Vec::new();
    let mut notes = Vec::new();
    let mut add = |name: &str, role, addr: SocketAddrV4, server: Running| {
        let load = Greetings::new(addr.into(), CLIENTS)
            .map_err(|error| Error::io("the load's sockets", &error))?;
        contenders.push(Contender::new(name, role, GOALS, server, load));
        Ok::<_, Error>(())
    };
    let mut addresses = (0..).map(|number| loopback(PORT, number));
    let mut next = || -> SocketAddrV4 { addresses.next().expect("there is always another") };
    for (name, role, program) in [
        ("blocking, TCP_DEFER_ACCEPT", Role::Limit, "tcp-defer"),
        ("blocking accept (std)", Role::Peer, "tcp-std"),
        ("mio", Role::Peer, "tcp-mio"),
        ("tokio", Role::Peer, "tcp-tokio"),
    ] {
        if role == Role::Limit || bench.wants(name) {
            let addr = next();
            add(name, role, addr, peer(bench, program, &[&addr])?)?;
        }
    }
    for server in bench.options.servers() {
        let addr = next();
        let running = serve_host(bench, &server, &[("--greeting-tcp", addr.to_string())], &[])?;
        add(&server.name, Role::Smoltalk, addr, running)?;
    }
    if bench.wants("Python") {
        let addr = next();
        let arguments: [&dyn std::fmt::Display; 2] = [addr.ip(), &addr.port()];
        if let Some(server) = python(bench, "greeting_server.py", &arguments, &mut notes) {
            add("Python", Role::Peer, addr, server)?;
        }
    }
    bench.contest(case, contenders, notes)
}
