//! The host's sockets under a [`Network`], with plain blocking sockets as peers.

#[path = "support/server.rs"]
mod server;

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::time::Duration;

use smoltalk::greeting::{self, StreamClient, StreamOutcome};
use smoltalk::{
    ConnId, DatagramService, Flow, Instant, Now, Outcome, Pumped, Retry, StreamService, Transmit,
    Unreachable,
};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::network::{Io, Network, Serve, Sharing, Signal, Traffic};
use socket2::SockRef;

use server::Server;

/// How long a peer waits before a test has failed. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

// --- datagrams ---

#[test]
fn datagrams_are_greeted_on_both_ip_versions() {
    for (bind, from, to) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "[::1]:0", "::1"),
        ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
    ] {
        let server = greeting_server(bind);
        let client = udp_client(
            from,
            SocketAddr::new(to.parse().unwrap(), server.addr.port()),
        );
        for greeting in [b"hello".as_slice(), b"", &[0xff; 1_400]] {
            client.send(greeting).unwrap();
            let mut answer = [0; 16];
            let len = client.recv(&mut answer).unwrap();
            assert_eq!(&answer[..len], b"hi", "{bind} {to}");
        }
    }
}

#[test]
fn datagrams_of_every_length_arrive_whole() {
    let server = Server::start(host, |network| {
        let id = network.bind_datagrams(localhost(), "measure").unwrap();
        let mut service = Measure::default();
        let addr = network.local_addr(id);
        let serve =
            move |io: &mut Io<'_>, now: Now| Ok(io.datagrams(id, &mut service, now)?.deadline);
        (addr, Box::new(serve))
    });
    let client = udp_client("127.0.0.1:0", server.addr);
    for len in [0, 1, 1_472, 1_473, 9_000, 65_506, 65_507] {
        client.send(&vec![7; len]).unwrap();
        let mut answer = [0; 16];
        let got = client.recv(&mut answer).unwrap();
        assert_eq!(std::str::from_utf8(&answer[..got]), Ok(&*len.to_string()));
    }
}

#[test]
fn a_burst_is_answered_datagram_for_datagram() {
    let server = greeting_server("127.0.0.1:0");
    let client = udp_client("127.0.0.1:0", server.addr);
    // Fewer than any system's receive buffer holds.
    for _ in 0..100 {
        client.send(b"hello").unwrap();
    }
    for _ in 0..100 {
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
    }
}

/// Sends back what it is sent, from `bind`, in one turn, and returns what was answered.
fn echo_at_once(bind: &str, ask: impl FnOnce(SocketAddr)) -> Pumped {
    let mut network = host();
    let id = network
        .bind_datagrams(bind.parse().unwrap(), "echo")
        .unwrap();
    // On the loopback it is there when `send` returns.
    ask(network.local_addr(id));
    let mut echo = Echo::default();
    let mut all = Pumped::default();
    network
        .turn(&Clock::system(), &mut |io, now| {
            all = io.datagrams(id, &mut echo, now)?;
            Ok(None)
        })
        .unwrap();
    all
}

#[test]
fn answers_that_leave_together_arrive_as_the_datagrams_that_they_are() {
    for (bind, asked, from) in [
        ("127.0.0.1:0", ["127.0.0.1"; 2], "127.0.0.1:0"),
        ("[::1]:0", ["::1"; 2], "[::1]:0"),
        // Each answer from the address that was asked, or a connected socket does not take it.
        ("0.0.0.0:0", ["127.0.0.2", "127.0.0.3"], "127.0.0.1:0"),
        ("[::]:0", ["127.0.0.2", "127.0.0.3"], "127.0.0.1:0"),
        ("[::]:0", ["::1"; 2], "[::1]:0"),
    ] {
        let mut clients = Vec::new();
        // Two flows, alternating, in runs of every kind: of one length, longer and shorter at the end, and empty.
        let runs: [(usize, &[&str]); 7] = [
            (0, &["one a", "two a", "three"]),
            (1, &["one b", "two b", "end"]),
            (0, &["longer than those before", "short"]),
            (1, &["x"]),
            (0, &["", "", "y"]),
            (1, &["z", ""]),
            (0, &["last"]),
        ];
        let pumped =
            echo_at_once(bind, |server| {
                clients.extend(asked.map(|ip| {
                    udp_client(from, SocketAddr::new(ip.parse().unwrap(), server.port()))
                }));
                for (client, payloads) in runs {
                    for payload in payloads {
                        clients[client].send(payload.as_bytes()).unwrap();
                    }
                }
            });
        assert_eq!((pumped.received, pumped.sent), (15, 15), "{bind}");
        for (index, client) in clients.iter().enumerate() {
            let expected = runs.iter().filter(|(of, _)| *of == index);
            for payload in expected.flat_map(|(_, payloads)| *payloads) {
                let mut answer = [0; 64];
                let len = client.recv(&mut answer).unwrap();
                assert_eq!(std::str::from_utf8(&answer[..len]), Ok(*payload), "{bind}");
            }
            client.set_nonblocking(true).unwrap();
            assert!(client.recv(&mut [0; 64]).is_err(), "{bind}");
        }
    }
}

#[test]
fn answers_in_a_row_to_one_client_are_merged_for_the_system() {
    let client = udp_client("127.0.0.1:0", "127.0.0.1:9".parse().unwrap());
    // It gets merged datagrams as they were sent.
    nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::UdpGroSegment, &true).unwrap();
    echo_at_once("127.0.0.1:0", |server| {
        client.connect(server).unwrap();
        for payload in ["one", "two", "3"] {
            client.send(payload.as_bytes()).unwrap();
        }
    });
    let mut answer = [0; 64];
    let len = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..len], b"onetwo3");
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        let server = greeting_server(bind);
        // A connected socket takes nothing from any other address.
        let asked = SocketAddr::new([127, 0, 0, 2].into(), server.addr.port());
        let client = udp_client("127.0.0.1:0", asked);
        client.send(b"hello").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2, "{bind}");
    }
}

#[test]
fn a_server_survives_answers_that_nobody_takes() {
    let server = greeting_server("127.0.0.1:0");
    for _ in 0..50 {
        let gone = udp_client("127.0.0.1:0", server.addr);
        gone.send(b"hello").unwrap();
    }
    let client = udp_client("127.0.0.1:0", server.addr);
    client.send(b"hello").unwrap();
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), 2);
}

#[test]
fn a_datagram_client_is_answered() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let server = UdpSocket::bind(local).unwrap();
        let addr = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut greeting = [0; 1024];
            let (len, from) = server.recv_from(&mut greeting).unwrap();
            server.send_to(b"hi", from).unwrap();
            greeting[..len].to_vec()
        });
        let outcome = exchange(addr, |outcome| match outcome {
            Outcome::Answered { answer, .. } => answer.to_vec(),
            other => panic!("{other:?}"),
        });
        assert_eq!(outcome, b"hi");
        assert_eq!(answering.join().unwrap(), b"hello");
    }
}

#[test]
fn a_datagram_client_hears_that_nobody_listens() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let nobody = UdpSocket::bind(local).unwrap().local_addr().unwrap();
        exchange(nobody, |outcome| {
            assert_eq!(outcome, Outcome::Unreachable(Unreachable::Refused));
        });
    }
}

// --- connections ---

#[test]
fn connections_are_greeted_on_both_ip_versions() {
    for (bind, to) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
    ] {
        let server = greeting_server(bind);
        let mut client = tcp_client(SocketAddr::new(to.parse().unwrap(), server.addr.port()));
        client.write_all(b"hello").unwrap();
        assert_eq!(read_to_end(&mut client), b"hi", "{bind} {to}");
    }
}

#[test]
fn one_byte_a_segment_and_a_half_closed_greeting_are_greeted() {
    let server = greeting_server("127.0.0.1:0");

    let mut slow = tcp_client(server.addr);
    slow.set_nodelay(true).unwrap();
    for byte in b"hello" {
        slow.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_to_end(&mut slow), b"hi");

    let mut silent = tcp_client(server.addr);
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut silent), b"hi");
}

#[test]
fn what_comes_long_after_the_answer_is_taken_in_and_resets_nothing() {
    let mut network = host();
    let clock = Clock::system();
    let id = network
        .listen(localhost(), "greeting", Traffic::Short)
        .unwrap();
    let mut service = Box::new(greeting::StreamServer::<200>::new(
        greeting::Config::default(),
    ));
    let addr = network.local_addr(id);
    let mut turn = |service: &mut greeting::StreamServer<200>| {
        let mut serve = |io: &mut Io<'_>, now| Ok(io.streams(id, service, now)?.deadline);
        network.turn(&clock, &mut serve).unwrap();
        // It only looks what is ready: where nothing is, the next step is the clients'.
        network.wait(&clock, Some(clock.monotonic())).unwrap();
    };
    // Answered at once, without the event queue, and more than are left alone at a time: the first of them are looked
    // at, and have not ended.
    let mut clients: Vec<_> = (0..100).map(|_| tcp_client(addr)).collect();
    for client in &mut clients {
        client.write_all(b"he").unwrap();
    }
    while service.counters().answered < 100 {
        turn(&mut service);
    }
    turn(&mut service);
    for client in &mut clients {
        assert_eq!(read_to_end(client), b"hi");
        client.write_all(b"llo").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    while service.connections() > 0 {
        turn(&mut service);
    }
    for client in &mut clients {
        assert!(client.take_error().unwrap().is_none());
    }
}

#[test]
fn resets_and_early_closes_leave_the_server_serving() {
    let server = greeting_server("127.0.0.1:0");
    for greeting in [b"".as_slice(), b"hello"] {
        let mut reset = tcp_client(server.addr);
        reset.write_all(greeting).unwrap();
        SockRef::from(&reset)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(reset);
        drop(tcp_client(server.addr));
    }
    let mut client = tcp_client(server.addr);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_to_end(&mut client), b"hi");
    // None of that is news.
    assert!(server.events.try_recv().is_err());
}

#[test]
fn who_never_reads_holds_up_nobody_and_misses_nothing() {
    const LEN: usize = 8 << 20;
    let server = stream_server(|| Source::new(LEN));
    let mut lazy = tcp_client(server.addr);
    let mut eager = tcp_client(server.addr);
    let expected: Vec<u8> = (0..LEN).map(pattern).collect();
    assert!(read_to_end(&mut eager) == expected);
    assert!(read_to_end(&mut lazy) == expected);
}

#[test]
fn what_a_service_does_not_want_yet_is_offered_again_in_order() {
    let server = stream_server(Nibbler::default);
    let mut client = tcp_client(server.addr);
    let sent: Vec<u8> = (0..100_000).map(pattern).collect();
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut client) == sent);
}

#[test]
fn an_abort_is_a_reset_on_the_wire() {
    let server = stream_server(|| Source {
        then: Flow::Abort,
        ..Source::new(0)
    });
    let mut client = tcp_client(server.addr);
    let error = client.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn thousands_of_silent_connections_do_not_keep_others_out() {
    let server = greeting_server("127.0.0.1:0");
    // Each costs two descriptors here, since both ends are in this process.
    let (limit, _) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let count = usize::try_from(limit / 2)
        .unwrap()
        .saturating_sub(200)
        .min(2_000);
    let silent: Vec<TcpStream> = (0..count).map(|_| tcp_client(server.addr)).collect();
    let mut client = tcp_client(server.addr);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_to_end(&mut client), b"hi");
    // And they are not forgotten.
    for mut silent in silent {
        silent.write_all(b"hello after all").unwrap();
        assert_eq!(read_to_end(&mut silent), b"hi");
    }
}

#[test]
fn silent_connections_are_cut_off_when_their_time_is_up() {
    let server = Server::start(host, |network| {
        let id = network
            .listen(localhost(), "greeting", Traffic::Short)
            .unwrap();
        let mut service = Box::new(greeting::StreamServer::<8>::new(greeting::Config {
            idle_timeout: Duration::from_millis(50),
            max_connections: 4,
        }));
        let addr = network.local_addr(id);
        let serve =
            move |io: &mut Io<'_>, now: Now| Ok(io.streams(id, &mut *service, now)?.deadline);
        (addr, Box::new(serve))
    });
    let mut clients: Vec<TcpStream> = (0..8).map(|_| tcp_client(server.addr)).collect();
    for client in &mut clients {
        let error = client.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_stream_client_is_answered() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let server = TcpListener::bind(local).unwrap();
        let addr = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut conn, _) = server.accept().unwrap();
            let mut greeting = [0; 1024];
            let len = conn.read(&mut greeting).unwrap();
            conn.write_all(b"hi").unwrap();
            greeting[..len].to_vec()
        });
        let (answer, error) = greet(addr);
        assert_eq!(answer.as_deref(), Ok(b"hi".as_slice()));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(answering.join().unwrap(), b"hello");
    }
}

#[test]
fn a_stream_client_hears_why_it_was_not_connected() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let nobody = TcpListener::bind(local).unwrap().local_addr().unwrap();
        let (answer, error) = greet(nobody);
        assert_eq!(answer, Err("Refused".to_owned()));
        assert_eq!(error, Some(io::ErrorKind::ConnectionRefused));
    }
    // An address of one link, and it is not said which: the system says no before anything is sent.
    let (answer, error) = greet("[fe80::1]:9".parse().unwrap());
    assert_eq!(answer, Err("Refused".to_owned()));
    assert_eq!(error, Some(io::ErrorKind::InvalidInput));
}

// --- addresses ---

#[test]
fn an_address_in_use_names_who_has_it() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_addr, tcp_addr) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    // Another process comes by both sockets, as its standard input and output.
    let mut holder = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(udp)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(tcp)))
        .spawn()
        .unwrap();
    let pid = holder.id();
    let mut network = Network::host().unwrap();
    let errors = [
        network.bind_datagrams(udp_addr, "time").unwrap_err(),
        network
            .listen(tcp_addr, "greeting", Traffic::Short)
            .unwrap_err(),
    ];
    let everywhere = SocketAddr::new([0, 0, 0, 0].into(), udp_addr.port());
    let wildcard = network.bind_datagrams(everywhere, "time").unwrap_err();
    holder.kill().unwrap();
    holder.wait().unwrap();

    for (error, what) in errors.iter().zip([
        format!("UDP {udp_addr} is in use by sleep (pid {pid}, user "),
        format!("TCP {tcp_addr} is in use by sleep (pid {pid}, user "),
    ]) {
        assert_eq!(error.exit(), Exit::InUse);
        assert!(error.to_string().starts_with(&what), "{error}");
    }
    assert_eq!(wildcard.exit(), Exit::InUse);
    assert!(
        wildcard.to_string().contains("in use by sleep"),
        "{wildcard}"
    );
}

#[test]
fn two_services_cannot_have_one_port() {
    let mut network = Network::host().unwrap();
    let time = network.bind_datagrams(localhost(), "time").unwrap();
    let listener = network
        .listen(localhost(), "greeting", Traffic::Short)
        .unwrap();
    let (time, listener) = (network.local_addr(time), network.local_addr(listener));
    let error = network.bind_datagrams(time, "greeting").unwrap_err();
    assert_eq!(error.exit(), Exit::InUse);
    assert_eq!(
        error.to_string(),
        format!("UDP {time} is in use by time (this program)")
    );
    let error = network
        .listen(listener, "other", Traffic::Short)
        .unwrap_err();
    assert_eq!(error.exit(), Exit::InUse);
    assert_eq!(
        error.to_string(),
        format!("TCP {listener} is in use by greeting (this program)")
    );
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let mut network = Network::host().unwrap();
    let elsewhere = "192.0.2.1:0".parse().unwrap();
    for error in [
        network.bind_datagrams(elsewhere, "time").unwrap_err(),
        network
            .listen(elsewhere, "greeting", Traffic::Short)
            .unwrap_err(),
    ] {
        assert_eq!(error.exit(), Exit::Failed);
        assert!(error.to_string().contains("no interface"), "{error}");
    }
}

#[test]
fn networks_that_share_addresses_share_the_clients_and_let_nobody_in() {
    let of = NonZeroUsize::new(2).unwrap();
    for bind in ["127.0.0.1:0", "[::]:0"] {
        let mut networks = [Sharing::First { of }, Sharing::Beside { of }]
            .map(|sharing| Network::host_sharing(sharing).unwrap());
        let [first, beside] = &mut networks;
        let datagrams = first.bind_datagrams(bind.parse().unwrap(), "echo").unwrap();
        let streams = first
            .listen(bind.parse().unwrap(), "source", Traffic::Short)
            .unwrap();
        let (udp, tcp) = (first.local_addr(datagrams), first.local_addr(streams));
        beside.bind_datagrams(udp, "echo").unwrap();
        beside.listen(tcp, "source", Traffic::Short).unwrap();

        for sharing in [Sharing::Alone, Sharing::First { of }] {
            let mut late = Network::host_sharing(sharing).unwrap();
            for error in [
                late.bind_datagrams(udp, "time").unwrap_err(),
                late.listen(tcp, "greeting", Traffic::Short).unwrap_err(),
            ] {
                assert_eq!(error.exit(), Exit::InUse);
                assert!(
                    error.to_string().contains("in use by this program"),
                    "{error}"
                );
            }
        }

        let reach = |addr: SocketAddr| SocketAddr::new([127, 0, 0, 1].into(), addr.port());
        let mut asked: Vec<_> = (0..64).map(|_| tcp_client(reach(tcp))).collect();
        let clients: Vec<_> = (0..64)
            .map(|_| udp_client("127.0.0.1:0", reach(udp)))
            .collect();
        for client in &clients {
            client.send(b"hello").unwrap();
        }
        for network in &mut networks {
            let (mut echo, mut source) = (Echo::default(), Source::new(1));
            let (mut answered, mut opened) = (0, 0);
            let mut more = true;
            while more {
                let turn = network.turn(&Clock::system(), &mut |io, now| {
                    answered += io.datagrams(datagrams, &mut echo, now)?.sent;
                    opened += io.streams(streams, &mut source, now)?.opened;
                    Ok(None)
                });
                more = turn.unwrap().more;
            }
            // The system spreads them by a hash that nobody knows: that one gets none is as likely as 64 heads in a row.
            assert!((1..64).contains(&answered), "{answered} of 64");
            assert!((1..64).contains(&opened), "{opened} of 64");
        }
        for client in &clients {
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
        }
        for client in &mut asked {
            assert_eq!(read_to_end(client), [0]);
        }
    }
}

// --- the loop ---

#[test]
fn a_deadline_ends_the_wait_not_early_and_a_waker_at_once() {
    let mut network = Network::host().unwrap();
    let clock = Clock::system();
    let deadline = clock.monotonic() + Duration::from_micros(2_500);
    network.wait(&clock, Some(deadline)).unwrap();
    assert!(clock.monotonic() >= deadline);

    for busy_poll in [false, true] {
        network.set_busy_poll(busy_poll);
        let waker = network.waker();
        let waking = std::thread::spawn(move || waker.wake());
        network.wait(&clock, None).unwrap();
        waking.join().unwrap();
        let deadline = clock.monotonic() + Duration::from_micros(500);
        network.wait(&clock, Some(deadline)).unwrap();
        assert!(clock.monotonic() >= deadline);
    }
}

#[test]
fn a_watched_signal_ends_the_wait_and_is_told_once() {
    let mut network = Network::host().unwrap();
    let mut signals = network.watch_signals().unwrap();
    assert_eq!(signals.poll(), None);
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
    let clock = Clock::system();
    // Another test's child may end meanwhile, and be told of too.
    let mut told = Vec::new();
    while told.is_empty() {
        network.wait(&clock, None).unwrap();
        told.extend(
            std::iter::from_fn(|| signals.poll()).filter(|signal| *signal != Signal::Child),
        );
    }
    assert_eq!(told, [Signal::Hangup]);
}

#[test]
fn an_error_of_the_caller_s_own_ends_the_turn() {
    let mut network = Network::host().unwrap();
    let error = network
        .turn(&Clock::system(), &mut |_, _| Err(Error::usage("enough")))
        .unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
}

// --- what the tests stand on ---

fn host() -> Network {
    Network::host().unwrap()
}

fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// The greeting over datagrams and streams, on one port.
fn greeting_server(bind: &'static str) -> Server {
    Server::start(host, move |network| {
        let streams = network
            .listen(bind.parse().unwrap(), "greeting", Traffic::Short)
            .unwrap();
        let addr = network.local_addr(streams);
        let datagrams = network.bind_datagrams(addr, "greeting").unwrap();
        let mut datagram_server = greeting::DatagramServer::new();
        let mut stream_server = Box::new(greeting::StreamServer::<4_096>::new(greeting::Config {
            max_connections: network.max_connections(streams).min(4_000),
            ..greeting::Config::default()
        }));
        let serve = move |io: &mut Io<'_>, now: Now| {
            io.datagrams(datagrams, &mut datagram_server, now)?;
            Ok(io.streams(streams, &mut *stream_server, now)?.deadline)
        };
        (addr, Box::new(serve) as Box<Serve<'static>>)
    })
}

fn stream_server<S: StreamService + 'static>(make: impl FnOnce() -> S + Send + 'static) -> Server {
    Server::start(host, move |network| {
        let id = network.listen(localhost(), "test", Traffic::Short).unwrap();
        let mut service = make();
        let addr = network.local_addr(id);
        let serve =
            move |io: &mut Io<'_>, now: Now| Ok(io.streams(id, &mut service, now)?.deadline);
        (addr, Box::new(serve) as Box<Serve<'static>>)
    })
}

fn udp_client(local: &str, remote: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(remote).unwrap();
    socket
}

fn tcp_client(remote: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(remote).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// One greeting over datagrams to `server`, driven to its end.
fn exchange<R>(server: SocketAddr, judge: impl FnOnce(Outcome<'_>) -> R) -> R {
    let mut network = Network::host().unwrap();
    let clock = Clock::system();
    let id = network.dial_datagrams(server).unwrap();
    let mut client =
        greeting::DatagramClient::start(clock.now(), server, b"hello", Retry::within(PATIENCE))
            .unwrap();
    while client.outcome() == Outcome::Pending {
        let turn = network
            .turn(&clock, &mut |io, now| {
                Ok(io.datagrams(id, &mut client, now)?.deadline)
            })
            .unwrap();
        if client.outcome() == Outcome::Pending {
            network.wait(&clock, turn.deadline).unwrap();
        }
    }
    judge(client.outcome())
}

/// One greeting over a connection to `server`, driven to its end: the answer or the outcome's name, and what the
/// system says.
fn greet(server: SocketAddr) -> (Result<Vec<u8>, String>, Option<io::ErrorKind>) {
    let mut network = Network::host().unwrap();
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

/// Answers each datagram with its length.
#[derive(Default)]
struct Measure {
    answer: Option<(SocketAddr, usize)>,
}

impl DatagramService for Measure {
    const MAX_DATAGRAM: usize = 16;
    type Reject = Infallible;

    fn handle_datagram(
        &mut self,
        _: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Infallible> {
        self.answer = Some((from, payload.len()));
        Ok(())
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        let (to, len) = self.answer.take()?;
        let text = len.to_string();
        buf[..text.len()].copy_from_slice(text.as_bytes());
        Some(Transmit {
            to,
            len: text.len(),
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Sends back what it is sent.
#[derive(Default)]
struct Echo {
    answer: Option<(SocketAddr, Vec<u8>)>,
}

impl DatagramService for Echo {
    const MAX_DATAGRAM: usize = 1_472;
    type Reject = Infallible;

    fn handle_datagram(
        &mut self,
        _: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Infallible> {
        self.answer = Some((from, payload.to_vec()));
        Ok(())
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        let (to, payload) = self.answer.take()?;
        buf[..payload.len()].copy_from_slice(&payload);
        Some(Transmit {
            to,
            len: payload.len(),
        })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

fn pattern(index: usize) -> u8 {
    (index % 251) as u8
}

/// Writes so many bytes to everyone who connects, then ends as told.
struct Source {
    len: usize,
    then: Flow,
    written: Vec<usize>,
}

impl Source {
    fn new(len: usize) -> Self {
        Self {
            len,
            then: Flow::Finish,
            written: Vec::new(),
        }
    }
}

impl StreamService for Source {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, id: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        self.written
            .resize(self.written.len().max(id.index() + 1), 0);
        self.written[id.index()] = 0;
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        data.len()
    }

    fn handle_end(&mut self, _: Now, _: ConnId) {}

    fn handle_close(&mut self, _: Now, _: ConnId) {}

    fn poll_write(&mut self, _: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let written = &mut self.written[id.index()];
        let len = buf.len().min(self.len - *written);
        for (offset, byte) in buf[..len].iter_mut().enumerate() {
            *byte = pattern(*written + offset);
        }
        *written += len;
        let flow = if *written == self.len {
            self.then
        } else {
            Flow::Open
        };
        (len, flow)
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        None
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Sends back what it is sent, seven bytes at a time, and takes in no more before those are gone.
#[derive(Default)]
struct Nibbler {
    bytes: Vec<u8>,
    ended: bool,
}

impl StreamService for Nibbler {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, _: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        let len = data.len().min(7 - self.bytes.len());
        self.bytes.extend_from_slice(&data[..len]);
        len
    }

    fn handle_end(&mut self, _: Now, _: ConnId) {
        self.ended = true;
    }

    fn handle_close(&mut self, _: Now, _: ConnId) {}

    fn poll_write(&mut self, _: Now, _: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let len = buf.len().min(self.bytes.len());
        buf[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes.drain(..len);
        if self.ended && self.bytes.is_empty() {
            (len, Flow::Finish)
        } else {
            (len, Flow::Open)
        }
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        None
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
