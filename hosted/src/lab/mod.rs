//! A private network to try the services in: a network namespace with a TAP device, smoltcp at one end of it in
//! this process, and at the other the kernel, with a command that uses it.
//!
//! ```text
//! this process                        the command and all that it starts
//!   services                            python3, ping, nc, a shell...
//!   smoltcp  192.168.69.1, fdaa::1      the kernel's TCP/IP  192.168.69.100, fdaa::100
//!      └───────── /dev/net/tun ────── tap0 ──┘
//! ```
//!
//! Nothing of it is left when the lab ends, in whatever way. The device goes with the last process of its network
//! namespace, and the processes with the first of their process namespace, which the kernel kills when the lab
//! dies.

mod diagnosis;
mod init;
mod job;
mod link;
mod namespace;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use crate::error::{self, Error};
use crate::network::{Network, Signal, TapOptions};
use crate::tap::TapDevice;
use crate::tap::sys::{keep_tap, open_tap_with_header};

use diagnosis::{Facts, Refusal, Step, diagnose};

pub use init::init;
pub use job::Job;
pub use link::Links;

/// The hidden subcommand as which the program starts itself again: it must call [`init()`] with the arguments that
/// follow.
pub const INIT: &str = "lab-init";

/// The kernel's addresses in a lab, each with the length of its network's prefix in bits.
pub const KERNEL: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(192, 168, 69, 100)), 24),
    (
        IpAddr::V6(Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 0x100)),
        64,
    ),
];

/// What a lab is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// smoltcp's side: the TAP device that is made, and what smoltcp has on it.
    pub tap: TapOptions,
    /// The command and its arguments; empty for the shell that `SHELL` names, or `/bin/sh`.
    pub command: Vec<OsString>,
}

/// Makes a lab and calls `serve` with its network and its command. `serve` binds its services, watches the
/// network's signals, [starts](Job::start) the command, and then serves, telling each signal to
/// [`Job::handle_signal`], until that returns an exit code:
///
/// ```no_run
/// # use smoltalk_hosted::{clock::Clock, error::Error, lab, network::TapOptions};
/// # fn main() -> Result<(), Error> {
/// let options = lab::Options { tap: TapOptions::new("tap0"), command: vec!["sh".into()] };
/// let code = lab::run(options, |mut network, mut job| {
///     let clock = Clock::system();
///     let mut signals = network.watch_signals()?;
///     job.start()?;
///     loop {
///         let turn = network.turn(&clock, &mut |_io, _now| Ok(None))?;
///         network.wait(&clock, turn.deadline)?;
///         while let Some(signal) = signals.poll() {
///             if let Some(code) = job.handle_signal(signal)? {
///                 return Ok(code);
///             }
///         }
///     }
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// The process must have one thread only when this is called, and is in the lab's network from then on: end it when
/// this returns.
///
/// # Errors
/// Those of `serve`; [`Exit::NotPermitted`](crate::error::Exit) if the system does not allow a lab, with what is
/// missing and how to give it.
pub fn run(
    options: Options,
    serve: impl FnOnce(Network, Job) -> Result<u8, Error>,
) -> Result<u8, Error> {
    let (tap, facts) = make(&options.tap.name)?;
    let device = TapDevice::from_fd(&options.tap.name, tap)?;
    let network = Network::on_tap_device(device, &options.tap)?;
    serve(network, Job::new(or_shell(options.command), facts))
}

/// Makes a lab with nobody at smoltcp's end of the TAP device, runs the command in it and returns its exit code.
/// The command can attach to the device itself, with `--tap`.
///
/// The process must have one thread only when this is called, and is in the lab's network from then on: end it when
/// this returns.
///
/// # Errors
/// [`Exit::NotPermitted`](crate::error::Exit) if the system does not allow a lab, with what is missing and how to
/// give it.
pub fn run_without_serving(options: Options) -> Result<u8, Error> {
    let name = &options.tap.name;
    let (tap, facts) = make(name)?;
    keep_tap(&tap).map_err(|error| Error::io(format!("TAP device {name}"), &error))?;
    drop(tap);
    let mut signals = signal_hook::iterator::Signals::new([
        libc::SIGCHLD,
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGTERM,
    ])
    .map_err(|error| Error::io("watching signals", &error))?;
    let mut job = Job::new(or_shell(options.command), facts);
    job.start()?;
    for signal in signals.forever() {
        let signal = match signal {
            libc::SIGCHLD => Signal::Child,
            libc::SIGHUP => Signal::Hangup,
            libc::SIGINT => Signal::Interrupt,
            _ => Signal::Terminate,
        };
        if let Some(code) = job.handle_signal(signal)? {
            return Ok(code);
        }
    }
    Err(Error::failed("no more signals can be watched"))
}

/// Moves this process into a network namespace of its own and makes the TAP device `name` there, the kernel's side ready.
fn make(name: &str) -> Result<(OwnedFd, Facts), Error> {
    let facts = Facts::gather();
    let refusal = namespace::enter_network(&facts).err();
    if facts.tun.is_some() || refusal.is_some() {
        return Err(diagnose(&facts, refusal));
    }
    let tap = open_tap_with_header(name, true).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let errno = diagnosis::errno(&error);
            let step = Step::Device;
            diagnose(&facts, Some(Refusal { step, errno }))
        }
        _ => Error::io(format!("TAP device {name}"), &error),
    })?;
    configure(name)?;
    Ok((tap, facts))
}

/// Brings the interfaces up and gives the kernel's side its addresses.
fn configure(name: &str) -> Result<(), Error> {
    let failed = |error: io::Error| Error::io(format!("TAP device {name}"), &error);
    let mut links = Links::open().map_err(failed)?;
    links.up("lo").map_err(failed)?;
    // Some systems switch IPv6 off in every new network; where there is none at all, the next says so.
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if fs::read_to_string(&switch).is_ok_and(|text| text.trim() != "0") {
        let _ = fs::write(&switch, "0");
    }
    links.up(name).map_err(failed)?;
    for (ip, prefix) in KERNEL {
        match links.add_address(name, ip, prefix) {
            Ok(()) => {}
            Err(error) if ip.is_ipv6() => tell(&format!(
                "lab: this system has no IPv6, so the lab has IPv4 only: {}",
                error::reason(&error)
            )),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// A note on standard error, which nobody may be reading.
fn tell(note: &str) {
    let _ = writeln!(io::stderr(), "smoltalk: {note}");
}

fn or_shell(command: Vec<OsString>) -> Vec<OsString> {
    if !command.is_empty() {
        return command;
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}
