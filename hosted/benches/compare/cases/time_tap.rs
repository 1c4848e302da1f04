//! The time over UDP on a TAP device.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltalk_hosted::error::Error;

use super::{peer, serve_tap};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Contender, Goal, Metric, Role};
use crate::load::requests::{Requests, Sending};
use crate::place::Tap;

pub static ONE_FLOW: Case = Case {
    name: "udp-time-tap",
    title: "UDP time over TAP, 64 requests under way in one flow",
    unit: "reply",
    columns: &[Metric::Cpu, Metric::Rate],
    run: |bench, case| {
        const GOALS: &[Goal] = &[
            Goal::AtLeast(Metric::Rate, 1.10),
            Goal::AtMost(Metric::Cpu, 0.76),
            Goal::NoneRefused,
        ];
        run(bench, case, |tap| vec![tap.kernel()], Sending::Burst, GOALS)
    },
};

pub static MANY_FLOWS: Case = Case {
    name: "udp-time-tap-flows",
    title: "UDP time over TAP, 64 requests under way in as many flows",
    unit: "reply",
    columns: &[Metric::Cpu, Metric::Rate],
    run: |bench, case| {
        const GOALS: &[Goal] = &[
            Goal::AtLeast(Metric::Rate, 0.97),
            Goal::AtMost(Metric::Cpu, 1.05),
            Goal::NoneRefused,
        ];
        run(
            bench,
            case,
            |tap| tap.flows().collect(),
            Sending::Plain,
            GOALS,
        )
    },
};

const UNDER_WAY: usize = 64;
const PORT: u16 = smoltalk::time::PORT;

fn run(
    bench: &Bench,
    case: &'static Case,
    sources: fn(&Tap) -> Vec<Ipv4Addr>,
    sending: Sending,
    goals: &'static [Goal],
) -> Result<CaseResult, Error> {
    let mut contenders = Vec::new();
    let mut taps = Vec::new();
    let mut add = |name: &str, role, start: &dyn Fn(&Tap) -> Result<Running, Error>| {
        let tap = Tap::make(taps.len())?;
        let server = start(&tap)?;
        let addr = SocketAddrV4::new(tap.server(), PORT);
        let load = Requests::new(addr, sources(&tap), UNDER_WAY, sending)
            .map_err(|error| Error::io("the load's socket", &error))?;
        taps.push(tap);
        contenders.push(Contender::new(name, role, goals, server, load));
        Ok::<_, Error>(())
    };
    for (name, role, program) in [
        ("frame reflector", Role::Limit, "tap-udp"),
        ("smoltcp, as in its examples", Role::Peer, "smoltcp-udp"),
        (
            "smoltcp, draining its socket",
            Role::Peer,
            "smoltcp-udp-drain",
        ),
    ] {
        if role == Role::Limit || bench.wants(name) {
            add(name, role, &|tap| {
                peer(bench, program, &[&tap.name, &tap.server(), &tap.kernel()])
            })?;
        }
    }
    for server in bench.options.servers() {
        add(&server.name, Role::Smoltalk, &|tap| {
            serve_tap(bench, &server, &[("--time", PORT.to_string())], &[], tap)
        })?;
    }
    bench.contest(case, contenders, Vec::new())
}
