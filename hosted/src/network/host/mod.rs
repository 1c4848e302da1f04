//! The host's own sockets.

mod outbox;
mod sendmmsg;
mod tcp;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mio::{Registry, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use smoltalk::{DatagramService, Now, Protocol, Pumped, StreamService, pump};
use socket2::Socket;

use super::{DATAGRAM_BUDGET, NetworkEvent, Ready, Sharing, StreamsPumped};
use crate::error::{Error, Exit};
use crate::owner::{overlap, owner};
use tcp::{Driver, Streams, Tokens};
use udp::Datagrams;

/// All sockets of one network.
#[derive(Debug)]
pub struct Host {
    datagrams: Vec<Datagrams>,
    streams: Vec<Streams>,
    bound: Vec<Bound>,
    /// How many connections a listener can hold.
    capacity: usize,
    sharing: Sharing,
    /// How often datagrams were expected since the event queue was asked.
    expected: u32,
    scratch: Box<[u8]>,
}

/// An address that one of our own services has.
#[derive(Debug)]
struct Bound {
    protocol: Protocol,
    local: SocketAddr,
    owner: &'static str,
}

/// Tokens: a datagram socket's number from `DATAGRAMS` on, a listener's from `LISTENERS` on; the connections of
/// the streams with number n have the 65,536 tokens from n × 65,536 on.
const DATAGRAMS: usize = 1 << 48;
const LISTENERS: usize = 1 << 49;
const SLOTS: usize = 1 << 16;

/// A server that spins asks the event queue once in so many turns, where it expects datagrams.
const EVENTS_AFTER: u32 = 16;

/// Descriptors that are not for connections.
const SPARE_DESCRIPTORS: u64 = 64;
/// Connections that a listener can hold beyond those that its service may.
const RESERVE: usize = 16;
/// A service's longest datagram, and what is read from or written to a connection in one go.
const SCRATCH: usize = 65_536;

impl Host {
    pub fn new(sharing: Sharing) -> Self {
        let descriptors = raise_descriptor_limit() / sharing.count() as u64;
        let most = SLOTS - 2;
        let capacity = usize::try_from(descriptors.saturating_sub(SPARE_DESCRIPTORS))
            .unwrap_or(most)
            .clamp(RESERVE + 1, most);
        Self {
            datagrams: Vec::new(),
            streams: Vec::new(),
            bound: Vec::new(),
            capacity,
            sharing,
            expected: 0,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        }
    }

    pub fn bind_datagrams(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
        registry: &Registry,
    ) -> Result<usize, Error> {
        let index = self.datagrams.len();
        let socket = Datagrams::bind(local, self.sharing, Token(DATAGRAMS + index), registry)
            .map_err(|error| self.bind_error(Protocol::Udp, local, &error))?;
        self.note(Protocol::Udp, socket.local(), owner);
        self.datagrams.push(socket);
        Ok(index)
    }

    pub fn watch_unreachable(&mut self, index: usize) -> Result<(), Error> {
        let datagrams = &mut self.datagrams[index];
        let local = datagrams.local();
        datagrams
            .watch_unreachable()
            .map_err(|error| Error::io(format_args!("UDP {local}"), &error))
    }

    pub fn dial_datagrams(
        &mut self,
        remote: SocketAddr,
        registry: &Registry,
    ) -> Result<usize, Error> {
        let index = self.datagrams.len();
        let socket = Datagrams::dial(remote, Token(DATAGRAMS + index), registry)
            .map_err(|error| dial_error(Protocol::Udp, remote, &error))?;
        self.datagrams.push(socket);
        Ok(index)
    }

    pub fn listen(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
        registry: &Registry,
    ) -> Result<usize, Error> {
        let index = self.streams.len();
        let streams = Streams::listen(local, self.sharing, self.capacity, tokens(index), registry)
            .map_err(|error| self.bind_error(Protocol::Tcp, local, &error))?;
        self.note(Protocol::Tcp, streams.local(), owner);
        self.streams.push(streams);
        Ok(index)
    }

    pub fn dial_stream(&mut self, remote: SocketAddr, registry: &Registry) -> Result<usize, Error> {
        let index = self.streams.len();
        let streams = Streams::dial(remote, tokens(index), registry)
            .map_err(|error| dial_error(Protocol::Tcp, remote, &error))?;
        self.streams.push(streams);
        Ok(index)
    }

    pub fn datagrams_addr(&self, index: usize) -> SocketAddr {
        self.datagrams[index].local()
    }

    pub fn streams_addr(&self, index: usize) -> SocketAddr {
        self.streams[index].local()
    }

    pub fn max_connections(&self, index: usize) -> usize {
        self.streams[index]
            .capacity()
            .saturating_sub(RESERVE)
            .max(1)
    }

    pub fn last_error(&self, index: usize) -> Option<&io::Error> {
        self.streams[index].last_error()
    }

    /// Notes what the event queue said.
    pub fn set_ready(&mut self, token: Token, ready: Ready) {
        let Token(number) = token;
        if number >= LISTENERS {
            if let Some(streams) = self.streams.get_mut(number - LISTENERS) {
                streams.set_waiting();
            }
        } else if number >= DATAGRAMS {
            if let Some(datagrams) = self.datagrams.get_mut(number - DATAGRAMS) {
                datagrams.set_ready(ready.readable, ready.writable);
            }
        } else if let Some(streams) = self.streams.get_mut(number / SLOTS) {
            streams.set_ready((number % SLOTS) as u16, ready);
        }
    }

    /// Lets the next turn look for datagrams where some came a moment ago, without the event queue, and returns whether
    /// there is such a place. Now and then it says no, for the sake of all others.
    pub fn expect_datagrams(&mut self) -> bool {
        self.expected = (self.expected + 1) % EVENTS_AFTER;
        let mut expected = false;
        if self.expected != 0 {
            for datagrams in &mut self.datagrams {
                expected |= datagrams.expect();
            }
        }
        expected
    }

    pub fn pump_datagrams<S: DatagramService>(
        &mut self,
        index: usize,
        service: &mut S,
        now: Now,
        registry: &Registry,
    ) -> Result<Pumped, Error> {
        let datagrams = &mut self.datagrams[index];
        let local = datagrams.local();
        let mut transport = datagrams.transport(registry);
        pump(
            service,
            &mut transport,
            now,
            &mut self.scratch,
            DATAGRAM_BUDGET,
        )
        .and_then(|pumped| transport.finish(pumped))
        .map_err(|error| Error::io(format_args!("UDP {local}"), &error))
    }

    pub fn pump_streams<S: StreamService>(
        &mut self,
        index: usize,
        service: &mut S,
        now: Now,
        registry: &Registry,
        told: &mut VecDeque<NetworkEvent>,
    ) -> Result<StreamsPumped, Error> {
        let streams = &mut self.streams[index];
        let local = streams.local();
        let mut driver = Driver {
            registry,
            scratch: &mut self.scratch,
            told,
        };
        streams
            .serve(service, now, &mut driver)
            .map_err(|error| Error::io(format_args!("TCP {local}"), &error))
    }

    fn note(&mut self, protocol: Protocol, local: SocketAddr, owner: &'static str) {
        self.bound.push(Bound {
            protocol,
            local,
            owner,
        });
    }

    /// Who has an address that keeps us from `local`.
    fn owner(&self, protocol: Protocol, local: SocketAddr) -> Option<String> {
        let ours = self
            .bound
            .iter()
            .find(|bound| bound.protocol == protocol && overlap(bound.local, local));
        match ours {
            Some(bound) => Some(format!("{} (this program)", bound.owner)),
            None => owner(protocol, local),
        }
    }

    /// Why `local` could not be bound, with who has it where another does.
    fn bind_error(&self, protocol: Protocol, local: SocketAddr, error: &io::Error) -> Error {
        let address = match protocol {
            Protocol::Tcp => format!("TCP {local}"),
            Protocol::Udp => format!("UDP {local}"),
        };
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => match self.owner(protocol, local) {
                Some(owner) => Error::in_use(format!("{address} is in use by {owner}")),
                None => Error::in_use(format!("{address} is in use"))
                    .with_hint("the system does not show us by whom: root can see it with `ss -lntup`"),
            },
            Some(libc::EACCES) => Error::new(
                Exit::NotPermitted,
                format!("{address}: not permitted by the system"),
            )
            .with_hint(
                "ports below 1024 are for root or a program with CAP_NET_BIND_SERVICE: choose a higher one",
            ),
            Some(libc::EADDRNOTAVAIL) => {
                Error::failed(format!("{address}: no interface of this machine has that address"))
                    .with_hint("`ip address` lists them; 0.0.0.0 and [::] stand for all of them")
            }
            Some(libc::EAFNOSUPPORT) => {
                Error::failed(format!("{address}: this machine has no such IP version"))
            }
            _ => Error::io(address, error),
        }
    }
}

/// Binds `socket`, and lets it be shared as far as `sharing` says. The first one is bound without SO_REUSEPORT, and so
/// not at all where anybody has the address; it is set when nobody can have it any more.
fn bind(socket: &Socket, local: SocketAddr, sharing: Sharing) -> io::Result<()> {
    if matches!(sharing, Sharing::Beside { .. }) {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&local.into())?;
    if matches!(sharing, Sharing::First { of } if of.get() > 1) {
        socket.set_reuse_port(true)?;
    }
    Ok(())
}

/// Why nothing can be sent to `remote`.
fn dial_error(protocol: Protocol, remote: SocketAddr, error: &io::Error) -> Error {
    let protocol = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    let told = Error::io(format_args!("{protocol} {remote}"), error);
    if told.hint().is_some() {
        return told;
    }
    told.with_hint("is this the right address, and is the network up?")
}

fn tokens(index: usize) -> Tokens {
    Tokens {
        listener: Token(LISTENERS + index),
        first_conn: Token(index * SLOTS),
    }
}

/// Allows ourselves as many descriptors as we may, and returns how many that is.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 256;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
