//! smoltcp with its own TAP device and its own way to wait, in one loop as in its examples.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Medium, TunTapInterface, wait};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::answer::write_now;
use super::ready;
use crate::load::bulk::pattern;

/// Datagrams that the socket holds. The examples have two, and would lose nearly all of 64.
const DATAGRAMS: usize = 128;
/// Bytes of each buffer of bulk, as in the benchmark.
const BULK: usize = 65_535;

/// The time: one datagram is answered after each poll, or, with `drain`, all that are there.
pub fn time(tap: &str, ours: Ipv4Addr, router: Ipv4Addr, drain: bool) -> io::Result<Infallible> {
    let mut device = TunTapInterface::new(tap, Medium::Ethernet)?;
    let descriptor = device.as_raw_fd();
    let mut interface = interface(&mut device, ours, router)?;
    let ring =
        || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; 65_535]);
    let mut socket = udp::Socket::new(ring(), ring());
    socket
        .bind(smoltalk::time::PORT)
        .map_err(io::Error::other)?;
    let mut sockets = SocketSet::new(vec![]);
    let handle = sockets.add(socket);
    let mut answer = String::new();
    ready()?;
    loop {
        let timestamp = Instant::now();
        interface.poll(timestamp, &mut device, &mut sockets);
        let socket = sockets.get_mut::<udp::Socket<'_>>(handle);
        while let Ok((_, from)) = socket.recv() {
            write_now(&mut answer);
            let _ = socket.send_slice(answer.as_bytes(), from);
            if !drain {
                break;
            }
        }
        let delay = interface.poll_delay(timestamp, &sockets);
        wait(descriptor, delay)?;
    }
}

/// The greeting, with a pool of sockets that listen for one connection each. A socket of smoltcp is in TIME-WAIT for ten seconds, in which the pool would stand still; so it is
/// aborted there and listens again, as a program must that wants to go on.
pub fn greeting(
    tap: &str,
    ours: Ipv4Addr,
    router: Ipv4Addr,
    pool: usize,
) -> io::Result<Infallible> {
    let mut device = TunTapInterface::new(tap, Medium::Ethernet)?;
    let descriptor = device.as_raw_fd();
    let mut interface = interface(&mut device, ours, router)?;
    let mut sockets = SocketSet::new(vec![]);
    for _ in 0..pool {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1_024]);
        sockets.add(tcp::Socket::new(buffer(), buffer()));
    }
    ready()?;
    loop {
        for (_, socket) in sockets.iter_mut() {
            let smoltcp::socket::Socket::Tcp(socket) = socket else {
                continue;
            };
            if socket.state() == tcp::State::TimeWait {
                socket.abort();
            }
            if !socket.is_open() {
                socket
                    .listen(smoltalk::greeting::PORT)
                    .map_err(io::Error::other)?;
            }
            if socket.can_recv() && socket.may_send() {
                let _ = socket.recv(|greeting| (greeting.len(), ()));
                let _ = socket.send_slice(b"hi");
                socket.close();
            }
        }
        let timestamp = Instant::now();
        interface.poll(timestamp, &mut device, &mut sockets);
        let delay = interface.poll_delay(timestamp, &sockets);
        wait(descriptor, delay)?;
    }
}

/// Bulk in both directions, one connection each. The benchmark sends what happens to be in its buffer; here it is
/// filled.
pub fn bulk(tap: &str, ours: Ipv4Addr, router: Ipv4Addr) -> io::Result<Infallible> {
    const DISCARD: u16 = 9;
    const CHARGEN: u16 = 19;
    let mut device = TunTapInterface::new(tap, Medium::Ethernet)?;
    let descriptor = device.as_raw_fd();
    let mut interface = interface(&mut device, ours, router)?;
    let mut sockets = SocketSet::new(vec![]);
    let buffer = || tcp::SocketBuffer::new(vec![0; BULK]);
    let discard = sockets.add(tcp::Socket::new(buffer(), buffer()));
    let chargen = sockets.add(tcp::Socket::new(buffer(), buffer()));
    let pattern = pattern();
    let text = pattern.repeat(BULK / pattern.len() + 2);
    let mut at = 0;
    ready()?;
    loop {
        let timestamp = Instant::now();
        interface.poll(timestamp, &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(discard);
        if !socket.is_open() {
            socket.listen(DISCARD).map_err(io::Error::other)?;
        }
        while socket.can_recv() {
            socket
                .recv(|received| (received.len(), ()))
                .map_err(io::Error::other)?;
        }
        let socket = sockets.get_mut::<tcp::Socket<'_>>(chargen);
        if !socket.is_open() {
            socket.listen(CHARGEN).map_err(io::Error::other)?;
            at = 0;
        }
        while socket.can_send() {
            let sent = socket
                .send(|room| {
                    room.copy_from_slice(&text[at..at + room.len()]);
                    (room.len(), room.len())
                })
                .map_err(io::Error::other)?;
            at = (at + sent) % pattern.len();
        }
        let delay = interface.poll_delay(timestamp, &sockets);
        wait(descriptor, delay)?;
    }
}

fn interface(
    device: &mut TunTapInterface,
    ours: Ipv4Addr,
    router: Ipv4Addr,
) -> io::Result<Interface> {
    let mut config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 1]).into());
    config.random_seed = std::process::id().into();
    let mut interface = Interface::new(config, device, Instant::now());
    let mut result = Ok(());
    interface.update_ip_addrs(|addresses| {
        result = addresses.push(IpCidr::new(ours.into(), 24));
    });
    result.map_err(|_| io::Error::other("no room for an address"))?;
    interface
        .routes_mut()
        .add_default_ipv4_route(router)
        .map_err(io::Error::other)?;
    Ok(interface)
}
