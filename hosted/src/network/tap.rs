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

use super::{DATAGRAM_BUDGET, TAP, TapOptions};
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
const POOL: usize = 256;
const RESERVE: usize = 32;
/// All sockets: the listeners of the greeting, discard and chargen, one more, and some for everything else.
const SOCKETS: usize = 4 * POOL + 64;

/// Buffers, in bytes. A greeting is short; and the peers of a client may send it more.
const LISTENER_RECEIVE: usize = 2_048;
const LISTENER_SEND: usize = 512;
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
        let storage = Vec::from_iter(std::iter::repeat_with(|| SocketStorage::EMPTY).take(SOCKETS));
        let entries = Vec::from_iter(std::iter::repeat_with(|| SocketEntry::EMPTY).take(SOCKETS));
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

    pub fn listen(&mut self, local: SocketAddr, owner: &'static str) -> Result<usize, Error> {
        let sockets: [tcp::Socket<'static>; POOL] =
            std::array::from_fn(|_| tcp_socket(LISTENER_RECEIVE, LISTENER_SEND));
        let listener = self
            .stack
            .listen(local, owner, sockets)
            .map_err(|error| bind_error(Protocol::Tcp, local, &error))?;
        self.endpoints
            .streams
            .push(Streams::Listener(Box::new(listener)));
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
            Streams::Dial { dial, .. } => dial.local_addr(),
            Streams::NotMade { local, .. } => *local,
        }
    }

    pub fn max_connections(&self, index: usize) -> usize {
        match &self.endpoints.streams[index] {
            Streams::Listener(_) => POOL - RESERVE,
            Streams::Dial { .. } | Streams::NotMade { .. } => 1,
        }
    }

    pub fn last_error(&self, index: usize) -> Option<&io::Error> {
        match &self.endpoints.streams[index] {
            Streams::Listener(_) => None,
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
