//! smoltcp on a TAP device under a [`Network`], in a network namespace that each test makes for itself, with the
//! kernel's sockets as peers.

#[path = "support/server.rs"]
mod server;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smoltalk::greeting::{self, StreamClient, StreamOutcome};
use smoltalk::{Now, Outcome, Retry, time};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::Exit;
use smoltalk_hosted::lab::{KERNEL, Links};
use smoltalk_hosted::network::{Io, Network, NetworkEvent, Serve, TapOptions, Traffic};
use smoltalk_hosted::tap::TapDevice;
use smoltalk_hosted::tap::sys::{keep_tap, open_queues, open_tap};

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
        // Each request, since the kernel throws away what it sends to a link that has just come up. It ends with the
        // test's process.
        std::thread::spawn(move || {
            while let Ok((_, from)) = kernel.recv_from(&mut [0; 64]) {
                let _ = kernel.send_to(b"hi", from);
            }
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
        let outcome = client.outcome();
        assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
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
        let options = TapOptions {
            listeners: 2,
            ..TapOptions::new(NAME)
        };
        let mut network = Network::tap(&options).unwrap();
        let local = "192.168.69.1:9000".parse().unwrap();
        network.bind_datagrams(local, "time").unwrap();
        network.listen(local, "greeting", Traffic::Short).unwrap();
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
        let error = network.listen(local, "other", Traffic::Short).unwrap_err();
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
        // Of the two pools it is the smaller one, so that a few clients are enough.
        let server = greeting_server_on(None, Traffic::Bulk);
        let addr = SocketAddr::new([192, 168, 69, 1].into(), server.addr.port());
        let mut clients: Vec<TcpStream> = (0..100)
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

#[test]
fn datagrams_put_together_arrive_one_by_one() {
    in_a_network(|| {
        let (mut network, clock, mut serve) = time_server();
        for (local, remote) in [
            ("192.168.69.100:0", "192.168.69.1:9000"),
            ("[fdaa::100]:0", "[fdaa::1]:9000"),
        ] {
            let remote = remote.parse().unwrap();
            let clients = [udp_client(local, remote), udp_client(local, remote)];
            for client in &clients {
                meet(client, &mut network, &clock, &mut *serve);
            }
            let before = packets_received();
            // An unknown directive comes back as it was written, so each answer is its request: some of one
            // length, some longer and some shorter.
            let texts: Vec<String> = (0..60)
                .map(|at| {
                    format!(
                        "{at:02}{}",
                        "x".repeat(if at < 30 { 5 } else { at * 7 % 40 })
                    )
                })
                .collect();
            for text in &texts {
                for client in &clients {
                    client.send(text.as_bytes()).unwrap();
                }
            }
            // All are there when this looks, so all answers are made in one turn or few.
            while network.turn(&clock, &mut *serve).unwrap().more {}
            let frames = packets_received() - before;
            assert!(frames < 100, "{frames} frames for 120 datagrams");
            for client in &clients {
                for text in &texts {
                    let mut answer = [0; 128];
                    let len = client.recv(&mut answer).unwrap();
                    assert_eq!(std::str::from_utf8(&answer[..len]), Ok(text.as_str()));
                }
            }
        }
    });
}

#[test]
fn a_wrong_checksum_from_a_wire_is_not_answered() {
    in_a_network(|| {
        let (mut network, clock, mut serve) = time_server();
        for (local, remote) in [
            ("192.168.69.100:0", "192.168.69.1:9000"),
            ("[fdaa::100]:0", "[fdaa::1]:9000"),
        ] {
            let remote: SocketAddr = remote.parse().unwrap();
            let client = udp_client(local, remote);
            meet(&client, &mut network, &clock, &mut *serve);

            // The kernel sends what it is given, and vouches for nothing.
            let local = client.local_addr().unwrap();
            let raw = socket2::Socket::new(
                socket2::Domain::for_address(local),
                socket2::Type::RAW,
                Some(socket2::Protocol::UDP),
            )
            .unwrap();
            raw.bind(&SocketAddr::new(local.ip(), 0).into()).unwrap();
            let to = SocketAddr::new(remote.ip(), 0).into();
            for text in [b"wrong", b"right"] {
                let mut datagram = datagram(local, remote, text);
                if text == b"wrong" {
                    datagram[9] ^= 1;
                }
                raw.send_to(&datagram, &to).unwrap();
                network.turn(&clock, &mut *serve).unwrap();
            }
            let mut answer = [0; 16];
            let len = client.recv(&mut answer).unwrap();
            assert_eq!(&answer[..len], b"right");
        }
    });
}

#[test]
fn long_segments_arrive_whole_both_ways() {
    const LEN: usize = 60_000;
    in_a_network(|| {
        let said: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
        let back: Vec<u8> = (0..LEN).map(|at| (at % 241) as u8).collect();
        for ip in ["192.168.69.100", "fdaa::100"] {
            let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            let (said, back) = (said.clone(), back.clone());
            let answering = {
                let (said, back) = (said.clone(), back.clone());
                std::thread::spawn(move || {
                    let (mut conn, _) = listener.accept().unwrap();
                    conn.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut heard = vec![0; LEN];
                    conn.read_exact(&mut heard).unwrap();
                    assert!(heard == said, "not what was said");
                    conn.write_all(&back).unwrap();
                })
            };
            let mut network = Network::tap(&TapOptions::new(NAME)).unwrap();
            let clock = Clock::system();
            let id = network.dial_stream(addr).unwrap();
            let mut client =
                Box::new(StreamClient::<LEN, LEN>::start(clock.now(), &said, PATIENCE).unwrap());
            while client.outcome() == StreamOutcome::Pending {
                let turn = network
                    .turn(&clock, &mut |io, now| {
                        Ok(io.streams(id, &mut *client, now)?.deadline)
                    })
                    .unwrap();
                if client.outcome() == StreamOutcome::Pending {
                    network.wait(&clock, turn.deadline).unwrap();
                }
            }
            match client.outcome() {
                StreamOutcome::Answered { answer, .. } => {
                    assert!(answer == back, "not what was sent back");
                }
                other => panic!("{other:?}"),
            }
            answering.join().unwrap();
        }
    });
}

#[test]
fn a_device_is_left_as_others_expect_it() {
    in_a_network(|| {
        drop(greeting_server());
        // Frames come without a header and with their checksums.
        let mut tap = std::fs::File::from(open_tap(NAME, false).unwrap());
        let client = UdpSocket::bind("192.168.69.100:0").unwrap();
        client.send_to(b"hello", "192.168.69.255:9000").unwrap_err();
        client.set_broadcast(true).unwrap();
        client.send_to(b"hello", "192.168.69.255:9000").unwrap();
        let mut frame = [0; 2_048];
        let udp = loop {
            let len = tap.read(&mut frame).unwrap();
            if frame[12..14] == [0x08, 0x00] && frame[23] == 17 {
                break smoltcp::wire::UdpPacket::new_checked(&frame[34..len]).unwrap();
            }
        };
        let source = smoltcp::wire::Ipv4Address::new(192, 168, 69, 100);
        let destination = smoltcp::wire::Ipv4Address::new(192, 168, 69, 255);
        assert_eq!(udp.payload(), b"hello");
        assert!(udp.verify_checksum(&source.into(), &destination.into()));
    });
}

#[test]
fn each_queue_has_a_stack_of_its_own() {
    const QUEUES: usize = 2;
    in_a_network(|| {
        let error = TapDevice::attach_queues(NAME, QUEUES).unwrap_err();
        assert_eq!(error.exit(), Exit::NotPermitted);
        assert!(error.to_string().contains("one queue, not 2"), "{error}");

        Links::open().unwrap().delete(NAME).unwrap();
        let queues = open_queues(NAME, true, QUEUES).unwrap();
        keep_tap(&queues[0]).unwrap();
        drop(queues);
        configure_tap();
        let servers: Vec<Server> = TapDevice::attach_queues(NAME, QUEUES)
            .unwrap()
            .into_iter()
            .map(|queue| greeting_server_on(Some(queue), Traffic::Short))
            .collect();
        // Enough flows for both queues to have some, and each is served, from first to last.
        for ip in ["192.168.69.1", "fdaa::1"] {
            let addr = SocketAddr::new(ip.parse().unwrap(), servers[0].addr.port());
            for _ in 0..32 {
                let mut client = TcpStream::connect(addr).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.write_all(b"hello").unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, b"hi");
                let local = if addr.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let client = udp_client(local, addr);
                client.send(b"hello").unwrap();
                assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
            }
        }
        drop(servers);
        // One queue of such a device will do.
        drop(greeting_server());
    });
}

#[test]
fn each_worker_has_a_queue_and_they_count_together() {
    in_a_network(|| {
        let serve = |more: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_smoltalk"))
                .args(["serve", "--tap", NAME, "--workers", "2", "--time", "off"])
                .args(more)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        for (more, code, said) in [
            (&[][..], 2, "add `--chat off`"),
            (&["--chat", "off"], 4, "has one queue, not 2"),
        ] {
            let output = serve(more).wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{stderr}");
            assert!(stderr.contains(said), "{stderr}");
        }

        Links::open().unwrap().delete(NAME).unwrap();
        keep_tap(&open_queues(NAME, true, 2).unwrap()[0]).unwrap();
        configure_tap();
        let mut server = serve(&["--chat", "off"]);
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.contains("8898"), "{line}");
        }
        let addr = "192.168.69.1:8898".parse().unwrap();
        for _ in 0..32 {
            let mut client = TcpStream::connect(addr).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(b"hello").unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"hi");
            let client = udp_client("0.0.0.0:0", addr);
            client.send(b"hello").unwrap();
            assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
        }
        let pid = Pid::from_raw(i32::try_from(server.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let counted: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(server.wait().unwrap().success(), "{counted:?}");
        let answered = counted.iter().filter(|line| line.contains("32"));
        assert_eq!(answered.count(), 2, "{counted:?}");
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
    configure_tap();
}

fn configure_tap() {
    let mut links = Links::open().unwrap();
    links.up("lo").unwrap();
    links.up(NAME).unwrap();
    for (ip, prefix) in KERNEL {
        links.add_address(NAME, ip, prefix).unwrap();
    }
}

/// How many packets the kernel has received from the device, one put together of many being one.
fn packets_received() -> u64 {
    let all = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let mut lines = all.lines().map(str::trim);
    let ours = lines.find_map(|line| line.strip_prefix(NAME)?.strip_prefix(':'));
    let mut fields = ours.unwrap().split_whitespace();
    fields.nth(1).unwrap().parse().unwrap()
}

/// A UDP header and `text`, the checksum right.
fn datagram(from: SocketAddr, to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; 8 + text.len()];
    let repr = smoltcp::wire::UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    repr.emit(
        &mut smoltcp::wire::UdpPacket::new_unchecked(&mut datagram),
        &from.ip().into(),
        &to.ip().into(),
        text.len(),
        |payload| payload.copy_from_slice(text),
        &Default::default(),
    );
    datagram
}

/// The time over datagrams, at port 9000 of every address, to be served turn by turn.
fn time_server() -> (Network, Clock, Box<Serve<'static>>) {
    let mut network = Network::tap(&TapOptions::new(NAME)).unwrap();
    let id = network
        .bind_datagrams("[::]:9000".parse().unwrap(), "time")
        .unwrap();
    let mut server = time::Server::new();
    let serve = move |io: &mut Io<'_>, now: Now| Ok(io.datagrams(id, &mut server, now)?.deadline);
    (network, Clock::fixed(0), Box::new(serve))
}

/// Has `client` and the server know of each other: a device that was just attached to takes a moment until it
/// carries frames, and the kernel must ask where the server is.
fn meet(client: &UdpSocket, network: &mut Network, clock: &Clock, serve: &mut Serve<'_>) {
    client.send(b"hello").unwrap();
    client.set_nonblocking(true).unwrap();
    while client.recv(&mut [0; 16]).is_err() {
        let deadline = clock.monotonic() + smoltalk::Duration::from_millis(10);
        network.wait(clock, Some(deadline)).unwrap();
        network.turn(clock, serve).unwrap();
    }
    client.set_nonblocking(false).unwrap();
}

/// The greeting over datagrams and streams, on one port of every address.
fn greeting_server() -> Server {
    greeting_server_on(None, Traffic::Short)
}

/// The same, on a queue of a device that was attached to already.
fn greeting_server_on(queue: Option<TapDevice>, traffic: Traffic) -> Server {
    Server::start(
        || match queue {
            Some(queue) => Network::on_tap_device(queue, &TapOptions::new(NAME)).unwrap(),
            None => Network::tap(&TapOptions::new(NAME)).unwrap(),
        },
        move |network| {
            let any = "[::]:8898".parse().unwrap();
            let streams = network.listen(any, "greeting", traffic).unwrap();
            let datagrams = network.bind_datagrams(any, "greeting").unwrap();
            let mut datagram_server = greeting::DatagramServer::new();
            let mut stream_server =
                Box::new(greeting::StreamServer::<1_024>::new(greeting::Config {
                    max_connections: network.max_connections(streams).min(1_024),
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
