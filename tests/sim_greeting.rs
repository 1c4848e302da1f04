//! The greeting over networks without a stack: datagrams that get lost, and streams cut to pieces.

use std::net::SocketAddr;

use smoltalk::greeting::{
    Config, Counters, DatagramClient, DatagramServer, StreamClient, StreamOutcome, StreamServer,
};
use smoltalk::sim::{DatagramNet, Impairments, StreamPair, StreamSide};
use smoltalk::{
    ConnId, Duration, Instant, Now, Outcome, Retry, StreamService, earliest, pump, pump_stream,
};

#[test]
fn every_datagram_exchange_comes_right_in_the_end() {
    for seed in 0..200 {
        let loss = [0, 50, 200, 500][seed as usize % 4];
        let rough = Impairments::rough(loss, 100, Duration::from_millis(900));
        let mut net = DatagramNet::<2, 64, 64>::new(seed, rough);
        let server_addr = SocketAddr::from(([192, 0, 2, 1], 8898));
        let server_host = net.add_host(server_addr).unwrap();
        let client_addr = SocketAddr::from(([192, 0, 2, 2], 50_000));
        let client_host = net.add_host(client_addr).unwrap();
        let mut server = DatagramServer::new();
        let retry = Retry::within(Duration::from_secs(120));
        let start = Now::monotonic(Instant::ZERO);
        let mut client = DatagramClient::start(start, server_addr, b"hello", retry).unwrap();
        let mut scratch = [0; 1024];
        while client.outcome() == Outcome::Pending {
            let now = Now::monotonic(net.now());
            let Ok(asked) = pump(
                &mut client,
                &mut net.host(client_host),
                now,
                &mut scratch,
                16,
            );
            let Ok(served) = pump(
                &mut server,
                &mut net.host(server_host),
                now,
                &mut scratch,
                16,
            );
            let next = earliest(asked.deadline, served.deadline);
            if let Some(next) = earliest(next, net.next_arrival()) {
                net.advance_to(next);
            }
        }
        assert!(
            matches!(client.outcome(), Outcome::Answered { answer: b"hi", .. }),
            "seed {seed}: {:?}",
            client.outcome()
        );
    }
}

#[test]
fn a_stream_may_be_cut_in_any_way() {
    let id = ConnId::new(0);
    let now = Now::monotonic(Instant::ZERO);
    let peer = SocketAddr::from(([192, 0, 2, 2], 50_000));
    for seed in 0..200 {
        let longest = [1, 2, 7, 100][seed as usize % 4];
        let mut pair = StreamPair::<16>::new(seed, longest);
        let mut server = StreamServer::<1>::new(Config::default());
        let greeting = [b'x'; 100];
        let mut client =
            StreamClient::<100, 8>::start(now, &greeting, Duration::from_secs(5)).unwrap();
        server.handle_open(now, id, peer).unwrap();
        client.handle_open(now, id, peer).unwrap();
        let (mut server_closed, mut client_closed) = (false, false);
        for _ in 0..1_000 {
            if !client_closed {
                let end = &mut pair.end(StreamSide::Client);
                client_closed = pump_stream(&mut client, id, end, now).closed;
            }
            if !server_closed {
                let end = &mut pair.end(StreamSide::Server);
                server_closed = pump_stream(&mut server, id, end, now).closed;
            }
        }
        assert!(server_closed && client_closed, "seed {seed}");
        assert!(
            matches!(
                client.outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            ),
            "seed {seed}: {:?}",
            client.outcome()
        );
        let expected = Counters {
            opened: 1,
            answered: 1,
            ..Counters::default()
        };
        assert_eq!(server.counters(), expected, "seed {seed}");
    }
}
