//! A listener when the system has no descriptors left. Alone in its process, which it starves on purpose.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use smoltalk::Instant;
use smoltalk::greeting::{Config, StreamServer};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::network::{Network, NetworkEvent, StreamsId, Traffic};

#[test]
fn without_descriptors_connections_wait_and_nothing_spins() {
    setrlimit(Resource::RLIMIT_NOFILE, 128, 128).unwrap();
    let clock = Clock::system();
    let mut network = Network::host().unwrap();
    let id = network
        .listen("127.0.0.1:0".parse().unwrap(), "greeting", Traffic::Short)
        .unwrap();
    let addr = network.local_addr(id);
    let mut server = StreamServer::<128>::new(Config::default());

    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.pop();
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(b"hello").unwrap();

    let before = clock.monotonic();
    let deadline = turn(&mut network, &clock, id, &mut server);
    let told = network.poll_event();
    assert!(
        matches!(&told, Some(NetworkEvent::AcceptPaused { local, .. }) if *local == addr),
        "{told:?}"
    );
    // It looks again, but not at once, and does not tell again.
    assert!(deadline >= Some(before + Duration::from_millis(100)));
    while deadline > Some(clock.monotonic()) {
        network.wait(&clock, deadline).unwrap();
    }
    let before = clock.monotonic();
    let deadline = turn(&mut network, &clock, id, &mut server);
    assert_eq!(network.poll_event(), None);
    assert!(deadline >= Some(before + Duration::from_millis(100)));

    hoard.pop();
    while server.counters().answered == 0 {
        let deadline = turn(&mut network, &clock, id, &mut server);
        if server.counters().answered == 0 {
            network.wait(&clock, deadline).unwrap();
        }
    }
    let mut answer = [0; 2];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hi");
}

fn turn(
    network: &mut Network,
    clock: &Clock,
    id: StreamsId,
    server: &mut StreamServer<128>,
) -> Option<Instant> {
    network
        .turn(clock, &mut |io, now| {
            Ok(io.streams(id, server, now)?.deadline)
        })
        .unwrap()
        .deadline
}
