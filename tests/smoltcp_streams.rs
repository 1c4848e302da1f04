//! Connections between two smoltcp stacks: many at once, one after another, hostile and unlucky ones.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stacks;

use std::convert::Infallible;
use std::net::SocketAddr;

use smoltalk::greeting::{Config, StreamClient, StreamOutcome, StreamServer};
use smoltalk::sim::Impairments;
use smoltalk::smoltcp::{BindError, ConnectError, Dial, Listener, Sockets, TcpBuffers};
use smoltalk::{ConnId, Duration, Flow, InUse, Instant, Now, Protocol, StreamService, earliest};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use stacks::*;

fn server_addr() -> SocketAddr {
    addr("192.0.2.1", 8898)
}

fn listen<const N: usize>(host: &mut Host) -> Listener<N> {
    let buffers = [(); N].map(|()| tcp_buffers());
    host.listen(server_addr(), "greeting", buffers).unwrap()
}

fn limit(max_connections: usize) -> Config {
    Config {
        max_connections,
        ..Config::default()
    }
}

type Client = StreamClient<16, 16>;

fn client(now: Now) -> Client {
    Client::start(now, b"hello", Duration::from_secs(30)).unwrap()
}

/// Begins one connection for each of `clients`, and goes on until all are done.
fn run<const N: usize>(
    pair: &mut Pair,
    listener: &mut Listener<N>,
    server: &mut StreamServer<N>,
    clients: &mut [Client],
) {
    pair.wake();
    let mut dials: Vec<Dial> = clients
        .iter()
        .map(|_| pair.client.connect(server_addr(), tcp_buffers()).unwrap())
        .collect();
    while !dials.iter().all(Dial::is_done) {
        pair.step(
            |sockets, now| listener.pump(sockets, server, now).deadline,
            |sockets, now| {
                dials
                    .iter_mut()
                    .zip(&mut *clients)
                    .map(|(dial, client)| dial.pump(sockets, client, now).deadline)
                    .fold(None, earliest)
            },
        );
    }
    for dial in dials {
        pair.client.hang_up(pair.now, dial);
    }
}

#[test]
fn thirty_two_at_a_time_and_none_is_refused() {
    let mut pair = Pair::new(1, Impairments::default(), 48);
    let mut listener = listen::<48>(&mut pair.server);
    let mut server = StreamServer::<48>::new(limit(47));
    for wave in 0..8 {
        let mut clients = vec![client(pair.now); 32];
        run(&mut pair, &mut listener, &mut server, &mut clients);
        for client in &clients {
            assert!(
                matches!(
                    client.outcome(),
                    StreamOutcome::Answered { answer: b"hi", .. }
                ),
                "wave {wave}: {:?}",
                client.outcome()
            );
        }
    }
    assert_eq!(server.counters().answered, 8 * 32);
    assert_eq!(server.counters().evicted, 0);
    assert_eq!(listener.counters().half_open_recycled, 0);
    // No TIME-WAIT has run out: no virtual time has passed to speak of.
    assert!(listener.counters().time_wait_recycled > 0);
    assert!(pair.now.monotonic < Instant::from_millis(100));
}

#[test]
fn five_hundred_one_after_another_on_four_sockets_leave_nothing_behind() {
    let mut pair = Pair::new(1, Impairments::default(), 4);
    let mut listener = listen::<4>(&mut pair.server);
    let mut server = StreamServer::<4>::new(limit(3));
    for round in 0..500 {
        let mut clients = [client(pair.now)];
        run(&mut pair, &mut listener, &mut server, &mut clients);
        assert!(
            matches!(
                clients[0].outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            ),
            "round {round}: {:?}",
            clients[0].outcome()
        );
    }
    // TIME-WAIT is kept where there is room for it, and cut short only for others.
    assert_eq!(listener.listening(), 0);
    assert_eq!(listener.counters().time_wait_recycled, 500 - 4);
    while pair.step(
        |sockets, now| listener.pump(sockets, &mut server, now).deadline,
        |_, _| None,
    ) {}
    assert_eq!(listener.listening(), 4);
    assert_eq!(server.connections(), 0);
}

#[test]
fn time_wait_does_not_take_all_that_there_is() {
    const POOL: usize = 1_100;
    const GREETINGS: usize = 1_030;
    let mut pair = Pair::new(1, Impairments::default(), POOL);
    let mut listener = listen::<POOL>(&mut pair.server);
    let mut server = StreamServer::<POOL>::new(limit(POOL));
    for _ in 0..GREETINGS {
        let mut clients = [client(pair.now)];
        run(&mut pair, &mut listener, &mut server, &mut clients);
    }
    assert!(pair.now.monotonic < Instant::from_secs(10));
    assert_eq!(server.counters().answered, GREETINGS as u64);
    assert_eq!(listener.counters().time_wait_recycled, 6);
    assert_eq!(listener.listening(), POOL - 1_024);
}

/// A TCP segment in its Ethernet frame, from a client that nobody simulates.
fn segment(from: SocketAddr, to: SocketAddr, control: TcpControl, payload: &[u8]) -> Vec<u8> {
    segment_at(from, to, control, payload, 1_000, None)
}

/// The same, with a sequence number and the number of the byte that it wants next.
fn segment_at(
    from: SocketAddr,
    to: SocketAddr,
    control: TcpControl,
    payload: &[u8],
    sequence: i32,
    ack: Option<TcpSeqNumber>,
) -> Vec<u8> {
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: TcpSeqNumber(sequence),
        ack_number: ack,
        window_len: 1_000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let mut bytes = vec![0; 14 + ip.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress([0x02, 0, 0, 0, 0, 0x66]));
    frame.set_dst_addr(EthernetAddress(SERVER_MAC));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let packet = frame.payload_mut();
    ip.emit(&mut *packet, &ChecksumCapabilities::default());
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]),
        &source,
        &destination,
        &ChecksumCapabilities::default(),
    );
    bytes
}

#[test]
fn a_flood_of_forged_requests_shuts_nobody_out() {
    let mut pair = Pair::new(1, Impairments::default(), 8);
    let mut listener = listen::<8>(&mut pair.server);
    let mut server = StreamServer::<8>::new(limit(7));
    for n in 0..100_u16 {
        // More than there are sockets, and all at once.
        for m in 0..20 {
            let from = addr(&format!("192.0.2.{}", 10 + m), 1_000 + n);
            let syn = segment(from, server_addr(), TcpControl::Syn, b"");
            let now = pair.now.monotonic;
            pair.server.device_mut().deliver(now, &syn).unwrap();
        }
        let begin = pair.now.monotonic;
        let mut clients = [client(pair.now)];
        run(&mut pair, &mut listener, &mut server, &mut clients);
        assert!(
            matches!(
                clients[0].outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            ),
            "{n}: {:?}",
            clients[0].outcome()
        );
        // One retransmission of its request is all that it takes.
        let waited = pair.now.monotonic.saturating_since(begin);
        assert!(waited <= Duration::from_secs(1), "{n}: {waited:?}");
    }
    assert!(listener.counters().half_open_recycled > 700);
    assert_eq!(server.counters().answered, 100);
    // And the last of the forged ones goes away too.
    while pair.step(
        |sockets, now| listener.pump(sockets, &mut server, now).deadline,
        |_, _| None,
    ) {}
    assert_eq!(listener.listening(), 8);
}

#[test]
fn a_repeated_request_goes_to_the_connection_that_it_belongs_to() {
    let mut pair = Pair::new(1, Impairments::default(), 4);
    let mut listener = listen::<4>(&mut pair.server);
    let mut server = StreamServer::<4>::new(limit(3));
    // So that connections end in the middle of the set, and sockets listen before others with a connection.
    let mut clients = vec![client(pair.now); 3];
    run(&mut pair, &mut listener, &mut server, &mut clients);
    for n in 0..20 {
        let syn = segment(
            addr("192.0.2.7", 1_000 + n),
            server_addr(),
            TcpControl::Syn,
            b"",
        );
        for repeat in 0..5 {
            let now = pair.now.monotonic;
            pair.server.device_mut().deliver(now, &syn).unwrap();
            pair.step(
                |sockets, now| listener.pump(sockets, &mut server, now).deadline,
                |_, _| None,
            );
            let half_open = listener.counters().half_open_recycled as usize;
            assert!(half_open <= usize::from(n), "request {n}, copy {repeat}");
        }
        let rst = segment(
            addr("192.0.2.7", 1_000 + n),
            server_addr(),
            TcpControl::Rst,
            b"",
        );
        let now = pair.now.monotonic;
        pair.server.device_mut().deliver(now, &rst).unwrap();
    }
}

#[test]
fn who_repeats_his_request_keeps_his_place_and_another_gets_it_after_a_while() {
    let mut host = server_host(1, 1);
    let mut listener = listen::<1>(&mut host);
    let mut server = StreamServer::<1>::new(limit(1));
    let mut ask = |from: &str, millis: u64| {
        let now = at(1_000 * millis);
        let syn = segment(addr(from, 1_000), server_addr(), TcpControl::Syn, b"");
        host.device_mut().deliver(now.monotonic, &syn).unwrap();
        host.turn(now, 1, |sockets, now| {
            listener.pump(sockets, &mut server, now).deadline
        });
        // Nobody is reset.
        while let Some(rst) = host.device_mut().take_sent(|frame| {
            frame.get(12..14) == Some(&[0x08, 0x00]) && frame[14 + 20 + 13] & 0x04 != 0
        }) {
            assert!(!rst);
        }
        listener.counters().half_open_recycled
    };
    assert_eq!(ask("192.0.2.7", 0), 0);
    assert_eq!(ask("192.0.2.7", 200), 0);
    assert_eq!(ask("192.0.2.7", 999), 0);
    assert_eq!(ask("192.0.2.8", 999), 1);
    assert_eq!(ask("192.0.2.8", 1_000), 1);
    assert_eq!(ask("192.0.2.9", 1_098), 1);
    assert_eq!(ask("192.0.2.9", 1_099), 2);
    assert_eq!(ask("192.0.2.9", 2_101), 2);
}

#[test]
fn a_client_may_use_its_port_again_at_once() {
    let mut host = server_host(1, 3);
    let mut listener = listen::<3>(&mut host);
    let mut server = StreamServer::<3>::new(limit(2));
    let from = addr("192.0.2.7", 1_000);
    let mut say = |control, payload: &[u8], sequence, ack| {
        let frame = segment_at(from, server_addr(), control, payload, sequence, ack);
        host.device_mut().deliver(Instant::ZERO, &frame).unwrap();
        host.turn(at(0), 1, |sockets, now| {
            listener.pump(sockets, &mut server, now).deadline
        });
        let told = std::iter::from_fn(|| {
            host.device_mut().take_sent(|frame| {
                let eth = EthernetFrame::new_checked(frame).unwrap();
                let ip = Ipv4Packet::new_checked(eth.payload()).unwrap();
                let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
                (tcp.syn(), tcp.fin(), tcp.rst(), tcp.seq_number())
            })
        });
        let told: Vec<_> = told.collect();
        (told, listener.counters().time_wait_recycled)
    };
    let mut greet = |first: i32| {
        let (told, recycled) = say(TcpControl::Syn, b"", first, None);
        let [(true, false, false, theirs)] = told[..] else {
            panic!("no SYN-ACK, but {told:?}");
        };
        let (told, _) = say(
            TcpControl::Psh,
            b"hello",
            first.wrapping_add(1),
            Some(theirs + 1),
        );
        assert!(told.last().is_some_and(|&(_, fin, ..)| fin), "{told:?}");
        // `hi` and the end; then the client's end, and the server's socket is in TIME-WAIT.
        say(
            TcpControl::Fin,
            b"",
            first.wrapping_add(6),
            Some(theirs + 4),
        );
        recycled
    };
    assert_eq!(greet(1_000), 0);
    assert_eq!(greet(2_000), 1);
    // The numbers go round.
    assert_eq!(greet(i32::MAX - 5), 2);
    assert_eq!(greet(i32::MIN + 1_000), 3);
    // A copy of the last request that was long on its way begins nothing.
    let (told, recycled) = say(TcpControl::Syn, b"", i32::MIN + 1_000, None);
    assert!(!told.iter().any(|&(syn, ..)| syn), "{told:?}");
    assert_eq!(recycled, 3);
    assert_eq!(server.counters().answered, 4);
}

#[test]
fn those_who_say_nothing_make_room_for_those_who_do() {
    let mut pair = Pair::new(1, Impairments::default(), 100);
    let mut listener = listen::<8>(&mut pair.server);
    let mut server = StreamServer::<8>::new(limit(7));
    let mut silent = Vec::new();
    for round in 0..40 {
        // Two that connect and say nothing, for ever.
        for _ in 0..2 {
            let dial = pair.client.connect(server_addr(), tcp_buffers()).unwrap();
            silent.push((dial, Station::default()));
        }
        pair.wake();
        let mut dial = pair.client.connect(server_addr(), tcp_buffers()).unwrap();
        let mut client = client(pair.now);
        while !dial.is_done() {
            pair.step(
                |sockets, now| listener.pump(sockets, &mut server, now).deadline,
                |sockets, now| {
                    for (dial, station) in &mut silent {
                        dial.pump(sockets, station, now);
                    }
                    dial.pump(sockets, &mut client, now).deadline
                },
            );
        }
        pair.client.hang_up(pair.now, dial);
        assert!(
            matches!(
                client.outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            ),
            "round {round}: {:?}",
            client.outcome()
        );
        // Their sockets are given back once the server has cut them off.
        let (done, open) = silent.into_iter().partition(|(dial, _)| dial.is_done());
        silent = open;
        let done: Vec<(Dial, Station)> = done;
        for (dial, _) in done {
            pair.client.hang_up(pair.now, dial);
        }
        assert!(silent.len() <= 8, "round {round}");
    }
    assert_eq!(server.counters().answered, 40);
    assert!(server.counters().evicted >= 60, "{:?}", server.counters());
    // Those that were left are cut off when their time is up, to the microsecond.
    let until = pair.now.monotonic;
    while server.connections() > 0 {
        pair.step(
            |sockets, now| listener.pump(sockets, &mut server, now).deadline,
            |sockets, now| {
                for (dial, station) in &mut silent {
                    dial.pump(sockets, station, now);
                }
                None
            },
        );
    }
    assert!(pair.now.monotonic <= until + Duration::from_secs(10));
}

/// One end of one connection, doing what the test wants, and noting what happens.
#[derive(Default)]
struct Station {
    to_write: Vec<u8>,
    finish: bool,
    abort: bool,
    /// It takes in nothing.
    deaf: bool,
    /// It writes no more than one byte at a time.
    drip: bool,
    read: Vec<u8>,
    pieces: usize,
    opened: bool,
    ended: bool,
    closed: bool,
    ready: bool,
}

impl Station {
    fn saying(bytes: &[u8]) -> Self {
        Self {
            to_write: bytes.to_vec(),
            ..Self::default()
        }
    }
}

impl StreamService for Station {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, _: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        self.opened = true;
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        if self.deaf {
            return 0;
        }
        self.read.extend_from_slice(data);
        self.pieces += 1;
        data.len()
    }

    fn handle_end(&mut self, _: Now, _: ConnId) {
        self.ended = true;
    }

    fn handle_close(&mut self, _: Now, _: ConnId) {
        self.closed = true;
    }

    fn poll_write(&mut self, _: Now, _: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        if self.abort {
            return (0, Flow::Abort);
        }
        let mut len = buf.len().min(self.to_write.len());
        if self.drip {
            len = len.min(1);
        }
        buf[..len].copy_from_slice(&self.to_write[..len]);
        self.to_write.drain(..len);
        let flow = if self.finish && self.to_write.is_empty() {
            Flow::Finish
        } else {
            Flow::Open
        };
        (len, flow)
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        std::mem::take(&mut self.ready).then_some(ConnId::new(0))
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// A connection between two stations.
struct Call {
    pair: Pair,
    listener: Listener<1>,
    dial: Dial,
    server: Station,
    client: Station,
}

impl Call {
    fn new(seed: u64, impairments: Impairments, server: Station, client: Station) -> Self {
        let mut pair = Pair::new(seed, impairments, 1);
        Self {
            listener: listen::<1>(&mut pair.server),
            dial: pair.client.connect(server_addr(), tcp_buffers()).unwrap(),
            pair,
            server,
            client,
        }
    }

    fn step(&mut self) -> bool {
        self.pair.step(
            |sockets, now| self.listener.pump(sockets, &mut self.server, now).deadline,
            |sockets, now| self.dial.pump(sockets, &mut self.client, now).deadline,
        )
    }

    /// Until nothing happens for `longest`.
    fn settle(&mut self, longest: Duration) {
        self.pair.wake();
        let end = self.pair.now.monotonic + longest;
        while self.step() && self.pair.now.monotonic < end {}
    }
}

const MOMENT: Duration = Duration::from_secs(1);

#[test]
fn a_peer_that_never_reads_stops_the_flow_and_nothing_else() {
    let long: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let deaf = Station {
        deaf: true,
        ..Station::default()
    };
    let mut call = Call::new(1, Impairments::default(), Station::saying(&long), deaf);
    call.settle(MOMENT);
    // The client's window and our own buffer are full, and no more.
    assert_eq!(long.len() - call.server.to_write.len(), 512 + 512);
    assert_eq!(call.client.read, []);
    // The moment it reads, all of it comes.
    call.client.deaf = false;
    call.client.ready = true;
    call.settle(Duration::from_secs(10));
    assert!(call.client.read == long);
}

#[test]
fn half_a_connection_still_works() {
    let client = Station {
        finish: true,
        ..Station::saying(b"question")
    };
    let mut call = Call::new(1, Impairments::default(), Station::default(), client);
    call.settle(MOMENT);
    assert_eq!(call.server.read, b"question");
    assert!(call.server.ended && !call.server.closed && !call.client.ended);
    call.server.to_write = b"answer".to_vec();
    call.server.finish = true;
    call.server.ready = true;
    call.settle(MOMENT);
    assert_eq!(call.client.read, b"answer");
    assert!(call.client.ended && call.client.closed && call.server.closed);
    // Who closes first keeps TIME-WAIT, so the server's socket is free at once.
    assert_eq!(call.listener.listening(), 1);
}

#[test]
fn a_reset_is_heard_and_frees_the_socket() {
    let mut call = Call::new(
        1,
        Impairments::default(),
        Station::default(),
        Station::default(),
    );
    call.settle(MOMENT);
    assert!(call.server.opened && call.client.opened);
    call.client.abort = true;
    call.client.ready = true;
    call.settle(MOMENT);
    assert!(call.server.closed && !call.server.ended);
    assert_eq!(call.listener.listening(), 1);
    assert!(call.dial.is_done());
}

#[test]
fn what_came_before_a_reset_can_still_be_read() {
    // Data, the end and a reset all come before the client looks.
    for finish in [true, false] {
        let server = Station {
            finish,
            ..Station::saying(b"last words")
        };
        let mut call = Call::new(1, Impairments::default(), server, Station::default());
        while !call.server.opened {
            call.step();
        }
        // The frames lie in the client's device; the reset comes on top of them.
        call.server.abort = true;
        call.server.ready = true;
        call.pair.server.turn(call.pair.now, 16, |sockets, now| {
            call.listener.pump(sockets, &mut call.server, now).deadline
        });
        call.pair.cable.exchange(
            call.pair.now.monotonic,
            call.pair.server.device_mut(),
            call.pair.client.device_mut(),
        );
        // A program that looks away for a moment.
        call.pair.client.turn(call.pair.now, 16, |_, _| None);
        call.settle(MOMENT);
        assert_eq!(call.client.read, b"last words");
        assert!(call.client.closed);
        assert_eq!(call.client.ended, finish);
    }
}

#[test]
fn one_byte_in_each_segment() {
    let client = Station {
        drip: true,
        finish: true,
        ..Station::saying(&[b'x'; 300])
    };
    let mut call = Call::new(1, Impairments::default(), Station::default(), client);
    let mut pieces = Vec::new();
    for _ in 0..5_000 {
        let before = call.server.read.len();
        call.client.ready = true;
        call.pair.wake();
        call.step();
        pieces.push(call.server.read.len() - before);
        if call.server.ended {
            break;
        }
    }
    assert_eq!(call.server.read, [b'x'; 300]);
    assert!(call.server.ended);
}

#[test]
fn long_messages_both_ways_over_a_bad_cable() {
    for seed in 0..20 {
        let message = |n: u32| -> Vec<u8> { (0..20_000_u32).map(|i| (i / n) as u8).collect() };
        let (question, answer) = (message(3), message(7));
        let rough = Impairments::rough(50, 50, Duration::from_millis(2));
        let saying = |bytes: &[u8]| Station {
            finish: true,
            ..Station::saying(bytes)
        };
        let mut call = Call::new(seed, rough, saying(&answer), saying(&question));
        while !(call.server.closed && call.client.closed) && call.step() {}
        assert!(call.server.read == question, "seed {seed}");
        assert!(call.client.read == answer, "seed {seed}");
    }
}

#[test]
fn a_peer_that_vanishes_frees_its_socket_and_one_that_is_only_silent_keeps_it() {
    let mut call = Call::new(
        1,
        Impairments::default(),
        Station::default(),
        Station::default(),
    );
    // Silent for ten minutes: the keep-alives are answered.
    call.settle(Duration::from_secs(600));
    assert!(call.server.opened && !call.server.closed && !call.client.closed);
    // The cable is cut.
    let cut = Impairments::rough(1_000, 0, Duration::ZERO);
    call.pair.cable.set_impairments(cut);
    let before = call.pair.now.monotonic;
    while !call.server.closed {
        let goes_on = call.step();
        assert!(goes_on || call.server.closed);
    }
    let after = call.pair.now.monotonic.saturating_since(before);
    assert!(after <= Duration::from_secs(61), "{after:?}");
    // The reset that nobody hears needs the peer's Ethernet address, which nobody tells any more.
    call.settle(Duration::from_secs(70));
    assert_eq!(call.listener.listening(), 1);
}

#[test]
fn nobody_there_and_nobody_listening() {
    let mut pair = Pair::new(1, Impairments::default(), 2);
    // Nothing listens.
    let mut refused = client(pair.now);
    let mut dial = pair.client.connect(server_addr(), tcp_buffers()).unwrap();
    while !dial.is_done() {
        pair.step(
            |_, _| None,
            |sockets, now| dial.pump(sockets, &mut refused, now).deadline,
        );
    }
    assert_eq!(refused.outcome(), StreamOutcome::Refused);
    assert_eq!(pair.now, at(0));
    pair.client.hang_up(pair.now, dial);
    // Nobody is there.
    let nowhere = addr("192.0.2.66", 8898);
    let mut waiting = client(pair.now);
    let mut dial = pair.client.connect(nowhere, tcp_buffers()).unwrap();
    while waiting.outcome() == StreamOutcome::Pending {
        pair.step(
            |_, _| None,
            |sockets, now| dial.pump(sockets, &mut waiting, now).deadline,
        );
    }
    assert_eq!(
        waiting.outcome(),
        StreamOutcome::TimedOut {
            connected: false,
            answer: b""
        }
    );
    assert_eq!(pair.now, at(30_000_000));
    pair.client.hang_up(pair.now, dial);
    // No way leads there.
    for nowhere in [
        "198.51.100.1:1",
        "192.0.2.255:1",
        "224.0.0.1:1",
        "0.0.0.0:1",
        "192.0.2.1:0",
        "[fdbb::1]:1",
    ] {
        let to = nowhere.parse().unwrap();
        assert_eq!(
            pair.client.connect(to, tcp_buffers()).map(|_| ()),
            Err(ConnectError::NoRoute { to })
        );
    }
}

#[test]
fn one_port_has_one_owner_and_memory_ends() {
    let mut host = server_host(1, 4);
    let mut bind = |local, owner| host.bind(local, owner, udp_buffers());
    let first = bind(addr("192.0.2.1", 9000), "time").unwrap();
    for again in ["192.0.2.1", "0.0.0.0", "::"] {
        let local = addr("192.0.2.1", 9000);
        let owner = "time";
        let protocol = Protocol::Udp;
        assert_eq!(
            bind(addr(again, 9000), "chat").map(|_| ()),
            Err(BindError::InUse(InUse::By {
                protocol,
                local,
                owner
            }))
        );
    }
    // The same port of another address, and of another protocol, is another port.
    let second = bind(addr("fdaa::1", 9000), "chat").unwrap();
    assert_eq!(
        bind(addr("192.0.2.2", 1), "chat").map(|_| ()),
        Err(BindError::NotOurs {
            ip: "192.0.2.2".parse().unwrap()
        })
    );
    let any = [
        bind(addr("0.0.0.0", 0), "a").unwrap(),
        bind(addr("::", 0), "b").unwrap(),
    ];
    for socket in &any {
        assert!(socket.local_addr().port() >= 49_152);
    }
    assert_eq!(
        bind(addr("::", 0), "c").map(|_| ()),
        Err(BindError::NoRoom { capacity: 4 })
    );
    let buffers: [&'static mut TcpBuffers<512, 512>; 1] = [tcp_buffers()];
    assert_eq!(
        host.listen(addr("192.0.2.1", 9000), "x", buffers)
            .map(|_| ()),
        Err(BindError::NoRoom { capacity: 4 })
    );
    // What is given back can be had again.
    let [a, b] = any;
    for socket in [first, second, a, b] {
        host.unbind(socket);
    }
    let buffers = [(); 3].map(|()| tcp_buffers());
    host.listen(addr("::", 9000), "x", buffers).unwrap();
    host.bind(addr("::", 9000), "y", udp_buffers()).unwrap();
}

#[test]
fn the_services_are_asked_only_when_something_has_changed() {
    // A service that would be asked for every frame would be slow with many connections.
    let mut pair = Pair::new(1, Impairments::default(), 4);
    let mut listener = listen::<4>(&mut pair.server);
    let mut server = Counting(StreamServer::new(limit(3)), 0);
    let mut dial = pair.client.connect(server_addr(), tcp_buffers()).unwrap();
    let mut silent = Station::default();
    let mut serve =
        |sockets: &mut Sockets<'static>, now| listener.pump(sockets, &mut server, now).deadline;
    for _ in 0..20 {
        pair.wake();
        pair.step(&mut serve, |sockets, now| {
            dial.pump(sockets, &mut silent, now).deadline
        });
    }
    for n in 0..50 {
        let ack = segment(addr("192.0.2.7", n), server_addr(), TcpControl::Rst, b"");
        let now = pair.now.monotonic;
        pair.server.device_mut().deliver(now, &ack).unwrap();
        pair.server.turn(pair.now, 4, &mut serve);
    }
    assert_eq!(server.1, 1, "asked once when it opened");
}

/// Counts how often a service is asked to write.
struct Counting(StreamServer<4>, u32);

impl StreamService for Counting {
    type Reject = <StreamServer<4> as StreamService>::Reject;

    fn handle_open(&mut self, now: Now, id: ConnId, peer: SocketAddr) -> Result<(), Self::Reject> {
        self.0.handle_open(now, id, peer)
    }
    fn handle_data(&mut self, now: Now, id: ConnId, data: &[u8]) -> usize {
        self.0.handle_data(now, id, data)
    }
    fn handle_end(&mut self, now: Now, id: ConnId) {
        self.0.handle_end(now, id);
    }
    fn handle_close(&mut self, now: Now, id: ConnId) {
        self.0.handle_close(now, id);
    }
    fn poll_write(&mut self, now: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        self.1 += 1;
        self.0.poll_write(now, id, buf)
    }
    fn poll_ready(&mut self) -> Option<ConnId> {
        self.0.poll_ready()
    }
    fn handle_timeout(&mut self, now: Now) {
        self.0.handle_timeout(now);
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }
}
