//! Every service once over two smoltcp stacks, in a program that has no heap and no standard library.
//!
//! What comes from outside is a C runtime's `main`, `memcpy` and `abort`, which microcontrollers have too. The
//! exit status is 0, or the number of the exchange that went wrong.

#![no_std]
#![no_main]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltalk::chat::{self, Chat, ContactBook};
use smoltalk::greeting::{self, DatagramServer, StreamClient, StreamOutcome, StreamServer};
use smoltalk::sim::{Ethernet, EthernetPort, Impairments};
use smoltalk::smoltcp::{SocketMemory, Sockets, Stack, StackConfig, TcpBuffers, UdpBuffers};
use smoltalk::{Duration, Exchange, Instant, Now, Outcome, Retry, Wall, earliest, pump, time};

#[cfg(feature = "prove-alloc")]
extern crate alloc;
#[cfg(feature = "prove-std")]
extern crate std;

// SAFETY: these are the declarations of the C standard (C17, 7.22.4.1).
#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    abort()
}

/// What a C runtime calls.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    #[cfg(feature = "prove-alloc")]
    core::hint::black_box(alloc::boxed::Box::new(1));
    #[cfg(feature = "prove-std")]
    std::println!("std");
    #[cfg(feature = "prove-malloc")]
    prove_malloc();
    match run() {
        Ok(()) => 0,
        Err(Failed(exchange)) => exchange,
    }
}

#[cfg(feature = "prove-malloc")]
fn prove_malloc() {
    // SAFETY: this is the declaration of the C standard (C17, 7.22.3.4).
    unsafe extern "C" {
        safe fn malloc(size: usize) -> *mut u8;
    }
    core::hint::black_box(malloc(1));
}

/// The number of the exchange that did not go as it should.
struct Failed(i32);

const SERVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 1)),
];
const CLIENTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 2)),
];
/// Noon has passed on a leap day.
const WALL: Wall = Wall::utc(1_456_749_296);
const AUTO_REPLY: &str = "nobody is here";

/// A question over datagrams, and what comes back.
struct Question {
    port: u16,
    request: &'static [u8],
    answer: &'static [u8],
}

const QUESTIONS: [Question; 3] = [
    Question {
        port: greeting::PORT,
        request: b"hello",
        answer: b"hi",
    },
    Question {
        port: time::PORT,
        request: b"%A %d %B %Y, %X %Z",
        answer: b"Monday 29 February 2016, 12:34:56 UTC",
    },
    Question {
        port: chat::PORT,
        request: "你好".as_bytes(),
        answer: AUTO_REPLY.as_bytes(),
    },
];

type Port = EthernetPort<8>;

fn config(mac: u8, addresses: &[(IpAddr, u8)]) -> StackConfig<'_> {
    StackConfig {
        mac: [0x02, 0, 0, 0, 0, mac],
        addresses,
        gateways: &[],
        seed: mac.into(),
    }
}

fn run() -> Result<(), Failed> {
    let anywhere = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);

    let mut storage = SocketMemory::<7>::new();
    let mut udp = [const { UdpBuffers::<4, 2048>::new() }; 3];
    let mut tcp = [const { TcpBuffers::<256, 64>::new() }; 4];
    let [v4, v6] = SERVERS;
    let mut server = Stack::new(
        Port::new(),
        &config(1, &[(v4, 24), (v6, 64)]),
        &mut storage,
        Instant::ZERO,
    )
    .map_err(|_| Failed(100))?;
    let [for_greeting, for_time, for_chat] = &mut udp;
    let mut greeting_socket = server
        .bind(anywhere(greeting::PORT), "greeting", for_greeting)
        .map_err(|_| Failed(101))?;
    let mut time_socket = server
        .bind(anywhere(time::PORT), "time", for_time)
        .map_err(|_| Failed(102))?;
    let mut chat_socket = server
        .bind(anywhere(chat::PORT), "chat", for_chat)
        .map_err(|_| Failed(103))?;
    let mut listener = server
        .listen(anywhere(greeting::PORT), "greeting", tcp.each_mut())
        .map_err(|_| Failed(104))?;

    let mut greeting = DatagramServer::new();
    let mut greeting_streams = StreamServer::<4>::new(greeting::Config {
        max_connections: 3,
        ..greeting::Config::default()
    });
    let mut time = time::Server::new();
    let mut chat = Chat::<4, 4>::new(
        ContactBook::new(),
        chat::Config {
            auto_reply: AUTO_REPLY.try_into().ok(),
            ..chat::Config::default()
        },
    );
    let mut server_scratch = [0; 1024];
    let mut serve = |sockets: &mut Sockets<'_>, now: Now| {
        let scratch = &mut server_scratch;
        let now = Now {
            wall: Some(WALL),
            ..now
        };
        let Ok(greeted) = pump(
            &mut greeting,
            &mut sockets.udp(&mut greeting_socket, now),
            now,
            scratch,
            8,
        );
        let Ok(told) = pump(
            &mut time,
            &mut sockets.udp(&mut time_socket, now),
            now,
            scratch,
            8,
        );
        let Ok(chatted) = pump(
            &mut chat,
            &mut sockets.udp(&mut chat_socket, now),
            now,
            scratch,
            8,
        );
        while chat.poll_event().is_some() {}
        let streams = listener.pump(sockets, &mut greeting_streams, now);
        [greeted.deadline, told.deadline, chatted.deadline]
            .into_iter()
            .fold(streams.deadline, earliest)
    };

    let mut client_storage = SocketMemory::<2>::new();
    let mut client_udp = UdpBuffers::<4, 2048>::new();
    let mut client_tcp = [const { TcpBuffers::<256, 256>::new() }; 2];
    let [v4, v6] = CLIENTS;
    let mut client = Stack::new(
        Port::new(),
        &config(2, &[(v4, 24), (v6, 64)]),
        &mut client_storage,
        Instant::ZERO,
    )
    .map_err(|_| Failed(105))?;
    let mut client_socket = client
        .bind(anywhere(0), "client", &mut client_udp)
        .map_err(|_| Failed(106))?;

    let mut cable = Ethernet::new(1, Impairments::default());
    let mut now = Now::monotonic(Instant::ZERO);
    let mut scratch = [0; 1024];
    let mut number = 0;
    for (ip, for_dial) in SERVERS.into_iter().zip(&mut client_tcp) {
        for question in &QUESTIONS {
            number += 1;
            let to = SocketAddr::new(ip, question.port);
            let mut asking = Exchange::<64, 64>::start(now, to, question.request, Retry::default())
                .map_err(|_| Failed(number))?;
            while asking.outcome() == Outcome::Pending {
                let turns = [
                    server.turn(now, 8, &mut serve),
                    client.turn(now, 8, |sockets, now| {
                        let mut transport = sockets.udp(&mut client_socket, now);
                        let Ok(pumped) = pump(&mut asking, &mut transport, now, &mut scratch, 8);
                        pumped.deadline
                    }),
                ];
                let (a, b) = (server.device_mut(), client.device_mut());
                cable.exchange(now.monotonic, a, b);
                let arrivals = earliest(a.next_arrival(), b.next_arrival());
                let deadlines = earliest(turns[0].deadline, turns[1].deadline);
                // There is always a next time: the client's own.
                let next = earliest(arrivals, deadlines).unwrap_or(now.monotonic);
                now.monotonic = now.monotonic.max(next);
            }
            if !matches!(asking.outcome(), Outcome::Answered { answer, .. } if answer == question.answer)
            {
                return Err(Failed(number));
            }
        }

        number += 1;
        let to = SocketAddr::new(ip, greeting::PORT);
        let mut dial = client.connect(to, for_dial).map_err(|_| Failed(number))?;
        let mut calling = StreamClient::<16, 16>::start(now, b"hello", Duration::from_secs(5))
            .ok_or(Failed(number))?;
        while !dial.is_done() {
            let turns = [
                server.turn(now, 8, &mut serve),
                client.turn(now, 8, |sockets, now| {
                    dial.pump(sockets, &mut calling, now).deadline
                }),
            ];
            let (a, b) = (server.device_mut(), client.device_mut());
            cable.exchange(now.monotonic, a, b);
            let arrivals = earliest(a.next_arrival(), b.next_arrival());
            let deadlines = earliest(turns[0].deadline, turns[1].deadline);
            let next = earliest(arrivals, deadlines).unwrap_or(now.monotonic);
            now.monotonic = now.monotonic.max(next);
        }
        if !matches!(
            calling.outcome(),
            StreamOutcome::Answered { answer: b"hi", .. }
        ) {
            return Err(Failed(number));
        }
        client.hang_up(now, dial);
    }
    Ok(())
}
