//! Stateless address autoconfiguration (RFC 4862): routers say which networks there are, and a host makes
//! itself an address in each.
//!
//! smoltcp has it too, and is not asked: in its version 0.14 it keeps one prefix of an advertisement, asks for a
//! turn at once and for ever when no router answers, forgets that it wants one when no socket does, and uses an
//! address without asking whether another host has it. Nor does it tell others who ask that an address is taken;
//! so that is done here too.
//!
//! Left out: preferred lifetimes (an address is as good as any other until it is not valid any more), the MTU and
//! the hop limit of advertisements, and networks on the link in which no address is to be made: those are reached
//! over the router.

use core::net::Ipv6Addr;

use heapless::Vec;

use super::address::{Network, solicited_node};
use super::ndisc;
use crate::instant::micros;
use crate::random::Rng;
use crate::{Duration, Instant, earliest};

/// Networks of which an address is made; further ones are not heeded.
const PREFIXES: usize = 4;

/// Routers to fall back upon; further ones are not heeded.
const ROUTERS: usize = 2;

/// RFC 4861, section 10: at most so long until the first solicitation (MAX_RTR_SOLICITATION_DELAY), and also
/// until an address is probed (RFC 4862, section 5.4.2).
const MOST_DELAY: Duration = Duration::from_secs(1);

/// The first wait for an answer, doubled each time (RFC 7559, section 2: IRT).
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// The longest wait for an answer (RFC 7559, section 2: MRT).
const MOST_SOLICITATION_INTERVAL: Duration = Duration::from_secs(3_600);

/// How long another host has to object to an address (RFC 4861, section 10: RETRANS_TIMER; one probe, RFC 4862,
/// section 5.1: DupAddrDetectTransmits).
const PROBE_TIME: Duration = Duration::from_secs(1);

/// What somebody who says nothing of himself cannot shorten the rest of a lifetime to (RFC 4862, section
/// 5.5.3.e).
const TWO_HOURS: Duration = Duration::from_secs(7_200);

/// The bits of an address that are a host's own.
const IDENTIFIER: u128 = u64::MAX as u128;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Neighbour discovery messages (RFC 4861, section 4).
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The state machine: it is told what neighbours say and what time it is, and asked what to say and to change.
/// Some 350 bytes.
#[derive(Debug)]
pub(super) struct Slaac {
    mac: [u8; 6],
    /// Our own part of the addresses: that of the link-local one.
    link_local: Ipv6Addr,
    /// When to ask for routers again, and how long to wait for an answer then. `None`: there is one.
    solicitation: Option<(Instant, Duration)>,
    prefixes: Vec<Prefix, PREFIXES>,
    routers: Vec<Router, ROUTERS>,
    /// The router that the stack was told to use.
    gateway: Option<Ipv6Addr>,
    /// An address of ours that somebody else is about to take. Of several within one turn, the last.
    claimed: Option<Ipv6Addr>,
    rng: Rng,
}

/// What the stack is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Take one more address; so many bits of it are those of a network on our link.
    Add(Ipv6Addr, u8),
    /// Give it up: its time is over.
    Remove(Ipv6Addr),
    /// Nothing: another host has the address already.
    Duplicate(Ipv6Addr),
    /// Use this router.
    Gateway(Ipv6Addr),
    /// Do not use it any more.
    NoGateway(Ipv6Addr),
}

/// What there is to be said on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// This address is taken.
    Claim(Ipv6Addr),
    /// Who is a router?
    WhoRoutes,
    /// Who has this address?
    WhoHas(Ipv6Addr),
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    /// Our address in it.
    ip: Ipv6Addr,
    /// How many bits of it say that a host is on our link: none, or those of the prefix.
    on_link: u8,
    /// Until when it is valid. `None`: for ever.
    until: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be probed then.
    Tentative(Instant),
    /// Probed, and ours then unless somebody objects.
    Probed(Instant),
    Ours,
    /// Another host's, and whether the stack was told.
    Theirs {
        told: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Router {
    ip: Ipv6Addr,
    until: Instant,
}

impl Slaac {
    /// For the host with the Ethernet address `mac` and the address `link_local`.
    pub(super) fn new(mac: [u8; 6], link_local: Ipv6Addr, seed: u64, now: Instant) -> Self {
        let mut slaac = Self {
            mac,
            link_local,
            solicitation: None,
            prefixes: Vec::new(),
            routers: Vec::new(),
            gateway: None,
            claimed: None,
            rng: Rng::new(seed),
        };
        slaac.begin_soliciting(now);
        slaac
    }

    /// Takes in an ICMPv6 message that came in a frame from `from_mac` with hop limit 255 and a checksum that is
    /// right. `network` is the one that we have addresses in.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        network: &Network,
        from_mac: [u8; 6],
        (from, to): (Ipv6Addr, Ipv6Addr),
        message: &[u8],
    ) {
        // RFC 4861, sections 6.1.2, 7.1.1 and 7.1.2: the code is 0.
        let (Some(&kind), Some(0)) = (message.first(), message.get(1)) else {
            return;
        };
        match kind {
            ROUTER_ADVERTISEMENT if from.is_unicast_link_local() && from != self.link_local => {
                self.handle_advertisement(now, from, message);
            }
            // Somebody else is about to take the address (RFC 4862, section 5.4.3). Groups may bring our own words
            // back to us.
            NEIGHBOUR_SOLICITATION if from.is_unspecified() && from_mac != self.mac => {
                if let Some(ip) = target(message)
                    && to == solicited_node(ip)
                {
                    if network.owns(ip.into()) {
                        self.claimed = Some(ip);
                    } else {
                        self.object(ip);
                    }
                }
            }
            // Somebody has it (RFC 4862, section 5.4.4). We say so of none that we have not.
            NEIGHBOUR_ADVERTISEMENT => {
                if let Some(ip) = target(message) {
                    self.object(ip);
                }
            }
            _ => {}
        }
    }

    /// What is to be said now: see [`sent`](Self::sent).
    pub(super) fn due(&self, now: Instant) -> Option<Message> {
        if let Some(ip) = self.claimed {
            return Some(Message::Claim(ip));
        }
        if self.solicitation.is_some_and(|(at, _)| at <= now) {
            return Some(Message::WhoRoutes);
        }
        self.prefixes
            .iter()
            .find(|prefix| matches!(prefix.state, State::Tentative(at) if at <= now))
            .map(|prefix| Message::WhoHas(prefix.ip))
    }

    /// Takes note that `message` has been said.
    pub(super) fn sent(&mut self, now: Instant, message: Message) {
        match message {
            Message::Claim(_) => self.claimed = None,
            Message::WhoRoutes => {
                self.solicitation = self.solicitation.map(|(_, wait)| {
                    // RFC 7559, section 2, and RFC 8415, section 15: each wait is up to a tenth longer or shorter.
                    let (whole, tenth) = (micros(wait), micros(wait) / 10);
                    let wait_now = whole - tenth + self.rng.below(2 * tenth + 1);
                    let next_wait = (wait + wait).min(MOST_SOLICITATION_INTERVAL);
                    (now + Duration::from_micros(wait_now), next_wait)
                });
            }
            Message::WhoHas(ip) => {
                if let Some(prefix) = self.prefixes.iter_mut().find(|prefix| prefix.ip == ip) {
                    prefix.state = State::Probed(now + PROBE_TIME);
                }
            }
        }
    }

    /// The next thing that the stack is to do, as of `now`. It counts as done.
    pub(super) fn poll_change(&mut self, now: Instant) -> Option<Change> {
        let over = |prefix: &Prefix| prefix.until.is_some_and(|until| until <= now);
        while let Some(index) = self.prefixes.iter().position(over) {
            let prefix = self.prefixes.swap_remove(index);
            if prefix.state == State::Ours {
                return Some(Change::Remove(prefix.ip));
            }
        }
        for prefix in &mut self.prefixes {
            match prefix.state {
                State::Probed(at) if at <= now => {
                    prefix.state = State::Ours;
                    return Some(Change::Add(prefix.ip, prefix.on_link));
                }
                State::Theirs { told: false } => {
                    prefix.state = State::Theirs { told: true };
                    return Some(Change::Duplicate(prefix.ip));
                }
                _ => {}
            }
        }
        self.routers.retain(|router| router.until > now);
        if self.is_lost() {
            self.begin_soliciting(now);
        }
        match self.gateway {
            Some(ip) if !self.routers.iter().any(|router| router.ip == ip) => {
                self.gateway = None;
                Some(Change::NoGateway(ip))
            }
            Some(_) => None,
            None => {
                self.gateway = Some(self.routers.first()?.ip);
                self.gateway.map(Change::Gateway)
            }
        }
    }

    /// When to ask [`due`](Self::due) and [`poll_change`](Self::poll_change) again, if nobody says anything until
    /// then.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let mut next = self.solicitation.map(|(at, _)| at);
        for prefix in &self.prefixes {
            next = earliest(next, prefix.until);
            match prefix.state {
                State::Tentative(at) | State::Probed(at) => next = earliest(next, Some(at)),
                State::Theirs { told: false } => next = Some(Instant::ZERO),
                _ => {}
            }
        }
        for router in &self.routers {
            next = earliest(next, Some(router.until));
        }
        // A router to be used, or one not to be used any more.
        let known = |ip| self.routers.iter().any(|router| router.ip == ip);
        let change = self
            .gateway
            .map_or(!self.routers.is_empty(), |ip| !known(ip));
        if change || self.is_lost() || self.claimed.is_some() {
            next = Some(Instant::ZERO);
        }
        next
    }

    /// `message` and its path, for [`ndisc::emit`].
    pub(super) fn words(
        &self,
        message: Message,
    ) -> (ndisc::Path, ::smoltcp::wire::NdiscRepr<'static>) {
        use ::smoltcp::wire::{EthernetAddress, HardwareAddress, NdiscNeighborFlags, NdiscRepr};
        let lladdr = Some(HardwareAddress::Ethernet(EthernetAddress(self.mac)).into());
        let (from, to, message) = match message {
            // RFC 4861, section 7.2.4: to whom who has no address yet can hear it.
            Message::Claim(target_addr) => {
                let flags = NdiscNeighborFlags::OVERRIDE;
                let message = NdiscRepr::NeighborAdvert {
                    flags,
                    target_addr,
                    lladdr,
                };
                (target_addr, ALL_NODES, message)
            }
            Message::WhoRoutes => {
                let message = NdiscRepr::RouterSolicit { lladdr };
                (self.link_local, ALL_ROUTERS, message)
            }
            // RFC 4862, section 5.4.2: from nowhere, to those who might have it, without our Ethernet address.
            Message::WhoHas(target_addr) => {
                let lladdr = None;
                let message = NdiscRepr::NeighborSolicit {
                    target_addr,
                    lladdr,
                };
                let to = solicited_node(target_addr);
                (Ipv6Addr::UNSPECIFIED, to, message)
            }
        };
        let path = ndisc::Path {
            from_mac: self.mac,
            to_mac: ndisc::group_mac(to),
            from,
            to,
        };
        (path, message)
    }

    /// Asks for routers, whether there are some or not: the cable may lead to another network now.
    pub(super) fn begin_soliciting(&mut self, now: Instant) {
        self.solicitation = Some((now + self.delay(), SOLICITATION_INTERVAL));
    }

    /// Whether there is no router, and nobody asks for one.
    fn is_lost(&self) -> bool {
        self.routers.is_empty() && self.solicitation.is_none()
    }

    /// A moment's wait, so that hosts that start together do not speak together.
    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.below(micros(MOST_DELAY)))
    }

    /// RFC 4861, sections 4.2 and 6.3.4.
    fn handle_advertisement(&mut self, now: Instant, from: Ipv6Addr, message: &[u8]) {
        let (Some(lifetime), Some(mut options)) = (number::<2>(message, 6), message.get(16..))
        else {
            return;
        };
        // Section 6.1.2.
        if !are_whole(options) {
            return;
        }
        let lifetime = Duration::from_secs(lifetime.into());
        self.routers.retain(|router| router.ip != from);
        if lifetime > Duration::ZERO {
            let until = now + lifetime;
            let router = Router { ip: from, until };
            // Where it was in the list does not matter: one that is in use stays in use.
            if self.routers.push(router).is_ok() {
                self.solicitation = None;
            }
        }
        while let [kind, len, ..] = *options {
            let (option, next) = options.split_at(usize::from(len) * 8);
            if kind == 3 && len == 4 {
                self.handle_prefix(now, option);
            }
            options = next;
        }
    }

    /// RFC 4861, section 4.6.2, and RFC 4862, section 5.5.3.
    fn handle_prefix(&mut self, now: Instant, option: &[u8]) {
        let (Some(&[length, flags]), Some(valid), Some(preferred), Some(prefix)) = (
            option.get(2..4).and_then(|bytes| bytes.first_chunk::<2>()),
            number::<4>(option, 4),
            number::<4>(option, 8),
            option.get(16..).and_then(|bytes| bytes.first_chunk::<16>()),
        ) else {
            return;
        };
        let (on_link, autonomous) = (flags & 0x80 != 0, flags & 0x40 != 0);
        let network = Ipv6Addr::from_bits(u128::from_be_bytes(*prefix) & !IDENTIFIER);
        // Our own part has 64 bits (RFC 2464, section 4), and prefix and part have 128.
        if !autonomous
            || length != 64
            || preferred > valid
            || network.is_unicast_link_local()
            || network.is_multicast()
            || network.is_unspecified()
        {
            return;
        }
        let ip = Ipv6Addr::from_bits(network.to_bits() | self.link_local.to_bits() & IDENTIFIER);
        let until = (valid != u32::MAX).then(|| now + Duration::from_secs(valid.into()));
        if let Some(prefix) = self.prefixes.iter_mut().find(|prefix| prefix.ip == ip) {
            let two_hours = now + TWO_HOURS;
            let sooner = |at: Instant| prefix.until.is_none_or(|until| at < until);
            prefix.until = match until {
                Some(at) if at <= two_hours && sooner(at) => {
                    // Who forges one advertisement must not take the address away.
                    if sooner(two_hours) {
                        Some(two_hours)
                    } else {
                        prefix.until
                    }
                }
                until => until,
            };
        } else if valid > 0 {
            let state = State::Tentative(now + self.delay());
            let on_link = if on_link { 64 } else { 128 };
            // With no room left it stays without an address.
            let _ = self.prefixes.push(Prefix {
                ip,
                on_link,
                until,
                state,
            });
        }
    }

    /// Somebody else has the address, or would.
    fn object(&mut self, ip: Ipv6Addr) {
        for prefix in &mut self.prefixes {
            if prefix.ip == ip && matches!(prefix.state, State::Tentative(_) | State::Probed(_)) {
                prefix.state = State::Theirs { told: false };
            }
        }
    }
}

/// Whether there is nothing but whole options (RFC 4861, section 4.6). One that is not spoils the message.
fn are_whole(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        match options.get(1).map(|&len| usize::from(len) * 8) {
            Some(len) if len > 0 && len <= options.len() => options = &options[len..],
            _ => return false,
        }
    }
    true
}

/// What address a solicitation or an advertisement of a neighbour is about (RFC 4861, sections 4.3 and 4.4).
fn target(message: &[u8]) -> Option<Ipv6Addr> {
    let octets = message.get(8..)?.first_chunk::<16>()?;
    are_whole(message.get(24..)?).then(|| Ipv6Addr::from(*octets))
}

/// The number in network byte order at an offset of `bytes`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..)?.first_chunk::<N>()?;
    Some(digits.iter().fold(0, |n, &byte| n << 8 | u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// RFC 2464, section 4, makes an identifier of this one: 36-56-78-FF-FE-9A-BC-DE.
    const MAC: [u8; 6] = [0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
    const ANOTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x07];
    const LINK_LOCAL: &str = "fe80::3656:78ff:fe9a:bcde";
    const OURS: &str = "2001:db8:1:2:3656:78ff:fe9a:bcde";
    const ROUTER: &str = "fe80::1";
    const ANOTHER_ROUTER: &str = "fe80::2";
    const FOR_EVER: u32 = u32::MAX;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn after(from: Instant, secs: u64) -> Instant {
        from + Duration::from_secs(secs)
    }

    /// A prefix information option (RFC 4861, section 4.6.2), on the link and for addresses.
    fn prefix(network: &str, valid: u32, preferred: u32) -> Vec<u8> {
        let mut option = Vec::from([3, 4, 64, 0x80 | 0x40]);
        option.extend(valid.to_be_bytes());
        option.extend(preferred.to_be_bytes());
        option.extend([0; 4]);
        option.extend(ip(network).octets());
        option
    }

    /// A router advertisement (RFC 4861, section 4.2).
    fn advertisement(router_lifetime: u16, options: &[Vec<u8>]) -> Vec<u8> {
        let mut message = Vec::from([134, 0, 0, 0, 64, 0]);
        message.extend(router_lifetime.to_be_bytes());
        message.extend([0; 8]);
        message.extend(options.concat());
        message
    }

    /// A neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4).
    fn about(kind: u8, target: &str) -> Vec<u8> {
        let mut message = Vec::from([kind, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(ip(target).octets());
        message
    }

    type Timed<T> = Vec<(Instant, T)>;

    struct Host {
        slaac: Slaac,
        network: Network,
        now: Instant,
    }

    impl Host {
        fn new(seed: u64) -> Self {
            let mut network = Network::default();
            let _ = network.addresses.push((ip(LINK_LOCAL).into(), 64));
            let now = Instant::from_secs(1_000);
            Self {
                slaac: Slaac::new(MAC, ip(LINK_LOCAL), seed, now),
                network,
                now,
            }
        }

        /// One that has heard the advertisement and has its address.
        fn with(options: &[Vec<u8>]) -> Self {
            let mut host = Self::new(1);
            host.hear(ROUTER, &advertisement(1_800, options));
            let until = host.now + MOST_DELAY + PROBE_TIME;
            let changes = host.run(until).1;
            assert!(
                changes.iter().any(|(_, c)| matches!(c, Change::Add(..))),
                "{changes:?}"
            );
            host
        }

        fn hear(&mut self, router: &str, message: &[u8]) {
            let path = (ip(router), ALL_NODES);
            self.slaac
                .handle_message(self.now, &self.network, ANOTHER_MAC, path, message);
        }

        /// Does what there is to do until then, when it is to be done. Returns what was said and changed, and when.
        fn run(&mut self, until: Instant) -> (Timed<Message>, Timed<Change>) {
            let (mut said, mut changed) = (Vec::new(), Vec::new());
            for _ in 0..1_000 {
                while let Some(message) = self.slaac.due(self.now) {
                    self.slaac.sent(self.now, message);
                    said.push((self.now, message));
                }
                while let Some(change) = self.slaac.poll_change(self.now) {
                    changed.push((self.now, change));
                }
                let next = self.slaac.poll_timeout();
                if self.slaac.due(self.now).is_some() {
                    continue;
                }
                // Nothing is left to do now, so nothing may ask for it.
                assert!(next.is_none_or(|next| next > self.now), "{:?}", self.slaac);
                match next {
                    Some(next) if next <= until => self.now = next,
                    _ => {
                        self.now = until;
                        return (said, changed);
                    }
                }
            }
            panic!("time stands still: {:?}", self.slaac);
        }

        fn changes(&mut self, secs: u64) -> Vec<Change> {
            let until = after(self.now, secs);
            let changes = self.run(until).1;
            changes.into_iter().map(|(_, change)| change).collect()
        }
    }

    #[test]
    fn routers_are_asked_for_ever_more_seldom() {
        for seed in 0..100 {
            let mut host = Host::new(seed);
            let start = host.now;
            let (said, changed) = host.run(after(start, 30_000));
            assert_eq!(changed, []);
            assert!(said.iter().all(|&(_, what)| what == Message::WhoRoutes));
            let mut last = said[0].0;
            assert!(last.saturating_since(start) < Duration::from_secs(1));
            // 4, 8, ... 2,048, and then an hour, each a tenth longer or shorter.
            let waits = (2..12).map(|n| 1 << n).chain([3_600; 5]);
            for (&(at, _), wait) in said[1..].iter().zip(waits) {
                let waited = at.saturating_since(last).as_secs_f64() / f64::from(wait);
                assert!((0.9..=1.1).contains(&waited), "seed {seed}: {waited}");
                last = at;
            }
            assert!(said.len() >= 15, "{}", said.len());
        }
        let first = |seed| Host::new(seed).slaac.poll_timeout();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_router_is_asked_in_the_words_of_the_rfc() {
        let host = Host::new(1);
        let (path, message) = host.slaac.words(Message::WhoRoutes);
        let mut frame = [0; 86];
        let len = ndisc::frame_len(&message);
        ndisc::emit(&mut frame[..len], &path, message);
        // RFC 4861, section 4.1: to all routers, with hop limit 255 and our Ethernet address.
        assert_eq!(len, 70);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 2]);
        assert_eq!(frame[6..12], MAC);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255]);
        assert_eq!(frame[22..38], ip(LINK_LOCAL).octets());
        assert_eq!(frame[38..54], ip("ff02::2").octets());
        assert_eq!(frame[54..56], [133, 0]);
        assert_eq!(frame[58..64], [0, 0, 0, 0, 1, 1]);
        assert_eq!(frame[64..70], MAC);
    }

    #[test]
    fn others_who_would_take_an_address_of_ours_are_told() {
        let mut host = Host::with(&[prefix("2001:db8:1:2::", 3_600, 3_600)]);
        let _ = host.network.addresses.push((ip(OURS).into(), 64));
        for own in [OURS, LINK_LOCAL] {
            let path = (Ipv6Addr::UNSPECIFIED, solicited_node(ip(own)));
            let probe = about(135, own);
            host.slaac
                .handle_message(host.now, &host.network, ANOTHER_MAC, path, &probe);
            assert_eq!(host.slaac.poll_timeout(), Some(Instant::ZERO));
            let (said, changed) = host.run(host.now);
            assert_eq!(said, [(host.now, Message::Claim(ip(own)))]);
            assert_eq!(changed, []);
        }
        let (path, message) = host.slaac.words(Message::Claim(ip(OURS)));
        let mut frame = [0; 86];
        ndisc::emit(&mut frame, &path, message);
        // RFC 4861, section 7.2.4: to all nodes, not solicited, overriding, with our Ethernet address.
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[22..38], ip(OURS).octets());
        assert_eq!(frame[38..54], ip("ff02::1").octets());
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58..62], [0x20, 0, 0, 0]);
        assert_eq!(frame[62..78], ip(OURS).octets());
        assert_eq!(frame[78..80], [2, 1]);
        assert_eq!(frame[80..86], MAC);
    }

    #[test]
    fn an_address_is_made_of_a_prefix_and_probed_before_it_is_ours() {
        let mut host = Host::new(1);
        host.hear(
            ROUTER,
            &advertisement(1_800, &[prefix("2001:db8:1:2::", 3_600, 1_800)]),
        );
        let start = host.now;
        let (said, changed) = host.run(after(start, 10));
        let [(probed, Message::WhoHas(probe))] = said[..] else {
            panic!("{said:?}");
        };
        assert_eq!(probe, ip(OURS));
        assert!(probed.saturating_since(start) < MOST_DELAY);
        assert_eq!(
            changed,
            [
                (start, Change::Gateway(ip(ROUTER))),
                (probed + PROBE_TIME, Change::Add(ip(OURS), 64)),
            ]
        );
        let (path, message) = host.slaac.words(Message::WhoHas(probe));
        let mut frame = [0; 78];
        assert_eq!(ndisc::frame_len(&message), 78);
        ndisc::emit(&mut frame, &path, message);
        // RFC 4862, section 5.4.2: from nowhere to the group of the address, without our Ethernet address.
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x9a, 0xbc, 0xde]);
        assert_eq!(frame[18..22], [0, 24, 58, 255]);
        assert_eq!(frame[22..38], [0; 16]);
        assert_eq!(frame[38..54], ip("ff02::1:ff9a:bcde").octets());
        assert_eq!(frame[54..56], [135, 0]);
        assert_eq!(frame[62..78], ip(OURS).octets());
    }

    #[test]
    fn what_no_address_is_to_be_made_of() {
        let good = prefix("2001:db8:1:2::", 3_600, 1_800);
        let with = |index: usize, value: u8| {
            let mut option = good.clone();
            option[index] = value;
            option
        };
        for (option, why) in [
            (with(2, 63), "63 bits and 64"),
            (with(2, 128), "128 bits and 64"),
            (with(3, 0x80), "not for addresses"),
            (with(1, 3), "too short"),
            (prefix("2001:db8:1:2::", 0, 0), "valid for no time"),
            (prefix("2001:db8:1:2::", 1, 2), "preferred but not valid"),
            (prefix("fe80::", 3_600, 0), "link-local"),
            (prefix("ff02::", 3_600, 0), "multicast"),
            (prefix("::", 3_600, 0), "of nobody"),
            (prefix("::1", 3_600, 0), "of nobody, with bits behind it"),
        ] {
            let mut host = Host::new(1);
            host.hear(ROUTER, &advertisement(0, &[option]));
            assert!(host.slaac.prefixes.is_empty(), "{why}");
        }
        // RFC 4861, section 4.6.2: bits behind the prefix are not heeded.
        let mut host = Host::new(1);
        let option = prefix("2001:db8:1:2:1:2:3:4", 3_600, 1_800);
        host.hear(ROUTER, &advertisement(0, &[option]));
        assert_eq!(host.slaac.prefixes[0].ip, ip(OURS));
        // RFC 4861, section 6.3.4: not on the link as far as this option says.
        let mut host = Host::new(1);
        host.hear(ROUTER, &advertisement(0, &[with(3, 0x40)]));
        assert_eq!(host.changes(2), [Change::Add(ip(OURS), 128)]);
    }

    #[test]
    fn an_advertisement_is_heeded_as_a_whole_or_not_at_all() {
        let good = advertisement(1_800, &[prefix("2001:db8:1:2::", 3_600, 1_800)]);
        let mut empty_option = good.clone();
        empty_option.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        let mut with_code = good.clone();
        with_code[1] = 1;
        let cut = (0..good.len())
            .filter(|&len| len != 16)
            .map(|len| &good[..len]);
        for message in cut.chain([&empty_option[..], &with_code]) {
            let mut host = Host::new(1);
            host.hear(ROUTER, message);
            assert!(host.slaac.prefixes.is_empty() && host.slaac.routers.is_empty());
        }
        // An option that nobody knows is passed over.
        let mut host = Host::new(1);
        let unknown = Vec::from([200, 1, 1, 2, 3, 4, 5, 6]);
        let option = prefix("2001:db8:1:2::", 3_600, 1_800);
        host.hear(ROUTER, &advertisement(1_800, &[unknown, option]));
        assert_eq!(host.slaac.prefixes.len(), 1);
        // RFC 4861, section 6.1.2: routers speak with their link-local address. It is not ours.
        for from in ["2001:db8:1:2::1", "::", LINK_LOCAL] {
            let mut host = Host::new(1);
            host.hear(from, &good);
            assert!(host.slaac.prefixes.is_empty() && host.slaac.routers.is_empty());
        }
    }

    #[test]
    fn an_address_that_another_host_has_is_not_taken() {
        let group = solicited_node(ip(OURS));
        let nobody = Ipv6Addr::UNSPECIFIED;
        for (from_mac, path, message, duplicate) in [
            (ANOTHER_MAC, (ip(OURS), ALL_NODES), about(136, OURS), true),
            (ANOTHER_MAC, (nobody, group), about(135, OURS), true),
            // Who only asks for it does not claim it.
            (ANOTHER_MAC, (ip(ROUTER), group), about(135, OURS), false),
            // Our own probe, brought back by the group.
            (MAC, (nobody, group), about(135, OURS), false),
            (ANOTHER_MAC, (nobody, ALL_NODES), about(135, OURS), false),
            (
                ANOTHER_MAC,
                (ip(ROUTER), ALL_NODES),
                about(136, "2001:db8:1:2::7"),
                false,
            ),
            (
                ANOTHER_MAC,
                (ip(OURS), ALL_NODES),
                about(136, OURS)[..23].to_vec(),
                false,
            ),
            (
                ANOTHER_MAC,
                (ip(OURS), ALL_NODES),
                [about(136, OURS), Vec::from([2, 0])].concat(),
                false,
            ),
        ] {
            // Before the probe, and after it.
            for wait in [Duration::ZERO, MOST_DELAY] {
                let mut host = Host::new(1);
                let option = prefix("2001:db8:1:2::", 7_200, 1_800);
                let again = advertisement(0, &[option]);
                host.hear(ROUTER, &again);
                let until = host.now + wait;
                host.run(until);
                host.slaac
                    .handle_message(host.now, &host.network, from_mac, path, &message);
                let expected = if duplicate {
                    [Change::Duplicate(ip(OURS))]
                } else {
                    [Change::Add(ip(OURS), 64)]
                };
                assert_eq!(host.changes(3), expected, "{from_mac:x?} {path:?}");
                // It stays so as long as the prefix does, however often that is said.
                host.hear(ROUTER, &again);
                assert_eq!(host.changes(3), []);
            }
        }
    }

    #[test]
    fn an_address_that_is_ours_is_not_given_up_for_anybody() {
        let mut host = Host::with(&[prefix("2001:db8:1:2::", FOR_EVER, FOR_EVER)]);
        host.hear(OURS, &about(136, OURS));
        assert_eq!(host.changes(1), []);
    }

    #[test]
    fn an_address_is_ours_for_as_long_as_the_prefix_is_valid() {
        let mut host = Host::with(&[prefix("2001:db8:1:2::", 3_600, 1_800)]);
        let start = Instant::from_secs(1_000);
        let gone = Change::Remove(ip(OURS));
        let (_, changed) = host.run(after(start, 3_600));
        assert!(changed.contains(&(after(start, 3_600), gone)));
        // It is made anew when the prefix comes again.
        let option = prefix("2001:db8:1:2::", 3_600, 1_800);
        host.hear(ROUTER, &advertisement(0, &[option]));
        assert_eq!(host.changes(2), [Change::Add(ip(OURS), 64)]);
        // Before it is ours, it just ends.
        let mut host = Host::new(1);
        host.hear(ROUTER, &advertisement(0, &[prefix("2001:db8:1:2::", 1, 1)]));
        assert_eq!(host.changes(5), []);
        assert!(host.slaac.prefixes.is_empty());
        // And for ever is for ever.
        let mut host = Host::with(&[prefix("2001:db8:1:2::", FOR_EVER, FOR_EVER)]);
        let end = Instant::FAR_FUTURE;
        host.slaac.solicitation = None;
        host.slaac.routers.clear();
        host.now = end;
        assert_eq!(
            host.slaac.poll_change(end),
            Some(Change::NoGateway(ip(ROUTER)))
        );
        assert_eq!(host.slaac.poll_change(end), None);
        assert_eq!(host.slaac.prefixes.len(), 1);
    }

    #[test]
    fn one_advertisement_shortens_a_lifetime_to_two_hours_at_most() {
        // RFC 4862, section 5.5.3.e; in seconds: what is left, what is said, and what is left then.
        for (left, said, then) in [
            (86_400, 172_800, 172_800),
            (86_400, 7_201, 7_201),
            (86_400, 7_200, 7_200),
            (86_400, 60, 7_200),
            (86_400, 0, 7_200),
            (FOR_EVER, 0, 7_200),
            (FOR_EVER, FOR_EVER, FOR_EVER),
            (60, FOR_EVER, FOR_EVER),
            (3_600, 7_200, 7_200),
            (3_600, 3_601, 3_601),
            (3_600, 3_599, 3_600),
            (3_600, 0, 3_600),
            (7_200, 0, 7_200),
        ] {
            let mut host = Host::new(1);
            for valid in [left, said] {
                let option = prefix("2001:db8:1:2::", valid, 0);
                host.hear(ROUTER, &advertisement(0, &[option]));
            }
            let until = (then != FOR_EVER).then(|| after(host.now, then.into()));
            assert_eq!(host.slaac.prefixes[0].until, until, "{left} {said}");
        }
    }

    #[test]
    fn each_prefix_gets_an_address_as_far_as_there_is_room() {
        let networks: Vec<_> = (0..6)
            .map(|n| prefix(&std::format!("2001:db8:1:{n}::"), 3_600, 0))
            .collect();
        let mut host = Host::new(1);
        host.hear(ROUTER, &advertisement(0, &networks));
        let mut added = host.changes(2);
        added.sort_by_key(|change| std::format!("{change:?}"));
        let identifier = "3656:78ff:fe9a:bcde";
        let expected: Vec<_> = (0..4)
            .map(|n| Change::Add(ip(&std::format!("2001:db8:1:{n}:{identifier}")), 64))
            .collect();
        assert_eq!(added, expected);
        // There is room again when some have ended.
        host.changes(3_600);
        host.hear(ROUTER, &advertisement(0, &networks[4..]));
        assert_eq!(host.changes(2).len(), 2);
    }

    #[test]
    fn another_router_steps_in_and_without_any_they_are_asked_for_again() {
        let mut host = Host::new(1);
        host.hear(ROUTER, &advertisement(1_800, &[]));
        assert_eq!(host.changes(1), [Change::Gateway(ip(ROUTER))]);
        host.hear(ANOTHER_ROUTER, &advertisement(9_000, &[]));
        // One that is in use stays in use.
        host.hear(ROUTER, &advertisement(1_800, &[]));
        // There is no room for a third one.
        host.hear("fe80::3", &advertisement(9_000, &[]));
        assert_eq!(host.changes(1), []);
        let start = host.now;
        let (said, changed) = host.run(after(start, 1_800));
        assert_eq!(said, []);
        let [
            (lost, Change::NoGateway(first)),
            (found, Change::Gateway(second)),
        ] = changed[..]
        else {
            panic!("{changed:?}");
        };
        assert_eq!((first, second), (ip(ROUTER), ip(ANOTHER_ROUTER)));
        assert_eq!((lost, found), (after(start, 1_799), after(start, 1_799)));
        // It says that it is none any more.
        host.hear(ANOTHER_ROUTER, &advertisement(0, &[]));
        let start = host.now;
        let (said, changed) = host.run(after(start, 2));
        assert_eq!(changed, [(start, Change::NoGateway(ip(ANOTHER_ROUTER)))]);
        assert!(matches!(said[..], [(_, Message::WhoRoutes)]), "{said:?}");
        // One that came and went before anybody was told of it.
        let mut host = Host::new(1);
        host.hear(ROUTER, &advertisement(1, &[]));
        host.now = after(host.now, 5);
        let (said, changed) = host.run(after(host.now, 2));
        assert_eq!(changed, []);
        assert!(matches!(said[..], [(_, Message::WhoRoutes)]), "{said:?}");
    }

    proptest! {
        #[test]
        fn whatever_neighbours_say_does_no_harm(
            seed: u64,
            start in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()],
            messages in prop::collection::vec(
                (
                    prop_oneof![Just(134_u8), Just(135), Just(136), any::<u8>()],
                    0..3_u8,
                    prop::collection::vec(prop_oneof![0..5_u8, any::<u8>()], 0..120),
                    0..20_000_000_u64,
                ),
                0..40,
            ),
        ) {
            let mut host = Host::new(seed);
            host.now = Instant::from_micros(start);
            host.slaac.begin_soliciting(host.now);
            for (kind, from, mut message, pause) in messages {
                if let Some(first) = message.first_mut() {
                    *first = kind;
                }
                if let Some(code) = message.get_mut(1) {
                    *code &= 1;
                }
                let from = [ip(ROUTER), ip(ANOTHER_ROUTER), Ipv6Addr::UNSPECIFIED][usize::from(from)];
                let path = (from, ALL_NODES);
                host.slaac.handle_message(host.now, &host.network, ANOTHER_MAC, path, &message);
                host.now += Duration::from_micros(pause);
                // Each time something is done, until nothing is: the end of time is no time to stop at.
                for round in 0.. {
                    prop_assert!(round < 100, "{:?}", host.slaac);
                    let message = host.slaac.due(host.now).filter(|_| round < 20);
                    if let Some(message) = message {
                        host.slaac.sent(host.now, message);
                    } else if host.slaac.poll_change(host.now).is_none() {
                        break;
                    }
                }
                let due = host.slaac.poll_timeout().is_some_and(|at| at <= host.now);
                prop_assert!(!due || host.slaac.due(host.now).is_some() || host.now == Instant::FAR_FUTURE);
            }
        }
    }
}
