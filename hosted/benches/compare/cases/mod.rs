//! The cases, and who takes part in them.

mod bulk;
mod greeting_host;
mod greeting_tap;
mod idle;
mod latency;
mod memory;
mod strftime;
mod time_host;
mod time_tap;

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltalk_hosted::error::Error;

use crate::child::Running;
use crate::contest::{Bench, Case};
use crate::options::Server;
use crate::place::Tap;

/// All of them, in the order of the table in `docs/performance.md`.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        &time_host::CASE,
        &time_host::BURST,
        &time_tap::ONE_FLOW,
        &time_tap::MANY_FLOWS,
        &latency::HOST,
        &latency::HOST_BUSY,
        &latency::TAP,
        &latency::TAP_BUSY,
        &greeting_host::CASE,
        &greeting_tap::FEW,
        &greeting_tap::MANY,
        &idle::UDP_HOST,
        &idle::UDP_TAP,
        &idle::TCP_HOST,
        &idle::TCP_TAP,
        &bulk::OUT,
        &bulk::IN,
        &strftime::GENERAL,
        &strftime::DEFAULT,
        &strftime::REPEATED,
        &memory::CASE,
    ]
    .into_iter()
}

/// Those whose name begins with one of `names`; all, if there are none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Case>, Error> {
    for name in names {
        if !all().any(|case| case.name.starts_with(name.as_str())) {
            return Err(
                Error::usage(format!("there is no case `{name}`")).with_hint("--list names them")
            );
        }
    }
    let wanted = |case: &&Case| {
        names.is_empty()
            || names
                .iter()
                .any(|name| case.name.starts_with(name.as_str()))
    };
    Ok(all().filter(wanted).collect())
}

/// A place on loopback for contender `number`: all of them are there at once.
fn loopback(port: u16, number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port + number as u16)
}

/// Starts one of the benchmark's own peers.
fn peer(bench: &Bench, name: &str, arguments: &[&dyn Display]) -> Result<Running, Error> {
    Running::peer(bench.cpus.server, name, &strings(arguments))
}

/// Starts a program in Python, or says why not.
fn python(
    bench: &Bench,
    program: &str,
    arguments: &[&dyn Display],
    notes: &mut Vec<String>,
) -> Option<Running> {
    let mut all = vec![format!(
        "{}/benches/compare/peers/{program}",
        env!("CARGO_MANIFEST_DIR")
    )];
    all.extend(strings(arguments));
    Running::start(bench.cpus.server, "python3", &all)
        .map_err(|error| notes.push(format!("no Python: {error}")))
        .ok()
}

/// What `smoltalk serve` can be told to serve; it serves nothing but what a case asks for.
const SERVICES: [&str; 4] = ["--greeting-tcp", "--greeting-udp", "--time", "--chat"];

/// A service, as the option that places it, and where.
type Service = (&'static str, String);

/// `smoltalk serve` on host sockets, with these services.
fn serve_host(
    bench: &Bench,
    server: &Server,
    services: &[Service],
    options: &[&str],
) -> Result<Running, Error> {
    serve(bench, server, services, options, &[])
}

/// `smoltalk serve` on a TAP device, with these services.
fn serve_tap(
    bench: &Bench,
    server: &Server,
    services: &[Service],
    options: &[&str],
    tap: &Tap,
) -> Result<Running, Error> {
    let at = [
        ("--tap", tap.name.clone()),
        ("--ip", format!("{}/24", tap.server())),
        ("--gateway", tap.kernel().to_string()),
    ];
    serve(bench, server, services, options, &at)
}

fn serve(
    bench: &Bench,
    server: &Server,
    services: &[Service],
    options: &[&str],
    at: &[(&str, String)],
) -> Result<Running, Error> {
    let mut arguments = vec!["serve".to_owned()];
    for (name, value) in at.iter().chain(services) {
        arguments.extend([(*name).to_owned(), value.clone()]);
    }
    for name in SERVICES {
        if services.iter().all(|(service, _)| *service != name) {
            arguments.extend([name.to_owned(), "off".to_owned()]);
        }
    }
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    arguments.extend_from_slice(&server.arguments);
    Running::start(bench.cpus.server, &server.program, &arguments)
}

fn strings(arguments: &[&dyn Display]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}
