//! The program as people and scripts meet it: what it prints, where, and how it ends.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use smoltalk_hosted::clock::Clock;
use support::{Ended, Running, in_lab, run, run_with_input, smoltalk, told};

/// 2024-02-29 12:00:00 UTC.
const LEAP_DAY: &str = "2024-02-29T12:00:00Z";

/// Every service at a port that is free.
const ANYWHERE: [&str; 9] = [
    "serve",
    "--greeting-tcp",
    "0",
    "--greeting-udp",
    "0",
    "--time",
    "0",
    "--chat",
    "0",
];

/// `smoltalk serve MORE`, each service at a port that is free, in UTC, once it is ready.
fn serve(more: &[&str]) -> Running {
    let mut command = smoltalk();
    let mut server = Running::start(command.args(ANYWHERE).args(more).env("TZ", "UTC0"));
    server.until_ready();
    server
}

/// Runs `smoltalk ARGUMENTS` to its end.
fn run_with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Ended {
    run_with_input(smoltalk().args(arguments), "")
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

/// A UDP server that answers once, with `answer`, and returns what it was asked.
fn answer_once(answer: &'static [u8]) -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
    let socket = udp();
    let address = socket.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut buf = [0; 2048];
        let (len, client) = socket.recv_from(&mut buf).unwrap();
        socket.send_to(answer, client).unwrap();
        buf[..len].to_vec()
    });
    (address, server)
}

/// A UDP and a TCP address that refuse, as long as the sockets live: nobody else can have the ports, and neither
/// takes anything, the one being another's and the other not listening.
fn nobody() -> (UdpSocket, socket2::Socket) {
    let refusing = udp();
    refusing.connect("127.0.0.1:9").unwrap();
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bound.bind(&any.into()).unwrap();
    (refusing, bound)
}

/// What is asked of a server.
fn ask(command: &str, address: SocketAddr, more: &[&str]) -> Ended {
    let address = address.to_string();
    run_with([command, &*address].into_iter().chain(more.iter().copied()))
}

#[test]
fn the_help_teaches() {
    for (arguments, words) in [
        (
            &["--help"][..],
            &[
                "serve",
                "greet",
                "time",
                "chat",
                "lab",
                "demo",
                "Exit codes: 0",
                "config.toml",
            ][..],
        ),
        (
            &["serve", "--help"],
            &[
                "--greeting-tcp",
                "SMOLTALK_GREETING_TCP",
                "[default: 8898 at each --bind]",
                "--idle-timeout",
                "in seconds [default: 10]",
                "--tap",
                "SMOLTALK_TAP",
            ],
        ),
        (
            &["greet", "--help"],
            &["--udp", "[default port: 8898]", "SMOLTALK_TIMEOUT"],
        ),
        (&["time", "--help"], &["strftime", "[default port: 9000]"]),
        (
            &["chat", "--help"],
            &["--contact", "NAME=ADDR", "SMOLTALK_LISTEN", "`q`"],
        ),
        (&["lab", "--help"], &["COMMAND", "192.168.69.1"]),
        (&["demo", "--help"], &["no privileges"]),
    ] {
        let help = run_with(arguments.iter().copied());
        assert_eq!(
            (help.status.code(), &*help.stderr),
            (Some(0), ""),
            "{arguments:?}"
        );
        // As it would be read, wherever lines are broken.
        let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(
                text.contains(word),
                "{arguments:?}: {word}: {}",
                help.stdout
            );
        }
        assert!(!text.contains("--inside") && !text.contains("lab-init"));
    }
    let version = run_with(["--version"]);
    assert_eq!(
        version.stdout,
        format!("smoltalk {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_is_told_with_exit_code_2() {
    let long = "x".repeat(1025);
    for (arguments, said) in [
        (&["--bogus"][..], "smoltalk: unexpected argument '--bogus'"),
        (
            &["greet"],
            "smoltalk: the following required arguments were not provided",
        ),
        (
            &["greet", "a b"],
            "smoltalk: invalid value 'a b' for '<ADDR>': `a b` is not a HOST or HOST:PORT",
        ),
        (
            &["greet", "127.0.0.1", "--timeout", "soon"],
            "smoltalk: invalid value 'soon' for '--timeout <SECONDS>'",
        ),
        (
            &["greet", "127.0.0.1", ""],
            "smoltalk: an empty greeting over TCP is none",
        ),
        (
            &["greet", "127.0.0.1", &long],
            "smoltalk: the request has 1025 bytes, and the greeting takes at most 1024",
        ),
        (
            &["time", "127.0.0.1", &long[..257]],
            "smoltalk: the request has 257 bytes, and the time takes at most 256",
        ),
        (
            &["time", "127.0.0.1", "--ip", "10.0.0.1/8"],
            "smoltalk: --ip means nothing without a TAP device; give the device",
        ),
        (
            &["serve", "--time", "noon"],
            "smoltalk: invalid value 'noon' for '--time <ADDR|PORT|off>'",
        ),
        (
            &["serve", "--at", "2023-02-29T00:00:00Z"],
            "smoltalk: invalid value '2023-02-29T00:00:00Z' for '--at <WHEN>'",
        ),
        (
            &[
                "serve",
                "--greeting-tcp",
                "off",
                "--greeting-udp",
                "off",
                "--time",
                "off",
                "--chat",
                "off",
            ],
            "smoltalk: every service is off",
        ),
        (
            &["chat", "--listen", "off"],
            "smoltalk: a chat must listen somewhere",
        ),
        (
            &["chat", "--contact", "egg"],
            "smoltalk: invalid value 'egg' for '--contact <NAME=ADDR>'",
        ),
        (
            &["chat", "--contact", "e\x1b[2Jgg=127.0.0.1"],
            "smoltalk: contact `e\\u{1b}[2Jgg=127.0.0.1`: the name has characters",
        ),
    ] {
        let ended = run_with(arguments.iter().copied());
        assert_eq!(ended.expect(2, said).stdout, "", "{arguments:?}");
    }
    let without_arguments = run_with([]);
    assert!(
        without_arguments
            .expect(2, "Three small services")
            .stdout
            .is_empty()
    );
}

#[test]
fn a_server_says_where_it_listens_and_that_it_is_ready() {
    let mut server = Running::start(smoltalk().args(ANYWHERE).args(["--chat", "off"]));
    for expected in [
        "listening greeting tcp 127.0.0.1:",
        "listening greeting udp 127.0.0.1:",
        "listening time udp 127.0.0.1:",
    ] {
        let line = server.line().unwrap();
        let port = line
            .strip_prefix(expected)
            .and_then(|port| port.parse().ok());
        assert!(port.is_some_and(|port: u16| port != 0), "{line}");
    }
    assert_eq!(server.line().as_deref(), Some("ready"));
    let mut server = Running::start(smoltalk().args(ANYWHERE).args([
        "--bind",
        "::1",
        "--bind",
        "127.0.0.1",
        "--bind",
        "127.0.0.2",
    ]));
    server.until_ready();
    assert!(server.address("time", "udp", false).ip().is_loopback());
}

#[test]
fn the_services_answer() {
    let server = serve(&["--at", LEAP_DAY]);
    let greeting = server.address("greeting", "tcp", true);
    for ended in [
        ask("greet", greeting, &[]),
        ask("greet", greeting, &["\u{4f60}\u{597d}"]),
        ask("greet", server.address("greeting", "udp", true), &["--udp"]),
        ask(
            "greet",
            server.address("greeting", "udp", true),
            &["--udp", ""],
        ),
    ] {
        assert_eq!(
            (ended.expect(0, "").stdout.as_str(), &*ended.stderr),
            ("hi\n", "")
        );
    }
    let time = server.address("time", "udp", true);
    for (format, answer) in [
        (&[][..], "2024-02-29 12:00:00\n"),
        (&["%d.%m.%y"], "29.02.24\n"),
        (&["%Y%n%Y"], "2024\\n2024\n"),
    ] {
        assert_eq!(ask("time", time, format).expect(0, "").stdout, answer);
    }
    // A name of a host: it may have addresses where nobody is.
    let by_name = format!("localhost:{}", greeting.port());
    assert_eq!(run_with(["greet", &by_name]).expect(0, "").stdout, "hi\n");
}

#[test]
fn at_the_end_the_counters_are_told() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let server = serve(&[]);
        let greeting = server.address("greeting", "tcp", true);
        let time = server.address("time", "udp", true);
        ask("greet", greeting, &[]).expect(0, "");
        ask("time", time, &[]).expect(0, "");
        server.signal(signal);
        let ended = server.wait();
        assert_eq!(ended.expect(0, "").stderr, "");
        assert!(
            ended.stdout.contains(&format!(
                "counters greeting tcp {greeting} opened=1 answered=1 too_long=0"
            )) && ended.stdout.contains(&format!(
                "counters time udp {time} received=1 answered=1 rejected=0"
            )) && ended.stdout.lines().count() == 4,
            "{}",
            ended.stdout
        );
    }
}

/// Sends 100,000 bytes to discard, until their end is answered by its own, and reads as many of chargen.
fn measure(discard: SocketAddr, chargen: SocketAddr) {
    let mut sink = TcpStream::connect(discard).unwrap();
    sink.write_all(&[7; 100_000]).unwrap();
    sink.shutdown(Shutdown::Write).unwrap();
    assert_eq!(sink.read(&mut [0; 8]).unwrap(), 0);
    let mut source = TcpStream::connect(chargen).unwrap();
    let (mut sent, mut expected) = (vec![0; 100_000], vec![0; 100_000]);
    source.read_exact(&mut sent).unwrap();
    smoltalk::chargen::fill(0, &mut expected);
    assert!(sent == expected);
}

#[test]
fn bulk_data_goes_both_ways_where_it_is_asked_for() {
    let server = serve(&["--discard", "0", "--chargen", "0"]);
    let discard = server.address("discard", "tcp", true);
    measure(discard, server.address("chargen", "tcp", true));
    server.signal(Signal::SIGTERM);
    let ended = server.wait();
    let told = format!("counters discard tcp {discard} opened=1 bytes=100000");
    assert!(
        ended.expect(0, "").stdout.contains(&told),
        "{}",
        ended.stdout
    );

    let arguments = ["--discard", "9", "--chargen", "192.168.69.1"];
    in_lab(
        "bulk_data_goes_both_ways_where_it_is_asked_for",
        &arguments,
        || {
            let at = |port| SocketAddr::from(([192, 168, 69, 1], port));
            measure(at(smoltalk::discard::PORT), at(smoltalk::chargen::PORT));
        },
    );
}

#[test]
fn workers_share_addresses_that_nobody_else_can_have_and_count_together() {
    let server = serve(&["--workers", "3"]);
    let greeting = server.address("greeting", "tcp", true);
    let time = server.address("time", "udp", true);
    let chat = server.address("chat", "udp", true);
    // Each client has a port of its own, and so the one or the other worker.
    let clients: Vec<_> = (0..40).map(|_| udp()).collect();
    for client in &clients {
        client.send_to(b"%Y", time).unwrap();
        client.recv(&mut [0; 16]).unwrap();
        client.send_to(b"hello", chat).unwrap();
    }
    for _ in 0..40 {
        let mut client = TcpStream::connect(greeting).unwrap();
        client.write_all(b"hello").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hi");
    }
    for workers in ["1", "2"] {
        for (option, address) in [("--time", time), ("--greeting-tcp", greeting)] {
            let mut arguments = vec!["serve", "--workers", workers];
            for other in ["--greeting-tcp", "--greeting-udp", "--time", "--chat"] {
                arguments.extend([other, if other == option { "" } else { "0" }]);
            }
            let address = address.to_string();
            for argument in &mut arguments {
                if argument.is_empty() {
                    *argument = &address;
                }
            }
            let ended = run_with(arguments);
            assert_eq!(ended.status.code(), Some(3), "{ended:?}");
            let owner = format!("is in use by smoltalk (pid {}", server.id());
            assert!(ended.stderr.contains(&owner), "{}", ended.stderr);
        }
    }
    server.signal(Signal::SIGTERM);
    let ended = server.wait();
    for told in [
        format!("counters greeting tcp {greeting} opened=40 answered=40 too_long=0"),
        format!("counters time udp {time} received=40 answered=40 rejected=0"),
        "received=40 answered=0 empty=0".to_owned(),
    ] {
        assert!(
            ended.expect(0, "").stdout.contains(&told),
            "{told}: {}",
            ended.stdout
        );
    }
    assert_eq!(
        ended.stdout.matches("counters").count(),
        4,
        "{}",
        ended.stdout
    );
}

#[test]
fn a_second_signal_ends_workers_too_and_busy_polling_ends_as_well() {
    for more in [&["--workers", "2"][..], &["--busy-poll"]] {
        let mut arguments = vec!["--timeout", "3600"];
        arguments.extend(more);
        let server = serve(&arguments);
        let address = server.address("greeting", "tcp", true);
        for _ in 0..3 {
            ask("time", server.address("time", "udp", true), &[]).expect(0, "");
        }
        // Some for each worker.
        let mut answered: Vec<_> = (0..20)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for client in &mut answered {
            client.write_all(b"hello").unwrap();
            client.read_to_string(&mut String::new()).unwrap();
        }
        server.signal(Signal::SIGINT);
        // The others wait, and whoever comes now is reset.
        while TcpStream::connect(address)
            .and_then(|mut late| {
                late.write_all(b"hello")
                    .and_then(|()| late.read(&mut [0; 8]))
            })
            .is_ok_and(|len| len > 0)
        {}
        server.signal(Signal::SIGTERM);
        server
            .wait()
            .expect(1, "smoltalk: ended at once, at the second signal");
    }
}

#[test]
fn what_is_in_flight_is_finished_but_not_for_ever() {
    // Two who have been answered and do not close, and one who has said nothing.
    let server = serve(&["--timeout", "0.3", "--idle-timeout", "60"]);
    let address = server.address("greeting", "tcp", true);
    let mut answered = TcpStream::connect(address).unwrap();
    answered.write_all(b"hello").unwrap();
    let mut hi = String::new();
    answered.read_to_string(&mut hi).unwrap();
    assert_eq!(hi, "hi");
    let mut silent = TcpStream::connect(address).unwrap();
    // The server has taken the silent one in once it answers one that came later.
    ask("greet", address, &[]).expect(0, "");
    let clock = Clock::system();
    let started = clock.monotonic();
    server.signal(Signal::SIGTERM);
    let ended = server.wait();
    assert!(
        ended.expect(0, "").stdout.contains("opened=3 answered=2"),
        "{}",
        ended.stdout
    );
    assert!(
        clock.monotonic().saturating_since(started) >= Duration::from_millis(300),
        "it did not wait"
    );
    // It was reset, not left.
    assert!(!matches!(silent.read(&mut [0; 8]), Ok(1..)));
}

#[test]
fn the_second_signal_ends_at_once() {
    let server = serve(&["--timeout", "3600"]);
    let mut answered = TcpStream::connect(server.address("greeting", "tcp", true)).unwrap();
    answered.write_all(b"hello").unwrap();
    answered.read_to_string(&mut String::new()).unwrap();
    server.signal(Signal::SIGINT);
    // Whoever comes now is reset: then the first signal has been understood.
    while TcpStream::connect(server.address("greeting", "tcp", true))
        .and_then(|mut late| {
            late.write_all(b"hello")
                .and_then(|()| late.read(&mut [0; 8]))
        })
        .is_ok_and(|len| len > 0)
    {}
    server.signal(Signal::SIGINT);
    server
        .wait()
        .expect(1, "smoltalk: ended at once, at the second signal");
}

#[test]
fn an_address_in_use_is_told_with_its_owner_and_nothing_is_served() {
    let socket = udp();
    let taken = socket.local_addr().unwrap().to_string();
    let me = std::process::id().to_string();
    for command in [
        smoltalk().args([
            "serve",
            "--greeting-tcp",
            "0",
            "--greeting-udp",
            "0",
            "--time",
            &taken,
            "--chat",
            "0",
        ]),
        smoltalk().args(["chat", "--listen", &taken]),
    ] {
        let ended = run_with_input(command, "");
        assert_eq!(
            (ended.status.code(), &*ended.stdout),
            (Some(3), ""),
            "{ended:?}"
        );
        assert!(
            ended.stderr.contains(&taken) && ended.stderr.contains(&me),
            "{}",
            ended.stderr
        );
    }
    let chat = run_with(["chat", "--listen", &taken]);
    assert!(
        chat.stderr
            .contains("`--listen 127.0.0.1:0` takes any port that is free"),
        "{}",
        chat.stderr
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let ended = run_with([
        "serve",
        "--greeting-udp",
        "0",
        "--time",
        "0",
        "--chat",
        "0",
        "--greeting-tcp",
        &taken,
    ]);
    assert_eq!(
        (ended.status.code(), &*ended.stdout),
        (Some(3), ""),
        "{ended:?}"
    );
    assert!(
        ended
            .stderr
            .ends_with("; `--greeting-tcp PORT` puts it elsewhere\n"),
        "{}",
        ended.stderr
    );
    // Two services at one address.
    let port = udp().local_addr().unwrap().port().to_string();
    let ended = run_with([
        "serve",
        "--greeting-tcp",
        "off",
        "--chat",
        "off",
        "--greeting-udp",
        &port,
        "--time",
        &port,
    ]);
    assert_eq!(
        (ended.status.code(), &*ended.stdout),
        (Some(3), ""),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains(&format!("127.0.0.1:{port}")),
        "{}",
        ended.stderr
    );
}

#[test]
fn whoever_is_not_there_is_told_of_with_exit_code_1() {
    let sockets = nobody();
    let udp = sockets.0.local_addr().unwrap().to_string();
    let tcp = sockets
        .1
        .local_addr()
        .unwrap()
        .as_socket()
        .unwrap()
        .to_string();
    for (arguments, said) in [
        (
            &["greet", &tcp][..],
            format!(
                "smoltalk: greeting tcp {tcp}: no connection: Connection refused; is it running"
            ),
        ),
        (
            &["greet", "--udp", &udp],
            format!(
                "smoltalk: greeting udp {udp}: refused: nothing listens on that port; is it running"
            ),
        ),
        (
            &["time", &udp],
            format!(
                "smoltalk: time udp {udp}: refused: nothing listens on that port; is it running"
            ),
        ),
        (
            &["time", "no-such-host.invalid"],
            "smoltalk: `no-such-host.invalid` does not resolve to an address: ".into(),
        ),
        (
            &[
                "chat",
                "--listen",
                "0",
                "--contact",
                "egg=no-such-host.invalid",
            ],
            "smoltalk: contact `egg=no-such-host.invalid`: `no-such-host.invalid` does not resolve"
                .into(),
        ),
    ] {
        let ended = run_with(arguments.iter().copied());
        assert_eq!(ended.expect(1, &said).stdout, "", "{arguments:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn whoever_is_silent_is_not_waited_for_longer_than_asked() {
    let silent = udp();
    let address = silent.local_addr().unwrap();
    let clock = Clock::system();
    let started = clock.monotonic();
    ask("time", address, &["--timeout", "0.6"]).expect(
        1,
        &format!(
            "smoltalk: no answer from time udp {address} in 0.6 s (2 requests); is it running"
        ),
    );
    assert!(clock.monotonic().saturating_since(started) >= Duration::from_millis(600));
    // It takes the connection, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ask("greet", address, &["--timeout", "0.2"]).expect(
        1,
        &format!("smoltalk: no answer from greeting tcp {address} in 0.2 s, although the connection was made; "),
    );
}

#[test]
fn a_connection_that_breaks_is_told_of_with_what_came() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut conn, _) = listener.accept().unwrap();
        conn.write_all(b"h\x1b[2J").unwrap();
        // Closing with a greeting unread resets the connection; peeking waits until it is there.
        conn.peek(&mut [0; 8]).unwrap();
    });
    let ended = ask("greet", address, &[]);
    ended.expect(1, &format!("smoltalk: greeting tcp {address}: the connection was reset before the end of the answer"));
    assert!(!ended.stderr.contains('\x1b'));
    server.join().unwrap();
}

#[test]
fn what_a_hostile_server_says_is_shown_not_obeyed() {
    const HOSTILE: &[u8] = b"\x1b[2J\x07\xff\xc2\x9b31m\xe2\x80\xae\n";
    const SHOWN: &str = r"\x1b[2J\x07\xff\u{9b}31m\u{202e}\n";
    for color in ["never", "always"] {
        let (address, server) = answer_once(HOSTILE);
        let ended = ask("time", address, &["--color", color, "-v", "%Y"]);
        assert_eq!(ended.expect(0, "").stdout, format!("{SHOWN}\n"));
        assert!(
            ended
                .stderr
                .contains(&format!("received 15 bytes from {address}: {SHOWN}\n")),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains('\x1b'));
        assert_eq!(server.join().unwrap(), b"%Y");
    }
    // Exact in JSON, and safe there too.
    let (address, _) = answer_once(HOSTILE);
    let ended = ask("time", address, &["--json"]);
    let answer: Value = serde_json::from_str(&ended.expect(0, "").stdout).unwrap();
    assert_eq!(
        (&answer["text"], &answer["bytes"]),
        (&Value::Null, &json!(HOSTILE))
    );
    let text = "\x1b[2J\u{9b}\u{202e}\u{4f60}\u{e0041}";
    let (address, _) = answer_once(text.as_bytes());
    let ended = ask("time", address, &["--json"]);
    let answer: Value = serde_json::from_str(&ended.expect(0, "").stdout).unwrap();
    assert_eq!(
        (&answer["text"], &answer["bytes"]),
        (&json!(text), &Value::Null)
    );
    assert!(
        ended
            .stdout
            .contains(r#""\u001b[2J\u009b\u202e你\udb40\udc41""#),
        "{}",
        ended.stdout
    );
}

#[test]
fn messages_to_a_server_are_shown_not_obeyed() {
    let mut server = serve(&["--auto-reply", "away", "-v", "--color", "always"]);
    let peer = udp();
    let chat = server.address("chat", "udp", true);
    peer.send_to(b"hi \x1b]0;owned\x07", chat).unwrap();
    let mut buf = [0; 64];
    let (len, from) = peer.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..len], from), (b"away".as_slice(), chat));
    let me = peer.local_addr().unwrap();
    assert_eq!(
        server.line_with("message from"),
        format!("message from [{me}]: \x1b[1;37;44mhi \\x1b]0;owned\\x07\x1b[0m")
    );
    server.signal(Signal::SIGTERM);
    let ended = server.wait();
    assert!(
        ended.expect(0, "").stderr.contains(&format!(
            "chat udp {chat}: received 13 bytes from {me}: hi \\x1b]0;owned\\x07\n"
        )) && ended
            .stderr
            .contains(&format!("chat udp {chat}: sent 4 bytes to {me}: away\n"))
            && !ended.stderr.contains('\x1b'),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stdout.contains(&format!(
            "counters chat udp {chat} received=1 answered=1 empty=0"
        )),
        "{}",
        ended.stdout
    );
}

#[test]
fn with_json_every_line_is_an_object() {
    let mut server = Running::start(smoltalk().args(ANYWHERE).arg("--json"));
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let listening = [(); 4].map(|()| parse(&server.line().unwrap()));
    assert_eq!(parse(&server.line().unwrap()), json!({"event": "ready"}));
    assert_eq!(listening[2]["event"], "listening");
    assert_eq!(
        (&listening[2]["service"], &listening[2]["transport"]),
        (&json!("time"), &json!("udp"))
    );
    let chat = listening[3]["address"].as_str().unwrap().to_owned();
    let peer = udp();
    peer.send_to("你\x1b好".as_bytes(), &chat).unwrap();
    let message = parse(&server.line_with(r#"{"event":"message""#));
    let me = peer.local_addr().unwrap().to_string();
    assert_eq!(
        message,
        json!({"event": "message", "address": me, "text": "你\x1b好"})
    );
    let greeting = listening[0]["address"].as_str().unwrap();
    let answer = parse(&run_with(["greet", greeting, "--json"]).expect(0, "").stdout);
    assert_eq!(
        (
            &answer["service"],
            &answer["address"],
            &answer["text"],
            &answer["requests"]
        ),
        (
            &json!("greeting"),
            &json!(greeting),
            &json!("hi"),
            &json!(1)
        )
    );
    assert!(answer["elapsed_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    server.signal(Signal::SIGTERM);
    let ended = server.wait();
    let counters: Vec<_> = ended.expect(0, "").stdout.lines().map(parse).collect();
    assert_eq!(counters.len(), 4);
    assert_eq!(
        (&counters[0]["event"], &counters[0]["counters"]["answered"]),
        (&json!("counters"), &json!(1))
    );
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config-of-the-cli-test");
    let folder = home.join("smoltalk");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    fs::write(&file, "at = 1999-12-31T23:59:59Z\n").unwrap();
    let year = |environment: Option<&str>, flag: Option<&str>| {
        let flags = flag.iter().flat_map(|at| ["--at", *at]);
        let mut command = smoltalk();
        command.args(ANYWHERE).args(flags).env("TZ", "UTC0");
        command.env("XDG_CONFIG_HOME", &home);
        if let Some(at) = environment {
            command.env("SMOLTALK_AT", at);
        }
        let mut server = Running::start(&mut command);
        server.until_ready();
        ask("time", server.address("time", "udp", true), &["%Y"]).stdout
    };
    let (leap_day, epoch) = (Some(LEAP_DAY), Some("0"));
    assert_eq!(year(None, None), "1999\n");
    assert_eq!(year(leap_day, None), "2024\n");
    assert_eq!(year(leap_day, epoch), "1970\n");
    assert_eq!(year(None, epoch), "1970\n");
    // Set to nothing is not set.
    assert_eq!(year(Some(""), None), "1999\n");

    fs::write(&file, "json = true\n\ntiemout = 3\n").unwrap();
    let ended = run_with_input(
        smoltalk()
            .args(["greet", "127.0.0.1"])
            .env("XDG_CONFIG_HOME", &home),
        "",
    );
    ended.expect(
        2,
        &format!(
            "smoltalk: configuration file {}, line 3: unknown field `tiemout`",
            file.display()
        ),
    );
}

#[test]
fn standard_output_that_cannot_be_written_is_a_failure() {
    let server = serve(&[]);
    let address = server.address("greeting", "tcp", true).to_string();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = smoltalk()
        .args(["greet", &address])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "smoltalk: cannot write to standard output: No space left on device\n"
    );
}

#[test]
fn a_flood_of_messages_does_not_stop_a_server_whose_output_nobody_reads() {
    // 4,000 messages of 1,000 bytes are far more than a pipe and the queue take together.
    let server = serve(&["--timeout", "0.1"]);
    let peer = udp();
    let chat = server.address("chat", "udp", true);
    let text = [b'x'; 1000];
    for round in 0..40 {
        for _ in 0..100 {
            peer.send_to(&text, chat).unwrap();
        }
        // It still answers others.
        assert_eq!(
            ask("greet", server.address("greeting", "tcp", true), &[])
                .expect(0, "")
                .stdout,
            "hi\n",
            "{round}"
        );
    }
    server.signal(Signal::SIGKILL);
}

#[test]
fn a_device_that_is_missing_or_busy_is_told_of() {
    run_with(["time", "--tap", "nosuchtap", "192.168.69.1"])
        .expect(4, "smoltalk: there is no TAP device nosuchtap; ");
    run_with(["time", "--tap", "nosuchtap", "localhost"]).expect(
        1,
        "smoltalk: `localhost` is a name, and the stack on a TAP device knows no names; give an IP address",
    );
    // There the lab itself has it.
    in_lab("a_device_that_is_missing_or_busy_is_told_of", &[], || {
        let ended = run_with(["time", "--tap", "tap0", "192.168.69.100"]);
        assert!(
            ended.expect(3, "").stderr.contains("tap0"),
            "{}",
            ended.stderr
        );
    });
}

#[test]
fn on_a_device_all_is_as_on_host_sockets() {
    in_lab(
        "on_a_device_all_is_as_on_host_sockets",
        &["--no-serve"],
        || {
            let tap = ["--tap", "tap0"];
            let serve = ["serve", "--tap", "tap0", "--at", LEAP_DAY];
            let same_port = ["--greeting-udp", "7000", "--time", "7000"];
            let ended = run_with(serve.into_iter().chain(same_port));
            assert!(
                ended
                    .expect(3, "")
                    .stderr
                    .contains(":7000 is in use by greeting"),
                "{}",
                ended.stderr
            );
            assert_eq!(ended.stdout, "");

            let mut server = Running::start(smoltalk().args(serve).env("TZ", "UTC0"));
            server.until_ready();
            for ip in ["192.168.69.1", "fdaa::1"] {
                assert_eq!(run_with(["greet", ip]).expect(0, "").stdout, "hi\n");
                assert_eq!(
                    run_with(["time", ip]).expect(0, "").stdout,
                    "2024-02-29 12:00:00\n"
                );
            }
            server.signal(Signal::SIGTERM);
            let ended = server.wait();
            assert!(
                ended
                    .expect(0, "")
                    .stdout
                    .contains("counters time udp [::]:9000 received=2 answered=2"),
                "{}",
                ended.stdout
            );

            // The other way round, to the kernel's side.
            let serve = [
                "serve",
                "--bind",
                "192.168.69.100",
                "--bind",
                "fdaa::100",
                "--at",
                LEAP_DAY,
            ];
            let mut server = Running::start(smoltalk().args(serve).env("TZ", "UTC0"));
            server.until_ready();
            for ip in ["192.168.69.100", "fdaa::100"] {
                let greeted = run_with(["greet", ip].into_iter().chain(tap));
                assert_eq!(greeted.expect(0, "").stdout, "hi\n");
                let closed = SocketAddr::new(ip.parse().unwrap(), 7).to_string();
                let refused = run_with(["greet", &*closed].into_iter().chain(tap));
                refused.expect(1, "smoltalk: greeting tcp ");
            }
            // Nobody has that address.
            run_with(["greet", "--udp", "192.168.69.77", "--timeout", "4"].into_iter().chain(tap))
            .expect(1, "smoltalk: greeting udp 192.168.69.77:8898: no route to that host; is this the right address");
        },
    );
}

#[test]
fn a_burst_of_messages_is_shown_whole() {
    let mut server = serve(&[]);
    let peer = udp();
    let chat = server.address("chat", "udp", true);
    for number in 0..200 {
        let text = format!("message {number}");
        peer.send_to(text.as_bytes(), chat).unwrap();
    }
    let me = peer.local_addr().unwrap();
    for number in 0..200 {
        assert_eq!(
            server.line().unwrap(),
            format!("message from [{me}]: message {number}")
        );
    }
}

#[test]
fn a_server_that_cannot_say_where_it_is_ends_at_once() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let output = smoltalk()
        .args(["serve", "--greeting-tcp", "0", "--greeting-udp", "off"])
        .args(["--time", "off", "--chat", "off"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(
        output
            .stderr
            .starts_with(b"smoltalk: cannot write to standard output: "),
        "{}",
        told(&output)
    );
}

#[test]
fn names_in_errors_are_shown_and_not_obeyed() {
    for args in [
        &["greet", "a\x1b[2Jb.invalid"][..],
        &["greet", "\u{9b}1m.invalid:x"],
        &["chat", "--contact", "egg=\x1b]0;x\x07.invalid"],
        &["serve", "--tap", "\x1b[1mtap"],
        &["serve", "\x1b[1m"],
    ] {
        let output = run(args);
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with("smoltalk: ") && !said.contains(|c: char| c.is_control() && c != '\n'),
            "{args:?}: {said:?}"
        );
    }
}
