//! The first process of lab's process namespace. It starts the command, reaps what the command leaves behind,
//! and takes every other process of the namespace with it when it ends: that is how the kernel treats the first.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::tell;
use crate::error;

/// How long a command has to end by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(2);

/// By this the lab asks for a SIGINT to the command. It is not SIGINT itself because control-C sends that to this
/// process too, being in the terminal's foreground like the command, which would then have it twice.
pub(super) const INTERRUPT: Signal = Signal::SIGUSR1;

/// Runs as the first process of a process namespace: `arguments` are the lab's own id as `/proc` has it, the
/// number of a descriptor to close when signals can be taken, and the command. Returns the command's exit code
/// as shells know it: 128 and the signal's number if a signal killed it, 127 if there is no such command, 126 if
/// it cannot be run.
///
/// To be called by the program's `main` for the hidden subcommand [`INIT`](super::INIT), before it does
/// anything else; it must not have made threads.
pub fn init(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let mut arguments = arguments.into_iter();
    let (Some(lab), Some(ready), Some(program)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return not_for_people();
    };
    let Some(ready) = ready.to_str().and_then(|ready| ready.parse::<i32>().ok()) else {
        return not_for_people();
    };
    if std::process::id() != 1 {
        return not_for_people();
    }
    // A lab that dies, in whatever way, takes this process along; and if it died before it could be asked to,
    // somebody else is the parent by now. The id is compared as text because getppid() is 0 across namespaces.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || parent().as_deref() != lab.to_str() {
        return 1;
    }
    let Ok(mut signals) = Signals::new([SIGCHLD, SIGHUP, SIGTERM, INTERRUPT as i32]) else {
        return 1;
    };
    let _ = nix::unistd::close(ready);
    show_own_processes();

    let child = match Command::new(&program).args(arguments).spawn() {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(error) => return cannot_run(&program, &error),
    };
    let mut ending = false;
    for signal in signals.forever() {
        match signal {
            SIGCHLD => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            SIGHUP | SIGTERM => {
                send(EVERYBODY, signal);
                if !std::mem::replace(&mut ending, true) {
                    thread::spawn(move || {
                        thread::sleep(GRACE);
                        std::process::exit(128 + signal);
                    });
                }
            }
            _ => send(child, SIGINT),
        }
    }
    1
}

/// All processes of the namespace but this one.
const EVERYBODY: Pid = Pid::from_raw(-1);

fn not_for_people() -> u8 {
    tell("`smoltalk lab` starts this subcommand itself; run `smoltalk lab` instead");
    2
}

/// The id of this process's parent, in the numbering of the `/proc` that the lab sees too.
fn parent() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(parent.trim().to_owned())
}

/// Mounts a `/proc` of this process namespace, so that `ps` shows the command and not the whole machine. Where
/// that is not allowed (in many containers) everything else works all the same.
fn show_own_processes() {
    const NONE: Option<&Path> = None;
    let private = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        let everywhere = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, everywhere, NONE)
    });
    if private.is_ok() {
        let harmless = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let _ = mount(Some("proc"), "/proc", Some("proc"), harmless, NONE);
    }
}

fn cannot_run(program: &OsString, error: &io::Error) -> u8 {
    let (code, why) = match error.kind() {
        io::ErrorKind::NotFound => (127, "not found".to_owned()),
        _ => (126, error::reason(error)),
    };
    tell(&format!("lab: {}: {why}", program.display()));
    code
}

/// Collects every process that has ended, and returns the exit code of `child` if it is among them.
fn reap(child: Pid) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Some(code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Some(128 + signal as u8);
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(_) => {}
        }
    }
}

fn send(to: Pid, signal: i32) {
    if let Ok(signal) = Signal::try_from(signal) {
        // Whoever has ended meanwhile need not be told.
        let _ = kill(to, signal);
    }
}
