//! The kernel's own TCP as a server of bulk, at the other end of a cable (veth(4)).

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::getppid;
use smoltalk_hosted::lab::Links;

use super::ready;
use crate::load::bulk::pattern;

const DISCARD: u16 = 9;
const CHARGEN: u16 = 19;

/// Bytes in one system call.
const CHUNK: usize = 256 * 1_024;

/// In a network namespace of its own, with `name` as the other end of the cable in the benchmark's.
pub fn kernel(name: &str, ours: Ipv4Addr) -> io::Result<Infallible> {
    const END: &str = "cable";
    unshare(CloneFlags::CLONE_NEWNET)?;
    let benchmark = getppid().to_string();
    let made = Command::new("ip")
        .args(["link", "add", END, "type", "veth"])
        .args(["peer", "name", name, "netns", &benchmark])
        .status()?;
    if !made.success() {
        return Err(io::Error::other("`ip link add` failed"));
    }
    let mut links = Links::open()?;
    links.up(END)?;
    links.add_address(END, ours.into(), 24)?;
    let discard = TcpListener::bind((ours, DISCARD))?;
    let chargen = TcpListener::bind((ours, CHARGEN))?;
    ready()?;
    thread::spawn(move || take(&discard));
    give(&chargen)
}

fn take(listener: &TcpListener) -> io::Result<Infallible> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let (mut stream, _) = listener.accept()?;
        while let Ok(1..) = stream.read(&mut buffer) {}
    }
}

fn give(listener: &TcpListener) -> io::Result<Infallible> {
    let pattern = pattern();
    let text = pattern.repeat(CHUNK / pattern.len());
    loop {
        let (mut stream, _) = listener.accept()?;
        while stream.write_all(&text).is_ok() {}
    }
}
