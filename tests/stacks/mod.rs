//! Two stacks at the ends of a simulated cable, under virtual time.

pub mod frames;

use std::net::{IpAddr, SocketAddr};

use smoltalk::sim::{Ethernet, EthernetPort, Impairments};
use smoltalk::smoltcp::{
    SocketEntry, SocketSlices, SocketStorage, Sockets, Stack, StackConfig, TcpBuffers, Turn,
    UdpBuffers,
};
use smoltalk::{Instant, Now, earliest};

pub const QUEUE: usize = 64;
pub type Port = EthernetPort<QUEUE>;
pub type Host = Stack<'static, &'static mut Port>;

pub const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
pub const SERVER_IPS: [&str; 2] = ["192.0.2.1", "fdaa::1"];
pub const CLIENT_IPS: [&str; 2] = ["192.0.2.2", "fdaa::2"];

pub fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub fn at(micros: u64) -> Now {
    Now::monotonic(Instant::from_micros(micros))
}

/// A stack with room for `sockets` sockets. What it needs lives as long as the test.
pub fn host(mac: [u8; 6], addresses: &[(&str, u8)], seed: u64, sockets: usize) -> Host {
    let addresses: Vec<(IpAddr, u8)> = addresses
        .iter()
        .map(|&(ip, prefix)| (ip.parse().unwrap(), prefix))
        .collect();
    let config = StackConfig {
        mac,
        addresses: &addresses,
        gateways: &[],
        seed,
    };
    Stack::new(
        Box::leak(Box::new(Port::new())),
        &config,
        memory(sockets),
        Instant::ZERO,
    )
    .unwrap()
}

/// Room for `sockets` sockets, which lives as long as the test.
pub fn memory(sockets: usize) -> SocketSlices<'static> {
    let storage: Vec<_> = (0..sockets).map(|_| SocketStorage::EMPTY).collect();
    let entries: Vec<_> = (0..sockets).map(|_| SocketEntry::EMPTY).collect();
    SocketSlices {
        storage: storage.leak(),
        entries: entries.leak(),
    }
}

pub fn server_host(seed: u64, sockets: usize) -> Host {
    let [v4, v6] = SERVER_IPS;
    host(SERVER_MAC, &[(v4, 24), (v6, 64)], seed, sockets)
}

pub fn client_host(seed: u64, sockets: usize) -> Host {
    let [v4, v6] = CLIENT_IPS;
    host(CLIENT_MAC, &[(v4, 24), (v6, 64)], seed ^ 1, sockets)
}

pub fn udp_buffers() -> &'static mut UdpBuffers<4, 4096> {
    Box::leak(Box::default())
}

pub fn tcp_buffers() -> &'static mut TcpBuffers<512, 512> {
    Box::leak(Box::default())
}

/// The two stacks, the cable, and the clock.
pub struct Pair {
    pub server: Host,
    pub client: Host,
    pub cable: Ethernet,
    pub now: Now,
    pub seed: u64,
    next: Option<Instant>,
    stuck: u32,
}

impl Pair {
    pub fn new(seed: u64, impairments: Impairments, sockets: usize) -> Self {
        Self {
            server: server_host(seed, sockets),
            client: client_host(seed, sockets),
            cable: Ethernet::new(seed, impairments),
            now: at(0),
            seed,
            next: None,
            stuck: 0,
        }
    }

    /// Lets the next step happen now, because the test has begun something new.
    pub fn wake(&mut self) {
        self.next = None;
    }

    /// On to the next moment at which something happens, and one turn of each stack. `false`: nothing more
    /// will happen by itself.
    pub fn step(
        &mut self,
        serve: impl FnMut(&mut Sockets<'static>, Now) -> Option<Instant>,
        ask: impl FnMut(&mut Sockets<'static>, Now) -> Option<Instant>,
    ) -> bool {
        if let Some(next) = self.next.take() {
            self.stuck += 1;
            if next > self.now.monotonic {
                self.now.monotonic = next;
                self.stuck = 0;
            }
        }
        let turns = [
            self.server.turn(self.now, 16, serve),
            self.client.turn(self.now, 16, ask),
        ];
        let [server, client] = [self.server.device_mut(), self.client.device_mut()];
        self.cable.exchange(self.now.monotonic, server, client);
        let mut next = [server.next_arrival(), client.next_arrival()]
            .into_iter()
            .fold(None, earliest);
        if server.has_sent() || client.has_sent() {
            next = Some(self.now.monotonic);
        }
        for Turn { deadline, more, .. } in turns {
            next = earliest(next, deadline);
            if more {
                next = Some(self.now.monotonic);
            }
        }
        assert!(
            self.stuck < 10_000,
            "seed {}: time stands still at {:?}",
            self.seed,
            self.now
        );
        self.next = next;
        next.is_some()
    }
}
