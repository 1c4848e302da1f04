//! smoltcp on a TAP device under a [`Network`], in a network namespace that each test makes for itself, with the
//! kernel's sockets as peers.

#[path = "support/server.rs"]
mod server;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use smoltalk::greeting::{self, StreamClient, StreamOutcome};
use smoltalk::{Now, Outcome, Retry};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::Exit;
use smoltalk_hosted::lab::{KERNEL, Links};
use smoltalk_hosted::network::{Io, Network, NetworkEvent, Serve, TapOptions};
use smoltalk_hosted::tap::TapDevice;
use smoltalk_hosted::tap::sys::{keep_tap, open_tap};

use server::Server;

/// How long a peer waits before a test has failed. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "smol0";

#[test]
fn both_services_answer_on_both_ip_versions() {
    in_a_network(|| {
        let server = greeting_server();
        for (local, remote) in [
            ("192.168.69.100:0", "192.168.69.1"),
            ("[fdaa::100]:0", "fdaa::1"),
        ] {
            let remote = SocketAddr::new(remote.parse().unwrap(), server.addr.port());
            let client = udp_client(local, remote);
            for greeting in [b"hello".as_slice(), b"", &[0xff; 1_400]] {
                client.send(greeting).unwrap();
                assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
            }
            let mut client = TcpStream::connect(remote).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(b"hello").unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"hi");
        }
    });
}

#[test]
fn clients_are_answered_and_refused() {
    in_a_network(|| {
        let listener = TcpListener::bind("192.168.69.100:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut greeting = [0; 5];
            conn.read_exact(&mut greeting).unwrap();
            conn.write_all(b"hi").unwrap();
            greeting
        });
        let (answer, error) = greet(addr);
        assert_eq!(answer.as_deref(), Ok(b"hi".as_slice()));
        assert_eq!(error, None);
        assert_eq!(&answering.join().unwrap(), b"hello");

        // The listener is gone.
        let (answer, error) = greet(addr);
        assert_eq!(answer, Err("Refused".to_owned()));
        assert_eq!(error, Some(io::ErrorKind::ConnectionRefused));

        // There is no gateway.
        let (answer, error) = greet("192.0.2.1:8898".parse().unwrap());
        assert_eq!(answer, Err("Refused".to_owned()));
        assert_eq!(error, Some(io::ErrorKind::NetworkUnreachable));
    });
}

#[test]
fn a_link_that_goes_down_and_up_again_is_survived_and_told() {
    in_a_network(|| {
        let kernel = UdpSocket::bind("192.168.69.100:0").unwrap();
        let addr = kernel.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (_, from) = kernel.recv_from(&mut [0; 64]).unwrap();
            kernel.send_to(b"hi", from).unwrap();
        });
        let clock = Clock::system();
        let mut network = Network::tap(&TapOptions::new(NAME)).unwrap();
        let id = network.dial_datagrams(addr).unwrap();
        let mut client =
            greeting::DatagramClient::start(clock.now(), addr, b"hello", Retry::within(PATIENCE))
                .unwrap();

        let mut links = Links::open().unwrap();
        links.down(NAME).unwrap();
        let mut told = Vec::new();
        let mut turns = 0;
        while client.outcome() == Outcome::Pending {
            let turn = network
                .turn(&clock, &mut |io, now| {
                    Ok(io.datagrams(id, &mut client, now)?.deadline)
                })
                .unwrap();
            turns += 1;
            while let Some(event) = network.poll_event() {
                if told.is_empty() {
                    links.up(NAME).unwrap();
                }
                told.push(event);
            }
            if client.outcome() == Outcome::Pending {
                network.wait(&clock, turn.deadline).unwrap();
            }
        }
        assert!(matches!(client.outcome(), Outcome::Answered { .. }));
        answering.join().unwrap();
        let name = NAME.to_owned();
        assert_eq!(
            told,
            [
                NetworkEvent::LinkDown { name: name.clone() },
                NetworkEvent::LinkUp { name }
            ]
        );
        // It waited for what was to come, and did not ask all the time.
        assert!(turns < 200, "{turns} turns");
    });
}

#[test]
fn a_device_that_is_deleted_and_made_again_is_survived_and_told() {
    in_a_network(|| {
        let server = greeting_server();
        let client = udp_client("192.168.69.100:0", server.addr);
        client.send(b"hello").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
        drop(client);

        Links::open().unwrap().delete(NAME).unwrap();
        let (event, lost_at) = server.events.recv_timeout(PATIENCE).unwrap();
        let name = NAME.to_owned();
        assert_eq!(event, NetworkEvent::DeviceLost { name: name.clone() });

        make_tap();
        let back_at = loop {
            let (event, turns) = server.events.recv_timeout(PATIENCE).unwrap();
            if event == (NetworkEvent::DeviceBack { name: name.clone() }) {
                break turns;
            }
        };
        // It looked once a second, and did not ask all the time.
        assert!(back_at - lost_at < 20, "{} turns", back_at - lost_at);

        let client = udp_client("192.168.69.100:0", server.addr);
        client.send(b"hello").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
    });
}

#[test]
fn a_device_in_use_names_who_has_it() {
    in_a_network(|| {
        let first = TapDevice::attach(NAME).unwrap();
        let error = TapDevice::attach(NAME).unwrap_err();
        assert_eq!(error.exit(), Exit::InUse);
        assert_eq!(
            error.to_string(),
            format!("TAP device {NAME} is in use by this program")
        );
        drop(first);
        TapDevice::attach(NAME).unwrap();
    });
}

#[test]
fn what_is_no_tap_device_is_refused() {
    in_a_network(|| {
        let error = TapDevice::attach("lo").unwrap_err();
        assert_eq!(error.exit(), Exit::NotPermitted);
        assert!(error.to_string().contains("not a TAP device"), "{error}");
        let error = TapDevice::attach("smol1").unwrap_err();
        assert_eq!(error.exit(), Exit::NotPermitted);
        // Looking for it did not make it, though we may make devices here.
        assert!(nix::net::if_::if_nametoindex("smol1").is_err());
    });
}

#[test]
fn two_services_cannot_have_one_port() {
    in_a_network(|| {
        let mut network = Network::tap(&TapOptions::new(NAME)).unwrap();
        let local = "192.168.69.1:9000".parse().unwrap();
        network.bind_datagrams(local, "time").unwrap();
        network.listen(local, "greeting").unwrap();
        for error in [
            network.bind_datagrams(local, "greeting").unwrap_err(),
            network
                .bind_datagrams("0.0.0.0:9000".parse().unwrap(), "greeting")
                .unwrap_err(),
        ] {
            assert_eq!(error.exit(), Exit::InUse);
            assert!(
                error
                    .to_string()
                    .ends_with("is in use by time (this program)"),
                "{error}"
            );
        }
        let error = network.listen(local, "other").unwrap_err();
        assert_eq!(error.exit(), Exit::InUse);
        assert_eq!(
            error.to_string(),
            "TCP 192.168.69.1:9000 is in use by greeting (this program)"
        );
        let error = network
            .bind_datagrams("192.168.69.7:9000".parse().unwrap(), "time")
            .unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
    });
}

#[test]
fn more_connections_than_the_pool_has_are_served_one_after_another() {
    in_a_network(|| {
        let server = greeting_server();
        let addr = SocketAddr::new([192, 168, 69, 1].into(), server.addr.port());
        let mut clients: Vec<TcpStream> = (0..300)
            .map(|_| TcpStream::connect(addr).unwrap())
            .collect();
        // Those who came last have a place; the first had to give theirs up.
        let mut last = clients.pop().unwrap();
        last.set_read_timeout(Some(PATIENCE)).unwrap();
        last.write_all(b"hello").unwrap();
        let mut answer = Vec::new();
        last.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"hi");
        let first = &mut clients[0];
        first.set_read_timeout(Some(PATIENCE)).unwrap();
        let error = first.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

// --- what the tests stand on ---

/// Runs `test` in a network namespace with the kernel's side of a TAP device ready. Where the system does not permit
/// that, it says so on standard error, past the test harness.
fn in_a_network(test: impl FnOnce() + Send + 'static) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    // A namespace of this thread and of those that it starts.
    let thread = std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            make_tap();
            test();
        }
        Err(errno) => {
            let text = format!("NOT TESTED: {name}: to make a network namespace: {errno}\n");
            io::stderr().write_all(text.as_bytes()).unwrap();
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn make_tap() {
    let tap = open_tap(NAME, true).unwrap();
    keep_tap(&tap).unwrap();
    drop(tap);
    let mut links = Links::open().unwrap();
    links.up("lo").unwrap();
    links.up(NAME).unwrap();
    for (ip, prefix) in KERNEL {
        links.add_address(NAME, ip, prefix).unwrap();
    }
}

/// The greeting over datagrams and streams, on one port of every address.
fn greeting_server() -> Server {
    Server::start(
        || Network::tap(&TapOptions::new(NAME)).unwrap(),
        |network| {
            let any = "[::]:8898".parse().unwrap();
            let streams = network.listen(any, "greeting").unwrap();
            let datagrams = network.bind_datagrams(any, "greeting").unwrap();
            let mut datagram_server = greeting::DatagramServer::new();
            let mut stream_server =
                Box::new(greeting::StreamServer::<256>::new(greeting::Config {
                    max_connections: network.max_connections(streams),
                    ..greeting::Config::default()
                }));
            let serve = move |io: &mut Io<'_>, now: Now| {
                io.datagrams(datagrams, &mut datagram_server, now)?;
                Ok(io.streams(streams, &mut *stream_server, now)?.deadline)
            };
            let addr = "192.168.69.1:8898".parse().unwrap();
            (addr, Box::new(serve) as Box<Serve<'static>>)
        },
    )
}

fn udp_client(local: &str, remote: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(remote).unwrap();
    socket
}

/// One greeting over a connection to `server`, driven to its end: the answer or the outcome's name, and what the
/// stack says.
fn greet(server: SocketAddr) -> (Result<Vec<u8>, String>, Option<io::ErrorKind>) {
    let mut network = Network::tap(&TapOptions::new(NAME)).unwrap();
    let clock = Clock::system();
    let id = network.dial_stream(server).unwrap();
    let mut client = StreamClient::<64, 64>::start(clock.now(), b"hello", PATIENCE).unwrap();
    while client.outcome() == StreamOutcome::Pending {
        let turn = network
            .turn(&clock, &mut |io, now| {
                Ok(io.streams(id, &mut client, now)?.deadline)
            })
            .unwrap();
        if client.outcome() == StreamOutcome::Pending {
            network.wait(&clock, turn.deadline).unwrap();
        }
    }
    let answer = match client.outcome() {
        StreamOutcome::Answered { answer, .. } => Ok(answer.to_vec()),
        other => Err(format!("{other:?}")),
    };
    (answer, network.last_error(id).map(io::Error::kind))
}
