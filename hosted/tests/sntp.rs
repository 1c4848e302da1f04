//! The time for clocks: a Python program that looks at every byte, and the clients that people use, over both stacks.

mod support;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use nix::sys::signal::Signal;
use support::{Running, in_lab, not_run, run, told};

const UNIX: i64 = 1_456_749_296;

/// Off, so that what is left is SNTP.
const NO_OTHERS: [&str; 8] = [
    "--greeting-tcp",
    "off",
    "--greeting-udp",
    "off",
    "--time",
    "off",
    "--chat",
    "off",
];

/// Runs the Python program against `server`, whose clock stands still at `at`, or does not.
fn python(server: SocketAddr, at: Option<i64>) -> String {
    let output = Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/python/sntp_client.py"
        ))
        .arg(server.ip().to_string())
        .arg(server.port().to_string())
        .arg(at.map_or("now".to_owned(), |at| at.to_string()))
        .stdin(Stdio::null())
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The arguments of a server with SNTP alone, and its clock at `at`.
fn arguments(sntp: &str, at: Option<i64>, stack: &[&str]) -> Vec<String> {
    let at = at.map(|at| format!("--at={at}"));
    let words = ["--sntp", sntp].into_iter().chain(NO_OTHERS);
    words
        .chain(stack.iter().copied())
        .map(str::to_owned)
        .chain(at)
        .collect()
}

#[test]
fn every_byte_on_host_sockets() {
    for bind in ["127.0.0.1", "::1"] {
        // The last second of NTP's first era is 2036-02-07 06:28:15 UTC.
        for unix in [UNIX, 2_085_978_495, 2_085_978_497] {
            let mut server = Running::server(arguments("0", Some(unix), &["--bind", bind]));
            let address = server.address("sntp", "udp", !bind.contains(':'));
            assert_eq!(
                python(address, Some(unix)),
                "57 answered, 42 not answered\n"
            );
            server.signal(Signal::SIGTERM);
            let counters = server.line_with("counters");
            assert_eq!(
                counters,
                format!(
                    "counters sntp udp {address} received=99 answered=57 rejected=42 undeliverable=0"
                )
            );
        }
        let server = Running::server(arguments("0", None, &["--bind", bind]));
        let address = server.address("sntp", "udp", !bind.contains(':'));
        assert_eq!(python(address, None), "5 answered in time\n");
    }
}

#[test]
fn every_byte_over_tap() {
    let at = UNIX.to_string();
    in_lab(
        "every_byte_over_tap",
        &["--sntp", "123", "--at", &at],
        || {
            for ip in ["192.168.69.1", "fdaa::1"] {
                let server = SocketAddr::new(ip.parse().unwrap(), smoltalk::sntp::PORT);
                assert_eq!(python(server, Some(UNIX)), "57 answered, 42 not answered\n");
            }
        },
    );
}

#[test]
fn a_time_that_the_wire_has_no_room_for_is_not_told() {
    // 1968-01-20 and 2104-02-26: a second too early, and a second too late.
    for unix in [-61_505_153_i64, 4_233_462_144] {
        let server = Running::server(arguments("0", Some(unix), &[]));
        let address = server.address("sntp", "udp", true);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut request = [0; smoltalk::sntp::MESSAGE_LEN];
        request[0] = 0x23;
        socket.send_to(&request, address).unwrap();
        server.signal(Signal::SIGTERM);
        let ended = server.wait();
        let counters = "received=1 answered=0 rejected=1 undeliverable=0\n";
        assert!(ended.stdout.ends_with(counters), "{ended:?}");
    }
}

#[test]
fn it_is_off_unless_somebody_asks() {
    let none = run(["serve"].into_iter().chain(NO_OTHERS));
    assert_eq!(none.status.code(), Some(2), "{}", told(&none));
    for sntp in ["127.0.0.2:0", "0"] {
        let mut serve = support::smoltalk();
        serve.arg("serve").args(NO_OTHERS);
        let mut server = Running::start(serve.env("SMOLTALK_SNTP", sntp));
        server.until_ready();
        let ip: IpAddr = sntp
            .split(':')
            .next()
            .unwrap()
            .parse()
            .unwrap_or([127, 0, 0, 1].into());
        assert_eq!(server.address("sntp", "udp", true).ip(), ip);
    }
}

/// Programs that ask a server what time it is, and how they are told to set no clock by it.
const CLIENTS: [(&str, &str, Client); 3] = [
    ("chronyd", "chrony", chronyd),
    ("ntpdig", "ntpsec-ntpdig", ntpdig),
    ("ntpdate", "ntpsec-ntpdate", ntpdate),
];

/// Asks a server, and returns by how much the program says that this machine's clock is slow, in seconds.
type Client = fn(program: PathBuf, server: &str) -> f64;

/// `-Q` prints only, and reads and writes no files where the configuration is on the command line; `-U` and
/// `-u root` keep it from looking for a user of its own.
fn chronyd(program: PathBuf, server: &str) -> f64 {
    let mut chronyd = Command::new(program);
    chronyd
        .args(["-Q", "-U", "-u", "root", "-t", "20"])
        .arg(format!("server {server} iburst maxsamples 1"));
    let said = said(&mut chronyd);
    number_after(&said, "System clock wrong by ")
}

fn ntpdig(program: PathBuf, server: &str) -> f64 {
    let said = said(Command::new(program).args(["-j", "-t", "20", server]));
    assert!(
        said.contains("\"stratum\":10,") && said.contains("\"leap\":\"no-leap\""),
        "{said}"
    );
    number_after(&said, "\"offset\":")
}

fn ntpdate(program: PathBuf, server: &str) -> f64 {
    let said = said(Command::new(program).args(["-q", "-t", "20", server]));
    assert!(said.contains(" s10 no-leap"), "{said}");
    // The date and the time in UTC come first.
    number_after(&said, " (+0000) ")
}

fn said(client: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = client
        .env("TZ", "UTC0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("it was found");
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(status.success(), "{client:?}: {status}\n{said}");
    said
}

#[track_caller]
fn number_after(said: &str, words: &str) -> f64 {
    said.split_once(words)
        .and_then(|(_, rest)| rest.split([' ', ',', '}']).next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number after {words:?}: {said}"))
}

/// Where `program` is. Not everybody has the directories of `sbin` on the path.
fn find(program: &str) -> Option<PathBuf> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(OsString::from(":/usr/sbin:/sbin"));
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}

#[allow(
    clippy::disallowed_methods,
    reason = "what the clients say is compared with it"
)]
fn unix_now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is past 1970").as_secs_f64()
}

/// Asks the server at `server` by each of the clients, with its clock at `at` or with this machine's.
fn ask_by_all(server: &str, at: Option<i64>) {
    for (name, _, client) in CLIENTS {
        let Some(program) = find(name) else {
            continue;
        };
        let before = unix_now();
        let offset = client(program, server);
        let after = unix_now();
        // Far more than the way there and back takes on a busy machine, and no more than a clock of whole seconds
        // would be off by.
        const SLACK: f64 = 0.5;
        let expected = match at {
            None => -SLACK..=SLACK,
            Some(at) => at as f64 - after - SLACK..=at as f64 - before + SLACK,
        };
        assert!(
            expected.contains(&offset),
            "{name} at {server}: {offset} is not in {expected:?}"
        );
    }
}

#[test]
fn well_known_clients() {
    let test = "well_known_clients";
    for (name, package, _) in CLIENTS {
        if find(name).is_none() {
            not_run(
                &format!("{test}, {name}"),
                &format!("{name} is missing; Debian's package {package} has it"),
            );
        }
    }
    // There the port is free, and ours to bind.
    in_lab(test, &["--no-serve"], || {
        for at in [None, Some(UNIX)] {
            let tap = Running::server(arguments("123", at, &["--tap", "tap0"]));
            ask_by_all("192.168.69.1", at);
            ask_by_all("fdaa::1", at);
            drop(tap);
            let host = Running::server(arguments("123", at, &["--bind", "127.0.0.1,::1"]));
            ask_by_all("127.0.0.1", at);
            ask_by_all("::1", at);
            drop(host);
        }
    });
}
