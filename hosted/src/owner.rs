//! Who has a port, or a TAP device: what `lsof -i` would say.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use nix::unistd::{Uid, User};
use procfs::net::{TcpState, tcp, tcp6, udp, udp6};
use procfs::process::{FDTarget, Process, all_processes};
use smoltalk::Protocol;
use smoltalk::text::Shown;

use crate::tap::sys::CONTROL;

/// The process that keeps others from `local`, where the system lets us see it: `python3 (pid 1234, user egg)`;
/// `this program` if it is ourselves.
///
/// Other users' processes are seen by root only; of theirs the user's name remains.
pub fn owner(protocol: Protocol, local: SocketAddr) -> Option<String> {
    let sockets = sockets(protocol, local);
    let inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let process = all_processes().ok()?.flatten().find(|process| {
        process.fd().is_ok_and(|descriptors| {
            descriptors.flatten().any(|descriptor| {
                matches!(descriptor.target, FDTarget::Socket(inode) if inodes.contains(&inode))
            })
        })
    });
    match process {
        Some(process) => describe(&process),
        None => Some(format!("a process of {}", user(sockets.first()?.uid)?)),
    }
}

/// The process that is attached to the TAP device `name`, where the system lets us see it.
pub fn tap_owner(name: &str) -> Option<String> {
    let process = all_processes().ok()?.flatten().find(|process| {
        process.fd().is_ok_and(|descriptors| {
            descriptors.flatten().any(|descriptor| {
                matches!(&descriptor.target, FDTarget::Path(path) if path.as_os_str() == CONTROL)
                    && is_attached(process.pid(), descriptor.fd, name)
            })
        })
    })?;
    describe(&process)
}

/// Whether that descriptor of that process is attached to the TAP device `name`.
fn is_attached(pid: i32, fd: i32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).is_ok_and(|info| {
        info.lines()
            .any(|line| line.strip_prefix("iff:").map(str::trim) == Some(name))
    })
}

fn describe(process: &Process) -> Option<String> {
    if process.pid() == std::process::id().cast_signed() {
        return Some("this program".to_owned());
    }
    // A process chooses its name itself: it is not to be trusted with a terminal.
    let comm = process.stat().ok()?.comm;
    let name = Shown(comm.as_bytes());
    let pid = process.pid();
    Some(match process.uid().ok().and_then(user) {
        Some(user) => format!("{name} (pid {pid}, {user})"),
        None => format!("{name} (pid {pid})"),
    })
}

/// `user egg`, or `user 1000` where they have no name.
fn user(uid: u32) -> Option<String> {
    Some(match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {}", Shown(user.name.as_bytes())),
        _ => format!("user {uid}"),
    })
}

struct Bound {
    inode: u64,
    uid: u32,
}

/// The sockets that would be in the way of one at `local`.
fn sockets(protocol: Protocol, local: SocketAddr) -> Vec<Bound> {
    let bound = |address, inode, uid| overlap(address, local).then_some(Bound { inode, uid });
    match protocol {
        Protocol::Tcp => [tcp(), tcp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.state == TcpState::Listen)
            .filter_map(|entry| bound(entry.local_address, entry.inode, entry.uid))
            .collect(),
        Protocol::Udp => [udp(), udp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| bound(entry.local_address, entry.inode, entry.uid))
            .collect(),
    }
}

/// Whether two sockets cannot have both addresses. `[::]` may stand for the IPv4 addresses, too.
pub(crate) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let everything = |ip: IpAddr| ip.is_ipv6() && ip.is_unspecified();
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    let ips = x == y
        || everything(x)
        || everything(y)
        || (x.is_ipv4() == y.is_ipv4() && (x.is_unspecified() || y.is_unspecified()));
    ips && a.port() == b.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_as_the_system_sees_it() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.2:1", true),
            ("[::]:1", "127.0.0.2:1", true),
            ("[::ffff:127.0.0.2]:1", "127.0.0.2:1", true),
            ("[::1]:1", "0.0.0.0:1", false),
            ("[::1]:1", "[::]:1", true),
        ] {
            assert_eq!(overlap(addr(a), addr(b)), expected, "{a} {b}");
            assert_eq!(overlap(addr(b), addr(a)), expected, "{b} {a}");
        }
    }
}
