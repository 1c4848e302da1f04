//! Stateless address autoconfiguration (RFC 4862): routers say which networks there are, and a host makes
//! itself an address in each.
//!
//! smoltcp has it too, and is not asked: in its version 0.14 it keeps one prefix of an advertisement, asks for a
//! turn at once and for ever when no router answers, forgets that it wants one when no socket does, and uses an
//! address without asking whether another host has it.

use core::net::Ipv6Addr;

use heapless::Vec;

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

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

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
pub(super) enum Solicitation {
    /// Who is a router?
    Router,
    /// Who has this address?
    Neighbour(Ipv6Addr),
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
            rng: Rng::new(seed),
        };
        slaac.begin_soliciting(now);
        slaac
    }

    /// Takes in an ICMPv6 message that came in a frame from `from_mac` with hop limit 255 and a checksum that is
    /// right.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        from_mac: [u8; 6],
        from: Ipv6Addr,
        message: &[u8],
    ) {
        // RFC 4861, sections 4.2 to 4.4; section 6.1.2 and 7.1: the code is 0.
        let (Some(&kind), Some(0)) = (message.first(), message.get(1)) else {
            return;
        };
        match kind {
            134 if from.is_unicast_link_local() => self.handle_advertisement(now, from, message),
            // Somebody else asks for the address for himself, or has it (RFC 4862, sections 5.4.3 and 5.4.4).
            135 if from.is_unspecified() => self.object(from_mac, message),
            136 => self.object(from_mac, message),
            _ => {}
        }
    }

    /// What is to be said now. It counts as said.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Solicitation> {
        if let Some((at, wait)) = self.solicitation
            && at <= now
        {
            // RFC 7559, section 2, and RFC 8415, section 15: each wait is up to a tenth longer or shorter.
            let (whole, tenth) = (micros(wait), micros(wait) / 10);
            let wait_now = Duration::from_micros(whole - tenth + self.rng.below(2 * tenth + 1));
            let next_wait = (wait + wait).min(MOST_SOLICITATION_INTERVAL);
            self.solicitation = Some((now + wait_now, next_wait));
            return Some(Solicitation::Router);
        }
        let prefix = self
            .prefixes
            .iter_mut()
            .find(|prefix| matches!(prefix.state, State::Tentative(at) if at <= now))?;
        prefix.state = State::Probed(now + PROBE_TIME);
        Some(Solicitation::Neighbour(prefix.ip))
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
        match self.gateway {
            Some(ip) if !self.routers.iter().any(|router| router.ip == ip) => {
                self.gateway = None;
                if self.routers.is_empty() && self.solicitation.is_none() {
                    self.begin_soliciting(now);
                }
                Some(Change::NoGateway(ip))
            }
            Some(_) => None,
            None => {
                self.gateway = Some(self.routers.first()?.ip);
                self.gateway.map(Change::Gateway)
            }
        }
    }

    /// When to ask the two above again, if nobody says anything until then.
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
        if self
            .gateway
            .map_or(!self.routers.is_empty(), |ip| !known(ip))
        {
            next = Some(Instant::ZERO);
        }
        next
    }

    /// The path and the message of `solicitation`, for [`ndisc::emit`].
    pub(super) fn words(
        &self,
        solicitation: Solicitation,
    ) -> (ndisc::Path, ::smoltcp::wire::NdiscRepr<'static>) {
        use ::smoltcp::wire::{EthernetAddress, HardwareAddress, NdiscRepr};
        let ours = HardwareAddress::Ethernet(EthernetAddress(self.mac));
        let (from, to, message) = match solicitation {
            Solicitation::Router => {
                let lladdr = Some(ours.into());
                (
                    self.link_local,
                    ALL_ROUTERS,
                    NdiscRepr::RouterSolicit { lladdr },
                )
            }
            // RFC 4862, section 5.4.2: from nowhere, to those who might have it, without our Ethernet address.
            Solicitation::Neighbour(target_addr) => {
                let lladdr = None;
                let message = NdiscRepr::NeighborSolicit {
                    target_addr,
                    lladdr,
                };
                (
                    Ipv6Addr::UNSPECIFIED,
                    super::address::solicited_node(target_addr),
                    message,
                )
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

    fn begin_soliciting(&mut self, now: Instant) {
        self.solicitation = Some((now + self.delay(), SOLICITATION_INTERVAL));
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
        // One option that is not whole spoils the advertisement: section 6.1.2.
        let mut rest = options;
        while !rest.is_empty() {
            match rest.get(1).map(|&len| usize::from(len) * 8) {
                Some(len) if len > 0 && len <= rest.len() => rest = &rest[len..],
                _ => return,
            }
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
        let network = Ipv6Addr::from(*prefix);
        // Our own part has 64 bits (RFC 2464, section 4), and prefix and part have 128.
        if !autonomous
            || length != 64
            || preferred > valid
            || network.is_unicast_link_local()
            || network.is_multicast()
            || network.is_unspecified()
            || network.is_loopback()
        {
            return;
        }
        let mut octets = self.link_local.octets();
        octets[..8].copy_from_slice(&prefix[..8]);
        let ip = Ipv6Addr::from(octets);
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

    /// Somebody speaks of an address as of his own.
    fn object(&mut self, from_mac: [u8; 6], message: &[u8]) {
        let target = message
            .get(8..)
            .and_then(|bytes| bytes.first_chunk::<16>())
            .map(|&octets| Ipv6Addr::from(octets));
        for prefix in &mut self.prefixes {
            // Groups may bring our own words back to us.
            if Some(prefix.ip) == target
                && from_mac != self.mac
                && matches!(prefix.state, State::Tentative(_) | State::Probed(_))
            {
                prefix.state = State::Theirs { told: false };
            }
        }
    }
}

/// The number in network byte order at an offset of `bytes`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..)?.first_chunk::<N>()?;
    Some(digits.iter().fold(0, |n, &byte| n << 8 | u32::from(byte)))
}
