//! A server as a child process, and the CPU time that it takes.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use smoltalk_hosted::error::Error;

use crate::place::pin;
use crate::{PEER, PINNED};

/// A server, alone on its CPU. It is killed when dropped, and when the benchmark dies.
#[derive(Debug)]
pub struct Running {
    child: Child,
    clock: ClockId,
    _stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Starts `program` on `cpu`, and waits until it writes a line that says `ready`.
    pub fn start(
        cpu: usize,
        program: impl AsRef<OsStr>,
        arguments: &[String],
    ) -> Result<Self, Error> {
        let program = program.as_ref();
        let shown = program.display();
        let failed = |error: io::Error| Error::io(format_args!("{shown}"), &error);
        let mut command = Command::new(this()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SMOLTALK_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg(PINNED)
            .arg(cpu.to_string())
            .arg(program)
            .args(arguments)
            .env("XDG_CONFIG_HOME", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pid = Pid::from_raw(child.id() as i32);
        let stdout = child.stdout.take();
        // From here on it is killed whatever happens.
        let mut running = Self {
            clock: clock_getcpuclockid(pid).map_err(|error| failed(error.into()))?,
            child,
            _stdout: BufReader::new(stdout.ok_or_else(|| Error::failed("no standard output"))?),
        };
        loop {
            let mut line = String::new();
            if running._stdout.read_line(&mut line).map_err(failed)? == 0 {
                let status = running.child.wait().map_err(failed)?;
                return Err(Error::failed(format!(
                    "{shown} {arguments:?} ended before it was ready: {status}"
                )));
            }
            if line.trim() == "ready" {
                return Ok(running);
            }
        }
    }

    /// Starts the benchmark's own peer `name`.
    pub fn peer(cpu: usize, name: &str, arguments: &[String]) -> Result<Self, Error> {
        let mut all = vec![PEER.to_owned(), name.to_owned()];
        all.extend_from_slice(arguments);
        Self::start(cpu, this()?, &all)
    }

    /// User and system time of all its threads so far, as the scheduler counts it: exact to the last time that it
    /// slept.
    pub fn cpu(&self) -> Result<Duration, Error> {
        self.clock
            .now()
            .map(Duration::from)
            .map_err(|_| Error::failed("a server ended while it was measured"))
    }

    /// The memory that it has in RAM, in bytes: its program's and the libraries' too.
    pub fn resident(&self) -> Result<u64, Error> {
        let failed =
            |error: procfs::ProcError| Error::failed(format!("a server's memory: {error}"));
        let process = procfs::process::Process::new(self.child.id() as i32).map_err(failed)?;
        Ok(process.statm().map_err(failed)?.resident * procfs::page_size())
    }

    /// Stops it until [`go_on`](Self::go_on): a server that never sleeps would take the others' CPU.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        // Whoever has ended is told of by cpu().
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time that this process has taken.
pub fn own_cpu() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID
        .now()
        .map(Duration::from)
        .unwrap_or_default()
}

/// Becomes the program that `arguments` name after the number of a CPU, on that CPU, and for no longer than the
/// benchmark lives.
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Result<u8, Error> {
    let cpu = arguments
        .next()
        .and_then(|cpu| cpu.to_str()?.parse().ok())
        .ok_or_else(|| Error::usage("which CPU?"))?;
    let program = arguments
        .next()
        .ok_or_else(|| Error::usage("which program?"))?;
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| Error::io("asking to end with the benchmark", &error.into()))?;
    pin(cpu)?;
    let error = Command::new(&program).args(arguments).exec();
    Err(Error::io(program.display(), &error))
}

fn this() -> Result<std::path::PathBuf, Error> {
    std::env::current_exe().map_err(|error| Error::io("this program", &error))
}
