//! smoltalk and plain Python programs of a tutorial's kind, both ways round, over both stacks.

mod support;

use std::process::{Command, Stdio};

use support::{Running, in_lab, run, told};

const UNIX: &str = "1456749296";
const ZONES: [&str; 5] = [
    "UTC0",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "<+0545>-5:45",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
];

fn script(name: &str) -> String {
    format!("{}/../tests/python/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a Python program prints, run to its end.
fn python(name: &str, arguments: &[&str], zone: &str) -> String {
    let output = Command::new("python3")
        .arg(script(name))
        .args(arguments)
        .env("TZ", zone)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{name}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A Python server at `host`, and the port it is ready at.
fn python_server(name: &str, arguments: &[&str]) -> (Running, String) {
    let mut server = Running::start(Command::new("python3").arg(script(name)).args(arguments));
    let line = server.line().expect("a line that says ready");
    let port = line.strip_prefix("ready ").expect("ready").to_owned();
    (server, port)
}

/// What smoltalk prints, run to its end with success.
fn smoltalk(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The clients of a tutorial against services at `host` with the ports that `port` tells.
fn python_clients(host: &str, port: impl Fn(&str, &str) -> String) {
    let greeting = ["hello!", "你好", &"x".repeat(1024)];
    for message in greeting {
        assert_eq!(
            python(
                "greeting_tcp_client.py",
                &[host, &port("greeting", "tcp"), message],
                "UTC0"
            ),
            "b'hi' b''\n"
        );
    }
    assert_eq!(
        python(
            "datagram_client.py",
            &[host, &port("greeting", "udp"), "hello", "", "你好"],
            "UTC0"
        ),
        "hi\nhi\nhi\n"
    );
    assert_eq!(
        python(
            "datagram_client.py",
            &[host, &port("time", "udp"), "", "%d/%m %H h"],
            "UTC0"
        ),
        "2016-02-29 12:34:56\n29/02 12 h\n"
    );
    assert_eq!(
        python(
            "datagram_client.py",
            &[host, &port("chat", "udp"), "在吗"],
            "UTC0"
        ),
        "nobody is here\n"
    );
}

#[test]
fn python_clients_on_host_sockets() {
    for (bind, host) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let server = Running::server([
            "--bind",
            bind,
            "--at",
            UNIX,
            "--auto-reply",
            "nobody is here",
            "--greeting-tcp",
            "0",
            "--greeting-udp",
            "0",
            "--time",
            "0",
            "--chat",
            "0",
        ]);
        python_clients(host, |service, transport| {
            let address = server.address(service, transport, !bind.contains(':'));
            address.port().to_string()
        });
    }
}

#[test]
fn python_clients_over_tap() {
    let arguments = ["--at", UNIX, "--auto-reply", "nobody is here"];
    in_lab("python_clients_over_tap", &arguments, || {
        for host in ["192.168.69.1", "fdaa::1"] {
            python_clients(host, |service, _| {
                let port = match service {
                    "greeting" => smoltalk::greeting::PORT,
                    "time" => smoltalk::time::PORT,
                    _ => smoltalk::chat::PORT,
                };
                port.to_string()
            });
        }
    });
}

/// smoltalk's clients against the servers of a tutorial at `host`; `stack` says which stack the clients use.
fn python_servers(host: &str, stack: &[&str]) {
    let at = |port: &str| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let with = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().chain(stack).copied().collect();
        smoltalk(&all)
    };

    let (server, port) = python_server("greeting_tcp_server.py", &[host]);
    assert_eq!(with(&["greet", &at(&port), "hello, 世界"]), "hi\n");
    assert_eq!(
        server.wait().stdout,
        "b'hello, \\xe4\\xb8\\x96\\xe7\\x95\\x8c'\n"
    );

    let (server, port) = python_server("greeting_udp_server.py", &[host]);
    assert_eq!(with(&["greet", "--udp", &at(&port), "hello"]), "hi\n");
    assert_eq!(server.wait().stdout, "b'hello'\n");

    let (server, port) = python_server("time_server.py", &[host, UNIX]);
    assert_eq!(with(&["time", &at(&port)]), "2016-02-29 12:34:56\n");
    server.wait();
    let (server, port) = python_server("time_server.py", &[host, UNIX]);
    assert_eq!(
        with(&["time", &at(&port), "%A %d %B"]),
        "Monday 29 February\n"
    );
    assert_eq!(server.wait().stdout, "b'%A %d %B'\n");
}

#[test]
fn python_servers_on_host_sockets() {
    for host in ["127.0.0.1", "::1"] {
        python_servers(host, &[]);
    }
}

#[test]
fn python_servers_over_tap() {
    in_lab("python_servers_over_tap", &["--no-serve"], || {
        for host in ["192.168.69.100", "fdaa::100"] {
            python_servers(host, &["--tap", "tap0"]);
        }
    });
}

/// A chat driven by a script, as a person would drive it: choose a contact, write, read, leave.
fn chat_with_python(host: &str, listen: &str, stack: &[&str]) {
    let (server, port) = python_server("chat_server.py", &[host, "我在", "再见"]);
    let contact = match host.contains(':') {
        true => format!("哪吒=[{host}]:{port}"),
        false => format!("哪吒={host}:{port}"),
    };
    let mut chat = Running::start(
        Command::new(support::SMOLTALK)
            .args(["chat", "--color", "never", "--listen", listen])
            .args(["--contact", &contact, "哪吒"])
            .args(stack)
            .stdin(Stdio::piped()),
    );
    for (said, answer) in [("在吗", "我在"), ("再会", "再见")] {
        chat.write(format!("{said}\n").as_bytes());
        let line = chat.line_with(answer);
        assert!(line.contains("哪吒"), "{line}");
    }
    chat.write(b"q\n");
    chat.close_stdin();
    let ended = chat.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(server.wait().stdout, "在吗\n再会\n");
}

#[test]
fn a_chat_with_python_on_host_sockets() {
    chat_with_python("127.0.0.1", "127.0.0.1:0", &[]);
    chat_with_python("::1", "[::1]:0", &[]);
}

#[test]
fn a_chat_with_python_over_tap() {
    in_lab("a_chat_with_python_over_tap", &["--no-serve"], || {
        chat_with_python("192.168.69.100", "192.168.69.1:8081", &["--tap", "tap0"]);
        chat_with_python("fdaa::100", "[fdaa::1]:8081", &["--tap", "tap0"]);
    });
}

/// Every format of the list, over the wire, in every zone: the same bytes as Python's own `time.strftime`.
fn strftime(host: &str, port: &str, zone: &str) {
    let formats = script("formats.txt");
    let printed = python("strftime_client.py", &[host, port, UNIX, &formats], zone);
    let same: usize = printed
        .split(' ')
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    assert!(
        same >= 120 && printed.contains(" same, 0 different"),
        "in {zone}: {printed}"
    );
}

#[test]
fn the_time_is_pythons_on_host_sockets() {
    for zone in ZONES {
        let mut command = Command::new(support::SMOLTALK);
        command.args(["serve", "--time", "0", "--at", UNIX]);
        for other in ["--greeting-tcp", "--greeting-udp", "--chat"] {
            command.args([other, "off"]);
        }
        let mut server = Running::start(command.env("TZ", zone).stdin(Stdio::null()));
        server.until_ready();
        let port = server.address("time", "udp", true).port().to_string();
        strftime("127.0.0.1", &port, zone);
    }
}

#[test]
fn the_time_is_pythons_over_tap() {
    in_lab("the_time_is_pythons_over_tap", &["--no-serve"], || {
        for zone in ZONES {
            let mut command = Command::new(support::SMOLTALK);
            command.args(["serve", "--tap", "tap0", "--at", UNIX]);
            let mut server = Running::start(command.env("TZ", zone).stdin(Stdio::null()));
            server.until_ready();
            strftime("192.168.69.1", "9000", zone);
        }
    });
}
