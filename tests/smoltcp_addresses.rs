//! Addresses that come and go while the stack runs: by hand, by DHCP, and by IPv6 routers.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stacks;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltalk::greeting::{self, DatagramServer, StreamServer};
use smoltalk::sim::Rng;
use smoltalk::smoltcp::{AddressEvent, BindError, ConfigError, Lease, Listener, UdpSocket};
use smoltalk::{DatagramTransport, Duration, Instant, Now, Sent, earliest, pump};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use stacks::frames::{Seen, datagram, frame, see};
use stacks::*;

const MAC: [u8; 6] = SERVER_MAC;
const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
const DHCP_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const LEASED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const LEASE_SECS: u32 = 1_200;
/// Of `MAC`: RFC 4291, appendix A.
const LINK_LOCAL: &str = "fe80::ff:fe00:1";
const ROUTER: &str = "fe80::fe";
const OURS: &str = "2001:db8::ff:fe00:1";
const PORT: u16 = greeting::PORT;

/// What happened, and when.
#[derive(Default)]
struct Log {
    frames: Vec<(Instant, Vec<u8>)>,
    events: Vec<(Instant, AddressEvent)>,
}

impl Log {
    fn seen(&self) -> Vec<Seen> {
        self.frames.iter().map(|(_, bytes)| see(bytes)).collect()
    }

    fn just_events(&self) -> Vec<AddressEvent> {
        self.events.iter().map(|&(_, event)| event).collect()
    }

    /// What was said to DHCP servers, and when.
    fn requests(&self) -> Vec<(Instant, Request)> {
        let requests = self.frames.iter().map(|(at, bytes)| (at, see(bytes)));
        requests
            .filter_map(|(at, seen)| match seen {
                Seen::Datagram {
                    mac,
                    from,
                    to,
                    payload,
                } if to.port() == 67 => Some((*at, Request::read(mac, from, to, &payload))),
                _ => None,
            })
            .collect()
    }
}

/// A stack with the greeting on it, and nobody but the test at the other end of the cable.
struct Board {
    host: Host,
    now: Now,
    socket: UdpSocket,
    datagrams: DatagramServer,
    listener: Listener<2>,
    streams: StreamServer<2>,
}

impl Board {
    /// `local` is where it greets.
    fn new(mut host: Host, local: &str) -> Self {
        let local = addr(local, PORT);
        Self {
            socket: host.bind(local, "greeting", udp_buffers()).unwrap(),
            listener: host
                .listen(local, "greeting", [tcp_buffers(), tcp_buffers()])
                .unwrap(),
            host,
            now: at(0),
            datagrams: DatagramServer::new(),
            streams: StreamServer::new(greeting::Config::default()),
        }
    }

    /// One that asks for all its addresses, and has none but the link-local one.
    fn asking(buffer: Option<&'static mut [u8]>) -> Self {
        let mut host = host(MAC, &[], 1, 4);
        let mut socket = dhcpv4::Socket::new();
        if let Some(buffer) = buffer {
            socket.set_receive_packet_buffer(buffer);
        }
        host.start_dhcp(socket).unwrap();
        host.start_slaac(at(0));
        Self::new(host, "0.0.0.0")
    }

    fn leasing() -> Self {
        let mut board = Self::asking(Some(buffer(576)));
        board.lease(LEASED, LEASE_SECS);
        board
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let port = self.host.device_mut();
        port.deliver(self.now.monotonic, bytes).unwrap();
    }

    fn turn(&mut self) -> smoltalk::smoltcp::Turn {
        let Self {
            socket,
            datagrams,
            listener,
            streams,
            ..
        } = self;
        let mut scratch = [0; 64];
        self.host.turn(self.now, 100, |sockets, now| {
            let Ok(pumped) = pump(
                datagrams,
                &mut sockets.udp(socket, now),
                now,
                &mut scratch,
                16,
            );
            earliest(
                pumped.deadline,
                listener.pump(sockets, streams, now).deadline,
            )
        })
    }

    /// Lives for `secs` more seconds as its driver is told to: it sleeps until each deadline and no longer, and asks
    /// for events after each turn.
    fn live(&mut self, secs: u64) -> Log {
        let until = self.now.monotonic + Duration::from_secs(secs);
        let mut log = Log::default();
        let mut idle = 0;
        loop {
            let turn = self.turn();
            let mut busy = turn.more;
            while let Some(event) = self.host.poll_addresses(self.now) {
                log.events.push((self.now.monotonic, event));
                assert!(turn.deadline.is_some_and(|at| at <= self.now.monotonic));
                busy = true;
            }
            while let Some(bytes) = self.host.device_mut().take_sent(<[u8]>::to_vec) {
                log.frames.push((self.now.monotonic, bytes));
                busy = true;
            }
            let next = turn.deadline.filter(|&at| at <= until);
            // A change that changes nothing is not told of, and may take a turn.
            idle = if busy { 0 } else { idle + 1 };
            assert!(idle < 3, "nothing to do at {:?}", self.now.monotonic);
            if let Some(next) = next.filter(|_| !turn.more) {
                if next > self.now.monotonic {
                    self.now.monotonic = next;
                    idle = 0;
                }
            } else if !turn.more {
                self.now.monotonic = until;
                return log;
            }
        }
    }

    /// Goes through discover, offer, request and ack.
    fn lease(&mut self, ip: Ipv4Addr, secs: u32) -> Log {
        let log = self.live(0);
        let [(_, discover)] = &log.requests()[..] else {
            panic!("{:?}", log.seen());
        };
        assert_eq!(discover.kind, DhcpMessageType::Discover);
        self.deliver(&reply(discover, DhcpMessageType::Offer, ip, secs));
        let log = self.live(0);
        let [(_, request)] = &log.requests()[..] else {
            panic!("{:?}", log.seen());
        };
        assert_eq!(request.kind, DhcpMessageType::Request);
        self.deliver(&reply(request, DhcpMessageType::Ack, ip, secs));
        self.live(0)
    }

    /// Whether it greets whoever writes to `ours`, from there.
    fn greets(&mut self, ours: &str) -> bool {
        let theirs = if ours.starts_with("fe80") {
            "fe80::77"
        } else if ours.contains(':') {
            "2001:db8::77"
        } else {
            "192.0.2.77"
        };
        self.greets_from(ours, PEER_MAC, theirs)
    }

    fn greets_from(&mut self, ours: &str, mac: [u8; 6], theirs: &str) -> bool {
        let (from, to) = (addr(theirs, 5), addr(ours, PORT));
        self.deliver(&datagram(mac, MAC, from, to, b"hello"));
        let hi = Seen::Datagram {
            mac,
            from: to,
            to: from,
            payload: b"hi".to_vec(),
        };
        self.live(0).seen().contains(&hi)
    }

    /// What it says to who asks for a connection to `ours`.
    fn answer_to_syn(&mut self, ours: &str, theirs: &str, port: u16) -> Option<TcpControl> {
        let (to, from) = (addr(ours, PORT), addr(theirs, port));
        self.deliver(&segment(from, to, TcpControl::Syn, None));
        let log = self.live(0);
        log.frames.iter().find_map(|(_, bytes)| {
            let packet = bytes.get(14..)?;
            let (protocol, len) = if ours.contains(':') {
                (packet.get(6)?, 40)
            } else {
                (packet.get(9)?, 20)
            };
            let tcp = TcpPacket::new_checked(packet.get(len..)?).ok()?;
            (*protocol == 6 && tcp.dst_port() == port).then(|| match (tcp.syn(), tcp.rst()) {
                (true, false) => TcpControl::Syn,
                (false, true) => TcpControl::Rst,
                _ => TcpControl::None,
            })
        })
    }
}

fn buffer(len: usize) -> &'static mut [u8] {
    Box::leak(vec![0; len].into_boxed_slice())
}

fn segment(from: SocketAddr, to: SocketAddr, control: TcpControl, ack: Option<u32>) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: TcpSeqNumber(1_000 + i32::from(ack.is_some())),
        ack_number: ack.map(|ack| TcpSeqNumber(ack as i32)),
        window_len: 1_000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    frame(PEER_MAC, MAC, &ip, |buf| {
        tcp.emit(
            &mut TcpPacket::new_unchecked(buf),
            &source,
            &destination,
            &ChecksumCapabilities::default(),
        );
    })
}

/// A message to a DHCP server, as far as it matters.
#[derive(Debug)]
struct Request {
    mac: [u8; 6],
    from: SocketAddr,
    to: SocketAddr,
    kind: DhcpMessageType,
    xid: u32,
    ours: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    payload: Vec<u8>,
}

impl Request {
    fn read(mac: [u8; 6], from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        let packet = DhcpPacket::new_checked(payload).unwrap();
        let dhcp = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(dhcp.client_hardware_address, EthernetAddress(MAC));
        assert_eq!(dhcp.client_identifier, Some(EthernetAddress(MAC)));
        assert_eq!(from.port(), 68);
        Self {
            mac,
            from,
            to,
            kind: dhcp.message_type,
            xid: dhcp.transaction_id,
            ours: dhcp.client_ip,
            requested: dhcp.requested_ip,
            server: dhcp.server_identifier,
            payload: payload.to_vec(),
        }
    }

    fn has_option(&self, kind: u8, ip: Ipv4Addr) -> bool {
        let option = [&[kind, 4][..], &ip.octets()].concat();
        self.payload[240..].windows(6).any(|bytes| bytes == option)
    }
}

/// What a DHCP server may say, with the usual contents.
fn answer(request: &Request, kind: DhcpMessageType, ip: Ipv4Addr, secs: u32) -> DhcpRepr<'static> {
    let ack = kind != DhcpMessageType::Nak;
    DhcpRepr {
        message_type: kind,
        transaction_id: request.xid,
        secs: 0,
        client_hardware_address: EthernetAddress(MAC),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: if ack { ip } else { Ipv4Addr::UNSPECIFIED },
        server_ip: DHCP_SERVER,
        router: ack.then_some(DHCP_SERVER),
        subnet_mask: ack.then_some(Ipv4Addr::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(DHCP_SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: ack.then_some(secs),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

/// The frame in which a server says so, to everybody.
fn say(from: Ipv4Addr, dhcp: &DhcpRepr<'_>) -> Vec<u8> {
    let mut payload = vec![0; dhcp.buffer_len()];
    dhcp.emit(&mut DhcpPacket::new_unchecked(&mut payload[..]))
        .unwrap();
    let from = SocketAddr::new(from.into(), 67);
    let to = addr("255.255.255.255", 68);
    datagram(ROUTER_MAC, [0xff; 6], from, to, &payload)
}

fn reply(request: &Request, kind: DhcpMessageType, ip: Ipv4Addr, secs: u32) -> Vec<u8> {
    say(DHCP_SERVER, &answer(request, kind, ip, secs))
}

fn lease(ip: Ipv4Addr, seconds: Option<u32>) -> Lease {
    Lease {
        ip,
        prefix: 24,
        server: DHCP_SERVER,
        gateway: Some(DHCP_SERVER),
        seconds,
    }
}

fn arp_reply(mac: [u8; 6], ip: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0; 42];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress(mac));
    frame.set_dst_addr(EthernetAddress(MAC));
    frame.set_ethertype(EthernetProtocol::Arp);
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: ip,
        target_hardware_addr: EthernetAddress(MAC),
        target_protocol_addr: to,
    };
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// An ICMPv6 message of neighbour discovery, as a frame. `message` has no checksum yet.
fn discovery(mac: [u8; 6], from: &str, to: &str, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let (from, to): (Ipv6Addr, Ipv6Addr) = (from.parse().unwrap(), to.parse().unwrap());
    let ip = IpRepr::new(
        from.into(),
        to.into(),
        IpProtocol::Icmpv6,
        message.len(),
        hop_limit,
    );
    let [.., a, b, c, d] = to.octets();
    let to_mac = if to.is_multicast() {
        [0x33, 0x33, a, b, c, d]
    } else {
        MAC
    };
    frame(mac, to_mac, &ip, |buf| {
        buf.copy_from_slice(message);
        Icmpv6Packet::new_unchecked(buf).fill_checksum(&from, &to);
    })
}

/// A router advertisement (RFC 4861, section 4.2) with one prefix (section 4.6.2), 2001:db8::/64 for `valid` seconds.
fn advertisement(router_lifetime: u16, valid: u32) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(router_lifetime.to_be_bytes());
    message.extend([0; 8]);
    message.extend([3, 4, 64, 0xc0]);
    message.extend(valid.to_be_bytes());
    message.extend(valid.to_be_bytes());
    message.extend([0; 4]);
    message.extend("2001:db8::".parse::<Ipv6Addr>().unwrap().octets());
    message
}

fn advertise(router_lifetime: u16, valid: u32) -> Vec<u8> {
    discovery(
        ROUTER_MAC,
        ROUTER,
        "ff02::1",
        255,
        &advertisement(router_lifetime, valid),
    )
}

#[test]
fn an_address_is_lent_by_dhcp() {
    for with_buffer in [false, true] {
        let mut board = Board::asking(with_buffer.then(|| buffer(576)));
        // A server may be asked before anything is known (RFC 2131, section 4.4.1).
        let log = board.live(0);
        let [(now, discover)] = &log.requests()[..] else {
            panic!("{:?}", log.seen());
        };
        assert_eq!(*now, Instant::ZERO);
        assert_eq!(discover.kind, DhcpMessageType::Discover);
        assert_eq!(discover.mac, [0xff; 6]);
        assert_eq!(
            (discover.from, discover.to),
            (addr("0.0.0.0", 68), addr("255.255.255.255", 67))
        );
        assert_eq!((discover.requested, discover.server), (None, None));
        board.deliver(&reply(discover, DhcpMessageType::Offer, LEASED, LEASE_SECS));
        let log = board.live(0);
        let [(_, request)] = &log.requests()[..] else {
            panic!("{:?}", log.seen());
        };
        // RFC 2131, section 4.3.2: to everybody, with the server's and the address's options, and nothing in
        // `ciaddr`.
        assert_eq!(request.kind, DhcpMessageType::Request);
        assert_eq!(request.xid, discover.xid);
        assert_eq!(request.mac, [0xff; 6]);
        assert_eq!(
            (request.from, request.to),
            (addr("0.0.0.0", 68), addr("255.255.255.255", 67))
        );
        assert!(request.has_option(50, LEASED) && request.has_option(54, DHCP_SERVER));
        assert_eq!(request.ours, Ipv4Addr::UNSPECIFIED);
        assert!(!board.greets("192.0.2.50"));
        board.deliver(&reply(request, DhcpMessageType::Ack, LEASED, LEASE_SECS));
        let log = board.live(0);
        let seconds = with_buffer.then_some(LEASE_SECS);
        assert_eq!(
            log.just_events(),
            [AddressEvent::Leased(lease(LEASED, seconds))]
        );
        assert!(board.host.addresses().contains(&(LEASED.into(), 24)));
        // What was bound before there was an address.
        assert!(board.greets("192.0.2.50"));
        assert_eq!(
            board.answer_to_syn("192.0.2.50", "192.0.2.77", 7),
            Some(TcpControl::Syn)
        );
        // Another network is reached over the router, whose Ethernet address is asked for.
        assert!(!board.greets_from("192.0.2.50", ROUTER_MAC, "198.51.100.1"));
        let reply = arp_reply(ROUTER_MAC, DHCP_SERVER, LEASED);
        board.deliver(&reply);
        let hi = Seen::Datagram {
            mac: ROUTER_MAC,
            from: addr("192.0.2.50", PORT),
            to: addr("198.51.100.1", 5),
            payload: b"hi".to_vec(),
        };
        assert!(board.live(1).seen().contains(&hi));
    }
}

#[test]
fn a_lease_is_renewed_then_rebound_and_then_over() {
    let mut board = Board::leasing();
    let lent = board.now.monotonic;
    let at = |secs| lent + Duration::from_secs(secs);
    // T1 is half of the lease (RFC 2131, section 4.4.5).
    let log = board.live(599);
    assert_eq!(log.requests().len(), 0);
    let log = board.live(1);
    assert_eq!(
        log.seen().last(),
        Some(&Seen::WhoHas(DHCP_SERVER.into())),
        "{:?}",
        log.seen()
    );
    board.deliver(&arp_reply(ROUTER_MAC, DHCP_SERVER, LEASED));
    let log = board.live(1);
    let [(now, request)] = &log.requests()[..] else {
        panic!("{:?}", log.seen());
    };
    assert_eq!((*now, request.kind), (at(600), DhcpMessageType::Request));
    // To the server alone, with `ciaddr` in place of the options (RFC 2131, section 4.3.2).
    assert_eq!(request.mac, ROUTER_MAC);
    assert_eq!(
        (request.from, request.to),
        (addr("192.0.2.50", 68), addr("192.0.2.254", 67))
    );
    assert_eq!(request.ours, LEASED);
    assert_eq!((request.requested, request.server), (None, None));
    let ack = reply(request, DhcpMessageType::Ack, LEASED, 2_400);
    board.deliver(&ack);
    let renewed = board.now.monotonic;
    let at = |secs| renewed + Duration::from_secs(secs);
    let log = board.live(0);
    assert_eq!(
        log.just_events(),
        [AddressEvent::Leased(lease(LEASED, Some(2_400)))]
    );
    // Nobody answers any more. T2 is seven eighths, from which on everybody is asked.
    let log = board.live(2_399);
    assert_eq!(log.events, []);
    let requests = log.requests();
    let (now, request) = requests
        .iter()
        .find(|(_, request)| request.mac == [0xff; 6])
        .unwrap();
    assert_eq!(*now, at(2_100));
    assert_eq!(request.from, addr("192.0.2.50", 68));
    assert_eq!(request.to, addr("255.255.255.255", 67));
    assert_eq!((request.ours, request.server), (LEASED, None));
    assert!(requests.len() < 10, "{}", requests.len());
    assert!(board.greets("192.0.2.50"));
    let log = board.live(1);
    assert_eq!(
        log.events,
        [(at(2_400), AddressEvent::LeaseLost { ip: LEASED })]
    );
    assert!(!board.greets("192.0.2.50"));
    assert_eq!(board.answer_to_syn("192.0.2.50", "192.0.2.77", 7), None);
    // It begins anew, and gets another one.
    assert_eq!(log.requests()[0].1.kind, DhcpMessageType::Discover);
    board.now.monotonic += Duration::from_secs(10);
    let other = Ipv4Addr::new(192, 0, 2, 60);
    let log = board.lease(other, LEASE_SECS);
    let expected = AddressEvent::Leased(lease(other, Some(LEASE_SECS)));
    assert_eq!(log.just_events(), [expected]);
    assert!(board.greets("192.0.2.60"));
    assert!(!board.greets("192.0.2.50"));
}

#[test]
fn a_lease_may_change_or_be_taken_back_at_its_renewal() {
    let other = Ipv4Addr::new(192, 0, 2, 60);
    for kind in [DhcpMessageType::Ack, DhcpMessageType::Nak] {
        let mut board = Board::leasing();
        board.live(600);
        board.deliver(&arp_reply(ROUTER_MAC, DHCP_SERVER, LEASED));
        let log = board.live(1);
        let (_, request) = &log.requests()[0];
        board.deliver(&reply(request, kind, other, LEASE_SECS));
        let log = board.live(0);
        if kind == DhcpMessageType::Nak {
            assert_eq!(log.just_events(), [AddressEvent::LeaseLost { ip: LEASED }]);
            assert_eq!(log.requests()[0].1.kind, DhcpMessageType::Discover);
        } else {
            let expected = AddressEvent::Leased(lease(other, Some(LEASE_SECS)));
            assert_eq!(log.just_events(), [expected]);
            assert!(board.greets("192.0.2.60"));
        }
        assert!(!board.greets("192.0.2.50"));
    }
}

#[test]
fn what_a_server_offers_must_be_an_address_of_a_host() {
    for (ip, mask, why) in [
        ("127.0.0.1", 8, "loopback"),
        ("0.0.0.7", 8, "nobody"),
        ("240.0.0.1", 8, "reserved"),
        ("192.0.2.255", 24, "broadcast"),
        ("192.0.2.0", 24, "the network"),
        ("192.0.2.50", 0, "no network"),
    ] {
        let mut board = Board::asking(None);
        let log = board.live(0);
        let ip: Ipv4Addr = ip.parse().unwrap();
        let mut offer = answer(&log.requests()[0].1, DhcpMessageType::Offer, ip, 60);
        offer.subnet_mask = Some(Ipv4Addr::from_bits(
            u32::MAX.checked_shl(32 - mask).unwrap_or(0),
        ));
        board.deliver(&say(DHCP_SERVER, &offer));
        board.live(0);
        offer.message_type = DhcpMessageType::Ack;
        board.deliver(&say(DHCP_SERVER, &offer));
        let prefix = u8::try_from(mask).unwrap();
        let ip = IpAddr::V4(ip);
        let expected = AddressEvent::Unusable {
            ip,
            why: ConfigError::Address { ip, prefix },
        };
        assert_eq!(board.live(0).just_events(), [expected], "{why}");
        assert!(board.host.addresses().iter().all(|(ip, _)| ip.is_ipv6()));
        // Until the lease is over, and nothing is lost then.
        let log = board.live(600);
        assert!(
            log.just_events()
                .iter()
                .all(|event| matches!(event, AddressEvent::LeaseLost { .. }))
        );
    }
}

#[test]
fn a_router_that_cannot_be_one_is_told_of_and_the_address_used() {
    for router in ["198.51.100.1", "192.0.2.255", "192.0.2.50", "0.0.0.0"] {
        let mut board = Board::asking(None);
        let log = board.live(0);
        let mut offer = answer(&log.requests()[0].1, DhcpMessageType::Offer, LEASED, 60);
        let router: Ipv4Addr = router.parse().unwrap();
        offer.router = Some(router);
        board.deliver(&say(DHCP_SERVER, &offer));
        board.live(0);
        offer.message_type = DhcpMessageType::Ack;
        board.deliver(&say(DHCP_SERVER, &offer));
        let ip = IpAddr::V4(router);
        assert_eq!(
            board.live(0).just_events(),
            [
                AddressEvent::Leased(Lease {
                    gateway: Some(router),
                    ..lease(LEASED, None)
                }),
                AddressEvent::Unusable {
                    ip,
                    why: ConfigError::Gateway(ip)
                },
            ]
        );
        assert!(board.greets("192.0.2.50"));
        let lost = AddressEvent::LeaseLost { ip: LEASED };
        assert_eq!(board.live(60).just_events(), [lost]);
    }
}

#[test]
fn a_server_without_an_address_is_not_heeded() {
    // smoltcp would take the lease, and panic when it is to renew it there.
    let mut board = Board::asking(None);
    let log = board.live(0);
    let offer = answer(&log.requests()[0].1, DhcpMessageType::Offer, LEASED, 60);
    board.deliver(&say(Ipv4Addr::UNSPECIFIED, &offer));
    assert_eq!(board.live(1).requests().len(), 0);
}

#[test]
fn what_was_added_by_hand_stays_when_the_network_takes_it_back() {
    // Before it is lent, or while it is.
    for before in [true, false] {
        let mut board = Board::asking(None);
        let keep = |board: &mut Board| {
            board.host.add_address(LEASED.into(), 24).unwrap();
            board.host.add_address(OURS.parse().unwrap(), 64).unwrap();
        };
        if before {
            keep(&mut board);
        }
        board.lease(LEASED, 60);
        board.deliver(&advertise(60, 60));
        let log = board.live(3);
        let added = AddressEvent::Autoconfigured {
            ip: OURS.parse().unwrap(),
            prefix: 64,
        };
        assert_eq!(log.just_events().contains(&added), !before);
        if !before {
            keep(&mut board);
        }
        let log = board.live(100);
        assert_eq!(
            log.just_events(),
            [
                AddressEvent::LeaseLost { ip: LEASED },
                AddressEvent::NoGateway {
                    ip: ROUTER.parse().unwrap()
                }
            ]
        );
        assert!(board.greets("192.0.2.50") && board.greets(OURS));
        // The gateway went with the lease.
        board.host.add_gateway(DHCP_SERVER.into()).unwrap();
    }
}

#[test]
fn what_was_removed_by_hand_is_not_missed() {
    let mut board = Board::leasing();
    board.host.remove_address(LEASED.into());
    assert!(!board.greets("192.0.2.50"));
    // Ours by hand now, though the lease goes on.
    board.host.add_address(LEASED.into(), 24).unwrap();
    let log = board.live(u64::from(LEASE_SECS));
    assert_eq!(log.just_events(), [AddressEvent::LeaseLost { ip: LEASED }]);
    assert!(board.greets("192.0.2.50"));
}

#[test]
fn there_is_one_dhcp_client() {
    let mut host = host(MAC, &[], 1, 2);
    let any = addr("0.0.0.0", PORT);
    assert!(matches!(
        host.bind(any, "greeting", udp_buffers()),
        Err(BindError::NotOurs { .. })
    ));
    host.start_dhcp(dhcpv4::Socket::new()).unwrap();
    assert_eq!(
        host.start_dhcp(dhcpv4::Socket::new()),
        Err(BindError::NoRoom { capacity: 1 })
    );
    host.bind(any, "greeting", udp_buffers()).unwrap();
}

#[test]
fn an_address_is_made_of_what_a_router_says() {
    let mut board = Board::new(host(MAC, &[], 1, 4), "::");
    board.host.start_slaac(board.now);
    let log = board.live(1);
    let [(_, solicitation)] = &log.frames[..] else {
        panic!("{:?}", log.seen());
    };
    assert_eq!(solicitation[..6], [0x33, 0x33, 0, 0, 0, 2]);
    assert_eq!(solicitation[20..22], [58, 255]);
    assert_eq!(solicitation[54], 133);
    board.deliver(&advertise(1_800, 7_200));
    let start = board.now.monotonic;
    let log = board.live(3);
    let [(probed, probe)] = &log.frames[..] else {
        panic!("{:?}", log.seen());
    };
    // From :: to the group ff02::1:ff00:1.
    assert_eq!(probe[..6], [0x33, 0x33, 0xff, 0, 0, 1]);
    assert_eq!(probe[22..38], [0; 16]);
    assert_eq!(see(probe), Seen::WhoHas(OURS.parse().unwrap()));
    let (ip, router) = (OURS.parse().unwrap(), ROUTER.parse().unwrap());
    let second = Duration::from_secs(1);
    assert!(probed.saturating_since(start) < second);
    assert_eq!(
        log.events,
        [
            (start, AddressEvent::Gateway { ip: router }),
            (
                *probed + second,
                AddressEvent::Autoconfigured { ip, prefix: 64 }
            ),
        ]
    );
    assert!(board.greets(OURS));
    assert_eq!(
        board.answer_to_syn(OURS, "2001:db8::77", 7),
        Some(TcpControl::Syn)
    );
    // The router was heard of, so that other networks are reached at once.
    board.deliver(&advertise(1_800, 7_200));
    board.live(0);
    assert!(board.greets_from(OURS, ROUTER_MAC, "2001:db8:ffff::1"));
    let echo = Icmpv6Repr::EchoRequest {
        ident: 1,
        seq_no: 1,
        data: b"abc",
    };
    let mut ping = vec![0; echo.buffer_len()];
    let peer = "2001:db8::77".parse().unwrap();
    echo.emit(
        &peer,
        &ip,
        &mut Icmpv6Packet::new_unchecked(&mut ping[..]),
        &ChecksumCapabilities::default(),
    );
    board.deliver(&discovery(PEER_MAC, "2001:db8::77", OURS, 64, &ping));
    let log = board.live(0);
    assert!(
        log.frames.iter().any(|(_, bytes)| {
            bytes[22..38] == ip.octets() && bytes[38..54] == peer.octets() && bytes[54] == 129
        }),
        "{:?}",
        log.seen()
    );
    // Somebody else is about to take it, and is told.
    let mut probe = vec![135, 0, 0, 0, 0, 0, 0, 0];
    probe.extend(ip.octets());
    board.deliver(&discovery(PEER_MAC, "::", "ff02::1:ff00:1", 255, &probe));
    let log = board.live(0);
    let [(_, claim)] = &log.frames[..] else {
        panic!("{:?}", log.seen());
    };
    assert_eq!(
        claim[38..54],
        "ff02::1".parse::<Ipv6Addr>().unwrap().octets()
    );
    assert_eq!((claim[54], &claim[62..78]), (136, &ip.octets()[..]));
    // All of it has an end.
    let log = board.live(7_200);
    assert_eq!(
        log.just_events(),
        [
            AddressEvent::NoGateway { ip: router },
            AddressEvent::Expired { ip }
        ]
    );
    assert!(!board.greets(OURS));
    assert!(!board.greets_from(OURS, ROUTER_MAC, "2001:db8:ffff::1"));
    assert!(board.greets(LINK_LOCAL));
}

#[test]
fn an_address_that_another_host_has_is_left_to_it() {
    let mut board = Board::new(host(MAC, &[], 1, 4), "::");
    board.host.start_slaac(board.now);
    board.deliver(&advertise(0, 7_200));
    board.live(0);
    let mut objection = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    objection.extend(OURS.parse::<Ipv6Addr>().unwrap().octets());
    objection.extend([2, 1]);
    objection.extend(PEER_MAC);
    board.deliver(&discovery(PEER_MAC, OURS, "ff02::1", 255, &objection));
    let ip = OURS.parse().unwrap();
    assert_eq!(
        board.live(10).just_events(),
        [AddressEvent::Duplicate { ip }]
    );
    assert!(!board.greets(OURS));
}

#[test]
fn advertisements_that_no_neighbour_can_have_sent_are_not_heeded() {
    let good = advertisement(1_800, 7_200);
    let passed_on = discovery(ROUTER_MAC, ROUTER, "ff02::1", 254, &good);
    let from_afar = discovery(ROUTER_MAC, "2001:db8::1", "ff02::1", 255, &good);
    let as_ourselves = discovery(ROUTER_MAC, LINK_LOCAL, "ff02::1", 255, &good);
    let mut broken = advertise(1_800, 7_200);
    broken[56] ^= 1;
    let mut to_another = advertise(1_800, 7_200);
    to_another[..6].copy_from_slice(&PEER_MAC);
    let mut of_a_group = advertise(1_800, 7_200);
    of_a_group[6] |= 1;
    let cut = advertise(1_800, 7_200)[..80].to_vec();
    for bytes in [
        passed_on,
        from_afar,
        as_ourselves,
        broken,
        to_another,
        of_a_group,
        cut,
    ] {
        let mut board = Board::new(host(MAC, &[], 1, 4), "::");
        board.host.start_slaac(board.now);
        board.deliver(&bytes);
        assert_eq!(board.live(3).events, [], "{bytes:x?}");
    }
    // Nor are any by one who did not ask to hear them.
    let mut board = Board::new(host(MAC, &[], 1, 4), "::");
    board.deliver(&advertise(1_800, 7_200));
    assert_eq!(board.live(3).events, []);
}

#[test]
fn an_own_gateway_is_kept_and_there_may_be_no_room_for_an_address() {
    let mut board = Board::new(host(MAC, &[], 1, 4), "::");
    let router = ROUTER.parse().unwrap();
    board.host.add_gateway(router).unwrap();
    for n in 0..7 {
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, n + 1));
        board.host.add_address(ip, 24).unwrap();
    }
    board.host.start_slaac(board.now);
    board.deliver(&advertise(60, 60));
    let ip = OURS.parse().unwrap();
    let expected = AddressEvent::Unusable {
        ip,
        why: ConfigError::TooManyAddresses { capacity: 8 },
    };
    assert_eq!(board.live(3).just_events(), [expected]);
    // Nothing to be lost.
    assert_eq!(board.live(100).just_events(), []);
    assert!(matches!(
        board.host.add_gateway(router),
        Err(ConfigError::TooManyGateways { .. })
    ));
}

#[test]
fn a_driver_that_asks_for_no_events_is_not_kept_busy() {
    let mut board = Board::asking(None);
    let log = board.live(0);
    let request = &log.requests()[0].1;
    board.deliver(&reply(request, DhcpMessageType::Offer, LEASED, LEASE_SECS));
    board.live(0);
    board.deliver(&reply(request, DhcpMessageType::Ack, LEASED, LEASE_SECS));
    board.deliver(&advertise(1_800, 7_200));
    let until = board.now.monotonic + Duration::from_secs(100);
    let mut turns = 0;
    while board.now.monotonic < until {
        let deadline = board.turn().deadline.expect("there are events");
        board.now.monotonic = board.now.monotonic.max(deadline);
        turns += 1;
        assert!(turns <= 120, "it is kept busy");
    }
    assert!(turns >= 90, "{turns}");
    // It can ask at last.
    let (host, now) = (&mut board.host, board.now);
    let events: Vec<_> = std::iter::from_fn(|| host.poll_addresses(now)).collect();
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(board.greets("192.0.2.50") && board.greets(OURS));
}

#[test]
fn what_is_to_be_said_waits_for_room_in_the_device() {
    let mut board = Board::new(host(MAC, &[("192.0.2.1", 24)], 1, 4), "::");
    let (from, to) = (addr("192.0.2.77", 5), addr("192.0.2.1", PORT));
    for _ in 0..QUEUE {
        board.deliver(&datagram(PEER_MAC, MAC, from, to, b"hello"));
        board.turn();
    }
    board.host.start_slaac(board.now);
    board.now = at(2_000_000);
    for _ in 0..10 {
        let turn = board.turn();
        assert!(turn.device_full);
        let millisecond = Duration::from_millis(1);
        assert_eq!(turn.deadline, Some(board.now.monotonic + millisecond));
        board.now.monotonic += millisecond;
    }
    while board.host.device_mut().take_sent(|_| ()).is_some() {}
    let log = board.live(0);
    assert_eq!(log.frames.len(), 1);
    assert_eq!(log.frames[0].1[54], 133);
}

#[test]
fn an_address_comes_and_goes_by_hand() {
    let mut board = Board::new(host(MAC, &[("192.0.2.1", 24)], 1, 4), "::");
    assert!(board.greets("192.0.2.1"));
    // A connection that is open.
    let (from, to) = (addr("192.0.2.77", 9), addr("192.0.2.1", PORT));
    board.deliver(&segment(from, to, TcpControl::Syn, None));
    let log = board.live(0);
    let packet = Ipv4Packet::new_unchecked(&log.frames.last().unwrap().1[14..]);
    let theirs = TcpPacket::new_unchecked(packet.payload()).seq_number();
    let ack = u32::from_ne_bytes(theirs.0.to_ne_bytes()).wrapping_add(1);
    board.deliver(&segment(from, to, TcpControl::None, Some(ack)));
    board.live(0);
    assert_eq!(board.listener.listening(), 1);

    let other = "198.51.100.1".parse().unwrap();
    board.host.add_address(other, 24).unwrap();
    board.host.add_address(other, 24).unwrap();
    assert!(board.greets_from("198.51.100.1", PEER_MAC, "198.51.100.7"));
    // It is broadcast to in both networks.
    for (broadcast, ours, theirs) in [
        ("198.51.100.255", "198.51.100.1", "198.51.100.7"),
        ("192.0.2.255", "192.0.2.1", "192.0.2.7"),
    ] {
        let (from, to) = (addr(theirs, 5), addr(broadcast, PORT));
        board.deliver(&datagram(PEER_MAC, [0xff; 6], from, to, b"hello"));
        let hi = Seen::Datagram {
            mac: PEER_MAC,
            from: addr(ours, PORT),
            to: from,
            payload: b"hi".to_vec(),
        };
        assert_eq!(board.live(0).seen(), [hi]);
    }
    let gateway = "192.0.2.254".parse().unwrap();
    board.host.add_gateway(gateway).unwrap();

    board.host.remove_address("192.0.2.1".parse().unwrap());
    assert_eq!(board.host.addresses().len(), 2);
    // The connection ends without a word, and its socket is free again.
    assert_eq!(board.live(0).seen(), []);
    assert_eq!(board.listener.listening(), 2);
    assert!(!board.greets("192.0.2.1"));
    assert!(board.greets_from("198.51.100.1", PEER_MAC, "198.51.100.7"));
    let (from, to) = (addr("192.0.2.7", 5), addr("192.0.2.255", PORT));
    board.deliver(&datagram(PEER_MAC, [0xff; 6], from, to, b"hello"));
    assert_eq!(board.live(0).seen(), []);
    // The gateway was in that network.
    assert_eq!(
        board.host.add_gateway(gateway),
        Err(ConfigError::Gateway(gateway))
    );
    // Neighbours may have changed places with the address: they are heard anew.
    board
        .host
        .add_address("192.0.2.1".parse().unwrap(), 24)
        .unwrap();
    let moved = [0x02, 0, 0, 0, 0, 0x78];
    assert!(board.greets_from("192.0.2.1", moved, "192.0.2.77"));
    // Who was never there goes without a word.
    board.host.remove_address("203.0.113.1".parse().unwrap());
    board.host.remove_gateway(gateway);
    for (ip, prefix) in [("192.0.2.9", 33), ("224.0.0.1", 24), ("::", 64)] {
        let ip = ip.parse().unwrap();
        assert_eq!(
            board.host.add_address(ip, prefix),
            Err(ConfigError::Address { ip, prefix })
        );
    }
}

#[test]
fn nothing_is_sent_from_an_address_that_was_given_up() {
    let addresses = [("192.0.2.1", 24), ("192.0.2.2", 24)];
    let mut board = Board::new(host(MAC, &addresses, 1, 4), "192.0.2.1");
    assert!(board.greets("192.0.2.1"));
    board.host.remove_address("192.0.2.1".parse().unwrap());
    let Board { host, socket, .. } = &mut board;
    host.turn(at(0), 1, |sockets, now| {
        let mut transport = sockets.udp(socket, now);
        let Ok(sent) = transport.send(addr("192.0.2.77", 5), b"hello");
        assert!(matches!(sent, Sent::Unreachable(_)), "{sent:?}");
        None
    });
    // And it is all as before when the address is back.
    host.add_address("192.0.2.1".parse().unwrap(), 24).unwrap();
    assert!(board.greets("192.0.2.1"));
}

#[test]
fn no_server_and_no_router_does_harm() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let mut board = Board::asking((seed % 2 == 0).then(|| buffer(300)));
        let mut last = None;
        let mut events = 0;
        for _ in 0..200 {
            let secs = [0, 0, 0, 1, 30, 600][rng.below(6) as usize];
            // A lease may be over as soon as it is there, and each frame may be answered at once.
            let log = board.live(secs);
            events += log.events.len();
            last = log.requests().pop().map(|(_, request)| request).or(last);
            let ips = [
                "192.0.2.50",
                "192.0.2.60",
                "192.0.2.254",
                "192.0.2.255",
                "127.0.0.1",
                "0.0.0.0",
                "255.255.255.255",
                "224.0.0.1",
            ];
            let mut ip = || -> Ipv4Addr { ips[rng.below(8) as usize].parse().unwrap() };
            let (ours, from, router) = (ip(), ip(), ip());
            if let Some(request) = &last {
                let expected = match request.kind {
                    DhcpMessageType::Discover => DhcpMessageType::Offer,
                    _ => DhcpMessageType::Ack,
                };
                let kind = [expected, expected, expected, DhcpMessageType::Nak];
                let secs = [0, 1, 60, u32::MAX][rng.below(4) as usize];
                let mut dhcp = answer(request, kind[rng.below(4) as usize], ours, secs);
                dhcp.router = Some(router);
                let bits = rng.below(33) as u32;
                if rng.below(2) == 0 && dhcp.subnet_mask.is_some() {
                    dhcp.subnet_mask =
                        Some(Ipv4Addr::from_bits(u32::MAX.checked_shl(bits).unwrap_or(0)));
                }
                board.deliver(&say(from, &dhcp));
            }
            let mut message = advertisement(rng.below(65_536) as u16, rng.below(8_000) as u32);
            message[0] = 134 + rng.below(3) as u8;
            for _ in 0..rng.below(4) {
                let index = rng.below(message.len() as u64) as usize;
                message[index] = [0, 1, 0xff, rng.below(256) as u8][rng.below(4) as usize];
            }
            let routers = [ROUTER, "fe80::1", "fe80::2", "::", OURS, LINK_LOCAL];
            let from = routers[rng.below(6) as usize];
            board.deliver(&discovery(ROUTER_MAC, from, "ff02::1", 255, &message));
        }
        assert!(events > 20, "seed {seed}: {events}");
        // It is all there still.
        assert!(board.greets(LINK_LOCAL), "seed {seed}");
    }
}
