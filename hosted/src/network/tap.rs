//! smoltcp on a TAP device.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use smoltalk::smoltcp::{
    BindError, ConnectError, Dial, Listener, SocketEntry, SocketSlices, SocketStorage, Sockets,
    Stack, StackConfig, StreamsPumped, UdpSocket,
};
use smoltalk::{
    ConnId, DatagramService, InUse, Instant, Now, Protocol, Pumped, StreamService, earliest, pump,
};
use smoltcp::socket::{tcp, udp};

use super::{DATAGRAM_BUDGET, TAP, TapOptions, Traffic};
use crate::error::Error;
use crate::tap::TapDevice;

/// The stack, and what is bound on it.
pub struct TapStack {
    stack: Stack<'static, TapDevice>,
    endpoints: Endpoints,
    /// The descriptor that the event queue watches.
    watched: Option<RawFd>,
}

/// What is bound on a stack, apart from the stack that lends it its sockets.
pub struct Endpoints {
    datagrams: Vec<UdpSocket>,
    streams: Vec<Streams>,
    scratch: Box<[u8]>,
}

enum Streams {
    Listener(Box<Listener<POOL>>),
    Bulk(Box<Listener<BULK_POOL>>),
    Dial {
        dial: Dial,
        opened: bool,
        last_error: Option<io::Error>,
    },
    /// There was no way to begin, and the service is to be told.
    NotMade {
        local: SocketAddr,
        told: bool,
        why: io::Error,
    },
}

/// Sockets of a listener, and how many of them are beyond what its service may hold: for connections that come
/// while one gives way, and for those that are being made or that have just ended.
const POOL: usize = 12_288;
const RESERVE: usize = 1_024;
/// The same of a listener for bulk data.
const BULK_POOL: usize = 32;
const BULK_RESERVE: usize = 8;
/// All other sockets.
const OTHER_SOCKETS: usize = 64;

/// Buffers, in bytes. A greeting is short; and the peers of a client may send it more. Memory is the system's until a
/// connection uses it.
const LISTENER_RECEIVE: usize = 2_048;
const LISTENER_SEND: usize = 512;
const BULK_BUFFER: usize = 1 << 20;
const DIAL_BUFFER: usize = 16_384;
const DATAGRAM_BUFFER: usize = 65_536;
const DATAGRAM_PACKETS: usize = 128;
/// A service's longest datagram.
const SCRATCH: usize = 65_536;

/// Frames taken in before the services are asked, if so many come: no more than a socket for datagrams has room for.
const BURST: u32 = 32;
/// Frames taken in by one turn.
const FRAME_BUDGET: u32 = 256;

impl TapStack {
    pub fn new(
        device: TapDevice,
        options: &TapOptions,
        now: Instant,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let config = StackConfig {
            mac: options.mac.unwrap_or_else(|| made_up_mac(device.name())),
            addresses: &options.addresses,
            gateways: &options.gateways,
            seed: seed(),
        };
        let name = device.name().to_owned();
        // A program has one stack, for as long as it runs. What the stack wants is room that outlives it.
        let sockets = options.listeners * POOL + 2 * BULK_POOL + OTHER_SOCKETS;
        let storage = Vec::from_iter(std::iter::repeat_with(|| SocketStorage::EMPTY).take(sockets));
        let entries = Vec::from_iter(std::iter::repeat_with(|| SocketEntry::EMPTY).take(sockets));
        let memory = SocketSlices {
            storage: storage.leak(),
            entries: entries.leak(),
        };
        let mut stack = Stack::new(device, &config, memory, now)
            .map_err(|error| Error::usage(format!("TAP device {name}: {error}")))?;
        stack.set_burst(BURST);
        let mut new = Self {
            stack,
            endpoints: Endpoints {
                datagrams: Vec::new(),
                streams: Vec::new(),
                scratch: vec![0; SCRATCH].into_boxed_slice(),
            },
            watched: None,
        };
        new.watch(registry)?;
        Ok(new)
    }

    pub fn bind_datagrams(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
    ) -> Result<usize, Error> {
        let ring = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; DATAGRAM_PACKETS],
                vec![0; DATAGRAM_BUFFER],
            )
        };
        let socket = self
            .stack
            .bind(local, owner, udp::Socket::new(ring(), ring()))
            .map_err(|error| bind_error(Protocol::Udp, local, &error))?;
        self.endpoints.datagrams.push(socket);
        Ok(self.endpoints.datagrams.len() - 1)
    }

    pub fn dial_datagrams(&mut self, remote: SocketAddr) -> Result<usize, Error> {
        self.bind_datagrams(any_local(remote), "client")
    }

    pub fn listen(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
        traffic: Traffic,
    ) -> Result<usize, Error> {
        let broken = |error| bind_error(Protocol::Tcp, local, &error);
        let stack = &mut self.stack;
        let streams = match traffic {
            Traffic::Short => {
                let rooms = Room::<LISTENER_RECEIVE>::split::<POOL>(LISTENER_SEND);
                let listener = stack.listen(local, owner, rooms).map_err(broken)?;
                Streams::Listener(Box::new(listener))
            }
            Traffic::Bulk => {
                let rooms = Room::<BULK_BUFFER>::split::<BULK_POOL>(BULK_BUFFER);
                let listener = stack.listen(local, owner, rooms).map_err(broken)?;
                Streams::Bulk(Box::new(listener))
            }
        };
        self.endpoints.streams.push(streams);
        Ok(self.endpoints.streams.len() - 1)
    }

    pub fn dial_stream(&mut self, remote: SocketAddr) -> Result<usize, Error> {
        let socket = tcp_socket(DIAL_BUFFER, DIAL_BUFFER);
        let streams = match self.stack.connect(remote, socket) {
            Ok(dial) => Streams::Dial {
                dial,
                opened: false,
                last_error: None,
            },
            Err(ConnectError::NoRoute { .. }) => Streams::NotMade {
                local: any_local(remote),
                told: false,
                why: io::Error::from_raw_os_error(libc::ENETUNREACH),
            },
            Err(error) => return Err(Error::failed(format!("TCP {remote}: {error}"))),
        };
        self.endpoints.streams.push(streams);
        Ok(self.endpoints.streams.len() - 1)
    }

    pub fn datagrams_addr(&self, index: usize) -> SocketAddr {
        self.endpoints.datagrams[index].local_addr()
    }

    pub fn streams_addr(&self, index: usize) -> SocketAddr {
        match &self.endpoints.streams[index] {
            Streams::Listener(listener) => listener.local_addr(),
            Streams::Bulk(listener) => listener.local_addr(),
            Streams::Dial { dial, .. } => dial.local_addr(),
            Streams::NotMade { local, .. } => *local,
        }
    }

    pub fn max_connections(&self, index: usize) -> usize {
        match &self.endpoints.streams[index] {
            Streams::Listener(_) => POOL - RESERVE,
            Streams::Bulk(_) => BULK_POOL - BULK_RESERVE,
            Streams::Dial { .. } | Streams::NotMade { .. } => 1,
        }
    }

    pub fn last_error(&self, index: usize) -> Option<&io::Error> {
        match &self.endpoints.streams[index] {
            Streams::Listener(_) | Streams::Bulk(_) => None,
            Streams::Dial { last_error, .. } => last_error.as_ref(),
            Streams::NotMade { why, .. } => Some(why),
        }
    }

    pub fn device(&mut self) -> &mut TapDevice {
        self.stack.device_mut()
    }

    /// One turn: `serve` is called with the sockets that the endpoints need. Returns when the next turn is due and
    /// whether there is more to do at once.
    pub fn turn(
        &mut self,
        now: Now,
        registry: &Registry,
        mut serve: impl FnMut(&mut Endpoints, &mut Sockets<'static>, Now) -> Option<Instant>,
    ) -> Result<(Option<Instant>, bool), Error> {
        let look = self.look(now, registry)?;
        let Self {
            stack, endpoints, ..
        } = self;
        let turn = stack.turn(now, FRAME_BUDGET, |sockets, now| {
            serve(endpoints, sockets, now)
        });
        stack.device_mut().flush();
        // The device may have been lost meanwhile.
        let look = earliest(look, self.look(now, registry)?);
        Ok((earliest(turn.deadline, look), turn.more))
    }

    fn look(&mut self, now: Now, registry: &Registry) -> Result<Option<Instant>, Error> {
        let next = self.stack.device_mut().look(now.monotonic);
        self.watch(registry)?;
        Ok(next)
    }

    /// Sees to it that the event queue watches the device, if there is one.
    fn watch(&mut self, registry: &Registry) -> Result<(), Error> {
        let descriptor = self.stack.device().descriptor();
        if descriptor != self.watched {
            // One that was closed has left the event queue by itself.
            if let Some(descriptor) = descriptor {
                registry
                    .register(&mut SourceFd(&descriptor), TAP, Interest::READABLE)
                    .map_err(|error| Error::io("the event queue", &error))?;
            }
            self.watched = descriptor;
        }
        Ok(())
    }
}

impl fmt::Debug for TapStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapStack")
            .field("device", self.stack.device())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("datagrams", &self.datagrams)
            .finish_non_exhaustive()
    }
}

impl Endpoints {
    pub fn pump_datagrams<S: DatagramService>(
        &mut self,
        index: usize,
        service: &mut S,
        now: Now,
        sockets: &mut Sockets<'static>,
    ) -> Pumped {
        let mut transport = sockets.udp(&mut self.datagrams[index], now);
        match pump(
            service,
            &mut transport,
            now,
            &mut self.scratch,
            DATAGRAM_BUDGET,
        ) {
            Ok(pumped) => pumped,
            Err(never) => match never {},
        }
    }

    pub fn pump_streams<S: StreamService>(
        &mut self,
        index: usize,
        service: &mut S,
        now: Now,
        sockets: &mut Sockets<'static>,
    ) -> StreamsPumped {
        match &mut self.streams[index] {
            Streams::Listener(listener) => listener.pump(sockets, service, now),
            Streams::Bulk(listener) => listener.pump(sockets, service, now),
            Streams::Dial {
                dial,
                opened,
                last_error,
            } => {
                let pumped = dial.pump(sockets, service, now);
                *opened |= pumped.opened > 0;
                if pumped.closed > 0 && !*opened {
                    // smoltcp does not say more; and a server that does not answer at all is given up by the
                    // service long before the stack does.
                    *last_error = Some(io::Error::from_raw_os_error(libc::ECONNREFUSED));
                }
                pumped
            }
            Streams::NotMade { told, .. } => {
                let mut pumped = StreamsPumped::default();
                if !std::mem::replace(told, true) {
                    service.handle_close(now, ConnId::new(0));
                    pumped.closed = 1;
                }
                pumped.deadline = service.poll_timeout();
                pumped
            }
        }
    }
}

/// The buffers of a connection that is to come in: `RECEIVE` bytes for what it receives, the others for what it sends.
struct Room<const RECEIVE: usize>(&'static mut [u8]);

impl<const RECEIVE: usize> Room<RECEIVE> {
    /// As many as a listener has, in one piece of zeroes: the system has them ready without writing any, and gives
    /// memory for them when they are used.
    fn split<const N: usize>(send: usize) -> [Self; N] {
        let mut rest = vec![0; N * (RECEIVE + send)].leak();
        std::array::from_fn(|_| {
            let (room, others) = std::mem::take(&mut rest).split_at_mut(RECEIVE + send);
            rest = others;
            Self(room)
        })
    }
}

impl<const RECEIVE: usize> From<Room<RECEIVE>> for tcp::Socket<'static> {
    fn from(Room(room): Room<RECEIVE>) -> Self {
        let (receive, send) = room.split_at_mut(RECEIVE);
        Self::new(
            tcp::SocketBuffer::new(receive),
            tcp::SocketBuffer::new(send),
        )
    }
}

fn tcp_socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; receive]),
        tcp::SocketBuffer::new(vec![0; send]),
    )
}

/// Any address and port of ours from which `remote` can be spoken to.
fn any_local(remote: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match remote.ip().to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// An address for the interface `name` that stays the same, so that others may remember it: unicast and locally
/// administered (IEEE 802, section 8.4), and hardly another's on the same link.
fn made_up_mac(name: &str) -> [u8; 6] {
    // FNV-1a: the same on every machine and in every build.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// A number that nobody can guess.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn bind_error(protocol: Protocol, local: SocketAddr, error: &BindError) -> Error {
    let address = match protocol {
        Protocol::Tcp => format!("TCP {local}"),
        Protocol::Udp => format!("UDP {local}"),
    };
    match error {
        BindError::InUse(InUse::By { owner, .. }) => {
            Error::in_use(format!("{address} is in use by {owner} (this program)"))
        }
        BindError::NotOurs { .. } => Error::failed(format!(
            "{address}: the stack on the TAP device does not have that address"
        ))
        .with_hint("its addresses are those given with --ip"),
        _ => Error::failed(format!("{address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_addresses_are_of_one_device_and_differ_by_name() {
        let (a, b) = (made_up_mac("tap0"), made_up_mac("tap1"));
        assert_ne!(a, b);
        assert_eq!(a, made_up_mac("tap0"));
        assert_eq!(a[0], 0x02);
    }
}
