//! The program: the services, a stack, and the loop that drives both and sleeps in between.

use core::mem::MaybeUninit;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cortex_m::peripheral::NVIC;
#[cfg(any(feature = "dhcp", feature = "slaac"))]
use smoltalk::smoltcp::AddressEvent;
use smoltalk::smoltcp::{
    Listener, SocketEntry, SocketSlices, SocketStorage, Sockets, Stack, StackConfig, TcpBuffers,
    UdpSocket,
};
use smoltalk::text::Shown;
use smoltalk::{DatagramService, Instant, Now, chat, earliest, greeting, pump, sntp, time};
use smoltcp::socket::udp;

use crate::board::{Board, Mac};
use crate::clock::Clock;
use crate::console::{Console, Uart, Waiting};
use crate::print::{At, Date, Number, Plain, count};
use crate::{config, fault, paint};

/// TCP connections at a time, and one more socket that listens for the next.
const CONNECTIONS: usize = 8;

/// Servers to learn the time from, at most.
const SNTP_SERVERS: usize = 4;

/// Frames to take in before the UART is looked after.
const BUDGET: u32 = 16;

/// The stack, on a board's Ethernet controller.
pub type BoardStack<M> = Stack<'static, M>;

/// What the sockets hold, in bytes: the longest datagram each way, or two where they are short. It is all
/// zeroes at the start, and so takes no flash.
struct Bytes {
    greetings: ([u8; 1472], [u8; 2 * greeting::ANSWER.len()]),
    times: ([u8; time::MAX_FORMAT + 1], [u8; time::MAX_ANSWER]),
    messages: ([u8; chat::MAX_TEXT + 1], [u8; 2 * chat::MAX_AUTO_REPLY]),
    clock: ([u8; 2 * sntp::MESSAGE_LEN], [u8; 2 * sntp::MESSAGE_LEN]),
    connections: [Connection; CONNECTIONS],
    #[cfg(feature = "dhcp")]
    dhcp: [u8; DHCP_MESSAGE],
}

/// What a connection holds: a greeting may be long, but goes by in pieces, and `hi` is short.
type Connection = TcpBuffers<64, 8>;

/// What a socket notes of the datagrams that it holds, received and to be sent.
type Packets = [[udp::PacketMetadata; 2]; 2];

/// The longest datagram of any service.
const SCRATCH: usize = chat::MAX_TEXT;

/// Sockets: the connections', one for each datagram service, and one for DHCP.
const SOCKETS: usize = CONNECTIONS + 4 + cfg!(feature = "dhcp") as usize;
type Storage = [SocketStorage<'static>; SOCKETS];

/// What a DHCP server's message has room for, in bytes: as many as every client must take (RFC 2131, section 2).
#[cfg(feature = "dhcp")]
const DHCP_MESSAGE: usize = 548;

/// A chat that nobody attends, without contacts, and with room for one message.
type Chat = chat::Chat<0, 1>;

/// Everything that lives as long as the program, at its place from the start. Made elsewhere and moved here it
/// would pass over the stack; with anything but zeroes in it, it would take flash.
pub struct Memory<M: Mac + 'static> {
    stack: MaybeUninit<BoardStack<M>>,
    storage: MaybeUninit<Storage>,
    entries: [SocketEntry<'static>; SOCKETS],
    packets: MaybeUninit<[Packets; 4]>,
    connected: MaybeUninit<Connected>,
    greetings: MaybeUninit<Datagrams<greeting::DatagramServer>>,
    times: MaybeUninit<Datagrams<time::Server>>,
    chat: MaybeUninit<Chat>,
    messages: MaybeUninit<Datagrams<&'static mut Chat>>,
    clock: MaybeUninit<Datagrams<sntp::Client<SNTP_SERVERS>>>,
    bytes: Bytes,
    scratch: [u8; SCRATCH],
    waiting: Waiting,
}

impl<M: Mac> Memory<M> {
    /// Memory with nothing in it.
    pub const fn new() -> Self {
        Self {
            stack: MaybeUninit::uninit(),
            storage: MaybeUninit::uninit(),
            entries: [const { SocketEntry::EMPTY }; SOCKETS],
            packets: MaybeUninit::uninit(),
            connected: MaybeUninit::uninit(),
            greetings: MaybeUninit::uninit(),
            times: MaybeUninit::uninit(),
            chat: MaybeUninit::uninit(),
            messages: MaybeUninit::uninit(),
            clock: MaybeUninit::uninit(),
            bytes: Bytes {
                greetings: ([0; _], [0; _]),
                times: ([0; _], [0; _]),
                messages: ([0; _], [0; _]),
                clock: ([0; _], [0; _]),
                connections: [const { TcpBuffers::new() }; CONNECTIONS],
                #[cfg(feature = "dhcp")]
                dhcp: [0; _],
            },
            scratch: [0; SCRATCH],
            waiting: Waiting::new(),
        }
    }
}

impl<M: Mac> Default for Memory<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs the services on `board`, for ever.
///
/// # Panics
/// If the configuration of the build contradicts itself.
pub fn run<M: Mac, U: Uart>(board: Board<M, U>, memory: &'static mut Memory<M>) -> ! {
    // An interrupt ends a sleep, and that is all it does: see `Clock`.
    cortex_m::interrupt::disable();
    fault::report_to(board.last_words);
    for &interrupt in board.interrupts {
        // SAFETY: interrupts are masked for good, so that no critical section depends on this one's mask.
        unsafe { NVIC::unmask(interrupt) };
    }
    let Some(core) = cortex_m::Peripherals::take() else {
        panic!("the program was started twice");
    };
    let mut clock = Clock::start(core.SYST, board.megahertz);
    let mut console = Console::new(board.uart, &mut memory.waiting);
    console.line(format_args!(
        concat!("smoltalk ", env!("CARGO_PKG_VERSION"), " on {}"),
        Plain(board.name)
    ));
    let now = clock.now();
    let sockets = SocketSlices {
        storage: place::<Storage>(&mut memory.storage, || [SocketStorage::EMPTY; SOCKETS]),
        entries: &mut memory.entries,
    };
    let stack = start_stack(board.mac, now, sockets, &mut memory.stack);
    let now = Now::monotonic(now);
    let bytes = &mut memory.bytes;
    #[cfg(feature = "dhcp")]
    start_dhcp(stack, &mut bytes.dhcp);
    #[cfg(feature = "slaac")]
    stack.start_slaac(now);
    let connections = bytes.connections.each_mut();
    let connected = place(&mut memory.connected, || start_listener(stack, connections));
    let [for_greetings, for_times, for_messages, for_clock] = place(&mut memory.packets, || {
        [const { [const { [udp::PacketMetadata::EMPTY; 2] }; 2] }; 4]
    });
    let services = Services {
        connected,
        greetings: place(&mut memory.greetings, || Datagrams {
            socket: bind(
                stack,
                greeting::PORT,
                "greeting",
                for_greetings,
                halves(&mut bytes.greetings),
            ),
            service: greeting::DatagramServer::new(),
        }),
        times: place(&mut memory.times, || Datagrams {
            socket: bind(
                stack,
                time::PORT,
                "time",
                for_times,
                halves(&mut bytes.times),
            ),
            service: time::Server::new(),
        }),
        messages: place(&mut memory.messages, || Datagrams {
            socket: bind(
                stack,
                chat::PORT,
                "chat",
                for_messages,
                halves(&mut bytes.messages),
            ),
            service: place(&mut memory.chat, start_chat),
        }),
        clock: place(&mut memory.clock, || Datagrams {
            socket: bind(stack, 0, "sntp", for_clock, halves(&mut bytes.clock)),
            service: start_clock(now),
        }),
        scratch: &mut memory.scratch,
        clockless: (0, now.monotonic),
        #[cfg(any(feature = "dhcp", feature = "slaac"))]
        has_asked: false,
    };
    let mut station = Station {
        clock,
        console,
        stack,
        services,
        turns: 0,
    };
    station.introduce();
    loop {
        for &interrupt in board.interrupts {
            NVIC::unpend(interrupt);
        }
        station.turn();
    }
}

/// Makes a value in the place where it stays. Not inlined, since a large one passes over the stack even so: one
/// after the other, not all of them at once, and gone before the program's loop begins.
#[inline(never)]
fn place<T>(place: &'static mut MaybeUninit<T>, make: impl FnOnce() -> T) -> &'static mut T {
    place.write(make())
}

/// The stack on `mac`, as the build configured it.
#[inline(never)]
fn start_stack<M: Mac>(
    mac: M,
    now: Instant,
    sockets: SocketSlices<'static>,
    place: &'static mut MaybeUninit<BoardStack<M>>,
) -> &'static mut BoardStack<M> {
    let address = mac.address();
    let stack_config = StackConfig {
        mac: address,
        addresses: config::ADDRESSES,
        gateways: config::GATEWAYS,
        seed: seed(address, now),
    };
    let stack = Stack::new(mac, &stack_config, sockets, now);
    place.write(stack.unwrap_or_else(|error| panic!("{error}")))
}

#[cfg(feature = "dhcp")]
#[inline(never)]
fn start_dhcp<M: Mac>(stack: &mut BoardStack<M>, message: &'static mut [u8]) {
    let mut socket = smoltcp::socket::dhcpv4::Socket::new();
    socket.set_receive_packet_buffer(message);
    let started = stack.start_dhcp(socket);
    started.unwrap_or_else(|error| panic!("{error}"));
}

fn start_listener<M: Mac>(
    stack: &mut BoardStack<M>,
    connections: [&'static mut Connection; CONNECTIONS],
) -> Connected {
    let listener = stack.listen(at(greeting::PORT), "greeting", connections);
    Connected {
        listener: listener.unwrap_or_else(|error| panic!("{error}")),
        service: greeting::StreamServer::new(greeting::Config {
            max_connections: CONNECTIONS - 1,
            ..greeting::Config::default()
        }),
    }
}

fn start_chat() -> Chat {
    let chat_config = chat::Config {
        // The build has checked its length.
        auto_reply: config::AUTO_REPLY.try_into().ok(),
        ..chat::Config::default()
    };
    Chat::new(chat::ContactBook::new(), chat_config)
}

fn start_clock(now: Now) -> sntp::Client<SNTP_SERVERS> {
    let mut clock = sntp::Client::new(sntp::Config::default(), now.monotonic.micros());
    // Without an address it is too early to ask.
    if !config::ADDRESSES.is_empty() {
        ask_for_time(&mut clock, now);
    }
    clock
}

fn ask_for_time(clock: &mut sntp::Client<SNTP_SERVERS>, now: Now) {
    for &server in config::SNTP_SERVERS {
        // More than there is room for would only be asked if all those did not answer.
        let _ = clock.add_server(now, server);
    }
}

/// Something that differs from one start to the next, as far as a part without a random number generator can
/// have it: the time that starting took, to a microsecond. A part that has one should use it.
fn seed(mac: [u8; 6], now: Instant) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0]).wrapping_mul(now.micros() | 1)
}

struct Station<M: Mac + 'static, U> {
    clock: Clock,
    console: Console<U>,
    stack: &'static mut BoardStack<M>,
    services: Services,
    /// How often there was something to do, or might have been.
    turns: u32,
}

impl<M: Mac, U: Uart> Station<M, U> {
    /// Does what there is to do, and sleeps until there is more.
    fn turn(&mut self) {
        let Self {
            clock,
            console,
            stack,
            services,
            turns,
        } = self;
        *turns = turns.wrapping_add(1);
        let now = services.now(clock.now());
        let turn = stack.turn(now, BUDGET, |sockets, now| {
            services.serve(sockets, now, console)
        });
        #[cfg(any(feature = "dhcp", feature = "slaac"))]
        while let Some(event) = stack.poll_addresses(now) {
            let first = config::ADDRESSES.is_empty() && !services.has_asked;
            if let (true, AddressEvent::Leased(_) | AddressEvent::Autoconfigured { .. }) =
                (first, event)
            {
                services.has_asked = true;
                ask_for_time(&mut services.clock.service, now);
            }
            tell_of_address(event, console);
        }
        let deadline = earliest(turn.deadline, services.tell(now, console));
        while let Some(byte) = self.console.read() {
            self.obey(byte);
        }
        self.console.flush();
        if !turn.more && !self.stack.device_mut().listen(turn.device_full) {
            self.clock.sleep_until(deadline);
        }
    }

    /// Says who we are.
    fn introduce(&mut self) {
        let console = &mut self.console;
        for &(ip, prefix) in self.stack.addresses() {
            let (at, prefix) = (At(SocketAddr::new(ip, 0)), Number(prefix.into()));
            console.line(format_args!("address {at}/{prefix}"));
        }
        if cfg!(feature = "dhcp") {
            console.line(format_args!("address: asking DHCP servers"));
        }
        if cfg!(feature = "slaac") {
            console.line(format_args!("address: asking routers"));
        }
        self.services.introduce(console);
        console.line(format_args!("ready"));
    }

    /// Does what somebody at the UART asks for.
    fn obey(&mut self, byte: u8) {
        match byte {
            b's' => self.status(),
            b'q' => {
                self.status();
                self.console.drain();
                fault::exit(true);
            }
            #[cfg(feature = "faults")]
            b'p' => panic!("asked to"),
            #[cfg(feature = "faults")]
            b'f' => cortex_m::asm::udf(),
            _ => {}
        }
    }

    /// Prints the counters.
    fn status(&mut self) {
        let console = &mut self.console;
        let mac = self.stack.device().counters();
        let counts = [
            ("frames received", count(mac.received)),
            ("frames sent", count(mac.sent)),
            ("frames malformed", count(mac.malformed)),
            ("frames overrun", count(mac.overrun)),
            ("frames forged", count(self.stack.forged_frames())),
            ("turns", count(self.turns)),
            ("seconds up", count(self.clock.now().micros() / 1_000_000)),
            ("stack peak", count(paint::peak() as u64)),
        ];
        for (what, count) in counts.into_iter().chain(self.services.counts()) {
            console.line(format_args!("{} {count}", Plain(what)));
        }
        console.line(format_args!("."));
    }
}

/// A datagram service and its socket.
struct Datagrams<S> {
    socket: UdpSocket,
    service: S,
}

/// Lets a datagram service go on.
#[inline(never)]
fn pump_one<S: DatagramService>(
    service: &mut S,
    socket: &mut UdpSocket,
    sockets: &mut Sockets<'static>,
    now: Now,
    scratch: &mut [u8],
) -> Option<Instant> {
    // One at a time: what comes is told of before the next.
    let Ok(pumped) = pump(service, &mut sockets.udp(socket, now), now, scratch, 1);
    pumped.deadline
}

/// What a socket receives into, and what it sends from.
type Halves = (&'static mut [u8], &'static mut [u8]);

fn halves<const RX: usize, const TX: usize>((rx, tx): &'static mut ([u8; RX], [u8; TX])) -> Halves {
    (rx, tx)
}

/// `port` on all addresses, of both versions.
fn at(port: u16) -> SocketAddr {
    let any = if cfg!(feature = "ipv6") {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    SocketAddr::new(any, port)
}

#[inline(never)]
fn bind<M: Mac>(
    stack: &mut BoardStack<M>,
    port: u16,
    owner: &'static str,
    [rx_packets, tx_packets]: &'static mut Packets,
    (rx, tx): Halves,
) -> UdpSocket {
    let socket = udp::Socket::new(
        udp::PacketBuffer::new(rx_packets.as_mut_slice(), rx),
        udp::PacketBuffer::new(tx_packets.as_mut_slice(), tx),
    );
    let bound = stack.bind(at(port), owner, socket);
    bound.unwrap_or_else(|error| panic!("{error}"))
}

/// The greeting over streams.
struct Connected {
    listener: Listener<CONNECTIONS>,
    service: greeting::StreamServer<CONNECTIONS>,
}

struct Services {
    connected: &'static mut Connected,
    greetings: &'static mut Datagrams<greeting::DatagramServer>,
    times: &'static mut Datagrams<time::Server>,
    messages: &'static mut Datagrams<&'static mut Chat>,
    clock: &'static mut Datagrams<sntp::Client<SNTP_SERVERS>>,
    scratch: &'static mut [u8],
    /// Requests for the time that were not answered since it was not known, as last told of, and when.
    clockless: (u64, Instant),
    /// The time servers are asked, now that there is an address to ask from.
    #[cfg(any(feature = "dhcp", feature = "slaac"))]
    has_asked: bool,
}

impl Services {
    /// What time it is, as far as it is known.
    fn now(&self, monotonic: Instant) -> Now {
        let now = self.clock.service.now(monotonic);
        #[cfg(feature = "standing-clock")]
        let now = Now {
            wall: self.clock.service.last_set(),
            ..now
        };
        now
    }

    /// Lets every service go on.
    fn serve<U: Uart>(
        &mut self,
        sockets: &mut Sockets<'static>,
        now: Now,
        console: &mut Console<U>,
    ) -> Option<Instant> {
        let scratch = &mut *self.scratch;
        let deadlines = [
            self.connected
                .listener
                .pump(sockets, &mut self.connected.service, now)
                .deadline,
            pump_one(
                &mut self.greetings.service,
                &mut self.greetings.socket,
                sockets,
                now,
                scratch,
            ),
            pump_one(
                &mut self.times.service,
                &mut self.times.socket,
                sockets,
                now,
                scratch,
            ),
            pump_one(
                self.messages.service,
                &mut self.messages.socket,
                sockets,
                now,
                scratch,
            ),
            pump_one(
                &mut self.clock.service,
                &mut self.clock.socket,
                sockets,
                now,
                scratch,
            ),
        ];
        // The chat holds one message, so it is shown before the next comes in.
        show_messages(self.messages.service, console);
        deadlines.into_iter().fold(None, earliest)
    }

    /// Tells what people at the UART may want to know, and when to do it again.
    fn tell<U: Uart>(&mut self, now: Now, console: &mut Console<U>) -> Option<Instant> {
        while let Some(event) = self.clock.service.poll_event() {
            tell_of_clock(event, console);
        }
        // Once a second is enough.
        let (told, last) = self.clockless;
        let missed = self.times.service.counters().no_clock;
        if missed == told {
            return None;
        }
        let next = last + smoltalk::Duration::from_secs(1);
        if told > 0 && now.monotonic < next {
            return Some(next);
        }
        self.clockless = (missed, now.monotonic);
        console.line(format_args!(
            "time: not known yet, {} requests not answered",
            count(missed)
        ));
        None
    }

    fn introduce<U: Uart>(&mut self, console: &mut Console<U>) {
        let sockets = [
            ("greeting tcp", self.connected.listener.local_addr()),
            ("greeting udp", self.greetings.socket.local_addr()),
            ("time udp", self.times.socket.local_addr()),
            ("chat udp", self.messages.socket.local_addr()),
        ];
        for (service, local) in sockets {
            console.line(format_args!("listening {} {}", Plain(service), At(local)));
        }
        console.line(format_args!(
            "time: not known yet, {} servers to ask",
            Number(config::SNTP_SERVERS.len() as i32)
        ));
    }

    /// What happened so far.
    fn counts(&self) -> [(&'static str, Number); 14] {
        let Connected { listener, service } = &*self.connected;
        let recycled =
            listener.counters().time_wait_recycled + listener.counters().half_open_recycled;
        let time = self.times.service.counters();
        let chat = self.messages.service.counters();
        let clock = &self.clock.service;
        let asked = clock.counters();
        [
            ("greetings opened", count(listener.counters().opened)),
            ("greetings answered", count(service.counters().answered)),
            ("greetings open", count(service.connections() as u64)),
            ("sockets listening", count(listener.listening() as u64)),
            ("sockets recycled", count(recycled)),
            ("times answered", count(time.answered)),
            ("times unknown", count(time.no_clock)),
            ("messages received", count(chat.received)),
            ("messages answered", count(chat.auto_replies)),
            ("messages lost", count(chat.no_room)),
            ("clock asked", count(asked.requests)),
            ("clock set", count(asked.accepted)),
            ("clock rejected", count(asked.rejected)),
            ("clock drift in ppb", Number(clock.drift().unwrap_or(0))),
        ]
    }
}

#[inline(never)]
fn show_messages<U: Uart>(chat: &mut Chat, console: &mut Console<U>) {
    while let Some(event) = chat.poll_event() {
        match event {
            chat::Event::Message { addr, text, .. } => {
                console.line(format_args!(
                    "chat {}: {}",
                    At(addr),
                    Shown(text.as_bytes())
                ));
            }
            chat::Event::Undelivered { addr, why, .. } => {
                console.line(format_args!("chat {}: {why}", At(addr)));
            }
        }
    }
}

#[cfg(any(feature = "dhcp", feature = "slaac"))]
fn tell_of_address<U: Uart>(event: AddressEvent, console: &mut Console<U>) {
    let at = |ip: IpAddr| At(SocketAddr::new(ip, 0));
    match event {
        AddressEvent::Leased(lease) => {
            let (ip, prefix) = (at(lease.ip.into()), Number(lease.prefix.into()));
            let server = at(lease.server.into());
            let seconds = count(lease.seconds.unwrap_or(0));
            console.line(format_args!(
                "address {ip}/{prefix} lent by {server} for {seconds} s"
            ));
            if let Some(gateway) = lease.gateway {
                console.line(format_args!("gateway {}", at(gateway.into())));
            }
        }
        AddressEvent::LeaseLost { ip } => {
            console.line(format_args!("address {} not ours any more", at(ip.into())));
        }
        AddressEvent::Autoconfigured { ip, prefix } => {
            let (ip, prefix) = (at(ip.into()), Number(prefix.into()));
            console.line(format_args!("address {ip}/{prefix} by a router"));
        }
        AddressEvent::Expired { ip } => {
            console.line(format_args!("address {} not ours any more", at(ip.into())));
        }
        AddressEvent::Duplicate { ip } => {
            console.line(format_args!("address {} is another host's", at(ip.into())));
        }
        AddressEvent::Gateway { ip } => {
            console.line(format_args!("gateway {}", at(ip.into())));
        }
        AddressEvent::NoGateway { ip } => {
            console.line(format_args!("gateway {} has left", at(ip.into())));
        }
        AddressEvent::Unusable { ip, .. } => {
            console.line(format_args!("address {} cannot be used", at(ip)));
        }
    }
}

fn tell_of_clock<U: Uart>(event: sntp::Event, console: &mut Console<U>) {
    use sntp::Event;
    match event {
        Event::Set {
            server,
            wall,
            by_micros,
            ..
        } => {
            let millis = by_micros.unwrap_or(0) / 1_000;
            // It is a clock that was set, and no clock is off by more than the 24 days that fit.
            let millis = Number(i32::try_from(millis).unwrap_or(i32::MAX));
            console.line(format_args!(
                "time: {} by {}, moved {millis} ms",
                Date(wall),
                At(server)
            ));
        }
        Event::NoAnswer { server } => {
            console.line(format_args!("time: no answer from {}", At(server)));
        }
        Event::Unreachable { server, why } => {
            console.line(format_args!("time: {}: {why}", At(server)));
        }
        Event::KissOfDeath { server, kiss } => {
            console.line(format_args!("time: {} says {kiss}", At(server)));
        }
        Event::Lost => console.line(format_args!("time: not known any more")),
    }
}
