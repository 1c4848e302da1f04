//! Datagrams and streams on either stack: the host's sockets, or smoltcp on a TAP device.
//!
//! A [`Network`] binds, dials and listens; [`Network::turn`] lends an [`Io`] through which services are pumped,
//! and [`Network::wait`] sleeps until there is a reason for another turn:
//!
//! ```no_run
//! # use smoltalk_hosted::{clock::Clock, error::Error, network::Network};
//! # fn main() -> Result<(), Error> {
//! let mut network = Network::host()?;
//! let clock = Clock::system();
//! let id = network.bind_datagrams("127.0.0.1:8898".parse().unwrap(), "greeting")?;
//! let mut server = smoltalk::greeting::DatagramServer::new();
//! loop {
//!     let turn = network.turn(&clock, &mut |io, now| Ok(io.datagrams(id, &mut server, now)?.deadline))?;
//!     network.wait(&clock, turn.deadline)?;
//! }
//! # }
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use smoltalk::{DatagramService, Instant, Now, Pumped, StreamService};

use crate::clock::Clock;
use crate::error::Error;
use crate::tap::TapDevice;

/// One stack and what is bound on it.
#[derive(Debug)]
pub struct Network {
    waker: Arc<mio::Waker>,
}

/// Names a datagram endpoint of one [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramId(usize);

/// Names a listener, or an outgoing connection, of one [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsId(usize);

/// Names anything that has a local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointId {
    /// A datagram endpoint.
    Datagrams(DatagramId),
    /// A listener or an outgoing connection.
    Streams(StreamsId),
}

impl From<DatagramId> for EndpointId {
    fn from(id: DatagramId) -> Self {
        Self::Datagrams(id)
    }
}

impl From<StreamsId> for EndpointId {
    fn from(id: StreamsId) -> Self {
        Self::Streams(id)
    }
}

/// How smoltcp is set up on a TAP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// The interface's name.
    pub name: String,
    /// Our addresses, each with the length of its network's prefix in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers to everywhere else, at most one for each IP version.
    pub gateways: Vec<IpAddr>,
    /// Our hardware address; `None`: one made from the interface's name.
    pub mac: Option<[u8; 6]>,
}

impl TapOptions {
    /// 192.168.69.1/24 and fdaa::1/64 on the TAP device `name`, no gateway.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            addresses: vec![
                (Ipv4Addr::new(192, 168, 69, 1).into(), 24),
                (Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 1).into(), 64),
            ],
            gateways: Vec::new(),
            mac: None,
        }
    }
}

/// Pumps every endpoint through an [`Io`] and returns the earliest deadline of the caller's own.
pub type Serve<'f> = dyn FnMut(&mut Io<'_>, Now) -> Result<Option<Instant>, Error> + 'f;

/// What one turn left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When the next turn is due: to be given to [`Network::wait`]. The past if there is more to do already.
    pub deadline: Option<Instant>,
    /// A budget ended before the work did.
    pub more: bool,
}

/// What [`Io::streams`] moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamsPumped {
    /// Connections taken in (or, for a client, made).
    pub opened: u32,
    /// Connections that ended.
    pub closed: u32,
    /// Bytes that the service consumed.
    pub received: usize,
    /// Bytes that the stack took.
    pub sent: usize,
    /// When the service wants its timeout.
    pub deadline: Option<Instant>,
}

/// Something that happened to the network as a whole, to be told on standard error. None of it ends the program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkEvent {
    /// The TAP interface was set down: what is sent is lost until it is up again.
    LinkDown {
        /// The interface's name.
        name: String,
    },
    /// The TAP interface is up again.
    LinkUp {
        /// The interface's name.
        name: String,
    },
    /// The TAP device was deleted; it is looked for once a second.
    DeviceLost {
        /// The interface's name.
        name: String,
    },
    /// The TAP device is there again.
    DeviceBack {
        /// The interface's name.
        name: String,
    },
    /// The system has no descriptors or memory for more connections: they wait until others have closed.
    AcceptPaused {
        /// The listener's address.
        local: SocketAddr,
        /// What the system says.
        why: String,
    },
}

/// Ends a [`Network::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Ends the wait, or the next one if none is under way.
    pub fn wake(&self) {
        // It fails only when the event queue is gone, and then nobody waits.
        let _ = self.0.wake();
    }
}

/// A signal that was asked for with [`Network::watch_signals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: control-C, as a rule.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
    /// SIGCHLD: a child process has ended.
    Child,
}

/// The signals that have come.
#[derive(Debug)]
pub struct Signals {}

impl Signals {
    /// The next signal that has come and was not told yet. Never waits.
    pub fn poll(&mut self) -> Option<Signal> {
        todo!()
    }
}

impl Network {
    /// The host's own sockets.
    ///
    /// # Errors
    /// The system has no room for an event queue.
    pub fn host() -> Result<Self, Error> {
        todo!()
    }

    /// smoltcp on the TAP device that `options` name, which must exist.
    ///
    /// # Errors
    /// Those of [`TapDevice::attach`]; more addresses than smoltcp was built for.
    pub fn tap(options: &TapOptions) -> Result<Self, Error> {
        Self::on_tap_device(TapDevice::attach(&options.name)?, options)
    }

    /// smoltcp on `device`.
    ///
    /// # Errors
    /// More addresses than smoltcp was built for; the system has no room for an event queue.
    pub fn on_tap_device(device: TapDevice, options: &TapOptions) -> Result<Self, Error> {
        let _ = (device, options);
        todo!()
    }

    /// Binds `local` for datagrams from anyone, for the service `owner`. Port 0: one that is free.
    ///
    /// # Errors
    /// The address is in use ([`Exit::InUse`](crate::error::Exit), and by whom), not ours, or not permitted.
    pub fn bind_datagrams(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
    ) -> Result<DatagramId, Error> {
        let _ = (local, owner);
        todo!()
    }

    /// Binds a free port for datagrams to and from `remote` only, so that ICMP's refusals are heard of.
    ///
    /// # Errors
    /// There is no way to `remote`, or no free port.
    pub fn dial_datagrams(&mut self, remote: SocketAddr) -> Result<DatagramId, Error> {
        let _ = remote;
        todo!()
    }

    /// Listens for connections at `local`, for the service `owner`. Port 0: one that is free.
    ///
    /// # Errors
    /// The address is in use ([`Exit::InUse`](crate::error::Exit), and by whom), not ours, or not permitted.
    pub fn listen(&mut self, local: SocketAddr, owner: &'static str) -> Result<StreamsId, Error> {
        let _ = (local, owner);
        todo!()
    }

    /// Begins one connection to `remote`. If it cannot be made, the service hears `handle_close` without a
    /// `handle_open`, and [`last_error`](Self::last_error) says why.
    ///
    /// # Errors
    /// No free port or descriptor.
    pub fn dial_stream(&mut self, remote: SocketAddr) -> Result<StreamsId, Error> {
        let _ = remote;
        todo!()
    }

    /// The address that an endpoint has, its port never 0.
    pub fn local_addr(&self, id: impl Into<EndpointId>) -> SocketAddr {
        let _ = id.into();
        todo!()
    }

    /// How many connections a service may hold on that listener: what to put into its configuration. Some below
    /// what the stack can hold, so that a new one can always come in; at least 1.
    pub fn max_connections(&self, id: StreamsId) -> usize {
        let _ = id;
        todo!()
    }

    /// Why the connection of [`dial_stream`](Self::dial_stream) was not made or was lost, where the stack knows.
    pub fn last_error(&self, id: StreamsId) -> Option<&io::Error> {
        let _ = id;
        todo!()
    }

    /// One turn. `serve` pumps every endpoint and returns the earliest deadline of its own; it is called as often
    /// as the stack needs.
    ///
    /// # Errors
    /// What `serve` returned, or the stack is broken.
    pub fn turn(&mut self, clock: &Clock, serve: &mut Serve<'_>) -> Result<Turn, Error> {
        let _ = (clock, serve);
        todo!()
    }

    /// Sleeps until something is ready, `deadline` has come, or a [`Waker`] or a watched signal ends it. Call it
    /// after every turn, also with a deadline in the past: it then only looks what is ready.
    ///
    /// # Errors
    /// The event queue is broken.
    pub fn wait(&mut self, clock: &Clock, deadline: Option<Instant>) -> Result<(), Error> {
        let _ = (clock, deadline);
        todo!()
    }

    /// What ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    /// Lets SIGINT, SIGTERM, SIGHUP and SIGCHLD end a wait instead of the program.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn watch_signals(&mut self) -> Result<Signals, Error> {
        todo!()
    }

    /// The next thing to be told on standard error.
    pub fn poll_event(&mut self) -> Option<NetworkEvent> {
        todo!()
    }
}

/// The endpoints of a [`Network`] during one turn.
#[derive(Debug)]
pub struct Io<'a> {
    network: &'a mut (),
}

impl Io<'_> {
    /// Pumps `service` over a datagram endpoint.
    ///
    /// # Errors
    /// The endpoint is broken. What befalls single datagrams is no error.
    ///
    /// # Panics
    /// If `id` is another network's.
    pub fn datagrams<S: DatagramService>(
        &mut self,
        id: DatagramId,
        service: &mut S,
        now: Now,
    ) -> Result<Pumped, Error> {
        let _ = (id, service, now, &self.network);
        todo!()
    }

    /// Pumps `service` over the connections of a listener, or over an outgoing one: takes in new ones, runs the
    /// service's timeout, and moves bytes on those connections that have something to tell.
    ///
    /// # Errors
    /// The listener is broken. What befalls single connections is no error.
    ///
    /// # Panics
    /// If `id` is another network's.
    pub fn streams<S: StreamService>(
        &mut self,
        id: StreamsId,
        service: &mut S,
        now: Now,
    ) -> Result<StreamsPumped, Error> {
        let _ = (id, service, now, &self.network);
        todo!()
    }
}
