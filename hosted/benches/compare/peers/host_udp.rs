//! The time over UDP on host sockets.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddrV4, UdpSocket};

use super::answer::{Cached, write_now};
use super::ready;
use crate::sys::{Batch, Parts, send_segmented};

/// Datagrams in one system call.
const BATCH: usize = 64;

/// The limit: all that waits in one call, the same answer to all of it in another.
pub fn mmsg(at: SocketAddrV4) -> io::Result<Infallible> {
    let socket = UdpSocket::bind(at)?;
    let mut batch = Batch::new(BATCH, Parts::Name);
    let mut answer = Cached::default();
    ready()?;
    loop {
        let count = batch.receive(&socket)?;
        batch.send(&socket, count, answer.get())?;
    }
}

/// The limit with the answers to one peer in one piece, which the kernel cuts.
pub fn segment(at: SocketAddrV4) -> io::Result<Infallible> {
    let socket = UdpSocket::bind(at)?;
    let mut batch = Batch::new(BATCH, Parts::Name);
    let mut answer = Cached::default();
    let mut all = Vec::new();
    ready()?;
    loop {
        let count = batch.receive(&socket)?;
        let answer = answer.get();
        let mut first = 0;
        while first < count {
            let peer = batch.name(first);
            let same = (first..count)
                .take_while(|i| batch.name(*i) == peer)
                .count();
            all.clear();
            for _ in 0..same {
                all.extend_from_slice(answer);
            }
            send_segmented(&socket, Some((&mut batch, first)), &all, answer.len())?;
            first += same;
        }
    }
}

/// The limit of latency: one datagram in, the cached answer out. With `busy`, it never sleeps.
pub fn one(at: SocketAddrV4, busy: bool) -> io::Result<Infallible> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(busy)?;
    let mut request = [0; 1_024];
    let mut answer = Cached::default();
    ready()?;
    loop {
        let from = match socket.recv_from(&mut request) {
            Ok((_, from)) => from,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        socket.send_to(answer.get(), from)?;
    }
}

/// As one would write it: one datagram in, one out.
pub fn standard(at: SocketAddrV4) -> io::Result<Infallible> {
    let socket = UdpSocket::bind(at)?;
    let mut request = [0; 1_024];
    let mut answer = String::new();
    ready()?;
    loop {
        let (_, from) = socket.recv_from(&mut request)?;
        write_now(&mut answer);
        socket.send_to(answer.as_bytes(), from)?;
    }
}

/// The same with tokio, on one thread.
pub fn tokio(at: SocketAddrV4) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let socket = tokio::net::UdpSocket::bind(at).await?;
        let mut request = [0; 1_024];
        let mut answer = String::new();
        ready()?;
        loop {
            let (_, from) = socket.recv_from(&mut request).await?;
            write_now(&mut answer);
            socket.send_to(answer.as_bytes(), from).await?;
        }
    })
}
