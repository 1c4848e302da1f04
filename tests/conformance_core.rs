//! The conformance suite over the backends that need no operating system.

mod conformance;
#[path = "conformance/core.rs"]
mod core_peers;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod stacks;

use std::net::{IpAddr, SocketAddr};

use smoltalk::sim::script::{EXCHANGES, Exchange, IpVersion, Service, write_transcript};
use smoltalk::sim::{DatagramNet, Impairments, StreamPair, StreamSide};
use smoltalk::smoltcp::{Listener, UdpSocket};
use smoltalk::{ConnId, Duration, Instant, Protocol, StreamService, earliest, pump, pump_stream};

use conformance::{Backend, conform};
use core_peers::{Asker, CONNECTIONS, Caller, Servers, at};
use stacks::{CLIENT_IPS, Pair, SERVER_IPS, tcp_buffers, udp_buffers};

/// The transcript is the script's, so that it can be read, reviewed and compared without running anything.
/// To write it anew after a change to the script: `UPDATE_TRANSCRIPT=1 cargo test --test conformance_core`.
#[test]
fn the_transcript_is_what_the_script_expects() {
    let mut expected = String::new();
    for version in IpVersion::ALL {
        for exchange in EXCHANGES {
            let answers = exchange.answers.iter().copied();
            write_transcript(&mut expected, version, exchange, answers).unwrap();
        }
    }
    if std::env::var_os("UPDATE_TRANSCRIPT").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/conformance/transcript.txt"
        );
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert_eq!(expected, conformance::TRANSCRIPT);
}

fn ip(version: IpVersion, [v4, v6]: [&str; 2]) -> IpAddr {
    let ip = match version {
        IpVersion::V4 => v4,
        IpVersion::V6 => v6,
    };
    ip.parse().unwrap()
}

/// The services and a client with nothing between them but the pumps.
struct InMemory {
    servers: Servers,
    seed: u64,
}

impl Backend for InMemory {
    fn answers(&mut self, version: IpVersion, exchange: &Exchange) -> Vec<Vec<u8>> {
        self.seed += 1;
        let server = SocketAddr::new(ip(version, SERVER_IPS), exchange.service.port());
        // A port of its own for each exchange, as a new socket has.
        let client = SocketAddr::new(ip(version, CLIENT_IPS), 49_152 + self.seed as u16);
        match exchange.service.protocol() {
            Protocol::Tcp => vec![self.stream(client, exchange)],
            Protocol::Udp => self.datagrams(server, client, exchange),
        }
    }
}

impl InMemory {
    fn stream(&mut self, client: SocketAddr, exchange: &Exchange) -> Vec<u8> {
        let (id, now) = (ConnId::new(0), at(Instant::ZERO));
        let server = &mut self.servers.greeting_tcp;
        let mut caller = Caller::new(exchange);
        let mut pair = StreamPair::<2048>::new(self.seed, 100);
        server.handle_open(now, id, client).unwrap();
        let mut server_closed = false;
        for _ in 0..1_000 {
            if !caller.closed {
                pump_stream(&mut caller, id, &mut pair.end(StreamSide::Client), now);
            }
            if !server_closed {
                let end = &mut pair.end(StreamSide::Server);
                server_closed = pump_stream(server, id, end, now).closed;
            }
            if caller.closed && server_closed {
                assert!(caller.ended, "seed {}: reset", self.seed);
                return caller.answer;
            }
        }
        panic!("seed {}: the connection does not end", self.seed);
    }

    fn datagrams(
        &mut self,
        server: SocketAddr,
        client: SocketAddr,
        exchange: &Exchange,
    ) -> Vec<Vec<u8>> {
        let latency = Duration::from_millis(1);
        let mut net = DatagramNet::<2, 8, 1472>::new(
            self.seed,
            Impairments {
                delay: (latency, latency),
                ..Impairments::default()
            },
        );
        let here = net.add_host(server).unwrap();
        let there = net.add_host(client).unwrap();
        let mut asker = Asker::new(server, exchange);
        let mut scratch = [0; 1472];
        loop {
            let now = at(net.now());
            pump(&mut asker, &mut net.host(there), now, &mut scratch, 8).unwrap();
            let mut host = net.host(here);
            let Servers {
                greeting_udp,
                time,
                chat,
                ..
            } = &mut self.servers;
            match exchange.service {
                Service::GreetingUdp => pump(greeting_udp, &mut host, now, &mut scratch, 8),
                Service::Time => pump(time, &mut host, now, &mut scratch, 8),
                _ => pump(chat, &mut host, now, &mut scratch, 8),
            }
            .unwrap();
            while chat.poll_event().is_some() {}
            match net.next_arrival() {
                Some(next) => net.advance_to(next),
                None => return asker.answers,
            }
        }
    }
}

#[test]
fn in_memory() {
    conform(&mut InMemory {
        servers: Servers::new(),
        seed: 0,
    });
}

/// The services on one smoltcp stack, and a client on another, at the two ends of a cable.
struct SimulatedLink {
    pair: Pair,
    servers: Servers,
    listener: Listener<CONNECTIONS>,
    greeting: UdpSocket,
    time: UdpSocket,
    chat: UdpSocket,
}

impl SimulatedLink {
    fn new(seed: u64) -> Self {
        let mut pair = Pair::new(seed, Impairments::default(), CONNECTIONS + 3);
        let stack = &mut pair.server;
        let anywhere = |service: Service| SocketAddr::new([0; 16].into(), service.port());
        let buffers = std::array::from_fn(|_| tcp_buffers());
        let listener = stack
            .listen(anywhere(Service::GreetingTcp), "greeting", buffers)
            .unwrap();
        let mut bind = |service: Service| {
            stack
                .bind(anywhere(service), service.name(), udp_buffers())
                .unwrap()
        };
        Self {
            greeting: bind(Service::GreetingUdp),
            time: bind(Service::Time),
            chat: bind(Service::Chat),
            servers: Servers::new(),
            listener,
            pair,
        }
    }
}

impl Backend for SimulatedLink {
    fn answers(&mut self, version: IpVersion, exchange: &Exchange) -> Vec<Vec<u8>> {
        let Self {
            pair,
            servers,
            listener,
            greeting,
            time,
            chat,
        } = self;
        let server = SocketAddr::new(ip(version, SERVER_IPS), exchange.service.port());
        let any = SocketAddr::new(ip(version, CLIENT_IPS), 0);
        let mut asker = Asker::new(server, exchange);
        let mut caller = Caller::new(exchange);
        let mut dial = None;
        let mut socket = None;
        match exchange.service.protocol() {
            Protocol::Tcp => dial = Some(pair.client.connect(server, tcp_buffers()).unwrap()),
            Protocol::Udp => {
                socket = Some(pair.client.bind(any, "client", udp_buffers()).unwrap());
            }
        }
        pair.wake();
        let mut scratch = [0; 1472];
        // A TCP connection ends with its TIME-WAIT and a datagram with nothing: so until there is no more to do,
        // or the client has seen the end and the other side has had a second to say more.
        let mut until = None;
        loop {
            let more = pair.step(
                |sockets, now| {
                    let now = at(now.monotonic);
                    let mut scratch = [0; 1472];
                    let greeted = pump(
                        &mut servers.greeting_udp,
                        &mut sockets.udp(greeting, now),
                        now,
                        &mut scratch,
                        8,
                    );
                    let told = pump(
                        &mut servers.time,
                        &mut sockets.udp(time, now),
                        now,
                        &mut scratch,
                        8,
                    );
                    let chatted = pump(
                        &mut servers.chat,
                        &mut sockets.udp(chat, now),
                        now,
                        &mut scratch,
                        8,
                    );
                    while servers.chat.poll_event().is_some() {}
                    let streams = listener.pump(sockets, &mut servers.greeting_tcp, now);
                    [
                        greeted.unwrap().deadline,
                        told.unwrap().deadline,
                        chatted.unwrap().deadline,
                    ]
                    .into_iter()
                    .fold(streams.deadline, earliest)
                },
                |sockets, now| {
                    if let Some(dial) = &mut dial {
                        return dial.pump(sockets, &mut caller, now).deadline;
                    }
                    let socket = &mut sockets.udp(socket.as_mut()?, now);
                    pump(&mut asker, socket, now, &mut scratch, 8)
                        .unwrap()
                        .deadline
                },
            );
            let now = pair.now.monotonic;
            if until.is_none() && (caller.closed || asker.answers.len() >= exchange.answers.len()) {
                until = Some(now + Duration::from_secs(1));
            }
            if !more || until.is_some_and(|until| now >= until) {
                break;
            }
        }
        if let Some(dial) = dial {
            assert!(
                caller.ended && caller.closed,
                "seed {}: {version}, {}: not closed: {:?}",
                pair.seed,
                exchange.name,
                caller.answer
            );
            pair.client.hang_up(pair.now, dial);
            return vec![caller.answer];
        }
        if let Some(socket) = socket {
            pair.client.unbind(socket);
        }
        asker.answers
    }
}

#[test]
fn over_smoltcp_on_a_simulated_link() {
    // The frames in flight are more than a test thread has room for, while they are being moved to their place.
    let run = || conform(&mut SimulatedLink::new(1));
    std::thread::Builder::new()
        .stack_size(16 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}
