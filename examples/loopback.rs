//! The smallest complete server on smoltcp: the greeting over TCP and UDP, and a client that tries both, on one
//! stack whose cable ends where it begins.
//!
//!     cargo run --example loopback
//!
//! On a board of yours, two things are different: `Loopback` is your network driver (an implementation of
//! smoltcp's `phy::Device`), and `Clock` reads a timer. The memory can be `static`, as nothing here needs a heap.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use smoltalk::greeting::{
    self, Config, DatagramClient, DatagramServer, StreamClient, StreamOutcome, StreamServer,
};
use smoltalk::smoltcp::{SocketMemory, Stack, StackConfig, TcpBuffers, UdpBuffers};
use smoltalk::{Duration, Instant, Now, Outcome, Retry, earliest, pump};
use smoltcp::phy::{Loopback, Medium};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SERVER: SocketAddr = SocketAddr::new(ADDRESS, greeting::PORT);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::start();

    // All the memory that the stack will ever have: seven sockets, and what they hold.
    let mut sockets = SocketMemory::<7>::new();
    let mut server_udp = UdpBuffers::<4, 2048>::new();
    let mut server_tcp = [const { TcpBuffers::<512, 64>::new() }; 4];
    let mut client_udp = UdpBuffers::<4, 2048>::new();
    let mut client_tcp = TcpBuffers::<512, 512>::new();

    let config = StackConfig {
        mac: [0x02, 0, 0, 0, 0, 1],
        addresses: &[(ADDRESS, 8)],
        gateways: &[],
        seed: 0x5eed, // A random number, on a real network.
    };
    let device = Loopback::new(Medium::Ethernet);
    let mut stack = Stack::new(device, &config, &mut sockets, clock.now().monotonic)?;

    // The server. Each service is a value; each socket is another.
    let mut datagrams = DatagramServer::new();
    let mut datagram_socket = stack.bind(SERVER, "greeting", &mut server_udp)?;
    // One less than there are sockets, so that a new connection always finds one.
    let mut streams = StreamServer::<4>::new(Config {
        max_connections: 3,
        ..Config::default()
    });
    let mut listener = stack.listen(SERVER, "greeting", server_tcp.each_mut())?;

    // The client: one question over UDP, one over TCP.
    let now = clock.now();
    let mut asking = DatagramClient::start(now, SERVER, b"hello", Retry::default())?;
    let mut asking_socket = stack.bind(SocketAddr::new(ADDRESS, 0), "client", &mut client_udp)?;
    let mut calling = StreamClient::<64, 64>::start(now, b"hello", Duration::from_secs(5))
        .ok_or("the greeting is too long")?;
    let mut dial = stack.connect(SERVER, &mut client_tcp)?;

    // Where services write their datagrams: as long as the longest of them.
    let mut scratch = [0; 1024];

    while asking.outcome() == Outcome::Pending || calling.outcome() == StreamOutcome::Pending {
        // Up to 32 frames, one at a time; the closure is called before the first and after each.
        let turn = stack.turn(clock.now(), 32, |sockets, now| {
            let Ok(served) = pump(
                &mut datagrams,
                &mut sockets.udp(&mut datagram_socket, now),
                now,
                &mut scratch,
                32,
            );
            let Ok(asked) = pump(
                &mut asking,
                &mut sockets.udp(&mut asking_socket, now),
                now,
                &mut scratch,
                32,
            );
            let listened = listener.pump(sockets, &mut streams, now);
            let called = dial.pump(sockets, &mut calling, now);
            [
                served.deadline,
                asked.deadline,
                listened.deadline,
                called.deadline,
            ]
            .into_iter()
            .fold(None, earliest)
        });
        if !turn.more {
            // A board would also wake up when its network hardware has received something.
            clock.sleep_until(turn.deadline);
        }
    }

    let Outcome::Answered { answer, .. } = asking.outcome() else {
        return Err(format!("no answer over UDP: {:?}", asking.outcome()).into());
    };
    println!("udp {SERVER}: hello -> {}", answer.escape_ascii());
    let StreamOutcome::Answered { answer, .. } = calling.outcome() else {
        return Err(format!("no answer over TCP: {:?}", calling.outcome()).into());
    };
    println!("tcp {SERVER}: hello -> {}", answer.escape_ascii());
    Ok(())
}

/// The machine's clock. A board has a timer instead.
struct Clock(std::time::Instant);

#[allow(
    clippy::disallowed_methods,
    reason = "a driver is where the time comes from, and where one waits"
)]
impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(&self) -> Now {
        Now::monotonic(Instant::ZERO + self.0.elapsed())
    }

    fn sleep_until(&self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            std::thread::sleep(deadline.saturating_since(self.now().monotonic));
        }
    }
}
