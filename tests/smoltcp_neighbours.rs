//! Who is where on the link, and what becomes of answers to those who are nowhere.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stacks;

use std::convert::Infallible;
use std::net::SocketAddr;

use smoltalk::greeting::{self, DatagramClient, DatagramServer, StreamServer};
use smoltalk::sim::{Impairments, Rng};
use smoltalk::smoltcp::{Sockets, Stack, StackConfig, UdpSocket};
use smoltalk::{
    DatagramService, Duration, Exchange, Instant, Now, Outcome, Pumped, Retry, Transmit,
    Unreachable, pump,
};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
};
use stacks::frames::{Seen, datagram, frame, see};
use stacks::*;

/// A greeting server on a stack of its own, with nobody but the test at the other end of the cable.
struct Server {
    host: Host,
    socket: UdpSocket,
    service: DatagramServer,
    pumped: Pumped,
}

impl Server {
    fn new(mut host: Host, local: SocketAddr) -> Self {
        let socket = host.bind(local, "greeting", udp_buffers()).unwrap();
        Self {
            host,
            socket,
            service: DatagramServer::new(),
            pumped: Pumped::default(),
        }
    }

    fn deliver(&mut self, now: Now, frame: &[u8]) {
        let port = self.host.device_mut();
        port.deliver(now.monotonic, frame).unwrap();
    }

    fn turn(&mut self, now: Now) -> Option<Instant> {
        let mut scratch = [0; 64];
        let turn = self
            .host
            .turn(now, 100, |sockets: &mut Sockets<'static>, now| {
                let mut transport = sockets.udp(&mut self.socket, now);
                let Ok(pumped) = pump(&mut self.service, &mut transport, now, &mut scratch, 16);
                self.pumped.received += pumped.received;
                self.pumped.sent += pumped.sent;
                self.pumped.undeliverable += pumped.undeliverable;
                pumped.deadline
            });
        assert!(!turn.more);
        turn.deadline
    }

    fn sent(&mut self) -> Vec<Seen> {
        let port = self.host.device_mut();
        std::iter::from_fn(|| port.take_sent(see)).collect()
    }
}

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];

fn hi(mac: [u8; 6], from: SocketAddr, to: SocketAddr) -> Seen {
    let payload = b"hi".to_vec();
    Seen::Datagram {
        mac,
        from,
        to,
        payload,
    }
}

#[test]
fn a_forged_sender_on_the_link_holds_nobody_up() {
    for (own, forged, honest) in [
        ("192.0.2.1", "192.0.2.66", "192.0.2.7"),
        ("fdaa::1", "fdaa::66", "fdaa::7"),
    ] {
        let mut server = Server::new(server_host(1, 1), addr(own, 8898));
        let to = addr(own, 8898);
        // Nobody has this address; its frame came from somewhere all the same, and there the answer goes, with
        // no question asked.
        server.deliver(at(0), &datagram(MAC, SERVER_MAC, addr(forged, 5), to, b"x"));
        server.turn(at(0));
        assert_eq!(server.sent(), [hi(MAC, to, addr(forged, 5))]);
        let honest_mac = [0x02, 0, 0, 0, 0, 0x07];
        server.deliver(
            at(0),
            &datagram(honest_mac, SERVER_MAC, addr(honest, 5), to, b"x"),
        );
        server.turn(at(0));
        assert_eq!(server.sent(), [hi(honest_mac, to, addr(honest, 5))]);
    }
}

#[test]
fn a_thousand_forged_senders_get_a_thousand_answers_and_none_waits() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    for n in 0..1_000_u16 {
        // More addresses than any cache holds, in an order that comes back to those just forgotten, and now
        // and then an ARP request that pushes one of ours out.
        let ip = format!("192.0.2.{}", 10 + n % 97);
        let [_, low] = n.to_be_bytes();
        let mac = [0x02, 0, 0, 0, 1, low];
        if n % 5 == 0 {
            let mut arp = vec![0; 42];
            let mut eth = EthernetFrame::new_unchecked(&mut arp);
            eth.set_src_addr(EthernetAddress(MAC));
            eth.set_dst_addr(EthernetAddress::BROADCAST);
            eth.set_ethertype(EthernetProtocol::Arp);
            let repr = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: EthernetAddress(MAC),
                source_protocol_addr: [192, 0, 2, 200 + low % 16].into(),
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: [192, 0, 2, 1].into(),
            };
            repr.emit(&mut ArpPacket::new_unchecked(eth.payload_mut()));
            server.deliver(at(0), &arp);
            server.turn(at(0));
            // The answer to it.
            assert!(server.host.device_mut().take_sent(|_| ()).is_some());
        }
        let from = addr(&ip, 5);
        server.deliver(at(0), &datagram(mac, SERVER_MAC, from, to, b"x"));
        server.turn(at(0));
        assert_eq!(server.sent(), [hi(mac, to, from)], "datagram {n}");
    }
}

#[test]
fn broadcast_questions_are_answered_from_our_own_address_and_hold_nobody_up() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    let to = addr("192.0.2.255", 8898);
    server.deliver(
        at(0),
        &datagram(MAC, [0xff; 6], addr("192.0.2.66", 5), to, b"x"),
    );
    server.turn(at(0));
    assert_eq!(
        server.sent(),
        [hi(MAC, addr("192.0.2.1", 8898), addr("192.0.2.66", 5))]
    );
}

#[test]
fn nobody_else_speaks_with_our_own_address() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    server.deliver(
        at(0),
        &datagram(MAC, SERVER_MAC, addr("192.0.2.1", 5), to, b"x"),
    );
    server.turn(at(0));
    assert_eq!(server.sent(), []);
    assert_eq!(server.pumped.received, 0);
    assert_eq!(server.host.forged_frames(), 1);
}

#[test]
fn nobody_waits_for_an_address_that_no_host_can_have() {
    let group_mac = [0x01, 0, 0x5e, 0, 0, 0x01];
    for (from_mac, from, to, forged) in [
        (group_mac, "192.0.2.66", "192.0.2.1", 1),
        ([0xff; 6], "fdaa::66", "fdaa::1", 1),
        // smoltcp would answer over IPv4.
        (MAC, "::ffff:192.0.2.66", "fdaa::1", 1),
        // smoltcp takes the last two bytes for the address, and the loopback's for ours.
        (MAC, "fdaa::66", "2001:db8::1", 0),
        (MAC, "fdaa::66", "::1", 0),
    ] {
        let case = format!("{from_mac:x?} {from} {to}");
        let mut server = Server::new(server_host(1, 1), addr("::", 8898));
        let bytes = datagram(from_mac, SERVER_MAC, addr(from, 5), addr(to, 8898), b"x");
        server.deliver(at(0), &bytes);
        server.turn(at(0));
        assert_eq!(server.sent(), [], "{case}");
        assert_eq!(server.pumped.received, 0, "{case}");
        assert_eq!(server.host.forged_frames(), forged, "{case}");
        let (honest, to) = (addr("192.0.2.7", 5), addr("192.0.2.1", 8898));
        server.deliver(at(0), &datagram(MAC, SERVER_MAC, honest, to, b"x"));
        server.turn(at(0));
        assert_eq!(server.sent(), [hi(MAC, to, honest)], "{case}");
    }
}

#[test]
fn a_question_to_a_group_of_neighbour_discovery_is_answered_at_once() {
    let mut server = Server::new(server_host(1, 1), addr("::", 8898));
    let (from, to) = (addr("fdaa::66", 5), addr("ff02::1:ff00:1", 8898));
    let group_mac = [0x33, 0x33, 0xff, 0, 0, 0x01];
    server.deliver(at(0), &datagram(MAC, group_mac, from, to, b"x"));
    server.turn(at(0));
    assert_eq!(server.sent(), [hi(MAC, addr("fdaa::1", 8898), from)]);
}

#[test]
fn a_neighbour_kept_in_mind_by_broken_frames_is_answered_at_once() {
    let mut server = Server::new(server_host(1, 1), addr("::", 8898));
    let (nobody, to) = (addr("192.0.2.66", 5), addr("192.0.2.1", 8898));
    let mut broken = datagram(MAC, SERVER_MAC, nobody, to, b"x");
    // The checksum of the IP header: smoltcp takes no notice of such a packet, nor of its sender.
    broken[24] ^= 1;
    server.deliver(at(0), &datagram(MAC, SERVER_MAC, nobody, to, b"x"));
    server.turn(at(0));
    assert_eq!(server.sent(), [hi(MAC, to, nobody)]);
    // More than smoltcp has room for, each in a millisecond of its own.
    for n in 1..=1_100_u16 {
        let now = at(1_000 * u64::from(n));
        let from = addr(&format!("fdaa::1:{n:x}"), 5);
        let to = addr("fdaa::1", 8898);
        server.deliver(now, &datagram(MAC, SERVER_MAC, from, to, b"x"));
        server.deliver(now, &broken);
        server.turn(now);
        assert_eq!(server.sent(), [hi(MAC, to, from)]);
    }
    let now = at(2_000_000);
    server.deliver(now, &datagram(MAC, SERVER_MAC, nobody, to, b"x"));
    server.turn(now);
    assert_eq!(server.sent(), [hi(MAC, to, nobody)]);
}

#[test]
fn a_sender_to_whom_no_route_leads_holds_nobody_up() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    for from in ["198.51.100.1", "192.0.2.7"] {
        server.deliver(at(0), &datagram(MAC, SERVER_MAC, addr(from, 5), to, b"x"));
    }
    server.turn(at(0));
    assert_eq!(server.sent(), [hi(MAC, to, addr("192.0.2.7", 5))]);
    assert_eq!(server.pumped.undeliverable, 1);
}

#[test]
fn a_gateway_that_does_not_answer_holds_others_up_for_three_seconds_at_most() {
    let addresses = [("192.0.2.1".parse().unwrap(), 24)];
    let config = StackConfig {
        mac: SERVER_MAC,
        addresses: &addresses,
        gateways: &["192.0.2.254".parse().unwrap()],
        seed: 1,
    };
    let host = Host::new(
        Box::leak(Box::new(Port::new())),
        &config,
        memory(1),
        Instant::ZERO,
    )
    .unwrap();
    let mut server = Server::new(host, addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    let far = datagram(MAC, SERVER_MAC, addr("198.51.100.1", 5), to, b"x");
    let near = datagram(MAC, SERVER_MAC, addr("192.0.2.7", 5), to, b"x");
    server.deliver(at(0), &far);
    server.deliver(at(0), &near);
    let mut now = at(0);
    let mut asked = 0;
    while now.monotonic < Instant::from_secs(3) {
        let next = server.turn(now);
        for seen in server.sent() {
            assert_eq!(seen, Seen::WhoHas("192.0.2.254".parse().unwrap()));
            asked += 1;
        }
        now = Now::monotonic(next.unwrap());
    }
    assert_eq!((now, asked), (at(3_000_000), 3));
    // Now what waited is given up, and who asks again is answered.
    server.turn(now);
    assert_eq!(server.socket.counters().flushed, 1);
    server.deliver(now, &near);
    let next = server.turn(now);
    // smoltcp asks each neighbour at most once a second on behalf of one socket, and has just done so.
    let now = Now::monotonic(next.unwrap().max(now.monotonic));
    server.turn(now);
    assert!(now.monotonic <= Instant::from_secs(4), "{now:?}");
    assert_eq!(
        server.sent().last(),
        Some(&hi(MAC, to, addr("192.0.2.7", 5)))
    );
}

#[test]
fn what_was_given_up_holds_up_nobody_who_asks_later() {
    let config = StackConfig {
        mac: SERVER_MAC,
        addresses: &[("192.0.2.1".parse().unwrap(), 24)],
        gateways: &["192.0.2.254".parse().unwrap()],
        seed: 1,
    };
    let port = Box::leak(Box::new(Port::new()));
    let host = Host::new(port, &config, memory(1), Instant::ZERO).unwrap();
    let mut server = Server::new(host, addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    let far = datagram(MAC, SERVER_MAC, addr("198.51.100.1", 5), to, b"x");
    let near = datagram(MAC, SERVER_MAC, addr("192.0.2.7", 5), to, b"x");
    server.deliver(at(0), &near);
    server.deliver(at(0), &far);
    let mut next = server.turn(at(0));
    while let Some(now) = next {
        assert!(now < Instant::from_secs(10), "{now:?}");
        next = server.turn(Now::monotonic(now));
    }
    assert_eq!(server.socket.counters().flushed, 1);
    server.sent();
    let now = at(10_000_000);
    server.deliver(now, &near);
    server.turn(now);
    assert_eq!(server.sent(), [hi(MAC, to, addr("192.0.2.7", 5))]);
}

#[test]
fn a_client_learns_that_its_server_is_nowhere() {
    for (own, nowhere) in [("192.0.2.2", "192.0.2.66"), ("fdaa::2", "fdaa::66")] {
        let mut host = client_host(1, 1);
        let mut socket = host.bind(addr(own, 0), "client", udp_buffers()).unwrap();
        let to = addr(nowhere, 9000);
        let patient = Retry::within(Duration::from_secs(60));
        let mut client = DatagramClient::start(at(0), to, b"hello", patient).unwrap();
        let mut scratch = [0; 1024];
        let mut now = at(0);
        while client.outcome() == Outcome::Pending {
            let turn = host.turn(now, 100, |sockets, now| {
                let mut transport = sockets.udp(&mut socket, now);
                let Ok(pumped) = pump(&mut client, &mut transport, now, &mut scratch, 16);
                pumped.deadline
            });
            while let Some(seen) = host.device_mut().take_sent(see) {
                assert_eq!(seen, Seen::WhoHas(nowhere.parse().unwrap()));
            }
            if client.outcome() == Outcome::Pending {
                now = Now::monotonic(turn.deadline.unwrap());
            }
        }
        assert_eq!(client.outcome(), Outcome::Unreachable(Unreachable::NoRoute));
        assert!(
            (3_000_000..=5_000_000).contains(&now.monotonic.micros()),
            "{own}: {now:?}"
        );
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let addresses = [
        ("192.0.2.1", 24),
        ("192.0.2.9", 24),
        ("fdaa::1", 64),
        ("fdaa::9", 64),
    ];
    let host = host(SERVER_MAC, &addresses, 1, 1);
    // RFC 4291, appendix A.
    let link_local = "fe80::ff:fe00:1";
    assert_eq!(
        host.addresses().last(),
        Some(&(link_local.parse().unwrap(), 64))
    );
    let mut server = Server::new(host, addr("::", 8898));
    for (own, client) in [
        ("192.0.2.9", "192.0.2.7"),
        ("192.0.2.1", "192.0.2.7"),
        ("fdaa::9", "fdaa::7"),
        ("fdaa::1", "fdaa::7"),
        (link_local, "fe80::7"),
    ] {
        let (to, from) = (addr(own, 8898), addr(client, 5));
        server.deliver(at(0), &datagram(MAC, SERVER_MAC, from, to, b"x"));
        server.turn(at(0));
        assert_eq!(server.sent(), [hi(MAC, to, from)]);
    }
}

#[test]
fn a_burst_into_a_socket_four_deep_is_answered_to_the_last() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    let mut answers = 0;
    for burst in 0..20_u16 {
        for n in 0..60 {
            let from = addr("192.0.2.7", 1_000 + 60 * burst + n);
            server.deliver(at(0), &datagram(MAC, SERVER_MAC, from, to, &[b'x'; 900]));
        }
        server.turn(at(0));
        for (n, seen) in (0_u16..).zip(server.sent()) {
            let from = addr("192.0.2.7", 1_000 + 60 * burst + n);
            assert_eq!(seen, hi(MAC, to, from));
            answers += 1;
        }
    }
    assert_eq!(answers, 1_200);
}

#[test]
fn several_are_taken_in_before_they_are_served_but_not_one_by_itself() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    server.host.set_burst(4);
    let to = addr("192.0.2.1", 8898);
    let mut port = 0;
    // How many come, and how many of them are then served at a time: nobody knows of the first one that others
    // come with it, unless others did before.
    for (count, expected) in [
        (1, &[1][..]),
        (1, &[1]),
        (10, &[1, 4, 4, 1]),
        (10, &[4, 4, 2]),
        (3, &[3]),
        (1, &[1]),
        (2, &[1, 1]),
    ] {
        let from: Vec<SocketAddr> = (port..port + count)
            .map(|n| addr("192.0.2.7", 1_000 + n))
            .collect();
        port += count;
        for &from in &from {
            server.deliver(at(0), &datagram(MAC, SERVER_MAC, from, to, b"x"));
        }
        let mut served = Vec::new();
        let mut scratch = [0; 64];
        let turn = server.host.turn(at(0), 100, |sockets, now| {
            let mut transport = sockets.udp(&mut server.socket, now);
            let service = &mut server.service;
            let Ok(pumped) = pump(service, &mut transport, now, &mut scratch, 16);
            served.extend((pumped.received > 0).then_some(pumped.received));
            pumped.deadline
        });
        assert!(!turn.more);
        assert_eq!(served, expected, "{count}");
        let answers: Vec<Seen> = from.iter().map(|&from| hi(MAC, to, from)).collect();
        assert_eq!(server.sent(), answers);
    }
}

#[test]
fn a_device_without_room_holds_back_and_nothing_is_lost() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    let to = addr("192.0.2.1", 8898);
    let mut answers = 0;
    let mut now = at(0);
    let mut asked = 0;
    // The device sends one frame in ten milliseconds, far slower than questions come, and stands still for ten
    // seconds in between: longer than any neighbour may take to answer.
    while answers < 400 {
        while asked < 400 {
            let from = addr("192.0.2.7", 1_000 + asked);
            let question = datagram(MAC, SERVER_MAC, from, to, b"x");
            let port = server.host.device_mut();
            if port.deliver(now.monotonic, &question).is_err() {
                break;
            }
            asked += 1;
        }
        server.turn(now);
        if (1_000_000..11_000_000).contains(&now.monotonic.micros()) {
            now.monotonic += Duration::from_millis(500);
            continue;
        }
        now.monotonic += Duration::from_millis(10);
        answers += u32::from(server.host.device_mut().take_sent(|_| ()).is_some());
        assert!(now.monotonic < Instant::from_secs(60), "{answers} answers");
    }
    assert_eq!(answers, 400);
    assert_eq!(server.socket.counters().flushed, 0);
}

/// Says ten things at once.
struct Talkative(u8);

impl DatagramService for Talkative {
    const MAX_DATAGRAM: usize = 1;
    type Reject = Infallible;

    fn handle_datagram(&mut self, _: Now, _: SocketAddr, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        self.0 = self.0.checked_sub(1)?;
        buf[0] = self.0;
        let to = addr("192.0.2.7", 5);
        Some(Transmit { to, len: 1 })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn more_than_a_socket_holds_leaves_in_one_turn() {
    let mut server = Server::new(server_host(1, 1), addr("192.0.2.1", 8898));
    // So that the way there is known.
    let to = addr("192.0.2.1", 8898);
    server.deliver(
        at(0),
        &datagram(MAC, SERVER_MAC, addr("192.0.2.7", 5), to, b"x"),
    );
    server.turn(at(0));
    assert_eq!(server.sent().len(), 1);
    let mut talkative = Talkative(10);
    let turn = server.host.turn(at(0), 1, |sockets, now| {
        let mut transport = sockets.udp(&mut server.socket, now);
        let Ok(pumped) = pump(&mut talkative, &mut transport, now, &mut [0; 8], 16);
        pumped.deadline
    });
    assert_eq!(turn.deadline, None);
    assert_eq!(server.sent().len(), 10);
    // More than the device holds leaves as soon as it can, be that after longer than a neighbour is waited for.
    talkative.0 = 100;
    let mut sent = 0;
    for second in 0..20 {
        let now = at(1_000_000 * second);
        let turn = server.host.turn(now, 1, |sockets, now| {
            let mut transport = sockets.udp(&mut server.socket, now);
            let Ok(pumped) = pump(&mut talkative, &mut transport, now, &mut [0; 8], 16);
            pumped.deadline
        });
        assert_eq!(turn.device_full, second <= 10);
        if second >= 10 {
            sent += server.sent().len();
        }
    }
    assert_eq!(sent, 100);
    assert_eq!(server.socket.counters().flushed, 0);
}

#[test]
fn what_is_too_long_for_the_way_is_said_so() {
    let mut host = server_host(1, 1);
    let mut socket = host
        .bind(addr("192.0.2.1", 0), "client", udp_buffers())
        .unwrap();
    for (len, fits) in [(1_472, true), (1_473, false)] {
        let to = addr("192.0.2.7", 9000);
        let mut client =
            Exchange::<2000, 8>::start(at(0), to, &vec![b'x'; len], Retry::default()).unwrap();
        let mut scratch = [0; 2000];
        host.turn(at(0), 1, |sockets, now| {
            let mut transport = sockets.udp(&mut socket, now);
            let Ok(pumped) = pump(&mut client, &mut transport, now, &mut scratch, 16);
            pumped.deadline
        });
        let too_long = Outcome::Unreachable(Unreachable::TooLong);
        assert_eq!(client.outcome() != too_long, fits, "{len}");
    }
}

#[test]
fn pings_are_answered() {
    let mut host = server_host(1, 0);
    let turn = |host: &mut Host| host.turn(at(0), 10, |_, _| None);
    // The first ping of a stranger only makes him known, unless he asks for our Ethernet address before, as
    // he does in life.
    for _ in 0..2 {
        let echo = Icmpv4Repr::EchoRequest {
            ident: 7,
            seq_no: 1,
            data: b"abc",
        };
        let ip = IpRepr::new(
            IpAddress::v4(192, 0, 2, 7),
            IpAddress::v4(192, 0, 2, 1),
            IpProtocol::Icmp,
            echo.buffer_len(),
            64,
        );
        let ping = frame(MAC, SERVER_MAC, &ip, |buf| {
            echo.emit(
                &mut Icmpv4Packet::new_unchecked(buf),
                &ChecksumCapabilities::default(),
            );
        });
        host.device_mut().deliver(Instant::ZERO, &ping).unwrap();
        turn(&mut host);
        let echo = Icmpv6Repr::EchoRequest {
            ident: 7,
            seq_no: 1,
            data: b"abc",
        };
        let (from, to) = ("fdaa::7".parse().unwrap(), "fdaa::1".parse().unwrap());
        let ip = IpRepr::new(
            IpAddress::Ipv6(from),
            IpAddress::Ipv6(to),
            IpProtocol::Icmpv6,
            echo.buffer_len(),
            64,
        );
        let ping = frame(MAC, SERVER_MAC, &ip, |buf| {
            echo.emit(
                &from,
                &to,
                &mut Icmpv6Packet::new_unchecked(buf),
                &ChecksumCapabilities::default(),
            );
        });
        host.device_mut().deliver(Instant::ZERO, &ping).unwrap();
        turn(&mut host);
    }
    let mut replies = Vec::new();
    while let Some(seen) = host.device_mut().take_sent(see) {
        if let Seen::Other(text) = seen {
            replies.push(text);
        }
    }
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert!(replies[0].contains("echo reply"), "{replies:?}");
    assert!(replies[1].contains("nxt_hdr=ICMPv6"), "{replies:?}");
}

#[test]
fn a_client_learns_at_once_that_nobody_listens() {
    for ip in SERVER_IPS {
        let mut pair = Pair::new(1, Impairments::default(), 2);
        let to = addr(ip, 9000);
        let any = addr("::", 0);
        let mut asking = pair.client.bind(any, "client", udp_buffers()).unwrap();
        let mut other = pair.client.bind(any, "other", udp_buffers()).unwrap();
        let mut exchange = DatagramClient::start(at(0), to, b"hello", Retry::default()).unwrap();
        // Another client that waits for an answer from the same address.
        let mut bystander = DatagramClient::start(at(0), to, b"hello", Retry::default()).unwrap();
        bystander.poll_transmit(at(0), &mut [0; 1024]).unwrap();
        let mut scratch = [0; 1024];
        while exchange.outcome() == Outcome::Pending {
            pair.step(
                |_, _| None,
                |sockets, now| {
                    let mut transport = sockets.udp(&mut other, now);
                    let Ok(_) = pump(&mut bystander, &mut transport, now, &mut scratch, 16);
                    drop(transport);
                    let mut transport = sockets.udp(&mut asking, now);
                    let Ok(pumped) = pump(&mut exchange, &mut transport, now, &mut scratch, 16);
                    pumped.deadline
                },
            );
        }
        assert_eq!(
            exchange.outcome(),
            Outcome::Unreachable(Unreachable::Refused)
        );
        assert_eq!(bystander.outcome(), Outcome::Pending);
        assert_eq!(pair.now, at(0), "{ip}");
    }
}

/// Sends to each of these, and notes what it hears.
struct Notes {
    to: Vec<SocketAddr>,
    heard: Vec<Result<(), Unreachable>>,
}

impl DatagramService for Notes {
    const MAX_DATAGRAM: usize = 1;
    type Reject = Infallible;

    fn handle_datagram(&mut self, _: Now, _: SocketAddr, _: &[u8]) -> Result<(), Infallible> {
        self.heard.push(Ok(()));
        Ok(())
    }

    fn handle_unreachable(&mut self, _: Now, _: SocketAddr, why: Unreachable) {
        self.heard.push(Err(why));
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, _: &mut [u8]) -> Option<Transmit> {
        let to = self.to.pop()?;
        Some(Transmit { to, len: 1 })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn what_came_before_a_refusal_is_heard_before_it() {
    let mut pair = Pair::new(1, Impairments::default(), 1);
    let (answers, refuses) = (addr("192.0.2.1", 8898), addr("192.0.2.1", 9));
    let mut bound = pair
        .server
        .bind(answers, "greeting", udp_buffers())
        .unwrap();
    let mut server = DatagramServer::new();
    pair.client.set_burst(4);
    let local = addr("192.0.2.2", 0);
    let mut socket = pair.client.bind(local, "client", udp_buffers()).unwrap();
    let mut scratch = [0; 64];
    // In the first round the stack does not know yet that several come at a time.
    for _ in 0..2 {
        let mut notes = Notes {
            to: vec![refuses, answers],
            heard: Vec::new(),
        };
        pair.wake();
        while notes.heard.len() < 2 {
            pair.step(
                |sockets, now| {
                    let mut transport = sockets.udp(&mut bound, now);
                    let Ok(pumped) = pump(&mut server, &mut transport, now, &mut scratch, 16);
                    pumped.deadline
                },
                |sockets, now| {
                    let mut transport = sockets.udp(&mut socket, now);
                    let Ok(pumped) = pump(&mut notes, &mut transport, now, &mut [0; 1], 16);
                    pumped.deadline
                },
            );
        }
        assert_eq!(notes.heard, [Ok(()), Err(Unreachable::Refused)]);
    }
}

#[test]
fn stations_find_each_other_by_neighbour_discovery_too() {
    // Over the cable, so that each stack's solicitations meet the other's advertisements.
    for ip in ["192.0.2.1", "fdaa::1", "fe80::ff:fe00:1"] {
        let mut pair = Pair::new(1, Impairments::default(), 2);
        let to = addr(ip, 8898);
        let mut server = pair.server.bind(to, "greeting", udp_buffers()).unwrap();
        let any = addr(if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0);
        let mut client = pair.client.bind(any, "client", udp_buffers()).unwrap();
        let mut service = DatagramServer::new();
        let mut exchange = DatagramClient::start(at(0), to, b"hello", Retry::default()).unwrap();
        let (mut one, mut other) = ([0; 1024], [0; 1024]);
        while exchange.outcome() == Outcome::Pending {
            pair.step(
                |sockets, now| {
                    let mut transport = sockets.udp(&mut server, now);
                    let Ok(pumped) = pump(&mut service, &mut transport, now, &mut one, 16);
                    pumped.deadline
                },
                |sockets, now| {
                    let mut transport = sockets.udp(&mut client, now);
                    let Ok(pumped) = pump(&mut exchange, &mut transport, now, &mut other, 16);
                    pumped.deadline
                },
            );
        }
        assert!(
            matches!(
                exchange.outcome(),
                Outcome::Answered {
                    answer: b"hi",
                    requests: 1,
                    ..
                }
            ),
            "{ip}: {:?}",
            exchange.outcome()
        );
    }
}

/// A device that leaves checksums to nobody, so that broken packets reach the insides of the stack.
struct Unchecked(&'static mut Port);

impl Device for Unchecked {
    type RxToken<'a> = <&'static mut Port as Device>::RxToken<'a>;
    type TxToken<'a> = <&'static mut Port as Device>::TxToken<'a>;

    fn receive(
        &mut self,
        now: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        (*self.0).receive(now)
    }

    fn transmit(&mut self, now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        (*self.0).transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = self.0.capabilities();
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

#[test]
fn broken_frames_do_no_harm() {
    let addresses = [
        ("192.0.2.1".parse().unwrap(), 24),
        ("fdaa::1".parse().unwrap(), 64),
    ];
    let config = StackConfig {
        mac: SERVER_MAC,
        addresses: &addresses,
        gateways: &["192.0.2.254".parse().unwrap()],
        seed: 1,
    };
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut stack = Stack::new(
            Unchecked(Box::leak(Box::new(Port::new()))),
            &config,
            memory(5),
            Instant::ZERO,
        )
        .unwrap();
        let everywhere = addr("::", 8898);
        let mut socket = stack.bind(everywhere, "greeting", udp_buffers()).unwrap();
        let buffers = [(); 4].map(|()| tcp_buffers());
        let mut listener = stack.listen(everywhere, "greeting", buffers).unwrap();
        let mut service = DatagramServer::new();
        let mut streams = StreamServer::<4>::new(greeting::Config {
            max_connections: 3,
            ..greeting::Config::default()
        });
        // What a neighbour really says, to be broken: what the stack has sent is turned back on it, too.
        let mut frames = vec![
            datagram(
                MAC,
                SERVER_MAC,
                addr("192.0.2.7", 5),
                addr("192.0.2.1", 8898),
                b"x",
            ),
            datagram(
                MAC,
                SERVER_MAC,
                addr("fdaa::7", 5),
                addr("fdaa::1", 8898),
                b"x",
            ),
            datagram(
                MAC,
                SERVER_MAC,
                addr("192.0.2.7", 5),
                addr("192.0.2.1", 1),
                b"x",
            ),
            datagram(
                MAC,
                SERVER_MAC,
                addr("fdaa::7", 5),
                addr("fdaa::1", 1),
                b"x",
            ),
        ];
        for frame in &frames.clone() {
            // As TCP and as ICMP they are broken from the beginning.
            let mut frame = frame.clone();
            frame.resize(100, 0);
            let protocol = if frame[12] == 0x08 { 14 + 9 } else { 14 + 6 };
            for number in [1, 6, 58, 0, 43, 44] {
                frame[protocol] = number;
                frames.push(frame.clone());
            }
        }
        let mut now = at(0);
        for _ in 0..5_000 {
            let pick = rng.below(frames.len() as u64) as usize;
            let mut frame = frames[pick].clone();
            for _ in 0..rng.below(6) {
                let index = rng.below(frame.len() as u64) as usize;
                frame[index] = match rng.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => frame[index] ^ (1 << rng.below(8)),
                    _ => rng.below(256) as u8,
                };
            }
            if rng.below(20) == 0 {
                frame.truncate(rng.below(frame.len() as u64) as usize);
            }
            let _ = stack.device_mut().0.deliver(now.monotonic, &frame);
            now.monotonic += Duration::from_micros(rng.below(50_000));
            let mut scratch = [0; 64];
            stack.turn(now, 4, |sockets, now| {
                let mut transport = sockets.udp(&mut socket, now);
                let Ok(_) = pump(&mut service, &mut transport, now, &mut scratch, 16);
                drop(transport);
                listener.pump(sockets, &mut streams, now).deadline
            });
            while let Some(mut sent) = stack.device_mut().0.take_sent(<[u8]>::to_vec) {
                if frames.len() < 200 && sent.len() > 14 {
                    sent.copy_within(6..12, 0);
                    sent[..6].copy_from_slice(&SERVER_MAC);
                    sent[6..12].copy_from_slice(&MAC);
                    frames.push(sent);
                }
            }
        }
        // It is all there still.
        now.monotonic += Duration::from_secs(120);
        let mut scratch = [0; 64];
        let question = &frames[0];
        for _ in 0..3 {
            let _ = stack.device_mut().0.deliver(now.monotonic, question);
            stack.turn(now, 100, |sockets, now| {
                let mut transport = sockets.udp(&mut socket, now);
                let Ok(_) = pump(&mut service, &mut transport, now, &mut scratch, 16);
                drop(transport);
                listener.pump(sockets, &mut streams, now).deadline
            });
            now.monotonic += Duration::from_secs(4);
        }
        let mut answered = false;
        while let Some(sent) = stack.device_mut().0.take_sent(<[u8]>::to_vec) {
            answered |= sent.get(26..34) == Some(&[192, 0, 2, 1, 192, 0, 2, 7])
                && sent.get(42..) == Some(b"hi");
        }
        assert!(answered, "seed {seed}");
    }
}
