//! Ten thousand connections that say nothing: others are served all the while, and silence is cut off in time.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Running, in_lab};

const SILENT: usize = 10_000;

/// Far more than anything here takes: reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the silent connections, greets after every five hundredth, and then sees each of them come to its end,
/// by the server's hand: this side sends nothing, not even a FIN.
fn besiege(server: SocketAddr) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard > SILENT as u64 + 100,
        "{hard} open files are not enough for this test"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut silent = Vec::with_capacity(SILENT);
    for number in 1..=SILENT {
        silent.push(TcpStream::connect_timeout(&server, PATIENCE).unwrap());
        if number % 500 == 0 {
            greet(server);
        }
    }
    for mut connection in silent {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        match connection.read(&mut [0; 9]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("a silent connection was told {other:?}"),
        }
    }
    greet(server);
}

fn greet(server: SocketAddr) {
    let mut connection = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hi");
}

#[test]
fn on_host_sockets() {
    let server = Running::server([
        "--idle-timeout",
        "3",
        "--greeting-tcp",
        "0",
        "--greeting-udp",
        "off",
        "--time",
        "off",
        "--chat",
        "off",
    ]);
    besiege(server.address("greeting", "tcp", true));
}

#[test]
fn over_tap() {
    in_lab("over_tap", &["--idle-timeout", "3"], || {
        besiege((Ipv4Addr::new(192, 168, 69, 1), smoltalk::greeting::PORT).into());
    });
}
