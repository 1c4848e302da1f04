//! Every service over two smoltcp stacks, in a program that has neither std nor an allocator: if the core needed
//! either, this would not link. It runs on the machine it is built on, and ends with 0 if every answer was right.
#![no_std]
#![no_main]

#[cfg(feature = "prove-alloc")]
extern crate alloc;
#[cfg(feature = "prove-std")]
extern crate std;

use core::ffi::c_int;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use smoltalk::chat::{self, Chat, ContactBook, Event, Peer};
use smoltalk::greeting::{self, DatagramServer, StreamClient, StreamOutcome, StreamServer};
use smoltalk::sim::{Ethernet, EthernetPort, Impairments};
use smoltalk::smoltcp::{SocketStorage, Stack, StackConfig, TcpBuffers, UdpBuffers};
use smoltalk::{Duration, Instant, Now, Outcome, Retry, Wall, earliest, pump, time};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// The C runtime calls it; nothing else of C is used.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    #[cfg(feature = "prove-alloc")]
    drop(core::hint::black_box(alloc::boxed::Box::new(1)));
    match talk() {
        Some(()) => 0,
        None => 1,
    }
}

/// `None`: something could not be set up, or was not answered as it should be.
fn talk() -> Option<()> {
    let mut server_storage = [SocketStorage::EMPTY; 7];
    let mut client_storage = [SocketStorage::EMPTY; 4];
    let mut tcp: [TcpBuffers<256, 256>; 4] = Default::default();
    let mut udp: [UdpBuffers<4, 2048>; 3] = Default::default();
    let mut client_tcp = TcpBuffers::<256, 256>::new();
    let mut client_udp: [UdpBuffers<4, 2048>; 3] = Default::default();

    let mut now = Now {
        monotonic: Instant::ZERO,
        wall: Some(Wall::utc(1_456_749_296)),
    };
    let stack = |mac, ip| StackConfig {
        mac: [2, 0, 0, 0, 0, mac],
        addresses: ip,
        gateways: &[],
        seed: u64::from(mac),
    };
    let port = EthernetPort::<8>::new();
    let at = now.monotonic;
    let mut server = Stack::new(port, &stack(1, &[(SERVER, 24)]), &mut server_storage, at).ok()?;
    let port = EthernetPort::<8>::new();
    let mut client = Stack::new(port, &stack(2, &[(CLIENT, 24)]), &mut client_storage, at).ok()?;
    let mut cable = Ethernet::new(1, Impairments::default());

    let [udp_a, udp_b, udp_c] = udp.each_mut();
    let mut greeting_socket = server
        .bind((SERVER, greeting::PORT).into(), "greeting", udp_a)
        .ok()?;
    let mut time_socket = server
        .bind((SERVER, time::PORT).into(), "time", udp_b)
        .ok()?;
    let mut chat_socket = server
        .bind((SERVER, chat::PORT).into(), "chat", udp_c)
        .ok()?;
    let listening_at = (SERVER, greeting::PORT).into();
    let mut listener = server
        .listen(listening_at, "greeting", tcp.each_mut())
        .ok()?;

    let mut greeting_udp = DatagramServer::new();
    let mut greeting_tcp = StreamServer::<4>::new(greeting::Config::default());
    let mut time_server = time::Server::new();
    let mut chat_server = Chat::<0, 2>::new(
        ContactBook::new(),
        chat::Config {
            auto_reply: Some("away".try_into().ok()?),
            ..chat::Config::default()
        },
    );

    let any = SocketAddr::new(CLIENT, 0);
    let [udp_a, udp_b, udp_c] = client_udp.each_mut();
    let mut greeter_socket = client.bind(any, "client", udp_a).ok()?;
    let mut asker_socket = client.bind(any, "client", udp_b).ok()?;
    let mut chatter_socket = client.bind(any, "client", udp_c).ok()?;
    let mut dial = client
        .connect((SERVER, greeting::PORT).into(), &mut client_tcp)
        .ok()?;
    let retry = Retry::default();
    let to = (SERVER, greeting::PORT).into();
    let mut greeter = greeting::DatagramClient::start(now, to, b"hello", retry).ok()?;
    let mut asker = time::Client::start(now, (SERVER, time::PORT).into(), b"%F %T", retry).ok()?;
    let mut caller = StreamClient::<16, 16>::start(now, b"hello", Duration::from_secs(5))?;
    let mut chatter = Chat::<0, 2>::new(ContactBook::new(), chat::Config::default());
    let peer = Peer::Stranger((SERVER, chat::PORT).into());
    chatter.send_message(now, peer, "anybody there?").ok()?;

    let mut chatted = false;
    for _ in 0..1_000 {
        let mut scratch = [0; 1024];
        let served = server.turn(now, 8, |sockets, now| {
            let a = pump(
                &mut greeting_udp,
                &mut sockets.udp(&mut greeting_socket, now),
                now,
                &mut scratch,
                2,
            );
            let b = pump(
                &mut time_server,
                &mut sockets.udp(&mut time_socket, now),
                now,
                &mut scratch,
                2,
            );
            let c = pump(
                &mut chat_server,
                &mut sockets.udp(&mut chat_socket, now),
                now,
                &mut scratch,
                2,
            );
            while chat_server.poll_event().is_some() {}
            let d = listener.pump(sockets, &mut greeting_tcp, now).deadline;
            [a, b, c]
                .into_iter()
                .flatten()
                .fold(d, |d, pumped| earliest(d, pumped.deadline))
        });
        let asked = client.turn(now, 8, |sockets, now| {
            let a = pump(
                &mut greeter,
                &mut sockets.udp(&mut greeter_socket, now),
                now,
                &mut scratch,
                2,
            );
            let b = pump(
                &mut asker,
                &mut sockets.udp(&mut asker_socket, now),
                now,
                &mut scratch,
                2,
            );
            let c = pump(
                &mut chatter,
                &mut sockets.udp(&mut chatter_socket, now),
                now,
                &mut scratch,
                2,
            );
            while let Some(event) = chatter.poll_event() {
                chatted |= matches!(event, Event::Message { text, .. } if text == "away");
            }
            let d = dial.pump(sockets, &mut caller, now).deadline;
            [a, b, c]
                .into_iter()
                .flatten()
                .fold(d, |d, pumped| earliest(d, pumped.deadline))
        });
        let done = chatted
            && matches!(greeter.outcome(), Outcome::Answered { answer: b"hi", .. })
            && matches!(
                asker.outcome(),
                Outcome::Answered {
                    answer: b"2016-02-29 12:34:56",
                    ..
                }
            )
            && matches!(
                caller.outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            );
        if done {
            return Some(());
        }
        let (a, b) = (server.device_mut(), client.device_mut());
        cable.exchange(now.monotonic, a, b);
        let arrival = earliest(a.next_arrival(), b.next_arrival());
        let next = earliest(arrival, earliest(served.deadline, asked.deadline))?;
        now.monotonic = next.max(now.monotonic);
    }
    None
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    #[link(name = "c")]
    unsafe extern "C" {
        safe fn abort() -> !;
    }
    abort()
}
