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

mod host;
mod tap;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use mio::{Events, Interest, Poll, Registry, Token};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use smoltalk::smoltcp::Sockets;
use smoltalk::{DatagramService, Duration, Instant, Now, Pumped, StreamService, earliest};

use crate::clock::Clock;
use crate::error::Error;
use crate::tap::TapDevice;
use host::Host;
use tap::TapStack;

pub use smoltalk::smoltcp::StreamsPumped;

/// One stack and what is bound on it.
#[derive(Debug)]
pub struct Network {
    stack: Stack,
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    told: VecDeque<NetworkEvent>,
    signalled: Rc<Cell<bool>>,
    busy_poll: bool,
    /// While polling a TAP device: when to look for more than frames.
    look_at: Instant,
}

/// Who else has the addresses that a network of host sockets binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody: an address that another has cannot be bound.
    #[default]
    Alone,
    /// Nobody yet. Then others of this program may be [`Beside`](Self::Beside) it, `of` with this one: the system gives
    /// each of them a part of the clients (`SO_REUSEPORT`, socket(7)). Only another program of the same user could come
    /// in between, if it asks for just that.
    First {
        /// How many there will be, so that each takes its part of the descriptors.
        of: NonZeroUsize,
    },
    /// One that is [`First`](Self::First), and others of this kind.
    Beside {
        /// How many there will be, the first one included.
        of: NonZeroUsize,
    },
}

impl Sharing {
    /// How many share the addresses.
    fn count(self) -> usize {
        match self {
            Self::Alone => 1,
            Self::First { of } | Self::Beside { of } => of.get(),
        }
    }
}

#[derive(Debug)]
enum Stack {
    Host(Host),
    Tap(Box<TapStack>),
}

const WAKER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
const TAP: Token = Token(usize::MAX - 2);

/// How long a TAP device is polled for frames only: signals and wakers can wait that long.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Events taken from the system in one go; the others keep until the next.
const EVENTS: usize = 1_024;
/// Datagrams taken in by one pump, so that one busy service cannot hold up the others.
const DATAGRAM_BUDGET: u32 = 256;

/// What the event queue says of a socket.
#[derive(Clone, Copy, Debug)]
struct Ready {
    readable: bool,
    writable: bool,
    /// No more will come than can be read by now.
    ended: bool,
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

/// What a listener's connections carry. The system's own sockets adapt to it; smoltcp's are given their buffers
/// beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A few bytes, in many connections.
    Short,
    /// Streams without end, in a few.
    Bulk,
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
    /// For how many listeners of [`Traffic::Short`] there is to be room: some 8 MB each.
    pub listeners: usize,
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
            listeners: 1,
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

impl Turn {
    fn new(now: Now, deadline: Option<Instant>, more: bool) -> Self {
        let more = more || deadline.is_some_and(|at| at <= now.monotonic);
        Self {
            deadline: if more { Some(now.monotonic) } else { deadline },
            more,
        }
    }
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
pub struct Signals {
    source: signal_hook_mio::v1_0::Signals,
    signalled: Rc<Cell<bool>>,
    pending: VecDeque<Signal>,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl Signals {
    /// The next signal that has come and was not told yet, to be asked after each [`Network::wait`] until there is
    /// none. Several of one kind that came together are told once. Never waits.
    pub fn poll(&mut self) -> Option<Signal> {
        if self.signalled.take() {
            let pending = self.source.pending().filter_map(|signal| match signal {
                SIGINT => Some(Signal::Interrupt),
                SIGTERM => Some(Signal::Terminate),
                SIGHUP => Some(Signal::Hangup),
                SIGCHLD => Some(Signal::Child),
                _ => None,
            });
            self.pending.extend(pending);
        }
        self.pending.pop_front()
    }
}

impl Network {
    /// The host's own sockets.
    ///
    /// # Errors
    /// The system has no room for an event queue.
    pub fn host() -> Result<Self, Error> {
        Self::host_sharing(Sharing::Alone)
    }

    /// The host's own sockets, at addresses that others may have as well. What comes from one client goes to one of
    /// them, but which one is the system's to say: only for services that know nothing from one datagram, or one
    /// connection, to the next.
    ///
    /// # Errors
    /// The system has no room for an event queue.
    pub fn host_sharing(sharing: Sharing) -> Result<Self, Error> {
        Self::on(|_| Ok(Stack::Host(Host::new(sharing))))
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
        Self::on(|registry| {
            // Each turn tells it the time anew.
            let stack = TapStack::new(device, options, Instant::ZERO, registry)?;
            Ok(Stack::Tap(Box::new(stack)))
        })
    }

    fn on(stack: impl FnOnce(&Registry) -> Result<Stack, Error>) -> Result<Self, Error> {
        let broken = |error: io::Error| Error::io("the event queue", &error);
        let poll = Poll::new().map_err(broken)?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(broken)?;
        Ok(Self {
            stack: stack(poll.registry())?,
            poll,
            events: Events::with_capacity(EVENTS),
            waker: Arc::new(waker),
            told: VecDeque::new(),
            signalled: Rc::new(Cell::new(false)),
            busy_poll: false,
            look_at: Instant::ZERO,
        })
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
        let registry = self.poll.registry();
        match &mut self.stack {
            Stack::Host(host) => host.bind_datagrams(local, owner, registry),
            Stack::Tap(tap) => tap.bind_datagrams(local, owner),
        }
        .map(DatagramId)
    }

    /// Binds a free port for datagrams to `remote`. On host sockets nothing is taken from anybody else, and ICMP's
    /// refusals are heard of; smoltcp's sockets do neither, so the service must look at who it hears, and give up
    /// in time.
    ///
    /// # Errors
    /// There is no way to `remote`, or no free port.
    pub fn dial_datagrams(&mut self, remote: SocketAddr) -> Result<DatagramId, Error> {
        let registry = self.poll.registry();
        match &mut self.stack {
            Stack::Host(host) => host.dial_datagrams(remote, registry),
            Stack::Tap(tap) => tap.dial_datagrams(remote),
        }
        .map(DatagramId)
    }

    /// Asks for news of datagrams from a bound endpoint that did not arrive: its service then hears ICMP's refusals
    /// ([`handle_unreachable`](DatagramService::handle_unreachable)), whoever they come from. smoltcp tells of
    /// neighbours that do not answer, asked or not, and has no more to tell.
    ///
    /// Clients want that; a server, which has nothing to do about it, is spared the work.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn watch_unreachable(&mut self, id: DatagramId) -> Result<(), Error> {
        match &mut self.stack {
            Stack::Host(host) => host.watch_unreachable(id.0),
            Stack::Tap(_) => Ok(()),
        }
    }

    /// Listens for connections at `local`, for the service `owner`. Port 0: one that is free.
    ///
    /// # Errors
    /// The address is in use ([`Exit::InUse`](crate::error::Exit), and by whom), not ours, or not permitted; no room:
    /// on a TAP device there are at most four, of them [`TapOptions::listeners`] of [`Traffic::Short`] and two of
    /// [`Traffic::Bulk`].
    pub fn listen(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
        traffic: Traffic,
    ) -> Result<StreamsId, Error> {
        let registry = self.poll.registry();
        match &mut self.stack {
            Stack::Host(host) => host.listen(local, owner, registry),
            Stack::Tap(tap) => tap.listen(local, owner, traffic),
        }
        .map(StreamsId)
    }

    /// Begins one connection to `remote`. If it cannot be made, the service hears `handle_close` without a
    /// `handle_open`, and [`last_error`](Self::last_error) says why.
    ///
    /// # Errors
    /// No free port or descriptor.
    pub fn dial_stream(&mut self, remote: SocketAddr) -> Result<StreamsId, Error> {
        let registry = self.poll.registry();
        match &mut self.stack {
            Stack::Host(host) => host.dial_stream(remote, registry),
            Stack::Tap(tap) => tap.dial_stream(remote),
        }
        .map(StreamsId)
    }

    /// The address that an endpoint has, its port never 0 once it is bound or connected.
    ///
    /// # Panics
    /// If `id` is another network's.
    pub fn local_addr(&self, id: impl Into<EndpointId>) -> SocketAddr {
        match (&self.stack, id.into()) {
            (Stack::Host(host), EndpointId::Datagrams(DatagramId(id))) => host.datagrams_addr(id),
            (Stack::Host(host), EndpointId::Streams(StreamsId(id))) => host.streams_addr(id),
            (Stack::Tap(tap), EndpointId::Datagrams(DatagramId(id))) => tap.datagrams_addr(id),
            (Stack::Tap(tap), EndpointId::Streams(StreamsId(id))) => tap.streams_addr(id),
        }
    }

    /// How many connections a service may hold on that listener: what to put into its configuration. Some below
    /// what the stack can hold, so that a new one can always come in; at least 1.
    ///
    /// # Panics
    /// If `id` is another network's.
    pub fn max_connections(&self, id: StreamsId) -> usize {
        match &self.stack {
            Stack::Host(host) => host.max_connections(id.0),
            Stack::Tap(tap) => tap.max_connections(id.0),
        }
    }

    /// Why the connection of [`dial_stream`](Self::dial_stream) was not made or was lost, where the stack knows.
    ///
    /// # Panics
    /// If `id` is another network's.
    pub fn last_error(&self, id: StreamsId) -> Option<&io::Error> {
        match &self.stack {
            Stack::Host(host) => host.last_error(id.0),
            Stack::Tap(tap) => tap.last_error(id.0),
        }
    }

    /// One turn. `serve` pumps every endpoint and returns the earliest deadline of its own; it is called as often
    /// as the stack needs.
    ///
    /// # Errors
    /// What `serve` returned, or the stack is broken.
    pub fn turn(&mut self, clock: &Clock, serve: &mut Serve<'_>) -> Result<Turn, Error> {
        let now = clock.now();
        match &mut self.stack {
            Stack::Host(host) => {
                let mut io = Io {
                    endpoints: Endpoints::Host {
                        host,
                        registry: self.poll.registry(),
                        told: &mut self.told,
                    },
                    deadline: None,
                    more: false,
                };
                let deadline = serve(&mut io, now)?;
                Ok(Turn::new(now, earliest(deadline, io.deadline), io.more))
            }
            Stack::Tap(tap) => {
                let mut failed = None;
                let (deadline, more) =
                    tap.turn(now, self.poll.registry(), |endpoints, sockets, now| {
                        if failed.is_some() {
                            return None;
                        }
                        let mut io = Io {
                            endpoints: Endpoints::Tap { endpoints, sockets },
                            deadline: None,
                            more: false,
                        };
                        match serve(&mut io, now) {
                            Ok(_) if io.more => Some(now.monotonic),
                            Ok(deadline) => earliest(deadline, io.deadline),
                            Err(error) => {
                                failed = Some(error);
                                None
                            }
                        }
                    })?;
                self.told
                    .extend(std::iter::from_fn(|| tap.device().poll_event()));
                match failed {
                    Some(error) => Err(error),
                    None => Ok(Turn::new(now, deadline, more)),
                }
            }
        }
    }

    /// Sleeps until something is ready, `deadline` has come, or a [`Waker`] or a watched signal ends it. Call it
    /// after every turn, also with a deadline in the past: it then only looks what is ready.
    ///
    /// # Errors
    /// The event queue is broken.
    pub fn wait(&mut self, clock: &Clock, deadline: Option<Instant>) -> Result<(), Error> {
        // The system counts in milliseconds and mio rounds up to them: never early, so never in circles.
        let timeout = deadline.map(|at| at.saturating_since(clock.monotonic()));
        loop {
            if self.busy_poll
                && let Stack::Host(host) = &mut self.stack
                && host.expect_datagrams()
            {
                return Ok(());
            }
            if self.busy_poll && self.frame_comes(clock, deadline) {
                return Ok(());
            }
            let timeout = if self.busy_poll {
                Some(Duration::ZERO)
            } else {
                timeout
            };
            match self.poll.poll(&mut self.events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(error) => return Err(Error::io("the event queue", &error)),
            }
            let over = || deadline.is_some_and(|at| at <= clock.monotonic());
            if !self.busy_poll || !self.events.is_empty() || over() {
                break;
            }
        }
        for event in &self.events {
            match (event.token(), &mut self.stack) {
                (WAKER, _) => {}
                (SIGNALS, _) => self.signalled.set(true),
                // The next turn reads what has come, and finds what went wrong.
                (_, Stack::Tap(_)) => {}
                (token, Stack::Host(host)) => {
                    // What went wrong is found by reading and writing.
                    let broken = event.is_error();
                    let ended = event.is_read_closed() || broken;
                    let ready = Ready {
                        readable: event.is_readable() || ended,
                        writable: event.is_writable() || event.is_write_closed() || broken,
                        ended,
                    };
                    host.set_ready(token, ready);
                }
            }
        }
        Ok(())
    }

    /// Polls the TAP device, if there is one, and returns whether a frame or `deadline` has come. If neither has, it is
    /// time to look for other things.
    fn frame_comes(&mut self, clock: &Clock, deadline: Option<Instant>) -> bool {
        let Stack::Tap(tap) = &mut self.stack else {
            return false;
        };
        loop {
            let now = clock.monotonic();
            if now >= self.look_at {
                self.look_at = now + LOOK_EVERY;
                return false;
            }
            let device = tap.device();
            // One that is not well is looked after in a turn.
            if device.has_frame() || !device.is_well() || deadline.is_some_and(|at| at <= now) {
                return true;
            }
        }
    }

    /// Lets [`wait`](Self::wait) spin instead of sleeping. Being put to sleep and woken is most of the time that one
    /// answer takes; without it one CPU is busy all the time, and others may not get it.
    pub fn set_busy_poll(&mut self, busy_poll: bool) {
        self.busy_poll = busy_poll;
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
        let broken = |error: io::Error| Error::io("watching for signals", &error);
        let mut source = signal_hook_mio::v1_0::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])
            .map_err(broken)?;
        self.poll
            .registry()
            .register(&mut source, SIGNALS, Interest::READABLE)
            .map_err(broken)?;
        Ok(Signals {
            source,
            signalled: Rc::clone(&self.signalled),
            pending: VecDeque::new(),
        })
    }

    /// The next thing to be told on standard error.
    pub fn poll_event(&mut self) -> Option<NetworkEvent> {
        self.told.pop_front()
    }
}

/// The endpoints of a [`Network`] during one turn.
#[derive(Debug)]
pub struct Io<'a> {
    endpoints: Endpoints<'a>,
    /// The earliest deadline of the services pumped so far.
    deadline: Option<Instant>,
    more: bool,
}

#[derive(Debug)]
enum Endpoints<'a> {
    Host {
        host: &'a mut Host,
        registry: &'a Registry,
        told: &'a mut VecDeque<NetworkEvent>,
    },
    Tap {
        endpoints: &'a mut tap::Endpoints,
        sockets: &'a mut Sockets<'static>,
    },
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
        let pumped = match &mut self.endpoints {
            Endpoints::Host { host, registry, .. } => {
                host.pump_datagrams(id.0, service, now, registry)?
            }
            Endpoints::Tap { endpoints, sockets } => {
                endpoints.pump_datagrams(id.0, service, now, sockets)
            }
        };
        self.deadline = earliest(self.deadline, pumped.deadline);
        self.more |= pumped.more;
        Ok(pumped)
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
        let pumped = match &mut self.endpoints {
            Endpoints::Host {
                host,
                registry,
                told,
            } => host.pump_streams(id.0, service, now, registry, told)?,
            Endpoints::Tap { endpoints, sockets } => {
                endpoints.pump_streams(id.0, service, now, sockets)
            }
        };
        self.deadline = earliest(self.deadline, pumped.deadline);
        Ok(pumped)
    }
}
