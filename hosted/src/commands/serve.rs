//! `smoltalk serve`: the services on one network, whichever stack it is, until somebody ends it.

use std::net::{IpAddr, SocketAddr};
use std::ops::{AddAssign, ControlFlow};

use smoltalk::chat::{self, Chat, ContactBook, Event};
use smoltalk::greeting::{self, DatagramServer, StreamServer};
use smoltalk::{Duration, Instant, Now, Protocol, Pumped, earliest, sntp, time};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::network::{DatagramId, Io, Network, Signal, Signals, StreamsId};

use super::chat::show_message;
use super::{CONTACTS, Job, MESSAGES, Stack, Traced, run};
use crate::cli::{Contact, Place, ServeArgs};
use crate::output::{At, Output, Record};

/// How many TCP connections one listener serves at most, where the stack has room for so many.
const CONNECTIONS: usize = 16_384;

/// What is served, and where.
#[derive(Debug)]
pub struct Options {
    /// Where services are whose address is not said.
    pub bind: Vec<IpAddr>,
    pub greeting_tcp: Option<Place>,
    pub greeting_udp: Option<Place>,
    pub time: Option<Place>,
    pub chat: Option<Place>,
    pub sntp: Option<Place>,
    pub idle_timeout: Duration,
    pub chat_config: chat::Config,
    /// Whose names are shown beside their messages.
    pub contacts: ContactBook<CONTACTS>,
}

impl Options {
    /// What `args` ask for, and the defaults where they do not.
    pub fn new(args: ServeArgs, default_bind: IpAddr, contacts: ContactBook<CONTACTS>) -> Self {
        Self {
            bind: if args.bind.is_empty() {
                vec![default_bind]
            } else {
                args.bind
            },
            greeting_tcp: args.greeting_tcp,
            greeting_udp: args.greeting_udp,
            time: args.time,
            chat: args.chat,
            // Only where somebody asked for it: its port is privileged, and whoever listens to it sets a clock.
            sntp: args.sntp.or(Some(Place::Off)),
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
}

/// The clock that `args` ask for.
pub fn clock(args: &ServeArgs) -> Clock {
    args.at.map_or_else(Clock::system, |at| Clock::fixed(at.0))
}

/// Serves until SIGINT or SIGTERM has come, and at most `grace` longer to finish what is in flight.
pub fn serve(
    stack: &Stack,
    output: &Output,
    args: ServeArgs,
    contacts: &[Contact],
    grace: Duration,
) -> Result<(), Error> {
    let clock = clock(&args);
    let contacts = stack.contact_book(contacts)?;
    let options = Options::new(args, stack.default_bind(), contacts);
    let mut network = stack.open()?;
    let mut station = Station::bind(&mut network, output, options)?;
    let signals = network.watch_signals()?;
    station.announce()?;
    // Who started us waits for these lines: if they cannot come, say so now.
    output.flush(crate::FLUSH)?;
    let mut told = false;
    serve_until(
        &mut network,
        &clock,
        &mut station,
        signals,
        grace,
        |signal| {
            Ok(match signal {
                Signal::Interrupt | Signal::Terminate | Signal::Hangup => {
                    if std::mem::replace(&mut told, true) {
                        return Err(Error::failed("ended at once, at the second signal"));
                    }
                    Then::Finish
                }
                Signal::Child => Then::GoOn,
            })
        },
    )?;
    station.tell_counters()
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
    signals: Signals,
    grace: Duration,
    on_signal: impl FnMut(Signal) -> Result<Then, Error>,
) -> Result<(), Error> {
    let output = station.output;
    let mut job = Serving {
        station,
        signals,
        grace,
        ends_by: None,
        on_signal,
    };
    run(network, clock, output, &mut job)
}

struct Serving<'s, 'o, F> {
    station: &'s mut Station<'o>,
    signals: Signals,
    grace: Duration,
    ends_by: Option<Instant>,
    on_signal: F,
}

impl<F: FnMut(Signal) -> Result<Then, Error>> Job for Serving<'_, '_, F> {
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        self.station.pump(io, now)
    }

    fn after_turn(&mut self, now: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        // Before the signals: what arrived before them has been served in the turn that is over, and what they
        // cut off has a turn left to go out.
        if let Some(ends_by) = self.ends_by
            && (self.station.is_idle() || now.monotonic >= ends_by)
        {
            return Ok(ControlFlow::Break(()));
        }
        while let Some(signal) = self.signals.poll() {
            match (self.on_signal)(signal)? {
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
    service: Service<'o>,
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

/// Remembers what a crowd may ask within a second, in 2.4 KB.
type TimeServer = time::CachingServer<16>;

enum Service<'o> {
    GreetingTcp(StreamsId, Box<Traced<'o, StreamServer<CONNECTIONS>>>),
    GreetingUdp(DatagramId, Traced<'o, DatagramServer>),
    Time(DatagramId, Box<Traced<'o, TimeServer>>),
    Chat(DatagramId, Box<Traced<'o, Chat<CONTACTS, MESSAGES>>>),
    Sntp(DatagramId, Traced<'o, sntp::Server>),
}

impl<'o> Station<'o> {
    /// Binds every service that `options` ask for.
    ///
    /// # Errors
    /// One could not be bound: then none is. Or there is none.
    pub fn bind(
        network: &mut Network,
        output: &'o Output,
        options: Options,
    ) -> Result<Self, Error> {
        let mut endpoints = Vec::new();
        let mut add = |at: At<'static>, service: Service<'o>| {
            endpoints.push(Endpoint {
                at,
                service,
                total: Total::default(),
            });
        };
        let addresses = |place, port| Place::addresses(place, &options.bind, port);

        for address in addresses(options.greeting_tcp, greeting::PORT) {
            let id = network
                .listen(address, "greeting")
                .map_err(|error| elsewhere(error, "greeting-tcp"))?;
            let at = at("greeting", Protocol::Tcp, network.local_addr(id));
            let server = StreamServer::<CONNECTIONS>::new(greeting::Config {
                idle_timeout: options.idle_timeout,
                max_connections: network.max_connections(id),
            });
            add(
                at,
                Service::GreetingTcp(id, Box::new(Traced::new(server, output, at.to_string()))),
            );
        }
        for address in addresses(options.greeting_udp, greeting::PORT) {
            let id = network
                .bind_datagrams(address, "greeting")
                .map_err(|error| elsewhere(error, "greeting-udp"))?;
            let at = at("greeting", Protocol::Udp, network.local_addr(id));
            let server = Traced::new(DatagramServer::new(), output, at.to_string());
            add(at, Service::GreetingUdp(id, server));
        }
        for address in addresses(options.time, time::PORT) {
            let id = network
                .bind_datagrams(address, "time")
                .map_err(|error| elsewhere(error, "time"))?;
            let at = at("time", Protocol::Udp, network.local_addr(id));
            let server = Traced::new(TimeServer::new(), output, at.to_string());
            add(at, Service::Time(id, Box::new(server)));
        }
        for address in addresses(options.chat, chat::PORT) {
            let id = network
                .bind_datagrams(address, "chat")
                .map_err(|error| elsewhere(error, "chat"))?;
            let at = at("chat", Protocol::Udp, network.local_addr(id));
            let chat = Chat::new(options.contacts.clone(), options.chat_config.clone());
            add(
                at,
                Service::Chat(id, Box::new(Traced::new(chat, output, at.to_string()))),
            );
        }
        for address in addresses(options.sntp, sntp::PORT) {
            let id = network.bind_datagrams(address, "sntp")?;
            let at = at("sntp", Protocol::Udp, network.local_addr(id));
            let server = Traced::new(sntp::Server::new(), output, at.to_string());
            add(at, Service::Sntp(id, server));
        }
        if endpoints.is_empty() {
            return Err(Error::usage(
                "every service is off: there is nothing to serve",
            ));
        }
        Ok(Self { output, endpoints })
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

    /// Says what was done.
    pub fn tell_counters(&self) -> Result<(), Error> {
        for endpoint in &self.endpoints {
            self.output.record(&Record::Counters {
                at: endpoint.at,
                counters: &endpoint.counters(),
            })?;
        }
        Ok(())
    }

    /// Pumps every service, and returns the earliest deadline.
    pub fn pump(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        let mut deadline = None;
        for Endpoint { service, total, .. } in &mut self.endpoints {
            let pumped = match service {
                Service::GreetingTcp(id, server) => {
                    deadline = earliest(deadline, io.streams(*id, &mut **server, now)?.deadline);
                    continue;
                }
                Service::GreetingUdp(id, server) => io.datagrams(*id, server, now)?,
                Service::Time(id, server) => io.datagrams(*id, &mut **server, now)?,
                Service::Chat(id, chat) => {
                    let pumped = io.datagrams(*id, &mut **chat, now)?;
                    // At once, so that there is room for what the next pump brings.
                    show_messages(self.output, &mut chat.inner)?;
                    pumped
                }
                Service::Sntp(id, server) => io.datagrams(*id, server, now)?,
            };
            *total += pumped;
            deadline = earliest(deadline, pumped.deadline);
        }
        Ok(deadline)
    }

    /// Takes in no more connections, and finishes those that there are.
    fn shut_down(&mut self) {
        for endpoint in &mut self.endpoints {
            if let Service::GreetingTcp(_, server) = &mut endpoint.service {
                server.inner.shut_down();
            }
        }
    }

    /// Whether no connection is left.
    fn is_idle(&self) -> bool {
        self.endpoints
            .iter()
            .all(|endpoint| match &endpoint.service {
                Service::GreetingTcp(_, server) => server.inner.connections() == 0,
                _ => true,
            })
    }
}

impl Endpoint<'_> {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let datagrams = || {
            vec![
                ("received", self.total.received),
                ("answered", self.total.sent),
                ("rejected", self.total.rejected),
                ("undeliverable", self.total.undeliverable),
            ]
        };
        match &self.service {
            Service::GreetingTcp(_, server) => {
                let counters = server.inner.counters();
                vec![
                    ("opened", counters.opened),
                    ("answered", counters.answered),
                    ("too_long", counters.too_long),
                    ("timed_out", counters.timed_out),
                    ("evicted", counters.evicted),
                    ("abandoned", counters.abandoned),
                ]
            }
            Service::GreetingUdp(..) | Service::Time(..) | Service::Sntp(..) => datagrams(),
            Service::Chat(_, chat) => {
                let counters = chat.inner.counters();
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
    }
}

/// What to do about an address that another has.
fn elsewhere(error: Error, option: &str) -> Error {
    match error.exit() {
        Exit::InUse => error.with_hint(format!("`--{option} PORT` puts it elsewhere")),
        _ => error,
    }
}

fn at(service: &'static str, transport: Protocol, address: SocketAddr) -> At<'static> {
    At {
        service,
        transport,
        address,
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
