//! The firmware's suite: images for microcontrollers in QEMU, on a TAP device in a lab, with the kernel's sockets as
//! their peers. `.ci/firmware` builds the images, says where they are and runs the suite; an ordinary `cargo test`
//! leaves it out.

#[path = "../../tests/conformance/mod.rs"]
mod conformance;
#[path = "../../tests/conformance/sockets.rs"]
mod sockets;
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use smoltalk::sim::script::{IpVersion, Service, WALL};
use smoltalk::{DatagramService, Instant, Now, chat, greeting, sntp, time};
use smoltalk_hosted::clock::Clock;

use conformance::conform;
use sockets::Sockets;
use support::in_lab;

/// Where the images are: a folder for each set of features, and in it one image for each board.
const IMAGES: &str = "FIRMWARE_IMAGES";

/// The lab's TAP device.
const TAP: &str = "tap0";

/// How long to wait before a test has failed. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 69, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 1));

/// The most that the stack may take, in bytes.
const STACK_BUDGET: u64 = 6 * 1024;

/// Each test for each board.
macro_rules! on_boards {
    ($($(#[$about:meta])* $test:ident;)*) => {
        mod lm3s6965evb {
            $($(#[$about])* #[test] #[ignore = "needs the images that .ci/firmware builds"]
            fn $test() {
                super::in_lab(concat!("lm3s6965evb::", stringify!($test)), &["--no-serve"], || super::$test("lm3s6965evb"));
            })*
        }
        mod mps2_an385 {
            $($(#[$about])* #[test] #[ignore = "needs the images that .ci/firmware builds"]
            fn $test() {
                super::in_lab(concat!("mps2_an385::", stringify!($test)), &["--no-serve"], || super::$test("mps2-an385"));
            })*
        }
    };
}

on_boards! {
    the_conformance_suite_passes;
    pings_are_answered;
    without_a_clock_the_time_is_not_told;
    bursts_that_fit_lose_nothing;
    a_burst_is_answered_or_counted;
    ten_thousand_connections_leave_no_socket_behind;
    a_hundred_thousand_bad_frames_change_nothing;
    the_stack_keeps_to_its_budget;
    idle_it_sleeps;
    a_frame_ends_its_sleep;
    a_panic_is_reported;
    a_fault_is_reported;
    what_peers_send_is_shown_and_not_obeyed;
    addresses_come_from_the_network;
}

fn the_conformance_suite_passes(board: &str) {
    start_time_server();
    let mut machine = Machine::start(board, "test");
    // The image's clock stands at what it was told.
    let told = machine.wait_for("time: 2016-02-29 12:34:56 UTC by 192.168.69.100:123");
    assert!(told.contains("moved 0 ms"), "{told}");
    conform(&mut Sockets {
        address: |service: Service, version| {
            let ip = match version {
                IpVersion::V4 => V4,
                IpVersion::V6 => V6,
            };
            SocketAddr::new(ip, service.port())
        },
    });
    machine.catch_up();
    let counts = machine.counts();
    println!("{board}: {counts:?}");
    // More often, if all of this took longer than the clock waits until it asks again.
    assert!(counts["clock set"] >= 1);
}

fn pings_are_answered(board: &str) {
    let _machine = Machine::start(board, "test");
    // The longest fills a frame: 1,500 bytes less the headers.
    for (ip, longest) in [(V4, 1472), (V6, 1452)] {
        for size in [0, 56, longest] {
            // One at a time: how long ping waits for the last of several depends on how fast the others were.
            let output = Command::new("ping")
                .args(["-n", "-c", "1", "-W", &PATIENCE.as_secs().to_string()])
                .args(["-s", &size.to_string(), &ip.to_string()])
                .output()
                .expect("ping is there");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains(" 0% packet loss"),
                "{text}"
            );
        }
    }
}

fn without_a_clock_the_time_is_not_told(board: &str) {
    let mut machine = Machine::start(board, "both");
    // Nobody is there to be asked; then somebody is.
    machine.wait_for("time: 192.168.69.100:123: refused");
    let socket = client(time::PORT);
    socket.send(b"%Y").unwrap();
    machine.wait_for("time: not known yet, 1 requests not answered");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err());
    start_time_server();
    machine.wait_for("time: 2016-02-29 12:34:56 UTC by 192.168.69.100:123");
    socket.set_nonblocking(false).unwrap();
    socket.send(b"%Y-%m-%d").unwrap();
    assert_eq!(receive(&socket), b"2016-02-29");
    let counts = machine.counts();
    assert_eq!((counts["times unknown"], counts["times answered"]), (1, 1));
    assert_eq!(counts["clock set"], 1);
}

/// How many of the suite's greetings the receive ring of a board holds, with room to spare for what the kernel sends
/// of its own accord. The LM3S6965's has 2 KB and, in QEMU, 31 frames; the LAN9118's, as the driver divides its
/// memory, 10,560 bytes and 176 frames.
fn ring(board: &str) -> u64 {
    if board == "mps2-an385" { 100 } else { 25 }
}

const BURST: u64 = 1_000;

fn bursts_that_fit_lose_nothing(board: &str) {
    let mut machine = Machine::start(board, "ipv4");
    greet(&client(greeting::PORT));
    let socket = client(greeting::PORT);
    for _ in 0..BURST / ring(board) {
        for _ in 0..ring(board) {
            socket.send(b"hello").unwrap();
        }
        for _ in 0..ring(board) {
            assert_eq!(receive(&socket), b"hi");
        }
    }
    assert_eq!(machine.counts()["frames overrun"], 0);
}

fn a_burst_is_answered_or_counted(board: &str) {
    let mut machine = Machine::start(board, "ipv4");
    greet(&client(greeting::PORT));
    let counts = machine.counts();
    let kernel = KernelCounters::read();
    let socket = client(greeting::PORT);
    let all_sent = Arc::new(AtomicBool::new(false));
    // Answers are taken out as they come, since the kernel holds only some of them.
    let answers = {
        let socket = socket.try_clone().unwrap();
        let all_sent = Arc::clone(&all_sent);
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        thread::spawn(move || {
            let mut buf = [0; 16];
            let mut answers = 0;
            loop {
                let last = all_sent.load(Ordering::Acquire);
                match socket.recv(&mut buf) {
                    Ok(len) => {
                        assert_eq!(&buf[..len], b"hi");
                        answers += 1;
                    }
                    Err(_) if last => return answers,
                    Err(_) => {}
                }
            }
        })
    };
    for _ in 0..BURST {
        socket.send(b"hello").unwrap();
    }
    // Greetings are answered in the order in which they came, so with this one's answer all the others' are here.
    let after = client(greeting::PORT);
    greet(&after);
    all_sent.store(true, Ordering::Release);
    let answers: u64 = answers.join().unwrap();
    let counts_after = machine.counts();
    let kernel_after = KernelCounters::read();
    let [received, sent, malformed, overrun] = [
        "frames received",
        "frames sent",
        "frames malformed",
        "frames overrun",
    ]
    .map(|count| counts_after[count] - counts[count]);
    let delivered = kernel_after.frames - kernel.frames;
    let dropped = kernel_after.frames_dropped - kernel.frames_dropped;
    let unread = kernel_after.datagrams_unread - kernel.datagrams_unread;
    // What QEMU read from the TAP device and the board never saw.
    let thrown_away = delivered.saturating_sub(received + malformed);
    println!(
        "{board}: {received} received, {sent} sent, {answers} answers, {unread} unread, {overrun} overrun, \
         {thrown_away} thrown away by QEMU, {dropped} dropped by the kernel"
    );
    assert!(answers >= ring(board) && answers <= BURST);
    // Whatever found a place in the ring was answered. A few others are the kernel's own, for its neighbours.
    assert!(answers + unread <= received && received <= answers + unread + OTHERS);
    assert!(answers + unread <= sent && sent <= answers + unread + OTHERS);
    // The rest is counted: by the kernel, whose queue is before the ring, or by the board.
    assert!(answers + unread + dropped + overrun + thrown_away >= BURST);
    // QEMU's LAN9118 throws away what it has no room for and does not count it, as the real one does. Its Stellaris
    // controller leaves frames where they are until there is room.
    assert!(board == "mps2-an385" || thrown_away <= OTHERS);
}

/// Frames that the kernel may have sent meanwhile without being asked.
const OTHERS: u64 = 20;

fn ten_thousand_connections_leave_no_socket_behind(board: &str) {
    const CONNECTIONS: u64 = 10_000;
    let mut machine = Machine::start(board, "ipv4");
    for _ in 0..CONNECTIONS {
        assert_eq!(connect_and_greet(), b"hi");
    }
    let patience = Patience::new();
    loop {
        let counts = machine.counts();
        // The last connections are in TIME-WAIT for 10 seconds.
        if counts["sockets listening"] == 8 {
            println!("{board}: {counts:?}");
            assert_eq!(counts["greetings open"], 0);
            assert!(counts["greetings answered"] >= CONNECTIONS);
            assert!(counts["stack peak"] <= STACK_BUDGET);
            return;
        }
        assert!(!patience.is_over(), "{counts:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

fn a_hundred_thousand_bad_frames_change_nothing(board: &str) {
    let seed = std::env::var("SEED").unwrap_or_else(|_| "1".into());
    println!("SEED={seed}");
    let mut machine = Machine::start(board, "test");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/bad_frames.py");
    let output = Command::new("python3")
        .args([script, TAP, MAC, &seed, "150000"])
        .output()
        .expect("python3 is there");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "SEED={seed}: {text}; the UART said {:#?}",
        machine.seen()
    );
    // Some of them were messages.
    machine.catch_up();
    let counts = machine.counts();
    println!("{board}: {counts:?}");
    // Some never arrive: those that the kernel's queue had no room for, and those that QEMU drops for their length.
    let arrived = counts["frames received"] + counts["frames malformed"];
    assert!(arrived >= 100_000, "{counts:?}");
    let patience = Patience::new();
    // A forged connection may hold a socket for as long as the idle timeout.
    while connect(V4).is_none() {
        assert!(!patience.is_over());
    }
}

fn the_stack_keeps_to_its_budget(board: &str) {
    start_time_server();
    let mut machine = Machine::start(board, "ipv4");
    machine.wait_for("time: ");
    // What goes deepest: the longest message and the most escapes, the longest format and the longest answer, all
    // connections at once. One after the other, since a ring holds but one of the long ones.
    for message in [
        &[b'x'; 1024][..],
        &[0x1b; 1024],
        "你".repeat(341).as_bytes(),
    ] {
        // From a socket each, as a peer is not answered again at once.
        let chat = client(chat::PORT);
        chat.send(message).unwrap();
        assert_eq!(receive(&chat), b"nobody is here");
    }
    let times = client(time::PORT);
    for format in ["%c".repeat(128), "%10Y".repeat(64)] {
        // Its answer would be too long.
        times.send(format.as_bytes()).unwrap();
        greet(&client(greeting::PORT));
    }
    for format in ["%10Y".repeat(50), "%c%%%%".repeat(18)] {
        times.send(format.as_bytes()).unwrap();
        assert!(receive(&times).len() > 450);
    }
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..16 {
        let mut stream = connect(V4).unwrap();
        stream.write_all(b"h").unwrap();
        open.push(stream);
    }
    drop(open);
    greet(&client(greeting::PORT));
    assert_eq!(connect_and_greet(), b"hi");
    machine.catch_up();
    let counts = machine.counts();
    println!("{board}: {counts:?}");
    assert!(counts["stack peak"] <= STACK_BUDGET, "{counts:?}");
    // Painted wrongly it would look flat.
    assert!(counts["stack peak"] >= STACK_BUDGET / 4, "{counts:?}");
}

fn idle_it_sleeps(board: &str) {
    let mut machine = Machine::start(board, "ipv4");
    greet(&client(greeting::PORT));
    let before = machine.counts();
    thread::sleep(Duration::from_secs(3));
    let after = machine.counts();
    let turns = after["turns"] - before["turns"];
    // The clock wants to be looked at three times a second, and the UART's bytes are a turn each.
    assert!(turns < 1_500, "{turns} turns in 3 seconds");
    assert!(after["seconds up"] >= before["seconds up"] + 2);
}

fn a_frame_ends_its_sleep(board: &str) {
    let mut machine = Machine::start(board, "ipv4");
    greet(&client(greeting::PORT));
    let before = machine.counts();
    let socket = client(greeting::PORT);
    for _ in 0..200 {
        socket.send(b"hello").unwrap();
        assert_eq!(receive(&socket), b"hi");
    }
    let after = machine.counts();
    // A frame that waits for the end of SysTick's round, 0.3 or 0.7 seconds, waits for half of it on the average.
    let seconds = after["seconds up"] - before["seconds up"];
    assert!(seconds < 15, "200 greetings took {seconds} seconds");
}

fn a_panic_is_reported(board: &str) {
    let mut machine = Machine::start(board, "test");
    machine.type_in("p");
    machine.wait_for("panic at src/app.rs:");
    assert_eq!(machine.ended().code(), Some(1));
}

fn a_fault_is_reported(board: &str) {
    let mut machine = Machine::start(board, "test");
    machine.type_in("f");
    machine.wait_for("hard fault at 0x0000");
    assert_eq!(machine.ended().code(), Some(1));
}

fn what_peers_send_is_shown_and_not_obeyed(board: &str) {
    let mut machine = Machine::start(board, "ipv4");
    let socket = client(chat::PORT);
    socket.send("\x1b[2J你好\r\n".as_bytes()).unwrap();
    assert_eq!(receive(&socket), b"nobody is here");
    let line = machine.wait_for("chat 192.168.69.100:");
    assert!(line.ends_with(r": \x1b[2J你好\r\n"), "{line}");
    machine.type_in("q");
    assert_eq!(machine.ended().code(), Some(0));
}

fn addresses_come_from_the_network(board: &str) {
    start_time_server();
    let mut machine = Machine::start(board, "asking");
    // There is a link-local address and nobody who could tell of others; and so no time server is asked.
    assert!(
        machine
            .seen()
            .iter()
            .any(|line| line == "address: asking DHCP servers")
    );
    assert_eq!(machine.counts()["clock asked"], 0);
    let mut dnsmasq = Dnsmasq::start();
    let (mut lent, mut made, mut told) = (None, None, false);
    while lent.is_none() || made.is_none() || !told {
        let line = machine.wait_for("");
        if line.ends_with(" lent by 192.168.69.100 for 120 s") {
            lent = line.split([' ', '/']).nth(1).map(str::to_owned);
        } else if line.ends_with("/64 by a router") {
            made = line.split(['[', ']']).nth(1).map(str::to_owned);
        }
        told |= line.starts_with("time: 2016-02-29 12:34:56 UTC by 192.168.69.100:123");
    }
    let lent: Ipv4Addr = lent.unwrap().parse().unwrap();
    assert!((50..60).contains(&lent.octets()[3]), "{lent}");
    // RFC 4291, appendix A: the part that the Ethernet address makes.
    assert_eq!(made.as_deref(), Some("fdaa::ff:fe00:45"));
    for ip in [IpAddr::V4(lent), made.unwrap().parse().unwrap()] {
        assert_eq!(connect_and_greet_at(ip), b"hi");
        let unspecified: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((unspecified, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((ip, time::PORT)).unwrap();
        socket.send(b"%Y-%m-%d").unwrap();
        assert_eq!(receive(&socket), b"2016-02-29", "{ip}");
    }
    dnsmasq.stop();
}

// --- what the tests stand on ---

/// A DHCP server and IPv6 router on the lab's TAP device. It ends with this value, and at the latest with the lab.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start() -> Self {
        let path = format!(
            "{}:/usr/sbin",
            std::env::var("PATH").expect("there is a PATH")
        );
        let dnsmasq = Command::new("dnsmasq")
            .env("PATH", path)
            .args(["--keep-in-foreground", "--log-facility=-", "--log-dhcp"])
            .args(["--conf-file=/dev/null", "--pid-file", "--user=root"])
            // No names, and no leases that outlive it.
            .args(["--port=0", "--leasefile-ro"])
            .args([&format!("--interface={TAP}"), "--bind-interfaces"])
            .arg("--dhcp-range=192.168.69.50,192.168.69.59,2m")
            .args(["--enable-ra", "--dhcp-range=fdaa::,ra-only,64"])
            .spawn()
            .expect("dnsmasq is there");
        Self(dnsmasq)
    }

    fn stop(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "dnsmasq ended");
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The board's Ethernet address, as `firmware/qemu` sets it.
const MAC: &str = "020000000045";

/// [`PATIENCE`], from when it was made.
struct Patience {
    clock: Clock,
    end: Instant,
}

impl Patience {
    fn new() -> Self {
        let clock = Clock::system();
        let end = clock.now().monotonic + PATIENCE;
        Self { clock, end }
    }

    fn left(&self) -> Duration {
        self.end.saturating_since(self.clock.now().monotonic)
    }

    fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// A board in QEMU. It ends with this value, and at the latest with the lab.
struct Machine {
    qemu: Child,
    uart: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
    /// Messages that [`Machine::catch_up`] has sent.
    marks: u32,
}

impl Machine {
    /// Starts the image of `board` with a set of features, and waits until it serves.
    fn start(board: &str, set: &str) -> Self {
        let images = std::env::var_os(IMAGES).expect("FIRMWARE_IMAGES says where the images are");
        let image: PathBuf = [PathBuf::from(images), set.into(), board.into()]
            .iter()
            .collect();
        let mut qemu = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/qemu"))
            .arg(image)
            .env("SMOLTALK_TAP", TAP)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("firmware/qemu");
        let uart = qemu.stdin.take().expect("piped");
        let stdout = qemu.stdout.take().expect("piped");
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = String::from_utf8_lossy(&line.unwrap_or_default())
                    .trim_end()
                    .to_owned();
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        let mut machine = Self {
            qemu,
            uart,
            lines,
            seen: Vec::new(),
            marks: 0,
        };
        machine.wait_for("ready");
        machine
    }

    /// The next line that begins with `beginning`.
    fn wait_for(&mut self, beginning: &str) -> String {
        let patience = Patience::new();
        loop {
            match self.lines.recv_timeout(patience.left()) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(beginning) {
                        return line;
                    }
                }
                Err(error) => {
                    panic!(
                        "waiting for {beginning:?}: {error}; the UART said {:#?}",
                        self.seen
                    )
                }
            }
        }
    }

    /// Waits until the UART has nothing left to say. While it is behind lines are cut, those with the counters too: so
    /// this comes before they are asked for, wherever peers had much to say.
    fn catch_up(&mut self) {
        let patience = Patience::new();
        let socket = client(chat::PORT);
        while !patience.is_over() {
            // A message whose own line is cut is followed by another.
            self.marks += 1;
            let mark = format!("mark {}", self.marks);
            socket.send(mark.as_bytes()).unwrap();
            while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(1)) {
                let found = line.starts_with("chat ") && line.ends_with(&format!(": {mark}"));
                self.seen.push(line);
                if found {
                    return;
                }
            }
        }
        panic!("it does not catch up; the UART said {:#?}", self.seen);
    }

    fn type_in(&mut self, text: &str) {
        self.uart.write_all(text.as_bytes()).unwrap();
        self.uart.flush().unwrap();
    }

    /// The counters, by name.
    fn counts(&mut self) -> HashMap<String, u64> {
        self.type_in("s");
        let first = self.wait_for("frames received ");
        let from = self.seen.len() - 1;
        self.wait_for(".");
        assert_eq!(self.seen[from], first);
        self.seen[from..]
            .iter()
            .filter_map(|line| {
                let (name, count) = line.rsplit_once(' ')?;
                // The drift may be negative, and is of no interest.
                Some((name.to_owned(), count.parse().ok()?))
            })
            .collect()
    }

    /// All that the UART said.
    fn seen(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// How it ended by itself.
    fn ended(&mut self) -> ExitStatus {
        let patience = Patience::new();
        loop {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                return status;
            }
            assert!(
                !patience.is_over(),
                "it goes on; the UART said {:#?}",
                self.seen
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Starts a time server on the kernel's side, whose clock stands still. It ends with the lab.
fn start_time_server() {
    let socket = UdpSocket::bind(("192.168.69.100", sntp::PORT)).unwrap();
    let now = Now {
        monotonic: Instant::ZERO,
        wall: Some(WALL),
    };
    thread::spawn(move || {
        let mut server = sntp::Server::new();
        let mut buf = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = server.handle_datagram(now, from, &buf[..len]);
            while let Some(transmit) = server.poll_transmit(now, &mut buf) {
                socket.send_to(&buf[..transmit.len], transmit.to).unwrap();
            }
        }
    });
}

/// A socket that speaks with a service of the board.
fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("192.168.69.100:0").unwrap();
    socket.connect((V4, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = [0; 2048];
    let len = socket.recv(&mut buf).unwrap();
    buf[..len].to_vec()
}

/// Says hello until it is answered, since what goes before may have filled a queue.
fn greet(socket: &UdpSocket) {
    let patience = Patience::new();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut buf = [0; 16];
    while !patience.is_over() {
        socket.send(b"hello").unwrap();
        if let Ok(len) = socket.recv(&mut buf) {
            assert_eq!(&buf[..len], b"hi");
            return;
        }
    }
    panic!("the greeting is not answered");
}

fn connect(ip: IpAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&(ip, greeting::PORT).into(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

fn connect_and_greet() -> Vec<u8> {
    connect_and_greet_at(V4)
}

fn connect_and_greet_at(ip: IpAddr) -> Vec<u8> {
    let mut stream = connect(ip).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// What the kernel of the lab counts.
struct KernelCounters {
    /// Frames that were read from the TAP device.
    frames: u64,
    /// Frames for the TAP device that its queue had no room for.
    frames_dropped: u64,
    /// Datagrams that came for a socket whose buffer was full.
    datagrams_unread: u64,
}

impl KernelCounters {
    fn read() -> Self {
        let table = |name: &str| {
            std::fs::read_to_string(format!("/proc/thread-self/net/{name}"))
                .expect("procfs is there")
        };
        let (devices, protocols) = (table("dev"), table("snmp"));
        let device: Vec<_> = devices
            .lines()
            .find(|line| line.trim_start().starts_with(TAP))
            .expect("the lab has a TAP device")
            .split_whitespace()
            .collect();
        // After the name eight numbers received; sent: bytes, packets, errors, drops.
        let number = |index: usize| device[1 + 8 + index].parse().expect("a number");
        // A line of names, and a line of numbers.
        let mut udp = protocols.lines().filter(|line| line.starts_with("Udp:"));
        let [names, numbers] = [(); 2].map(|()| udp.next().expect("the kernel has UDP"));
        let unread = names
            .split_whitespace()
            .zip(numbers.split_whitespace())
            .find(|(name, _)| *name == "RcvbufErrors");
        Self {
            frames: number(1),
            frames_dropped: number(3),
            datagrams_unread: unread.expect("it counts them").1.parse().expect("a number"),
        }
    }
}
