//! The client: asks in turn the servers it was given, and keeps the time between their answers.

use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use heapless::{Deque, Vec};

use super::MESSAGE_LEN;
use super::message::{LEAP_UNKNOWN, Message, Mode, Short, Timestamp, VERSION};
use crate::random::Rng;
use crate::{DatagramService, Duration, Instant, Now, Transmit, Unreachable, Wall, Zone, earliest};

/// A clock that is set over the network by up to `SERVERS` servers. 560 bytes and 64 for each server.
///
/// It asks the first server at once, and stays with one that answers. One that does not is passed over for the
/// next, and asked again when its poll interval is over: 15 seconds at first (RFC 4330, section 10, allows no
/// less), then twice as long each time. The interval of a server that answers grows while the clock keeps good
/// time without it.
///
/// An answer counts only if it quotes the request's 64 random bits and comes from where the request went.
#[derive(Clone, Debug)]
pub struct Client<const SERVERS: usize> {
    config: Config,
    servers: Vec<Server, SERVERS>,
    rng: Rng,
    state: State,
    clock: Option<Clock>,
    /// How much too slow the monotonic clock runs, in parts per billion.
    drift: Option<i32>,
    events: Deque<Event, 4>,
    counters: ClientCounters,
}

/// How a [`Client`] asks, and how it tells the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long to wait for an answer: 5 seconds by default.
    pub timeout: Duration,
    /// The shortest time between two requests to a server that answers: 64 seconds by default, never less
    /// than 15.
    pub shortest_poll: Duration,
    /// The longest: 1,024 seconds by default.
    pub longest_poll: Duration,
    /// How long the clock is believed when no server answers any more: a day by default. It may be wrong by
    /// 43 seconds then, if the monotonic clock is wrong by 500 parts in a million.
    pub trusted_for: Duration,
    /// The zone in which people here read the clock: UTC by default.
    pub zone: Zone,
}

impl Config {
    /// What RFC 4330, section 10, never allows less of between two requests to one server.
    pub const MIN_POLL: Duration = Duration::from_secs(15);

    /// The poll interval after `poll`.
    fn slower(&self, poll: Duration) -> Duration {
        let longest = self.longest_poll.max(Self::MIN_POLL);
        poll.saturating_add(poll).min(longest)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            shortest_poll: Duration::from_secs(64),
            longest_poll: Duration::from_secs(1_024),
            trusted_for: Duration::from_secs(86_400),
            zone: Zone::UTC,
        }
    }
}

/// What a [`Client`] has to tell. The oldest of more than four is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The clock was set.
    Set {
        /// By this server.
        server: SocketAddr,
        /// To this time.
        wall: Wall,
        /// So many microseconds forward (back, if negative). `None`: it was not known before.
        by_micros: Option<i64>,
        /// The way to the server and back took so long; the time may be wrong by half of that.
        round_trip: Duration,
    },
    /// A server did not answer in time.
    NoAnswer {
        /// This one.
        server: SocketAddr,
    },
    /// The network says that a server cannot be reached.
    Unreachable {
        /// This one.
        server: SocketAddr,
        /// Why not.
        why: Unreachable,
    },
    /// A server wants to be left alone (RFC 4330, section 8).
    KissOfDeath {
        /// This one.
        server: SocketAddr,
        /// How.
        kiss: Kiss,
    },
    /// No server has answered for [`Config::trusted_for`]: the time is no longer known.
    Lost,
}

/// What a server says instead of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kiss {
    /// `DENY` or `RSTR`: it will not serve us, and is not asked again.
    Denied,
    /// `RATE`: we ask too often, and ask half as often from now on.
    TooOften,
    /// Another code: taken for no answer.
    Other([u8; 4]),
}

impl fmt::Display for Kiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denied => "that we are not served",
            Self::TooOften => "that we ask too often",
            Self::Other(_) => "that it has no time for us",
        })
    }
}

/// What happened to the datagrams of a [`Client`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Requests sent.
    pub requests: u32,
    /// Answers that set the clock.
    pub accepted: u32,
    /// Requests that were not answered in time.
    pub unanswered: u32,
    /// Datagrams that were no answer to our request, or not one to believe: see [`NotTaken`].
    pub rejected: u32,
}

#[derive(Clone, Copy, Debug)]
struct Server {
    addr: SocketAddr,
    poll: Duration,
    /// When it may be asked. `None`: never again.
    next: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// There is nobody to ask.
    Idle,
    /// This server is to be asked when its time has come.
    Resting(usize),
    /// This server is to be asked now.
    Due(usize),
    Waiting {
        server: usize,
        asked: Instant,
        /// The request's transmit timestamp. No time at all but a number to know the answer by: that the
        /// server need not know our clock, and that others cannot guess it.
        nonce: Timestamp,
    },
}

/// The time at one moment, as a server told it.
#[derive(Clone, Copy, Debug)]
struct Clock {
    at: Instant,
    time: Timestamp,
}

/// The most that a crystal is off, in parts per billion. Anything more is a server that jumped.
const MAX_DRIFT: i64 = 500_000;

/// The drift is not estimated from two answers closer together than this.
const MIN_BASELINE: i64 = 10_000_000;

/// A clock that was off by less keeps good time, and is compared half as often; in microseconds.
const GOOD: u64 = 50_000;

impl<const SERVERS: usize> Client<SERVERS> {
    /// A client without servers. `seed` should differ from one start of the machine to the next.
    pub const fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            servers: Vec::new(),
            rng: Rng::new(seed),
            state: State::Idle,
            clock: None,
            drift: None,
            events: Deque::new(),
            counters: ClientCounters {
                requests: 0,
                accepted: 0,
                unanswered: 0,
                rejected: 0,
            },
        }
    }

    /// Adds a server, to be asked if those before it do not answer. The first is asked at once.
    ///
    /// # Errors
    /// There are `SERVERS` already; the address comes back.
    pub fn add_server(&mut self, now: Now, addr: SocketAddr) -> Result<(), SocketAddr> {
        let server = Server {
            addr,
            poll: Config::MIN_POLL,
            next: Some(now.monotonic),
        };
        self.servers.push(server).map_err(|server| server.addr)?;
        if matches!(self.state, State::Idle) {
            self.state = State::Due(self.servers.len() - 1);
        }
        Ok(())
    }

    /// What time it is at `monotonic`: `None` until the first answer, and when none has come for too long.
    pub fn now(&self, monotonic: Instant) -> Now {
        Now {
            monotonic,
            wall: self.wall(monotonic),
        }
    }

    /// The time of the last answer that set the clock, as it was at that moment.
    pub fn last_set(&self) -> Option<Wall> {
        Some(self.in_zone(self.clock?.time))
    }

    /// By how much the monotonic clock is too slow, in parts per billion; known from the second answer on.
    pub const fn drift(&self) -> Option<i32> {
        self.drift
    }

    /// What happened to the datagrams so far.
    pub const fn counters(&self) -> ClientCounters {
        self.counters
    }

    /// The next thing that the program may want to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn wall(&self, monotonic: Instant) -> Option<Wall> {
        let clock = self.clock?;
        if monotonic >= self.lost_at()? {
            return None;
        }
        Some(self.in_zone(self.time(clock, monotonic)))
    }

    fn in_zone(&self, time: Timestamp) -> Wall {
        Wall {
            zone: self.config.zone,
            ..time.to_wall()
        }
    }

    /// What `clock` shows at `monotonic`, the drift made good.
    fn time(&self, clock: Clock, monotonic: Instant) -> Timestamp {
        let elapsed = elapsed_micros(clock.at, monotonic);
        let drift = i64::from(self.drift.unwrap_or(0));
        // No overflow: elapsed is below 2^43 and the drift below 2^19.
        clock
            .time
            .plus_micros(elapsed + elapsed * drift / 1_000_000_000)
    }

    fn lost_at(&self) -> Option<Instant> {
        Some(self.clock?.at + self.config.trusted_for)
    }

    fn tell(&mut self, event: Event) {
        if self.events.is_full() {
            self.events.pop_front();
        }
        // There is room: it was just made.
        let _ = self.events.push_back(event);
    }

    /// Sets the clock to `time`, which it was at `now`.
    fn set(&mut self, now: Instant, time: Timestamp, server: usize, round_trip: Duration) {
        let by_micros = self
            .clock
            .map(|clock| time.micros_since(self.time(clock, now)));
        if let Some(clock) = self.clock {
            self.learn_drift(clock, now, time);
        }
        self.clock = Some(Clock { at: now, time });
        self.counters.accepted += 1;
        let good = by_micros.is_some_and(|micros| micros.unsigned_abs() < GOOD);
        let wall = self.in_zone(time);
        let Some(entry) = self.servers.get_mut(server) else {
            return;
        };
        entry.poll = if good {
            self.config.slower(entry.poll)
        } else {
            self.config.shortest_poll.max(Config::MIN_POLL)
        };
        let event = Event::Set {
            server: entry.addr,
            wall,
            by_micros,
            round_trip,
        };
        entry.next = Some(now + entry.poll);
        self.state = State::Resting(server);
        self.tell(event);
    }

    fn learn_drift(&mut self, last: Clock, now: Instant, time: Timestamp) {
        let elapsed = elapsed_micros(last.at, now);
        if elapsed < MIN_BASELINE {
            return;
        }
        let excess = time.micros_since(last.time) - elapsed;
        // A difference that is beyond any crystal is beyond this multiplication too.
        if excess.unsigned_abs() > elapsed as u64 / 1_000 {
            return;
        }
        // No overflow: excess is below 2^33 and the factor below 2^30.
        let measured = excess * 1_000_000_000 / elapsed;
        if measured.abs() > MAX_DRIFT {
            return;
        }
        // The ways there and back are never alike, so one measurement must not count for too much.
        let drift = self.drift.map_or(measured, |drift| {
            let drift = i64::from(drift);
            drift + (measured - drift) / 4
        });
        // Between two numbers that are within the limit, which is below 2^31.
        self.drift = Some(drift as i32);
    }

    /// `server` has not told the time: ask it less often, and another now.
    fn pass_over(&mut self, now: Instant, server: usize) {
        if let Some(entry) = self.servers.get_mut(server) {
            entry.next = entry.next.map(|_| now + entry.poll);
            entry.poll = self.config.slower(entry.poll);
        }
        let count = self.servers.len();
        let next = (1..=count)
            .map(|step| (server + step) % count)
            .filter_map(|index| Some((self.next_request(index)?, index)))
            // The first of those that may be asked by now, or else the one that may be asked first.
            .min_by_key(|&(next, _)| next.max(now));
        self.state = match next {
            None => State::Idle,
            Some((next, index)) if next <= now => State::Due(index),
            Some((_, index)) => State::Resting(index),
        };
    }

    fn next_request(&self, server: usize) -> Option<Instant> {
        self.servers.get(server)?.next
    }

    fn accept(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) -> Result<(), NotTaken> {
        let State::Waiting {
            server,
            asked,
            nonce,
        } = self.state
        else {
            return Err(NotTaken::Unasked);
        };
        let asked_of = self.servers.get(server).map(|server| server.addr);
        if asked_of != Some(from) {
            return Err(NotTaken::Stranger);
        }
        let answer = Message::parse(payload).ok_or(NotTaken::Malformed)?;
        if answer.mode != Mode::SERVER.0 || answer.version != VERSION {
            return Err(NotTaken::Malformed);
        }
        if answer.originate != nonce {
            return Err(NotTaken::Unasked);
        }
        // From here on it is the server that speaks, and there will be no other answer to this request.
        if answer.stratum == 0 {
            self.kiss(now, server, from, answer.reference);
            return Ok(());
        }
        if let Err(why) = believe(&answer) {
            self.pass_over(now, server);
            return Err(why);
        }
        let there_and_back = elapsed_micros(asked, now);
        let at_server = answer.transmit.micros_since(answer.receive);
        if at_server < 0 || at_server > there_and_back + Self::GRANULARITY {
            self.pass_over(now, server);
            return Err(NotTaken::Implausible);
        }
        let round_trip = (there_and_back - at_server).max(0);
        let time = answer.transmit.plus_micros(round_trip / 2);
        let round_trip = Duration::from_micros(round_trip.unsigned_abs());
        self.set(now, time, server, round_trip);
        Ok(())
    }

    /// How far two clocks may disagree about a short time, in microseconds.
    const GRANULARITY: i64 = 1_000;

    fn kiss(&mut self, now: Instant, server: usize, addr: SocketAddr, code: [u8; 4]) {
        let kiss = match &code {
            b"DENY" | b"RSTR" => Kiss::Denied,
            b"RATE" => Kiss::TooOften,
            _ => Kiss::Other(code),
        };
        if let Some(entry) = self.servers.get_mut(server) {
            match kiss {
                Kiss::Denied => entry.next = None,
                Kiss::TooOften => entry.poll = self.config.slower(entry.poll),
                Kiss::Other(_) => {}
            }
        }
        self.tell(Event::KissOfDeath { server: addr, kiss });
        self.pass_over(now, server);
    }
}

/// Whether a server that has answered knows the time itself (RFC 4330, section 5).
fn believe(answer: &Message) -> Result<(), NotTaken> {
    let knows = answer.leap != LEAP_UNKNOWN && (1..=15).contains(&answer.stratum);
    let close = [answer.root_delay, answer.root_dispersion]
        .into_iter()
        .all(|short| short.duration() < Short::ONE_SECOND);
    let told = answer.transmit != Timestamp::UNKNOWN && answer.receive != Timestamp::UNKNOWN;
    if knows && close && told {
        Ok(())
    } else {
        Err(NotTaken::Unsynchronized)
    }
}

/// Microseconds from `earlier` to `later`, no more than 100 days: below 2^43.
fn elapsed_micros(earlier: Instant, later: Instant) -> i64 {
    const MOST: u64 = 100 * 86_400 * 1_000_000;
    let micros = later.micros().saturating_sub(earlier.micros());
    micros.min(MOST) as i64
}

impl<const SERVERS: usize> DatagramService for Client<SERVERS> {
    const MAX_DATAGRAM: usize = MESSAGE_LEN;
    type Reject = NotTaken;

    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), NotTaken> {
        let taken = self.accept(now.monotonic, from, payload);
        if taken.is_err() {
            self.counters.rejected += 1;
        }
        taken
    }

    fn handle_unreachable(&mut self, now: Now, peer: SocketAddr, why: Unreachable) {
        if let State::Waiting { server, .. } = self.state
            && self.servers.get(server).map(|server| server.addr) == Some(peer)
        {
            self.tell(Event::Unreachable { server: peer, why });
            self.pass_over(now.monotonic, server);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.lost_at().is_some_and(|at| at <= now.monotonic) {
            self.clock = None;
            self.tell(Event::Lost);
        }
        match self.state {
            State::Waiting { server, asked, .. }
                if asked + self.config.timeout <= now.monotonic =>
            {
                self.counters.unanswered += 1;
                if let Some(entry) = self.servers.get(server) {
                    let server = entry.addr;
                    self.tell(Event::NoAnswer { server });
                }
                self.pass_over(now.monotonic, server);
            }
            State::Resting(server)
                if self
                    .next_request(server)
                    .is_some_and(|next| next <= now.monotonic) =>
            {
                self.state = State::Due(server);
            }
            State::Idle | State::Resting(_) | State::Due(_) | State::Waiting { .. } => {}
        }
    }

    fn poll_transmit(&mut self, now: Now, buf: &mut [u8]) -> Option<Transmit> {
        let State::Due(server) = self.state else {
            return None;
        };
        let to = self.servers.get(server)?.addr;
        // A request of all zeroes could be answered without having been seen.
        let nonce = Timestamp::from_bits(self.rng.next_u64() | 1);
        let request = Message {
            version: VERSION,
            mode: Mode::CLIENT.0,
            transmit: nonce,
            ..Message::default()
        };
        let len = request.emit(buf)?;
        self.counters.requests += 1;
        self.state = State::Waiting {
            server,
            asked: now.monotonic,
            nonce,
        };
        Some(Transmit { to, len })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let next = match self.state {
            State::Resting(server) => self.next_request(server),
            State::Idle | State::Due(_) => None,
            State::Waiting { asked, .. } => Some(asked + self.config.timeout),
        };
        earliest(next, self.lost_at())
    }
}

/// Why a [`Client`] did not set its clock by a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It came from another address than the request went to.
    Stranger,
    /// It does not quote our request, or the answer was there already.
    Unasked,
    /// It is no answer: too short, or of another mode or version.
    Malformed,
    /// The server says that it does not know the time itself.
    Unsynchronized,
    /// The server says that it took longer to answer than the answer took to come, or less than no time.
    Implausible,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "not from the server that was asked",
            Self::Unasked => "no answer to our request",
            Self::Malformed => "no answer from a time server",
            Self::Unsynchronized => "the server does not know the time",
            Self::Implausible => "the server's times cannot be true",
        })
    }
}

impl Error for NotTaken {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const ONE: SocketAddr = address(1);
    const TWO: SocketAddr = address(2);

    const fn address(last: u8) -> SocketAddr {
        SocketAddr::new(
            core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, last)),
            super::super::PORT,
        )
    }

    const SECOND: u64 = 1_000_000;
    /// Noon has passed on a leap day.
    const NOON: i64 = 1_456_749_296;

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn client(servers: &[SocketAddr]) -> Client<2> {
        let mut client = Client::new(Config::default(), 1);
        for &server in servers {
            client.add_server(at(0), server).unwrap();
        }
        client
    }

    /// The request that is due at `now`, if one is.
    fn request(client: &mut Client<2>, now: Now) -> Option<(SocketAddr, Message)> {
        let mut buf = [0; MESSAGE_LEN];
        let transmit = client.poll_transmit(now, &mut buf)?;
        assert_eq!(transmit.len, MESSAGE_LEN);
        Some((transmit.to, Message::parse(&buf).unwrap()))
    }

    /// What a server says `micros` microseconds after noon.
    fn answer(request: &Message, micros: i64) -> Message {
        let time = Timestamp::from_wall(&Wall::utc(NOON)).plus_micros(micros);
        Message {
            version: VERSION,
            mode: Mode::SERVER.0,
            stratum: 2,
            originate: request.transmit,
            reference_time: time,
            receive: time,
            transmit: time,
            ..Message::default()
        }
    }

    fn bytes(message: &Message) -> [u8; MESSAGE_LEN] {
        let mut buf = [0; MESSAGE_LEN];
        message.emit(&mut buf);
        buf
    }

    /// Runs `client` until `until`, with servers that take `delay` microseconds each way. `serve` is told who is
    /// asked when, and says what is answered. Returns when who was asked.
    fn run(
        client: &mut Client<2>,
        until: u64,
        delay: u64,
        mut serve: impl FnMut(SocketAddr, u64, &Message) -> Option<Message>,
    ) -> Vec<(u64, SocketAddr)> {
        let mut asked = Vec::new();
        let mut now = 0;
        loop {
            client.handle_timeout(at(now));
            if let Some((server, message)) = request(client, at(now)) {
                asked.push((now, server));
                if let Some(answer) = serve(server, now + delay, &message) {
                    let arrives = at(now + 2 * delay);
                    let _ = client.handle_datagram(arrives, server, &bytes(&answer));
                }
            }
            match client.poll_timeout() {
                Some(next) if next.micros() <= until => now = next.micros(),
                _ => return asked,
            }
        }
    }

    #[test]
    fn the_clock_is_set_by_the_middle_of_the_round_trip_and_goes_on() {
        let mut client = client(&[ONE]);
        assert_eq!(client.now(Instant::ZERO).wall, None);
        let (to, asked) = request(&mut client, at(1_000)).unwrap();
        assert_eq!((to, asked.mode, asked.version), (ONE, 3, 4));
        let mut told = answer(&asked, 0);
        // The server took 10 of the 50 milliseconds.
        told.transmit = told.transmit.plus_micros(10_000);
        client
            .handle_datagram(at(51_000), ONE, &bytes(&told))
            .unwrap();
        let wall = client.now(Instant::from_micros(51_000)).wall.unwrap();
        assert_eq!(wall.unix_seconds, NOON);
        assert!(wall.nanoseconds.abs_diff(30_000_000) < 1_000, "{wall:?}");
        let later = client.now(Instant::from_micros(51_000 + 5 * SECOND));
        assert_eq!(later.wall.unwrap().unix_seconds, NOON + 5);
        assert_eq!(client.last_set(), Some(wall));
        assert_eq!(
            client.poll_event(),
            Some(Event::Set {
                server: ONE,
                wall,
                by_micros: None,
                round_trip: Duration::from_micros(40_000)
            })
        );
        assert_eq!(client.poll_event(), None);
    }

    #[test]
    fn the_zone_is_the_readers() {
        let zone = Zone::new(3_600, "CET").unwrap();
        let config = Config {
            zone,
            ..Config::default()
        };
        let mut client = Client::<2>::new(config, 1);
        client.add_server(at(0), ONE).unwrap();
        run(&mut client, 1, 0, |_, _, request| Some(answer(request, 0)));
        let wall = client.now(Instant::ZERO).wall.unwrap();
        assert_eq!((wall.unix_seconds, wall.zone), (NOON, zone));
    }

    #[test]
    fn the_poll_interval_grows_while_the_clock_is_good() {
        let mut client = client(&[ONE]);
        let asked = run(&mut client, 4_000 * SECOND, 0, |_, now, request| {
            Some(answer(request, now as i64))
        });
        let seconds: Vec<_> = asked.iter().map(|(at, _)| at / SECOND).collect();
        assert_eq!(seconds, [0, 64, 192, 448, 960, 1_984, 3_008]);
        assert_eq!(client.drift(), Some(0));
    }

    #[test]
    fn a_slow_crystal_is_found_out() {
        // 200 parts in a million: when it says a second, 1.0002 have passed.
        let real = |now: u64| now as i64 + now as i64 / 5_000;
        let mut client = client(&[ONE]);
        run(&mut client, 3_100 * SECOND, 2_000, |_, now, request| {
            Some(answer(request, real(now)))
        });
        let drift = client.drift().unwrap();
        assert!((199_000..201_000).contains(&drift), "{drift}");
        // An hour on its own, and it is still right to 5 milliseconds.
        let later = 6_700 * SECOND;
        let wall = client.now(Instant::from_micros(later)).wall.unwrap();
        let off = Timestamp::from_wall(&wall)
            .micros_since(Timestamp::from_wall(&Wall::utc(NOON)).plus_micros(real(later)));
        assert!(off.abs() < 5_000, "{off}");
    }

    #[test]
    fn a_server_that_jumps_moves_the_clock_and_not_the_drift() {
        let mut client = client(&[ONE]);
        let asked = run(&mut client, 500 * SECOND, 0, |_, now, request| {
            let jump = if now > 100 * SECOND { 3_600_000_000 } else { 0 };
            Some(answer(request, now as i64 + jump))
        });
        // Off by an hour at 192 seconds: asked more often again from there.
        let seconds: Vec<_> = asked.iter().map(|(at, _)| at / SECOND).collect();
        assert_eq!(seconds, [0, 64, 192, 256, 384]);
        assert_eq!(client.drift(), Some(0));
        let jumps: Vec<_> = core::iter::from_fn(|| client.poll_event())
            .map(|event| match event {
                Event::Set { by_micros, .. } => by_micros,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(jumps, [Some(0), Some(3_600_000_000), Some(0), Some(0)]);
    }

    #[test]
    fn the_turn_of_2036_goes_by() {
        // 20 seconds to it.
        let start = Timestamp::from_bits(0xffff_ffec << 32);
        let mut client = client(&[ONE]);
        run(&mut client, 600 * SECOND, 0, |_, now, request| {
            let mut answer = answer(request, 0);
            answer.receive = start.plus_micros(now as i64);
            answer.transmit = answer.receive;
            Some(answer)
        });
        assert_eq!(client.drift(), Some(0));
        let wall = client.now(Instant::from_secs(620)).wall.unwrap();
        assert_eq!(wall.unix_seconds, 2_085_978_496 + 600);
    }

    #[test]
    fn silence_is_met_with_patience_and_another_server() {
        let mut client = client(&[ONE, TWO]);
        let asked = run(&mut client, 90 * SECOND, 0, |_, _, _| None);
        let seconds: Vec<_> = asked
            .iter()
            .map(|&(at, server)| (at / SECOND, server))
            .collect();
        assert_eq!(
            seconds,
            [
                (0, ONE),
                (5, TWO),
                (20, ONE),
                (25, TWO),
                (55, ONE),
                (60, TWO)
            ]
        );
        assert_eq!(client.counters().unanswered, 6);
        assert_eq!(client.now(Instant::from_secs(90)).wall, None);
        assert_eq!(
            client.poll_event(),
            Some(Event::NoAnswer { server: ONE }),
            "the last four are kept"
        );
    }

    #[test]
    fn no_answer_comes_at_the_microsecond() {
        let mut client = client(&[ONE]);
        request(&mut client, at(7)).unwrap();
        assert_eq!(
            client.poll_timeout(),
            Some(Instant::from_micros(5 * SECOND + 7))
        );
        client.handle_timeout(at(5 * SECOND + 6));
        assert_eq!(client.counters().unanswered, 0);
        client.handle_timeout(at(5 * SECOND + 7));
        assert_eq!(client.counters().unanswered, 1);
        assert_eq!(client.poll_event(), Some(Event::NoAnswer { server: ONE }));
    }

    #[test]
    fn a_second_server_that_answers_is_stayed_with() {
        let mut client = client(&[ONE, TWO]);
        let asked = run(&mut client, 300 * SECOND, 0, |server, now, request| {
            (server == TWO).then(|| answer(request, now as i64))
        });
        let seconds: Vec<_> = asked
            .iter()
            .map(|&(at, server)| (at / SECOND, server))
            .collect();
        assert_eq!(seconds, [(0, ONE), (5, TWO), (69, TWO), (197, TWO)]);
    }

    #[test]
    fn no_server_is_ever_asked_twice_within_15_seconds() {
        // Whatever it says, and however short a poll interval is configured.
        for code in [*b"DENY", *b"RATE", *b"XXXX", [0; 4]] {
            let config = Config {
                shortest_poll: Duration::ZERO,
                longest_poll: Duration::ZERO,
                ..Config::default()
            };
            let mut client = Client::new(config, 1);
            client.add_server(at(0), ONE).unwrap();
            let asked = run(&mut client, 1_000 * SECOND, 0, |_, now, request| {
                let mut answer = answer(request, now as i64);
                if code != [0; 4] {
                    answer.stratum = 0;
                    answer.reference = code;
                }
                Some(answer)
            });
            assert_eq!(asked.len() == 1, &code == b"DENY");
            assert!(
                asked
                    .windows(2)
                    .all(|pair| pair[1].0 - pair[0].0 >= 15 * SECOND)
            );
        }
    }

    #[test]
    fn a_kiss_of_death_is_heeded() {
        for (code, kiss, seconds) in [
            (*b"DENY", Kiss::Denied, [0].as_slice()),
            (*b"RSTR", Kiss::Denied, &[0]),
            (*b"RATE", Kiss::TooOften, &[0, 30, 150, 630]),
            (
                *b"INIT",
                Kiss::Other(*b"INIT"),
                &[0, 15, 45, 105, 225, 465, 945],
            ),
        ] {
            let mut client = client(&[ONE]);
            let asked = run(&mut client, 1_000 * SECOND, 0, |_, now, request| {
                let mut kiss = answer(request, now as i64);
                kiss.stratum = 0;
                kiss.leap = LEAP_UNKNOWN;
                kiss.reference = code;
                Some(kiss)
            });
            let asked: Vec<_> = asked.iter().map(|(at, _)| at / SECOND).collect();
            assert_eq!(asked, seconds, "{}", code.escape_ascii());
            assert_eq!(
                client.poll_event(),
                Some(Event::KissOfDeath { server: ONE, kiss })
            );
            assert_eq!(client.now(Instant::ZERO).wall, None);
        }
    }

    #[test]
    fn denied_by_one_the_other_is_asked() {
        let mut client = client(&[ONE, TWO]);
        let asked = run(&mut client, 1_000, 0, |server, now, request| {
            let mut answer = answer(request, now as i64);
            if server == ONE {
                answer.stratum = 0;
                answer.reference = *b"DENY";
            }
            Some(answer)
        });
        assert_eq!(asked, [(0, ONE)]);
        assert_eq!(request(&mut client, at(0)).map(|(to, _)| to), Some(TWO));
    }

    #[test]
    fn what_is_not_to_be_believed_does_not_set_the_clock() {
        type Change = fn(&mut Message);
        let cases: [(Change, NotTaken); 13] = [
            (|m| m.mode = 3, NotTaken::Malformed),
            (|m| m.mode = 5, NotTaken::Malformed),
            (|m| m.version = 3, NotTaken::Malformed),
            (|m| m.originate = Timestamp::UNKNOWN, NotTaken::Unasked),
            (
                |m| m.originate = m.originate.plus_micros(1),
                NotTaken::Unasked,
            ),
            (|m| m.leap = 3, NotTaken::Unsynchronized),
            (|m| m.stratum = 16, NotTaken::Unsynchronized),
            (|m| m.root_delay = Short(1 << 16), NotTaken::Unsynchronized),
            (
                |m| m.root_dispersion = Short(u32::MAX),
                NotTaken::Unsynchronized,
            ),
            (
                |m| m.transmit = Timestamp::UNKNOWN,
                NotTaken::Unsynchronized,
            ),
            (|m| m.receive = Timestamp::UNKNOWN, NotTaken::Unsynchronized),
            (
                |m| m.receive = m.transmit.plus_micros(1_000),
                NotTaken::Implausible,
            ),
            (
                |m| m.receive = m.transmit.plus_micros(-1_000_000),
                NotTaken::Implausible,
            ),
        ];
        for (change, why) in cases {
            let mut client = client(&[ONE]);
            let (_, asked) = request(&mut client, at(0)).unwrap();
            let mut told = answer(&asked, 0);
            change(&mut told);
            assert_eq!(
                client.handle_datagram(at(5_000), ONE, &bytes(&told)),
                Err(why),
                "{told:?}"
            );
            assert_eq!(client.now(Instant::from_micros(5_000)).wall, None);
            // What another could have sent does not keep the server's own answer from being heard.
            let heard = client.handle_datagram(at(5_000), ONE, &bytes(&answer(&asked, 0)));
            let by_the_server = !matches!(why, NotTaken::Malformed | NotTaken::Unasked);
            assert_eq!(heard.is_err(), by_the_server, "{told:?}");
        }
    }

    #[test]
    fn strangers_and_echoes_are_not_heard() {
        let mut client = client(&[ONE]);
        assert_eq!(
            client.handle_datagram(at(0), ONE, &bytes(&answer(&Message::default(), 0))),
            Err(NotTaken::Unasked)
        );
        let (_, asked) = request(&mut client, at(0)).unwrap();
        let told = bytes(&answer(&asked, 0));
        assert_eq!(
            client.handle_datagram(at(1), TWO, &told),
            Err(NotTaken::Stranger)
        );
        assert_eq!(
            client.handle_datagram(at(1), ONE, &told[..47]),
            Err(NotTaken::Malformed)
        );
        client.handle_datagram(at(1), ONE, &told).unwrap();
        assert_eq!(
            client.handle_datagram(at(2), ONE, &told),
            Err(NotTaken::Unasked)
        );
        assert_eq!(client.counters().rejected, 4);
    }

    #[test]
    fn a_clock_that_nobody_confirms_is_given_up() {
        let mut client = client(&[ONE]);
        run(&mut client, 86_400 * SECOND - 1, 0, |_, now, request| {
            (now == 0).then(|| answer(request, 0))
        });
        let last = Instant::from_micros(86_400 * SECOND - 1);
        assert_eq!(client.now(last).wall.unwrap().unix_seconds, NOON + 86_399);
        let lost = Instant::from_secs(86_400);
        assert_eq!(client.now(lost).wall, None);
        while client.poll_event().is_some() {}
        client.handle_timeout(at(lost.micros()));
        assert_eq!(client.poll_event(), Some(Event::Lost));
        assert_eq!(client.last_set(), None);
    }

    #[test]
    fn the_network_may_say_no() {
        let mut client = client(&[ONE, TWO]);
        request(&mut client, at(0)).unwrap();
        client.handle_unreachable(at(1), TWO, Unreachable::Refused);
        assert_eq!(request(&mut client, at(1)), None);
        client.handle_unreachable(at(1), ONE, Unreachable::Refused);
        assert_eq!(request(&mut client, at(1)).map(|(to, _)| to), Some(TWO));
        assert_eq!(
            client.poll_event(),
            Some(Event::Unreachable {
                server: ONE,
                why: Unreachable::Refused
            })
        );
    }

    #[test]
    fn a_full_list_says_so_and_an_empty_one_asks_nobody() {
        let mut client = client(&[]);
        assert_eq!(request(&mut client, at(0)), None);
        assert_eq!(client.poll_timeout(), None);
        client.add_server(at(0), ONE).unwrap();
        client.add_server(at(0), TWO).unwrap();
        assert_eq!(client.add_server(at(0), address(3)), Err(address(3)));
    }

    #[test]
    fn it_costs_what_it_says() {
        let each = (size_of::<Client<100>>() - size_of::<Client<0>>()) / 100;
        assert_eq!(each, 64);
        assert!(size_of::<Client<0>>() <= 560, "{}", size_of::<Client<0>>());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Poll,
        Answer(bool, i64, u8, u8, u64),
        Noise(bool, Vec<u8>),
        Unreachable(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..100 * SECOND).prop_map(Step::Wait),
            any::<u64>().prop_map(|micros| Step::Wait(micros >> 8)),
            Just(Step::Poll),
            (
                any::<bool>(),
                any::<i64>(),
                any::<u8>(),
                any::<u8>(),
                any::<u64>()
            )
                .prop_map(|(one, time, head, stratum, receive)| Step::Answer(
                    one, time, head, stratum, receive
                )),
            (any::<bool>(), 0..1_000_000_000_i64)
                .prop_map(|(one, time)| Step::Answer(one, time, 0x24, 1, 0)),
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..64))
                .prop_map(|(one, noise)| Step::Noise(one, noise)),
            any::<bool>().prop_map(Step::Unreachable),
        ]
    }

    proptest! {
        /// Whatever a server says in whatever order: no panic, the drift stays within its limit, and there is
        /// always a next request unless both servers have denied us.
        #[test]
        fn any_order_of_events_keeps_the_clock_whole(steps in proptest::collection::vec(step(), 0..100)) {
            let mut client = client(&[ONE, TWO]);
            let mut now = 0_u64;
            let mut last = Message::default();
            let mut denied = 0;
            for step in steps {
                match step {
                    Step::Wait(micros) => {
                        now = now.saturating_add(micros);
                        client.handle_timeout(at(now));
                    }
                    Step::Poll => if let Some((_, message)) = request(&mut client, at(now)) {
                        last = message;
                    },
                    Step::Answer(one, time, head, stratum, receive) => {
                        let mut message = answer(&last, time);
                        if receive != 0 {
                            message.receive = Timestamp::from_bits(receive);
                        }
                        let mut wire = bytes(&message);
                        (wire[0], wire[1]) = (head, stratum);
                        let _ = client.handle_datagram(at(now), if one { ONE } else { TWO }, &wire);
                    }
                    Step::Noise(one, noise) => {
                        let _ = client.handle_datagram(at(now), if one { ONE } else { TWO }, &noise);
                    }
                    Step::Unreachable(one) => {
                        client.handle_unreachable(at(now), if one { ONE } else { TWO }, Unreachable::NoRoute);
                    }
                }
                while let Some(event) = client.poll_event() {
                    denied += usize::from(matches!(event, Event::KissOfDeath { kiss: Kiss::Denied, .. }));
                }
                let _ = client.now(Instant::from_micros(now));
                prop_assert!(client.drift().is_none_or(|drift| i64::from(drift).abs() <= MAX_DRIFT));
                prop_assert!(
                    denied >= 2 || client.poll_timeout().is_some() || matches!(client.state, State::Due(_))
                );
            }
        }
    }
}
