//! The namespaces that a lab lives in.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::diagnosis::{Facts, Refusal, Step, errno};

/// Moves this thread, and those it makes later, into a network namespace of its own.
///
/// A process with the capabilities for it does so directly, because containers often forbid user namespaces;
/// any other, or one to which that is forbidden, first becomes root of a user namespace, for which it must have
/// one thread only.
///
/// # Errors
/// The step that the system refused. The process may then be half-way: it should end.
pub(super) fn enter_network(facts: &Facts) -> Result<(), Refusal> {
    if facts.may_make_networks() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    // Asked before, because inside the user namespace both are the overflow ids until the maps are written.
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|errno| Refusal {
        step: Step::Namespaces,
        errno,
    })?;
    // An ordinary user may write a group map only after giving up setgroups(2).
    map("setgroups", "deny")?;
    map("gid_map", &format!("0 {group} 1"))?;
    map("uid_map", &format!("0 {user} 1"))
}

/// Lets the next process that this thread starts be the first of a process namespace of its own. The thread can
/// make no threads afterwards.
///
/// # Errors
/// The system refused.
pub(super) fn enter_processes() -> Result<(), Refusal> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| Refusal {
        step: Step::Namespaces,
        errno,
    })
}

fn map(file: &str, text: &str) -> Result<(), Refusal> {
    fs::write(format!("/proc/self/{file}"), text).map_err(|error| Refusal {
        step: Step::IdentityMap,
        errno: errno(&error),
    })
}
