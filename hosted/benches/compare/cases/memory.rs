//! What connections take in memory that say nothing.

use std::mem::size_of;
use std::net::{SocketAddr, SocketAddrV4};

use smoltalk::greeting::StreamServer;
use smoltalk_hosted::error::Error;

use super::{Service, loopback, serve_host, serve_tap};
use crate::child::Running;
use crate::contest::{Bench, Case, CaseResult, Metric, Role, Row, Sample};
use crate::load::idle::Idle;
use crate::place::Tap;

pub static CASE: Case = Case {
    name: "memory",
    title: "resident memory of `serve` with the greeting over TCP, and 10,000 idle connections",
    unit: "connection",
    columns: &[Metric::Empty, Metric::Full, Metric::PerConnection],
    run,
};

const CONNECTIONS: usize = 10_000;
const PORT: u16 = 9_400;

/// Long enough for nobody to be thought gone.
const PATIENT: &[&str] = &["--idle-timeout", "3600"];

fn run(bench: &Bench, case: &'static Case) -> Result<CaseResult, Error> {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for (number, server) in bench.options.servers().iter().enumerate() {
        let mut add = |stack: &str, running: Running, at: SocketAddr| {
            let name = format!("{}, {stack}", server.name);
            match measure(&running, at)? {
                Ok(sample) => rows.push(Row {
                    name,
                    role: Role::Smoltalk,
                    group: 0,
                    goals: &[],
                    samples: vec![sample],
                }),
                Err(why) => notes.push(format!("{name}: cannot be held: {why}")),
            }
            Ok::<_, Error>(())
        };
        let at = loopback(PORT, number);
        let service: Service = ("--greeting-tcp", at.to_string());
        add(
            "host sockets",
            serve_host(bench, server, &[service], PATIENT)?,
            at.into(),
        )?;

        let tap = Tap::make(number)?;
        let port = smoltalk::greeting::PORT;
        let service: Service = ("--greeting-tcp", port.to_string());
        let running = serve_tap(bench, server, &[service], PATIENT, &tap)?;
        add("TAP", running, SocketAddrV4::new(tap.server(), port).into())?;
    }
    let in_core = size_of::<StreamServer<2>>() - size_of::<StreamServer<1>>();
    notes.push(format!(
        "the service itself keeps {in_core} bytes for each connection it has room for; the rest are the stack's \
         sockets and buffers"
    ));
    Ok(CaseResult { case, rows, notes })
}

/// The server's memory without connections and with all of them; or why it cannot have them.
fn measure(server: &Running, at: SocketAddr) -> Result<Result<Sample, std::io::Error>, Error> {
    let empty = server.resident()?;
    let _idle = match Idle::open(at, CONNECTIONS) {
        Ok(idle) => idle,
        Err(error) => return Ok(Err(error)),
    };
    let full = server.resident()?;
    let each = (full as f64 - empty as f64) / CONNECTIONS as f64;
    Ok(Ok(Sample::new(&[
        (Metric::Empty, empty as f64),
        (Metric::Full, full as f64),
        (Metric::PerConnection, each),
    ])))
}
