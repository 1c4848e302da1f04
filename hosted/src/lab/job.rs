//! The command that runs in the lab, from outside.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::signal::{self, SigSet, kill, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use super::INIT;
use super::diagnosis::{Facts, diagnose};
use super::init::INTERRUPT;
use super::namespace;
use crate::error::Error;
use crate::network::Signal;

/// The command of a lab: to be started once the services are bound, and then told each signal that the lab gets.
/// Dropping it kills the command and all that the command started.
#[derive(Debug)]
pub struct Job {
    command: Vec<OsString>,
    facts: Facts,
    /// The first process of the process namespace, while it runs.
    init: Option<Child>,
    /// Keeps the thread that started it, at whose end it is killed.
    parent: Option<mpsc::Sender<Infallible>>,
    /// The signal by which the lab was first told to end.
    told: Option<signal::Signal>,
    /// The lab had the terminal when the command started.
    had_terminal: bool,
}

impl Job {
    /// Runs `command`, not at once but at [`start`](Self::start).
    pub(super) fn new(command: Vec<OsString>, facts: Facts) -> Self {
        Self {
            command,
            facts,
            init: None,
            parent: None,
            told: None,
            had_terminal: false,
        }
    }

    /// Starts the command. Signals must be watched already, or the end of a short command goes unnoticed. A
    /// command that cannot be run is no error here: it ends with 126 or 127, as in a shell, and has said why on
    /// standard error.
    ///
    /// # Errors
    /// The system allows no process namespace, or has no room for another process, or `/proc` is not there.
    pub fn start(&mut self) -> Result<(), Error> {
        // Control-backslash is for the command, as control-C is; but no command is sent on what is only noticed.
        signal_hook::flag::register(libc::SIGQUIT, Arc::new(AtomicBool::new(false)))
            .map_err(|error| cannot_start(&error))?;
        self.had_terminal = terminal().is_some_and(|terminal| has(&terminal));
        // To make a process namespace is a thread's own affair, after which it can make no more threads. So a
        // thread of its own does it, and stays: the kernel takes its end for that of the parent.
        let (tell, started) = mpsc::sync_channel(1);
        let (parent, end) = mpsc::channel::<Infallible>();
        let (command, facts) = (std::mem::take(&mut self.command), self.facts.clone());
        thread::Builder::new()
            .name("lab".to_owned())
            .spawn(move || {
                let _ = tell.send(start_init(&command, &facts));
                let _ = end.recv();
            })
            .map_err(|error| cannot_start(&error))?;
        self.init = Some(started.recv().unwrap_or_else(|_| {
            Err(Error::failed(
                "the thread that starts the lab's command died",
            ))
        })?);
        self.parent = Some(parent);
        Ok(())
    }

    /// Does what `signal` asks: passes it on to the command, or, if that has ended, returns the lab's exit code:
    /// the command's own, 128 and the number of the signal that killed it, or that of the signal by which the lab
    /// was told to end (143 for SIGTERM).
    ///
    /// A command told to end has 2 s for it.
    ///
    /// # Errors
    /// The system does not tell what became of the command.
    pub fn handle_signal(&mut self, signal: Signal) -> Result<Option<u8>, Error> {
        match signal {
            Signal::Child => return self.poll_exit(),
            Signal::Interrupt => {
                // From the terminal the command has it too, and twice would be once too often.
                if !terminal().is_some_and(|terminal| has(&terminal)) {
                    self.send(INTERRUPT);
                }
            }
            Signal::Terminate => self.end(signal::SIGTERM),
            Signal::Hangup => self.end(signal::SIGHUP),
        }
        Ok(None)
    }

    fn end(&mut self, by: signal::Signal) {
        self.told.get_or_insert(by);
        self.send(by);
    }

    fn send(&self, signal: signal::Signal) {
        if let Some(init) = &self.init {
            // It may have ended, but its number is not another's before it is waited for.
            let _ = kill(Pid::from_raw(init.id() as i32), signal);
        }
    }

    fn poll_exit(&mut self) -> Result<Option<u8>, Error> {
        let Some(init) = &mut self.init else {
            return Ok(None);
        };
        let Some(status) = init
            .try_wait()
            .map_err(|error| Error::io("waiting for the command", &error))?
        else {
            return Ok(None);
        };
        self.init = None;
        self.take_terminal_back();
        Ok(Some(match self.told {
            Some(signal) => 128 + signal as u8,
            None => exit_code(status),
        }))
    }

    /// A shell makes its own process group the terminal's foreground, and from within its namespace it cannot
    /// give the terminal back.
    fn take_terminal_back(&self) {
        let Some(terminal) = terminal().filter(|_| self.had_terminal) else {
            return;
        };
        let Ok(foreground) = tcgetpgrp(&terminal) else {
            return;
        };
        // A foreground that lives is not the command's: the lab went to the background.
        if foreground == getpgrp() || killpg(foreground, None) != Err(Errno::ESRCH) {
            return;
        }
        let mut stop = SigSet::empty();
        stop.add(signal::SIGTTOU);
        if stop.thread_block().is_ok() {
            let _ = tcsetpgrp(&terminal, getpgrp());
            let _ = stop.thread_unblock();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(init) = &mut self.init {
            let _ = init.kill();
            let _ = init.wait();
            self.take_terminal_back();
        }
    }
}

/// Starts this program again as the first process of a process namespace, and waits until that takes signals:
/// before, the kernel would drop them.
fn start_init(command: &[OsString], facts: &Facts) -> Result<Child, Error> {
    namespace::enter_processes().map_err(|refusal| diagnose(facts, Some(refusal)))?;
    let start = || {
        let lab = std::fs::read_link("/proc/self")?;
        let (mut ready, when_ready) = io::pipe()?;
        fcntl(&when_ready, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let init = Command::new("/proc/self/exe")
            .arg0("smoltalk")
            .arg(INIT)
            .arg(lab)
            .arg(when_ready.as_raw_fd().to_string())
            .args(command)
            .spawn()?;
        drop(when_ready);
        ready.read_to_end(&mut Vec::new())?;
        Ok(init)
    };
    start().map_err(|error| cannot_start(&error))
}

fn cannot_start(error: &io::Error) -> Error {
    Error::io("starting the lab's command", error)
}

/// The terminal that this process belongs to.
fn terminal() -> Option<File> {
    File::open("/dev/tty").ok()
}

/// Whether this process is in the foreground of `terminal`.
fn has(terminal: &File) -> bool {
    tcgetpgrp(terminal) == Ok(getpgrp())
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128_u8.saturating_add(signal as u8),
        (None, None) => 1,
    }
}
