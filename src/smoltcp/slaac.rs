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
/// Some 400 bytes.
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
