//! The tour on a real TAP device: `smoltalk lab` with this very program as its command, so that the kernel's
//! TCP/IP talks to smoltcp.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output as Finished, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal::SIGKILL;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use smoltalk::Duration;
use smoltalk::sim::script::{AUTO_REPLY, EXCHANGES, WALL};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::network::{Network, TapOptions};

use super::host::Guest;
use super::{Done, Tour};
use crate::output::Output;

/// How long the lab may take in all. It takes a fraction of a second as a rule.
const AT_MOST: Duration = Duration::from_secs(20);

/// Runs the script in a lab, if the system allows one.
pub fn tour(timeout: Duration) -> Tour {
    let mut tour = Tour::default();
    match run_lab(timeout) {
        Ok(done) => tour.done = done,
        Err(Stop::NotPermitted(why)) => tour.not_run.push(why),
        Err(Stop::Broken(why)) => tour.broken = Some(why),
    }
    tour
}

fn run_lab(timeout: Duration) -> Result<Vec<Done>, Stop> {
    let broken = |error: io::Error| Stop::Broken(format!("the lab cannot be started: {error}"));
    let program = std::env::current_exe().map_err(broken)?;
    let at = WALL.unix_seconds.to_string();
    let seconds = timeout.as_secs_f64().to_string();
    let mut lab = Command::new(&program);
    lab.args(["lab", "--at", &at, "--auto-reply", AUTO_REPLY, "--"])
        .arg(&program)
        .args(["demo", "--timeout", &seconds]);
    for (ip, _) in TapOptions::new("").addresses {
        lab.arg("--inside").arg(ip.to_string());
    }
    // What a person has set for the services is not meant for the script's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SMOLTALK_") {
            lab.env_remove(name);
        }
    }
    lab.env("XDG_CONFIG_HOME", "/dev/null").env("TZ", "UTC0");
    let finished = finish(
        lab.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .map_err(broken)?
    .ok_or_else(|| Stop::Broken(format!("the lab did not end in {} s", AT_MOST.as_secs())))?;
    let done = String::from_utf8_lossy(&finished.stdout)
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Done>, _>>()
        .unwrap_or_default();
    if finished.status.success() && !done.is_empty() {
        return Ok(done);
    }
    // The program's last word, without its name.
    let said = String::from_utf8_lossy(&finished.stderr);
    let why = said
        .lines()
        .filter_map(|line| line.strip_prefix("smoltalk: "))
        .next_back()
        .or(said.lines().next_back())
        .unwrap_or("the lab has ended without a word")
        .to_owned();
    if finished.status.code() == Some(Exit::NotPermitted as i32) {
        Err(Stop::NotPermitted(why))
    } else {
        Err(Stop::Broken(why))
    }
}

/// Why there are no exchanges to show.
enum Stop {
    /// The system does not allow a lab.
    NotPermitted(String),
    /// It should have worked.
    Broken(String),
}

/// Runs a program to its end; `None` if it had to be killed because it took too long.
fn finish(command: &mut Command) -> io::Result<Option<Finished>> {
    let child = command.spawn()?;
    let id = Pid::from_raw(child.id().cast_signed());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(AT_MOST) {
        Ok(finished) => finished.map(Some),
        Err(_) => {
            // It has not been waited for, so the number is still its own.
            let _ = kill(id, SIGKILL);
            Ok(None)
        }
    }
}

/// The other side of [`run_lab`]: runs the script against the services at each of `servers`, and writes a line for
/// each exchange.
///
/// # Errors
/// The network itself is broken.
pub fn inside(output: &Output, servers: &[IpAddr], timeout: Duration) -> Result<(), Error> {
    let mut network = Network::host()?;
    let mut guest = Guest {
        network: &mut network,
        clock: &Clock::system(),
        output,
        timeout,
    };
    for ip in servers {
        for (index, exchange) in EXCHANGES.iter().enumerate() {
            let server = SocketAddr::new(*ip, exchange.service.port());
            let done = guest.exchange(index, server, None)?;
            let line = serde_json::to_string(&done)
                .map_err(|error| Error::failed(format!("cannot write {done:?}: {error}")))?;
            output.text(&format!("{line}\n"))?;
        }
    }
    Ok(())
}
