//! Discard and character generator: streams of many bytes, cut by chance, and over a cable between two stacks.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod stacks;

use std::convert::Infallible;
use std::net::SocketAddr;

use smoltalk::chargen::{self, Config};
use smoltalk::discard;
use smoltalk::sim::{Impairments, StreamPair, StreamSide};
use smoltalk::smoltcp::Dial;
use smoltalk::{ConnId, Duration, Flow, Instant, Now, StreamService, pump_stream};
use stacks::*;

/// Takes bytes of a character generator until it has enough, and gives the first bytes of the same stream.
struct Peer {
    taken: usize,
    /// It ends its direction when it has taken so many.
    enough: usize,
    given: usize,
    to_give: usize,
    /// It takes nothing from here on.
    stalls_at: usize,
    closed: bool,
}

impl Peer {
    fn new(enough: usize, to_give: usize) -> Self {
        Self {
            taken: 0,
            enough,
            given: 0,
            to_give,
            stalls_at: usize::MAX,
            closed: false,
        }
    }
}

impl StreamService for Peer {
    type Reject = Infallible;

    fn handle_open(&mut self, _: Now, _: ConnId, _: SocketAddr) -> Result<(), Infallible> {
        Ok(())
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        if self.taken >= self.stalls_at {
            return 0;
        }
        let mut expected = vec![0; data.len()];
        chargen::fill(self.taken, &mut expected);
        assert_eq!(data, expected, "at byte {}", self.taken);
        self.taken += data.len();
        data.len()
    }

    fn handle_end(&mut self, _: Now, _: ConnId) {}

    fn handle_close(&mut self, _: Now, _: ConnId) {
        self.closed = true;
    }

    fn poll_write(&mut self, _: Now, _: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let len = buf.len().min(self.to_give - self.given);
        chargen::fill(self.given, &mut buf[..len]);
        self.given += len;
        if self.given == self.to_give && self.taken >= self.enough {
            (len, Flow::Finish)
        } else {
            (len, Flow::Open)
        }
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        None
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// One connection cut in every way, until both sides have closed it.
fn over_a_pair<S: StreamService>(seed: u64, server: &mut S, peer: &mut Peer) {
    let longest = [1, 2, 7, 100][seed as usize % 4];
    let mut pair = StreamPair::<64>::new(seed, longest);
    let (id, now) = (ConnId::new(0), at(0));
    server
        .handle_open(now, id, addr("192.0.2.2", 50_000))
        .unwrap();
    let mut server_closed = false;
    for _ in 0..100_000 {
        if !peer.closed {
            pump_stream(peer, id, &mut pair.end(StreamSide::Client), now);
        }
        if !server_closed {
            let end = &mut pair.end(StreamSide::Server);
            server_closed = pump_stream(server, id, end, now).closed;
        }
        if peer.closed && server_closed {
            return;
        }
    }
    panic!("seed {seed}: the connection does not end");
}

#[test]
fn a_stream_may_be_cut_in_any_way() {
    for seed in 0..40 {
        let mut server = chargen::Server::<1>::new(Config::default());
        let mut peer = Peer::new(10_000, 0);
        over_a_pair(seed, &mut server, &mut peer);
        assert!(peer.taken >= 10_000, "seed {seed}");
        assert_eq!(server.counters().bytes, peer.taken as u64, "seed {seed}");
        assert_eq!(server.connections(), 0, "seed {seed}");

        let mut server = discard::Server::<1>::new(Config::default());
        let mut peer = Peer::new(0, 10_000);
        over_a_pair(seed, &mut server, &mut peer);
        assert_eq!(server.counters().bytes, 10_000, "seed {seed}");
        assert_eq!(server.connections(), 0, "seed {seed}");
    }
}

/// One connection to `server` over the cable, until it has ended or nothing happens any more. Returns the
/// virtual time it took.
fn over_a_cable<S: StreamService>(
    seed: u64,
    impairments: Impairments,
    server: &mut S,
    peer: &mut Peer,
) -> Duration {
    let mut pair = Pair::new(seed, impairments, 2);
    let to = addr("192.0.2.1", 1_019);
    let mut listener = pair
        .server
        .listen(to, "bulk", [tcp_buffers(), tcp_buffers()])
        .unwrap();
    let mut dial: Dial = pair.client.connect(to, tcp_buffers()).unwrap();
    while !dial.is_done() {
        let goes_on = pair.step(
            |sockets, now| listener.pump(sockets, server, now).deadline,
            |sockets, now| dial.pump(sockets, peer, now).deadline,
        );
        if !goes_on {
            break;
        }
    }
    pair.now.monotonic.saturating_since(Instant::ZERO)
}

#[test]
fn every_byte_comes_over_a_bad_cable() {
    for seed in 0..10 {
        // Patient, for a cable that loses one frame in twenty and a stack that waits a second each time.
        let config = Config {
            idle_timeout: Duration::from_secs(120),
            ..Config::default()
        };
        let rough = Impairments::rough(50, 20, Duration::from_millis(5));
        let mut server = chargen::Server::<2>::new(config);
        let mut peer = Peer::new(50_000, 0);
        over_a_cable(seed, rough, &mut server, &mut peer);
        assert!(
            peer.closed && peer.taken >= 50_000,
            "seed {seed}: {}",
            peer.taken
        );

        let mut server = discard::Server::<2>::new(config);
        let mut peer = Peer::new(0, 50_000);
        over_a_cable(seed, rough, &mut server, &mut peer);
        assert!(peer.closed, "seed {seed}");
        assert_eq!(server.counters().bytes, 50_000, "seed {seed}");
    }
}

#[test]
fn who_stops_reading_is_cut_off_and_not_written_to() {
    let mut server = chargen::Server::<2>::new(Config::default());
    let mut peer = Peer {
        stalls_at: 3_000,
        ..Peer::new(usize::MAX, 0)
    };
    let took = over_a_cable(1, Impairments::default(), &mut server, &mut peer);
    let counters = server.counters();
    assert_eq!((counters.timed_out, server.connections()), (1, 0));
    // What lies in the buffers of both ends, 512 bytes each, and no more.
    assert!(counters.bytes <= peer.taken as u64 + 1_024);
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&took));
}
