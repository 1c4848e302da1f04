//! The conformance suite's client on the operating system's sockets, for services that run elsewhere.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use smoltalk::Protocol;
use smoltalk::sim::script::{Exchange, IpVersion, Service};

use super::conformance::Backend;

/// Far more than any answer takes: reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Services at the addresses that a function tells.
pub struct Sockets<F: Fn(Service, IpVersion) -> SocketAddr> {
    pub address: F,
}

impl<F: Fn(Service, IpVersion) -> SocketAddr> Backend for Sockets<F> {
    fn answers(&mut self, version: IpVersion, exchange: &Exchange) -> Vec<Vec<u8>> {
        let server = (self.address)(exchange.service, version);
        match exchange.service.protocol() {
            Protocol::Tcp => vec![stream(server, exchange)],
            Protocol::Udp => datagrams(server, exchange),
        }
    }
}

fn stream(server: SocketAddr, exchange: &Exchange) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in exchange.requests {
        stream.write_all(piece).unwrap();
    }
    if exchange.end {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn datagrams(server: SocketAddr, exchange: &Exchange) -> Vec<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).unwrap();
    // Connected, it hears only answers from the very address that was asked.
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for request in exchange.requests {
        socket.send(request).unwrap();
    }
    let mut answers = Vec::new();
    let mut buf = [0; 2048];
    while answers.len() < exchange.answers.len() {
        let len = socket.recv(&mut buf).unwrap();
        answers.push(buf[..len].to_vec());
    }
    socket.set_nonblocking(true).unwrap();
    loop {
        match socket.recv(&mut buf) {
            Ok(len) => answers.push(buf[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return answers,
            Err(error) => panic!("{server}: {error}"),
        }
    }
}
