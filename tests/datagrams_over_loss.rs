//! The datagram services over a network that loses, doubles, delays and reorders: under virtual time, from seeds.

use std::net::SocketAddr;

use smoltalk::chat::{self, Chat, ContactBook, Event, Peer};
use smoltalk::greeting::{self, DatagramClient, DatagramServer};
use smoltalk::sim::{DatagramNet, HostId, Impairments};
use smoltalk::{
    DatagramService, Duration, Instant, Now, Outcome, Retry, Unreachable, Wall, earliest, pump,
    time,
};

type Net = DatagramNet<3, 64, 1024>;

fn addr(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

fn now(net: &Net) -> Now {
    Now {
        monotonic: net.now(),
        wall: Some(Wall::utc(1_456_749_296)),
    }
}

/// Pumps both sides and moves the clock to the next thing that happens; `false`: nothing will.
fn step<A: DatagramService, B: DatagramService>(
    net: &mut Net,
    (a, a_host): (&mut A, HostId),
    (b, b_host): (&mut B, HostId),
) -> bool {
    let mut scratch = [0; 1024];
    let at = now(net);
    let one = pump(a, &mut net.host(a_host), at, &mut scratch, 64).unwrap();
    let two = pump(b, &mut net.host(b_host), at, &mut scratch, 64).unwrap();
    let next = earliest(net.next_arrival(), earliest(one.deadline, two.deadline));
    match next {
        Some(next) => {
            net.advance_to(next);
            true
        }
        None => false,
    }
}

/// Has `client` ask the server at `port`, and returns its answer (or `None` if it gave up), the requests it
/// sent, and the virtual time it took.
fn ask<S: DatagramService, const N: usize, const M: usize>(
    seed: u64,
    impairments: Impairments,
    port: u16,
    server: &mut S,
    client: impl FnOnce(Now) -> smoltalk::Exchange<N, M>,
) -> (Option<Vec<u8>>, u32, Instant) {
    let mut net = Net::new(seed, impairments);
    let here = net.add_host(addr(1, port)).unwrap();
    let there = net.add_host(addr(2, 49_152)).unwrap();
    let mut client = client(now(&net));
    while client.outcome() == Outcome::Pending {
        let going = step(&mut net, (server, here), (&mut client, there));
        assert!(
            going || client.outcome() != Outcome::Pending,
            "seed {seed}: it waits for ever"
        );
    }
    match client.outcome() {
        Outcome::Answered {
            answer, requests, ..
        } => (Some(answer.to_vec()), requests, net.now()),
        Outcome::TimedOut { requests } => (None, requests, net.now()),
        other => panic!("seed {seed}: {other:?}"),
    }
}

/// Half of all datagrams lost, a fifth doubled, and up to 200 ms on the way.
const BAD: Impairments = Impairments::rough(500, 200, Duration::from_millis(200));

#[test]
fn a_patient_client_gets_its_answer_through_any_network() {
    let mut repeated = 0;
    for seed in 0..200 {
        // 60 seconds are enough for 17 requests, of which each has one chance in four.
        let retry = Retry::within(Duration::from_secs(60));
        let (answer, requests, _) = ask(seed, BAD, time::PORT, &mut time::Server::new(), |now| {
            time::Client::start(now, addr(1, time::PORT), b"%F %T", retry).unwrap()
        });
        assert_eq!(
            answer.as_deref(),
            Some(b"2016-02-29 12:34:56".as_slice()),
            "seed {seed}"
        );
        repeated += u32::from(requests > 1);

        let (answer, ..) = ask(
            seed,
            BAD,
            greeting::PORT,
            &mut DatagramServer::new(),
            |now| DatagramClient::start(now, addr(1, greeting::PORT), b"hello", retry).unwrap(),
        );
        assert_eq!(answer.as_deref(), Some(b"hi".as_slice()), "seed {seed}");
    }
    // A quarter of the exchanges go through at once; if nearly all did, nothing was lost.
    assert!((100..190).contains(&repeated), "{repeated} of 200");
}

#[test]
fn without_loss_one_request_is_enough_and_time_does_not_pass_in_vain() {
    let late = Duration::from_millis(3);
    let good = Impairments {
        delay: (late, late),
        ..Impairments::default()
    };
    let (answer, requests, took) = ask(1, good, time::PORT, &mut time::Server::new(), |now| {
        time::Client::start(now, addr(1, time::PORT), b"", Retry::default()).unwrap()
    });
    assert_eq!(answer.as_deref(), Some(b"2016-02-29 12:34:56".as_slice()));
    assert_eq!((requests, took), (1, Instant::from_millis(6)));
}

#[test]
fn a_network_that_loses_everything_is_given_up_at_the_microsecond() {
    let dead = Impairments::rough(1000, 0, Duration::from_millis(1));
    let (answer, requests, took) = ask(1, dead, time::PORT, &mut time::Server::new(), |now| {
        time::Client::start(now, addr(1, time::PORT), b"", Retry::default()).unwrap()
    });
    assert_eq!((answer, requests, took), (None, 4, Instant::from_secs(5)));
}

#[test]
fn a_port_that_nobody_has_is_known_at_once() {
    let mut net = Net::new(1, Impairments::default());
    let there = net.add_host(addr(2, 49_152)).unwrap();
    let mut client =
        DatagramClient::start(now(&net), addr(1, 7009), b"hello", Retry::default()).unwrap();
    for _ in 0..2 {
        let at = now(&net);
        pump(&mut client, &mut net.host(there), at, &mut [0; 1024], 64).unwrap();
    }
    assert_eq!(client.outcome(), Outcome::Unreachable(Unreachable::Refused));
}

/// The plain dialect promises nothing: what arrives is shown as it comes. But nothing is made up, cut or mixed.
#[test]
fn a_chat_over_a_bad_network_loses_and_repeats_but_never_makes_up() {
    for seed in 0..50 {
        let mut net = Net::new(seed, BAD);
        let (a_addr, b_addr) = (addr(1, chat::PORT), addr(2, chat::PORT));
        let (a_host, b_host) = (net.add_host(a_addr).unwrap(), net.add_host(b_addr).unwrap());
        let mut book = ContactBook::<4>::new();
        let b_name = book.add("哪吒", b_addr).unwrap();
        let mut a = Chat::<4, 64>::new(book, chat::Config::default());
        let mut b = Chat::<4, 64>::new(ContactBook::new(), chat::Config::default());
        let texts: Vec<String> = (0..40).map(|n| format!("消息 {n}")).collect();
        for text in &texts {
            a.send_message(now(&net), Peer::Contact(b_name), text)
                .unwrap();
        }
        let mut heard = Vec::new();
        while step(&mut net, (&mut a, a_host), (&mut b, b_host)) {
            while let Some(event) = b.poll_event() {
                match event {
                    Event::Message { from, addr, text } => {
                        assert_eq!((from, addr), (Peer::Stranger(a_addr), a_addr));
                        heard.push(text.as_str().to_owned());
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
        assert!(heard.iter().all(|text| texts.contains(text)), "seed {seed}");
        let mut different = heard.clone();
        different.sort();
        different.dedup();
        assert!(
            (5..35).contains(&different.len()),
            "seed {seed}: {}",
            different.len()
        );
        assert!(
            heard.len() as u64 <= 40 + net.counters().duplicated,
            "seed {seed}"
        );
    }
}
