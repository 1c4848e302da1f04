//! The greeting between two smoltcp stacks, over a cable that is good, bad or worse.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stacks;

use smoltalk::greeting::{self, DatagramClient, DatagramServer, StreamClient, StreamServer};
use smoltalk::greeting::{Config, StreamOutcome};
use smoltalk::sim::Impairments;
use smoltalk::{Duration, Outcome, Retry, Unreachable, earliest, pump};
use stacks::*;

/// A dozen greetings over UDP and over TCP, one after another, to `ip`. Returns the virtual time it took.
fn greet(seed: u64, impairments: Impairments, ip: &str) -> Duration {
    let mut pair = Pair::new(seed, impairments, 8);
    let to = addr(ip, greeting::PORT);
    let any = addr(if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0);
    let everywhere = addr("::", greeting::PORT);

    let mut datagrams = DatagramServer::new();
    let mut udp = pair
        .server
        .bind(everywhere, "greeting", udp_buffers())
        .unwrap();
    // Patient, for a network where one frame in five is lost.
    let config = Config {
        idle_timeout: Duration::from_secs(60),
        max_connections: 3,
    };
    let mut streams = StreamServer::<4>::new(config);
    let buffers = [(); 4].map(|()| tcp_buffers());
    let mut listener = pair.server.listen(everywhere, "greeting", buffers).unwrap();
    let mut scratch = [0; 64];
    let mut serve = |sockets: &mut smoltalk::smoltcp::Sockets<'static>, now| {
        let Ok(pumped) = pump(
            &mut datagrams,
            &mut sockets.udp(&mut udp, now),
            now,
            &mut scratch,
            16,
        );
        let streams = listener.pump(sockets, &mut streams, now);
        earliest(pumped.deadline, streams.deadline)
    };

    let mut socket = pair.client.bind(any, "client", udp_buffers()).unwrap();
    for round in 0..6 {
        pair.wake();
        let retry = Retry::within(Duration::from_secs(120));
        let start = |now| DatagramClient::start(now, to, b"hello", retry).unwrap();
        let mut client = start(pair.now);
        let mut scratch = [0; 1024];
        loop {
            match client.outcome() {
                Outcome::Pending => {}
                // Where one in five is lost, all three requests for the server's Ethernet address may be.
                Outcome::Unreachable(Unreachable::NoRoute) => client = start(pair.now),
                _ => break,
            }
            pair.step(&mut serve, |sockets, now| {
                let mut transport = sockets.udp(&mut socket, now);
                let Ok(pumped) = pump(&mut client, &mut transport, now, &mut scratch, 16);
                pumped.deadline
            });
        }
        assert!(
            matches!(client.outcome(), Outcome::Answered { answer: b"hi", .. }),
            "seed {seed}, {ip}, UDP round {round}: {:?}",
            client.outcome()
        );
    }

    let mut buffers = Some(tcp_buffers().into());
    for round in 0..6 {
        pair.wake();
        let mut client =
            StreamClient::<16, 16>::start(pair.now, b"hello", Duration::from_secs(240)).unwrap();
        let socket: smoltcp::socket::tcp::Socket = buffers.take().unwrap();
        let mut dial = pair.client.connect(to, socket).unwrap();
        while !dial.is_done() {
            let goes_on = pair.step(&mut serve, |sockets, now| {
                dial.pump(sockets, &mut client, now).deadline
            });
            assert!(
                goes_on || dial.is_done(),
                "seed {seed}, {ip}, TCP round {round}: nothing happens any more"
            );
        }
        assert!(
            matches!(
                client.outcome(),
                StreamOutcome::Answered { answer: b"hi", .. }
            ),
            "seed {seed}, {ip}, TCP round {round}: {:?}",
            client.outcome()
        );
        buffers = Some(pair.client.hang_up(pair.now, dial));
    }
    // The last acknowledgements may be lost too, and then the server still has its connections for a while.
    while pair.step(&mut serve, |_, _| None) {}
    assert_eq!(listener.listening(), 4, "seed {seed}, {ip}");
    assert_eq!(streams.connections(), 0, "seed {seed}, {ip}");
    pair.now.monotonic.saturating_since(smoltalk::Instant::ZERO)
}

#[test]
fn over_a_perfect_cable_nothing_ever_waits() {
    for ip in SERVER_IPS {
        // What takes time is TIME-WAIT alone: 10 seconds after the last connection.
        let time = greet(1, Impairments::default(), ip);
        assert!(
            (Duration::from_secs(10)..Duration::from_millis(10_100)).contains(&time),
            "{ip}: {time:?}"
        );
    }
}

#[test]
fn over_a_bad_cable_every_exchange_comes_right() {
    for (loss, seeds) in [(0, 0..40), (50, 1000..1040), (200, 2000..2060)] {
        for seed in seeds {
            for ip in SERVER_IPS {
                let rough = Impairments::rough(loss, 50, Duration::from_millis(20));
                greet(seed, rough, ip);
            }
        }
    }
}

#[test]
fn over_a_cable_that_turns_bits_every_exchange_comes_right() {
    for seed in 3000..3040 {
        for ip in SERVER_IPS {
            let corrupting = Impairments {
                corruption: 50,
                ..Impairments::rough(20, 20, Duration::from_millis(5))
            };
            greet(seed, corrupting, ip);
        }
    }
}
