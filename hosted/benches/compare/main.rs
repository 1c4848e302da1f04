//! How close smoltalk comes to what the machine can do: the same load on smoltalk, on the best that can be written
//! for one case alone (the limit), and on what people would write or use instead, in turns.
//!
//! ```text
//! cargo bench -p smoltalk-hosted                               everything
//! cargo bench -p smoltalk-hosted -- --list                     the names of the cases
//! cargo bench -p smoltalk-hosted -- --case udp-time-host       one of them
//! cargo bench -p smoltalk-hosted -- --server old=/tmp/smoltalk --case udp
//! cargo bench -p smoltalk-hosted -- --markdown docs/performance.md --svg docs/performance.svg
//! ```
//!
//! Everything happens in a lab (`smoltalk_hosted::lab`), a network namespace that ends with the benchmark. How it is
//! measured is told in `docs/performance.md`.

mod cases;
mod chart;
mod child;
mod contest;
mod load;
mod options;
mod peers;
mod place;
mod report;
mod sys;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::Parser;
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::lab;
use smoltalk_hosted::network::TapOptions;

use options::Options;

/// The hidden subcommands as which the program starts itself again: in the lab, as a peer, and as what becomes a
/// server.
const INSIDE: &str = "inside";
const PEER: &str = "peer";
const PINNED: &str = "pinned";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let first = arguments.next();
    let result = match first.as_deref().and_then(OsStr::to_str) {
        Some(lab::INIT) => return lab::init(arguments).into(),
        Some(PINNED) => child::become_program(arguments),
        Some(PEER) => peers::run(arguments),
        Some(INSIDE) => inside(Options::parse_from([program].into_iter().chain(arguments))),
        _ => outside(&Options::parse()),
    };
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            tell(&error);
            error.exit().into()
        }
    }
}

fn tell(error: &Error) {
    eprintln!("bench: {error}");
    if let Some(hint) = error.hint() {
        eprintln!("{hint}");
    }
}

/// Starts the benchmark again inside a lab.
fn outside(options: &Options) -> Result<u8, Error> {
    if options.list {
        for case in cases::all() {
            println!("{:24} {}", case.name, case.title);
        }
        return Ok(Exit::Done as u8);
    }
    cases::chosen(&options.cases)?;
    let this = std::env::current_exe().map_err(|error| Error::io("this program", &error))?;
    let mut command: Vec<OsString> = vec![this.into(), INSIDE.into()];
    command.extend(std::env::args_os().skip(1));
    lab::run_without_serving(lab::Options {
        tap: TapOptions::new("tap0"),
        command,
    })
}

/// Runs the cases that are asked for. One that cannot be run does not keep the others from it.
fn inside(options: Options) -> Result<u8, Error> {
    place::raise_descriptor_limit();
    let cpus = place::Cpus::choose()?;
    cpus.pin_load()?;
    let bench = contest::Bench::new(options, cpus);
    let mut results = Vec::new();
    let mut exit = Exit::Done;
    for case in cases::chosen(&bench.options.cases)? {
        match (case.run)(&bench, case) {
            Ok(result) => {
                report::print(&result);
                results.push(result);
            }
            Err(error) => {
                tell(&error);
                exit = Exit::Failed;
            }
        }
    }
    report::write(&bench.options, &results)?;
    Ok(exit as u8)
}
