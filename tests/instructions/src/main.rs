//! The hot paths, each so many times that its own instructions are all that counts. `.ci/instructions` runs it.
//!
//!     smoltalk-instructions            the names of the paths
//!     smoltalk-instructions NAME       walks that path, and prints how many times

#![deny(unsafe_op_in_unsafe_fn)]

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../stacks/mod.rs"]
mod stacks;
mod valgrind;

use std::hint::black_box;
use std::net::SocketAddr;
use std::process::ExitCode;

use smoltalk::greeting::{self, Config, DatagramServer, StreamClient, StreamOutcome, StreamServer};
use smoltalk::sim::Impairments;
use smoltalk::smoltcp::Listener;
use smoltalk::{DatagramService, Duration, Now, Wall, Zone, pump, time};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use stacks::*;

/// What is counted, how many times it is done, and what does it.
type Path = (&'static str, u32, fn(u32));

const PATHS: [Path; 8] = [
    ("time-format-default", 1_000, |times| {
        formats(&["%Y-%m-%d %X"], times)
    }),
    ("time-format-others", 1_000, |times| {
        formats(
            &["%c", "%d.%m.%Y", "%-d %_m %j", "%A, %H:%M %Z", "%10s"],
            times,
        )
    }),
    ("time-remembered", 1_000, remembered),
    ("time-datagram", 1_000, |times| {
        datagrams(time::Server::new(), time::PORT, b"", times)
    }),
    ("greeting-datagram", 1_000, |times| {
        datagrams(DatagramServer::new(), greeting::PORT, b"hello", times)
    }),
    ("greeting-connection", 100, connections),
    ("idle-turn-16", 1_000, idle_turns::<17>),
    ("idle-turn-4096", 1_000, idle_turns::<4_097>),
];

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        for (name, ..) in PATHS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let Some((_, times, walk)) = PATHS.into_iter().find(|path| path.0 == name) else {
        eprintln!("no path is called {name}");
        return ExitCode::FAILURE;
    };
    walk(times);
    println!("{times}");
    ExitCode::SUCCESS
}

const CLIENT: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)),
    40_000,
);

/// 2026-11-22 17:03:09 in Berlin.
fn wall() -> Wall {
    Wall {
        unix_seconds: 1_795_363_389,
        nanoseconds: 0,
        zone: Zone::new(3_600, "CET").expect("a short name"),
    }
}

/// Formatting alone, in another second each time.
fn formats(formats: &[&str], times: u32) {
    let mut wall = wall();
    let mut out = [0; time::MAX_ANSWER];
    valgrind::count(|| {
        for _ in 0..times {
            wall.unix_seconds += 1;
            for format in formats {
                let len = time::format(black_box(format), &wall, &mut out);
                assert!(black_box(len).is_ok());
            }
        }
    });
}

/// A request that comes again in the same second.
fn remembered(times: u32) {
    let mut server = time::CachingServer::<16>::new();
    let now = Now {
        wall: Some(wall()),
        ..at(0)
    };
    let mut out = [0; time::MAX_ANSWER];
    let mut ask = |times| {
        for _ in 0..times {
            let request = black_box(b"%Y-%m-%d %X".as_slice());
            assert!(server.handle_datagram(now, CLIENT, request).is_ok());
            assert!(black_box(server.poll_transmit(now, &mut out)).is_some());
        }
    };
    ask(1);
    valgrind::count(|| ask(times));
}

/// A datagram from frame to frame: in, through the stack, the service, and out.
fn datagrams<S: DatagramService>(mut service: S, port: u16, payload: &[u8], times: u32) {
    let mut host = server_host(1, 1);
    let local = addr(SERVER_IPS[0], port);
    let mut socket = host
        .bind(local, "counted", udp_buffers())
        .expect("a free port");
    let mut now = Now {
        wall: Some(wall()),
        ..at(0)
    };
    let mut scratch = [0; time::MAX_ANSWER];
    let request = frames::datagram(CLIENT_MAC, SERVER_MAC, CLIENT, local, payload);
    let mut serve = |times| {
        for _ in 0..times {
            if let Some(wall) = &mut now.wall {
                wall.unix_seconds += 1;
            }
            let delivered = host.device_mut().deliver(now.monotonic, &request);
            assert!(delivered.is_ok());
            host.turn(now, 16, |sockets, now| {
                let Ok(pumped) = pump(
                    &mut service,
                    &mut sockets.udp(&mut socket, now),
                    now,
                    &mut scratch,
                    16,
                );
                pumped.deadline
            });
            let answered = host.device_mut().take_sent(|answer| answer.len() > 42);
            assert_eq!(answered, Some(true));
        }
    };
    serve(10);
    valgrind::count(|| serve(times));
}

/// A connection and its greeting, between two stacks, both of them counted: from SYN to TIME-WAIT.
fn connections(times: u32) {
    let mut pair = Pair::new(1, Impairments::default(), 4);
    let to = addr(SERVER_IPS[0], greeting::PORT);
    let mut server = StreamServer::<4>::new(Config {
        max_connections: 3,
        ..Config::default()
    });
    let buffers = [(); 4].map(|()| tcp_buffers());
    let mut listener = pair
        .server
        .listen(to, "counted", buffers)
        .expect("a free port");
    let mut socket = Some(tcp_buffers().into());
    let mut greet = |times| {
        for _ in 0..times {
            pair.wake();
            let patience = Duration::from_secs(30);
            let mut client = StreamClient::<16, 16>::start(pair.now, b"hello", patience)
                .expect("a short greeting");
            let with: smoltcp::socket::tcp::Socket<'_> = socket.take().expect("it came back");
            let mut dial = pair.client.connect(to, with).expect("a route");
            while !dial.is_done() {
                pair.step(
                    |sockets, now| listener.pump(sockets, &mut server, now).deadline,
                    |sockets, now| dial.pump(sockets, &mut client, now).deadline,
                );
            }
            assert!(matches!(
                client.outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            ));
            socket = Some(pair.client.hang_up(pair.now, dial));
        }
    };
    greet(10);
    valgrind::count(|| greet(times));
}

/// A turn of the stack in which nothing happens, beside connections on which nothing happens: one fewer than `N`,
/// since one socket listens.
fn idle_turns<const N: usize>(times: u32) {
    let mut host = server_host(1, N);
    let to = addr(SERVER_IPS[0], greeting::PORT);
    let mut server = Box::new(StreamServer::<N>::new(Config::default()));
    let buffers = std::array::from_fn(|_| tcp_buffers());
    let mut listener: Box<Listener<N>> =
        Box::new(host.listen(to, "counted", buffers).expect("a free port"));
    let mut turn = |host: &mut Host, server: &mut StreamServer<N>| {
        host.turn(at(0), 16, |sockets, now| {
            listener.pump(sockets, server, now).deadline
        });
    };
    for port in 0..N - 1 {
        let from = SocketAddr::new(CLIENT.ip(), 10_000 + port as u16);
        let mut send = |host: &mut Host, frame: &[u8]| {
            assert!(host.device_mut().deliver(at(0).monotonic, frame).is_ok());
            turn(host, &mut server);
            host.device_mut().take_sent(sequence_number)
        };
        let answered = send(&mut host, &tcp(from, to, TcpControl::Syn, 0, None));
        let theirs = answered.expect("SYN, ACK") + 1;
        send(&mut host, &tcp(from, to, TcpControl::None, 1, Some(theirs)));
    }
    assert_eq!(server.connections(), N - 1);
    valgrind::count(|| {
        for _ in 0..times {
            turn(&mut host, &mut server);
        }
    });
    assert_eq!(server.connections(), N - 1);
}

fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    control: TcpControl,
    number: i32,
    acknowledged: Option<i32>,
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: TcpSeqNumber(number),
        ack_number: acknowledged.map(TcpSeqNumber),
        window_len: 1_000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, repr.buffer_len(), 64);
    frames::frame(CLIENT_MAC, SERVER_MAC, &ip, |bytes| {
        repr.emit(
            &mut TcpPacket::new_unchecked(bytes),
            &source,
            &destination,
            &ChecksumCapabilities::default(),
        );
    })
}

/// That of a frame with a TCP segment in it.
fn sequence_number(frame: &[u8]) -> i32 {
    let packet = Ipv4Packet::new_unchecked(&frame[14..]);
    TcpPacket::new_unchecked(packet.payload()).seq_number().0
}
