//! `smoltalk serve`: the services on one network, whichever stack it is, until somebody ends it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::{AddAssign, ControlFlow};
use std::sync::Mutex;
use std::thread;

use smoltalk::chat::{self, Chat, ContactBook, Event};
use smoltalk::greeting::{self, DatagramServer, StreamServer};
use smoltalk::{
    DatagramService, Duration, Instant, Now, Protocol, Pumped, StreamService, chargen, discard,
    earliest, sntp, time,
};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::network::{
    DatagramId, Io, Network, Sharing, Signal, Signals, StreamsId, TapOptions, Traffic,
};
use smoltalk_hosted::tap::TapDevice;

use super::chat::show_message;
use super::workers::{Access, Crew, Worker};
use super::{CONTACTS, Job, MESSAGES, Stack, Traced, run};
use crate::cli::{At as Moment, Contact, Place, ServeArgs};
use crate::output::{At, Output, Record};

/// How many TCP connections one listener serves at most, where the stack has room for so many.
const CONNECTIONS: usize = 16_384;

/// Remembers what a crowd may ask within a second, in 2.4 KB.
type TimeServer = time::CachingServer<16>;

/// What is served, and where.
#[derive(Debug, Default)]
pub struct Options {
    pub greeting_tcp: Vec<SocketAddr>,
    pub greeting_udp: Vec<SocketAddr>,
    pub time: Vec<SocketAddr>,
    pub chat: Vec<SocketAddr>,
    pub sntp: Vec<SocketAddr>,
    pub discard: Vec<SocketAddr>,
    pub chargen: Vec<SocketAddr>,
    pub idle_timeout: Duration,
    pub chat_config: chat::Config,
    /// Whose names are shown beside their messages.
    pub contacts: ContactBook<CONTACTS>,
}

impl Options {
    /// What `args` ask for, and the defaults where they do not.
    pub fn new(args: ServeArgs, default_bind: IpAddr, contacts: ContactBook<CONTACTS>) -> Self {
        let bind = if args.bind.is_empty() {
            vec![default_bind]
        } else {
            args.bind
        };
        let on = |place, port| Place::addresses(place, &bind, port);
        // Only where somebody asked for it.
        let off = |place: Option<Place>, port| on(place.or(Some(Place::Off)), port);
        Self {
            greeting_tcp: on(args.greeting_tcp, greeting::PORT),
            greeting_udp: on(args.greeting_udp, greeting::PORT),
            time: on(args.time, time::PORT),
            chat: on(args.chat, chat::PORT),
            // Its port is privileged, and whoever listens to it sets a clock.
            sntp: off(args.sntp, sntp::PORT),
            // They are for measuring, and a burden for a network.
            discard: off(args.discard, discard::PORT),
            chargen: off(args.chargen, chargen::PORT),
            idle_timeout: args
                .idle_timeout
                .map_or(greeting::Config::default().idle_timeout, |seconds| {
                    seconds.0
                }),
            chat_config: chat::Config {
                auto_reply: args.auto_reply.map(|text| text.0),
                ..chat::Config::default()
            },
            contacts,
        }
    }

    fn is_empty(&self) -> bool {
        [
            &self.greeting_tcp,
            &self.greeting_udp,
            &self.time,
            &self.chat,
            &self.sntp,
            &self.discard,
            &self.chargen,
        ]
        .iter()
        .all(|addresses| addresses.is_empty())
    }

    /// The same at `bound`, for another worker. Not the chat: who wrote last, whom it has answered and what it shows is
    /// one state and one terminal, where the others know nothing from one datagram to the next.
    fn for_worker(&self, bound: &[At<'_>]) -> Self {
        let at = |service, transport| {
            bound
                .iter()
                .filter(|at| (at.service, at.transport) == (service, transport))
                .map(|at| at.address)
                .collect()
        };
        Self {
            greeting_tcp: at("greeting", Protocol::Tcp),
            greeting_udp: at("greeting", Protocol::Udp),
            time: at("time", Protocol::Udp),
            sntp: at("sntp", Protocol::Udp),
            discard: at("discard", Protocol::Tcp),
            chargen: at("chargen", Protocol::Tcp),
            idle_timeout: self.idle_timeout,
            ..Self::default()
        }
    }
}

/// The system's clock, or one that stands still at `at`.
pub fn clock(at: Option<Moment>) -> Clock {
    at.map_or_else(Clock::system, |at| Clock::fixed(at.0))
}

/// Serves until SIGINT or SIGTERM has come, and at most `grace` longer to finish what is in flight.
pub fn serve(
    stack: &Stack,
    output: &Output,
    args: ServeArgs,
    contacts: &[Contact],
    grace: Duration,
) -> Result<(), Error> {
    let at = args.at;
    let busy_poll = args.busy_poll;
    let workers = args.workers.map_or(NonZeroUsize::MIN, |workers| workers.0);
    let contacts = stack.contact_book(contacts)?;
    let options = Options::new(args, stack.default_bind(), contacts);
    let (mut network, access) = match stack {
        Stack::Host => (
            Network::host_sharing(Sharing::First { of: workers })?,
            Access::Host(Sharing::Beside { of: workers }),
        ),
        // The kernel chooses the queue for each client, so that what is for the chat could not all come to one.
        Stack::Tap(_) if workers.get() > 1 && !options.chat.is_empty() => {
            return Err(
                Error::usage("several workers cannot have the chat on one TAP device")
                    .with_hint("add `--chat off`, or leave out --workers"),
            );
        }
        Stack::Tap(tap) => {
            let options = TapOptions {
                listeners: options.greeting_tcp.len(),
                ..tap.clone()
            };
            let mut queues = TapDevice::attach_queues(&options.name, workers.get())?;
            let first = Network::on_tap_device(queues.remove(0), &options)?;
            let queues = Mutex::new(queues);
            (first, Access::Tap { queues, options })
        }
    };
    network.set_busy_poll(busy_poll);
    let mut station = Station::bind(&mut network, output, &options)?;
    let mut signals = network.watch_signals()?;
    let counters = thread::scope(|scope| {
        let worker = Worker {
            options: options.for_worker(&station.addresses()),
            access,
            output,
            at,
            grace,
            busy_poll,
        };
        // With nothing but the chat there is nothing for them to do.
        let count = if worker.options.is_empty() {
            0
        } else {
            workers.get() - 1
        };
        let crew = Crew::start(scope, worker, count, &network.waker())?;
        station.announce()?;
        // Who started us waits for these lines: if they cannot come, say so now.
        output.flush(crate::FLUSH)?;
        let (mut told, mut failed) = (false, false);
        obey(&mut network, &clock(at), &mut station, grace, || {
            if crew.has_failed() {
                failed = true;
                return Ok(Some(Then::End));
            }
            Ok(match signals.poll() {
                Some(Signal::Interrupt | Signal::Terminate | Signal::Hangup) => {
                    if std::mem::replace(&mut told, true) {
                        return Err(Error::failed("ended at once, at the second signal"));
                    }
                    crew.finish();
                    Some(Then::Finish)
                }
                Some(Signal::Child) => Some(Then::GoOn),
                None => None,
            })
        })?;
        crew.join(!failed)
    })?;
    station.tell_counters(&counters)
}

/// What a signal means to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    GoOn,
    /// Take in nothing new, finish what is in flight, and end.
    Finish,
    /// End now.
    End,
}

/// Serves `station` until `on_signal` says to end, and at most `grace` longer.
pub fn serve_until(
    network: &mut Network,
    clock: &Clock,
    station: &mut Station<'_>,
    mut signals: Signals,
    grace: Duration,
    mut on_signal: impl FnMut(Signal) -> Result<Then, Error>,
) -> Result<(), Error> {
    obey(network, clock, station, grace, || {
        signals.poll().map(&mut on_signal).transpose()
    })
}

/// Serves `station` until one of the `orders` says to end, and at most `grace` longer. They are asked for after each
/// turn, until there is none.
pub fn obey(
    network: &mut Network,
    clock: &Clock,
    station: &mut Station<'_>,
    grace: Duration,
    orders: impl FnMut() -> Result<Option<Then>, Error>,
) -> Result<(), Error> {
    let output = station.output;
    let mut job = Serving {
        station,
        grace,
        ends_by: None,
        orders,
    };
    run(network, clock, output, &mut job)
}

struct Serving<'s, 'o, F> {
    station: &'s mut Station<'o>,
    grace: Duration,
    ends_by: Option<Instant>,
    orders: F,
}

impl<F: FnMut() -> Result<Option<Then>, Error>> Job for Serving<'_, '_, F> {
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        self.station.pump(io, now)
    }

    fn after_turn(&mut self, now: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        // Before the orders: what arrived before them has been served in the turn that is over, and what they
        // cut off has a turn left to go out.
        if let Some(ends_by) = self.ends_by
            && (self.station.is_idle() || now.monotonic >= ends_by)
        {
            return Ok(ControlFlow::Break(()));
        }
        while let Some(then) = (self.orders)()? {
            match then {
                Then::GoOn => {}
                Then::End => return Ok(ControlFlow::Break(())),
                Then::Finish => {
                    self.station.shut_down();
                    self.ends_by = Some(now.monotonic + self.grace);
                    return Ok(ControlFlow::Continue(Some(now.monotonic)));
                }
            }
        }
        Ok(ControlFlow::Continue(self.ends_by))
    }
}

/// The services that are bound.
pub struct Station<'o> {
    output: &'o Output,
    endpoints: Vec<Endpoint<'o>>,
}

struct Endpoint<'o> {
    at: At<'static>,
    service: Box<dyn Served + 'o>,
}

/// What was counted, by name.
pub type Counters = Vec<(&'static str, u64)>;

impl<'o> Station<'o> {
    /// Binds every service that `options` ask for.
    ///
    /// # Errors
    /// One could not be bound: then none is. Or there is none.
    pub fn bind(
        network: &mut Network,
        output: &'o Output,
        options: &Options,
    ) -> Result<Self, Error> {
        if options.is_empty() {
            return Err(Error::usage(
                "every service is off: there is nothing to serve",
            ));
        }
        let mut binder = Binder {
            network,
            output,
            endpoints: Vec::new(),
        };
        let limits = |max_connections| greeting::Config {
            idle_timeout: options.idle_timeout,
            max_connections,
        };
        let (short, bulk) = (Traffic::Short, Traffic::Bulk);
        binder.streams(
            "greeting",
            "greeting-tcp",
            &options.greeting_tcp,
            short,
            |most| StreamServer::<CONNECTIONS>::new(limits(most)),
        )?;
        let greeting = DatagramServer::new;
        binder.datagrams("greeting", "greeting-udp", &options.greeting_udp, greeting)?;
        binder.datagrams("time", "time", &options.time, TimeServer::new)?;
        binder.chat("chat", "chat", &options.chat, || {
            Chat::new(options.contacts.clone(), options.chat_config.clone())
        })?;
        binder.datagrams("sntp", "sntp", &options.sntp, sntp::Server::new)?;
        binder.streams("discard", "discard", &options.discard, bulk, |most| {
            discard::Server::<CONNECTIONS>::new(limits(most))
        })?;
        binder.streams("chargen", "chargen", &options.chargen, bulk, |most| {
            chargen::Server::<CONNECTIONS>::new(limits(most))
        })?;
        Ok(Self {
            output,
            endpoints: binder.endpoints,
        })
    }

    /// What is bound, and where.
    pub fn addresses(&self) -> Vec<At<'static>> {
        self.endpoints.iter().map(|endpoint| endpoint.at).collect()
    }

    /// Says what is bound.
    pub fn announce(&self) -> Result<(), Error> {
        for endpoint in &self.endpoints {
            self.output.record(&Record::Listening(endpoint.at))?;
        }
        self.output.record(&Record::Ready)
    }

    /// What was done at each address.
    pub fn counters(&self) -> Vec<(At<'static>, Counters)> {
        let counters = |endpoint: &Endpoint<'_>| (endpoint.at, endpoint.service.counters());
        self.endpoints.iter().map(counters).collect()
    }

    /// Says what was done, here and by the `others`.
    pub fn tell_counters(&self, others: &[(At<'static>, Counters)]) -> Result<(), Error> {
        for (at, mut counters) in self.counters() {
            for (_, theirs) in others.iter().filter(|(theirs, _)| *theirs == at) {
                // The same service has the same counters.
                for ((_, ours), (_, theirs)) in counters.iter_mut().zip(theirs) {
                    *ours += theirs;
                }
            }
            let counters = &counters;
            self.output.record(&Record::Counters { at, counters })?;
        }
        Ok(())
    }

    /// Pumps every service, and returns the earliest deadline.
    pub fn pump(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        let mut deadline = None;
        for endpoint in &mut self.endpoints {
            deadline = earliest(deadline, endpoint.service.pump(io, now)?);
        }
        Ok(deadline)
    }

    /// Takes in no more connections, and finishes those that there are.
    fn shut_down(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.service.shut_down();
        }
    }

    /// Whether no connection is left.
    fn is_idle(&self) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.all(|endpoint| endpoint.service.is_idle())
    }
}

/// Binds services one after the other. `option` is the one that puts a service elsewhere.
struct Binder<'n, 'o> {
    network: &'n mut Network,
    output: &'o Output,
    endpoints: Vec<Endpoint<'o>>,
}

impl<'o> Binder<'_, 'o> {
    fn datagrams<S: DatagramService + 'o>(
        &mut self,
        name: &'static str,
        option: &str,
        addresses: &[SocketAddr],
        new: impl Fn() -> S,
    ) -> Result<(), Error> {
        self.bind(name, option, addresses, |id, at, output| OverDatagrams {
            id,
            service: Traced::new(new(), output, at.to_string()),
            total: Total::default(),
        })
    }

    fn chat(
        &mut self,
        name: &'static str,
        option: &str,
        addresses: &[SocketAddr],
        new: impl Fn() -> Chat<CONTACTS, MESSAGES>,
    ) -> Result<(), Error> {
        self.bind(name, option, addresses, |id, at, output| OverChat {
            id,
            chat: Traced::new(new(), output, at.to_string()),
            output,
        })
    }

    fn bind<S: Served + 'o>(
        &mut self,
        name: &'static str,
        option: &str,
        addresses: &[SocketAddr],
        new: impl Fn(DatagramId, At<'static>, &'o Output) -> S,
    ) -> Result<(), Error> {
        for &address in addresses {
            let id = self
                .network
                .bind_datagrams(address, name)
                .map_err(|error| elsewhere(error, option))?;
            let at = At {
                service: name,
                transport: Protocol::Udp,
                address: self.network.local_addr(id),
            };
            let service = Box::new(new(id, at, self.output));
            self.endpoints.push(Endpoint { at, service });
        }
        Ok(())
    }

    /// `new` is told how many connections the service may hold.
    fn streams<S: StreamServed + 'o>(
        &mut self,
        name: &'static str,
        option: &str,
        addresses: &[SocketAddr],
        traffic: Traffic,
        new: impl Fn(usize) -> S,
    ) -> Result<(), Error> {
        for &address in addresses {
            let id = self
                .network
                .listen(address, name, traffic)
                .map_err(|error| elsewhere(error, option))?;
            let at = At {
                service: name,
                transport: Protocol::Tcp,
                address: self.network.local_addr(id),
            };
            let server = new(self.network.max_connections(id));
            let service = Box::new(OverStreams {
                id,
                service: Traced::new(server, self.output, at.to_string()),
            });
            self.endpoints.push(Endpoint { at, service });
        }
        Ok(())
    }
}

/// A service at its endpoint.
trait Served {
    /// Pumps it, and returns its deadline.
    fn pump(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error>;

    fn counters(&self) -> Counters;

    /// Takes in no more connections, and finishes those that there are.
    fn shut_down(&mut self) {}

    /// Whether no connection is left.
    fn is_idle(&self) -> bool {
        true
    }
}

/// What a service over connections is asked besides what the pump asks.
trait StreamServed: StreamService {
    /// How many there are.
    fn connections(&self) -> usize;

    /// Takes in no more, and finishes those that there are.
    fn shut_down(&mut self);

    fn counters(&self) -> Counters;
}

impl<const N: usize> StreamServed for StreamServer<N> {
    fn connections(&self) -> usize {
        self.connections()
    }

    fn shut_down(&mut self) {
        self.shut_down();
    }

    fn counters(&self) -> Counters {
        let counters = self.counters();
        vec![
            ("opened", counters.opened),
            ("answered", counters.answered),
            ("too_long", counters.too_long),
            ("timed_out", counters.timed_out),
            ("evicted", counters.evicted),
            ("abandoned", counters.abandoned),
        ]
    }
}

impl<const N: usize> StreamServed for discard::Server<N> {
    fn connections(&self) -> usize {
        self.connections()
    }

    fn shut_down(&mut self) {
        self.shut_down();
    }

    fn counters(&self) -> Counters {
        let counters = self.counters();
        vec![
            ("opened", counters.opened),
            ("bytes", counters.bytes),
            ("timed_out", counters.timed_out),
            ("evicted", counters.evicted),
        ]
    }
}

impl<const N: usize> StreamServed for chargen::Server<N> {
    fn connections(&self) -> usize {
        self.connections()
    }

    fn shut_down(&mut self) {
        self.shut_down();
    }

    fn counters(&self) -> Counters {
        let counters = self.counters();
        vec![
            ("opened", counters.opened),
            ("bytes", counters.bytes),
            ("timed_out", counters.timed_out),
            ("evicted", counters.evicted),
        ]
    }
}

struct OverStreams<'o, S> {
    id: StreamsId,
    service: Traced<'o, S>,
}

impl<S: StreamServed> Served for OverStreams<'_, S> {
    fn pump(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        Ok(io.streams(self.id, &mut self.service, now)?.deadline)
    }

    fn counters(&self) -> Counters {
        self.service.inner.counters()
    }

    fn shut_down(&mut self) {
        self.service.inner.shut_down();
    }

    fn is_idle(&self) -> bool {
        self.service.inner.connections() == 0
    }
}

struct OverDatagrams<'o, S> {
    id: DatagramId,
    service: Traced<'o, S>,
    total: Total,
}

/// Datagrams that passed an endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    received: u64,
    rejected: u64,
    sent: u64,
    undeliverable: u64,
}

impl AddAssign<Pumped> for Total {
    fn add_assign(&mut self, pumped: Pumped) {
        self.received += u64::from(pumped.received);
        self.rejected += u64::from(pumped.rejected);
        self.sent += u64::from(pumped.sent);
        self.undeliverable += u64::from(pumped.undeliverable);
    }
}

impl<S: DatagramService> Served for OverDatagrams<'_, S> {
    fn pump(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        let pumped = io.datagrams(self.id, &mut self.service, now)?;
        self.total += pumped;
        Ok(pumped.deadline)
    }

    fn counters(&self) -> Counters {
        vec![
            ("received", self.total.received),
            ("answered", self.total.sent),
            ("rejected", self.total.rejected),
            ("undeliverable", self.total.undeliverable),
        ]
    }
}

struct OverChat<'o> {
    id: DatagramId,
    chat: Traced<'o, Chat<CONTACTS, MESSAGES>>,
    output: &'o Output,
}

impl Served for OverChat<'_> {
    fn pump(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        let pumped = io.datagrams(self.id, &mut self.chat, now)?;
        // At once, so that there is room for what the next pump brings.
        show_messages(self.output, &mut self.chat.inner)?;
        Ok(pumped.deadline)
    }

    fn counters(&self) -> Counters {
        let counters = self.chat.inner.counters();
        vec![
            ("received", counters.received),
            ("answered", counters.auto_replies),
            ("empty", counters.empty),
            ("too_long", counters.too_long),
            ("not_utf8", counters.not_utf8),
            ("no_room", counters.no_room),
        ]
    }
}

/// What to do about an address that another has.
fn elsewhere(error: Error, option: &str) -> Error {
    match error.exit() {
        Exit::InUse => error.with_hint(format!("`--{option} PORT` puts it elsewhere")),
        _ => error,
    }
}

/// Shows each message that has come.
fn show_messages(output: &Output, chat: &mut Chat<CONTACTS, MESSAGES>) -> Result<(), Error> {
    while let Some(event) = chat.poll_event() {
        // News of a reply that did not arrive was told by `Traced`, to those who want to know.
        if let Event::Message { from, addr, text } = event {
            show_message(output, chat.book(), from, addr, &text)?;
        }
    }
    Ok(())
}
