//! A pool of sockets that listen at one address.

use core::net::SocketAddr;

use ::smoltcp::iface::SocketHandle;
use ::smoltcp::socket::tcp::{Socket, State};
use ::smoltcp::wire::IpListenEndpoint;

use super::address;
use super::stack::Sockets;
use super::tcp::{Signature, TcpTransport};
use super::udp::NEIGHBOUR_TIMEOUT;
use crate::{ConnId, Duration, Instant, Now, StreamService, pump_stream, pump_timeout};

/// `N` TCP sockets that listen at one address, made by [`Stack::listen`](super::Stack::listen). 56 bytes each,
/// besides the sockets themselves.
///
/// smoltcp has no backlog: a socket that listens takes one connection. So each connection is on a socket of the
/// pool, and as many more can come as others listen. When none does,
///
/// - the oldest connection in TIME-WAIT makes room at once: TIME-WAIT (RFC 9293, section 3.6.1; 10 seconds in
///   smoltcp) protects later connections between the same two ports, and is kept for as long as there is room;
/// - a connection request (SYN) is left without answer, where smoltcp would refuse it, and comes again; for its
///   sake the oldest half-open connection makes room (its client has not answered our SYN-ACK), but not before
///   it is 100 ms old; when it is a second old it makes room anyway. So a flood of forged requests cannot shut
///   others out;
/// - connections that are open are the service's: let its own limit be below `N` (`max_connections` in
///   [`greeting::Config`](crate::greeting::Config)), so that it gives one up in time.
#[derive(Debug)]
pub struct Listener<const N: usize> {
    local: SocketAddr,
    endpoint: IpListenEndpoint,
    slots: [Slot; N],
    /// Counts the changes of the slots, and so tells the older from the newer.
    changes: u64,
    counters: ListenerCounters,
}

/// How long a half-open connection is left alone while others want to connect: longer than most round trips, or
/// else a crowd of honest clients far away would shut itself out.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// How long it is left alone when no other is known to want to: after that our SYN-ACK would be sent again
/// (RFC 6298, section 2.1).
const LONG_HANDSHAKE: Duration = Duration::from_secs(1);

/// What a [`Listener`] did with its sockets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Connections that the service took in.
    pub opened: u64,
    /// Connections that the service would not have.
    pub rejected: u64,
    /// Connections whose TIME-WAIT was cut short.
    pub time_wait_recycled: u64,
    /// Half-open connections given up for others.
    pub half_open_recycled: u64,
}

/// What one pump of a [`Listener`] or a [`Dial`](super::Dial) did, and when to do it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamsPumped {
    /// Connections that the service took in.
    pub opened: u32,
    /// Connections that the service would not have.
    pub rejected: u32,
    /// Connections that have ended, however they did.
    pub closed: u32,
    /// Bytes that the service consumed.
    pub received: usize,
    /// Bytes that the service wrote.
    pub sent: usize,
    /// When the service wants its timeout; at once if there is more to do now.
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    handle: SocketHandle,
    phase: Phase,
    /// When it came into this phase, as a number of [`Listener::changes`].
    since: u64,
    /// When that was.
    at: Instant,
    /// What the socket looked like after the last pump. `None`: to be pumped in any case.
    pumped: Option<Signature>,
    end_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It listens.
    Free,
    /// A client has asked for a connection, and has not heard or not answered our consent.
    HalfOpen,
    /// It is a connection of the service.
    Open,
    /// The service is done with it, the stack perhaps not.
    Ending,
}

impl<const N: usize> Listener<N> {
    pub(super) fn new(
        sockets: &mut Sockets<'_>,
        local: SocketAddr,
        endpoint: IpListenEndpoint,
        handles: [SocketHandle; N],
    ) -> Self {
        for &handle in &handles {
            // The port is not 0 and the socket is new.
            let _ = sockets.set.get_mut::<Socket<'_>>(handle).listen(endpoint);
        }
        Self {
            local,
            endpoint,
            slots: handles.map(|handle| Slot {
                handle,
                phase: Phase::Free,
                since: 0,
                at: Instant::ZERO,
                pumped: None,
                end_told: false,
            }),
            changes: 0,
            counters: ListenerCounters::default(),
        }
    }

    /// The address it listens at, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What happened so far.
    pub fn counters(&self) -> ListenerCounters {
        self.counters
    }

    /// How many of its sockets wait for a connection.
    pub fn listening(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.phase == Phase::Free)
            .count()
    }

    /// Hands new connections to `service`, moves bytes between it and those in which something has changed, and
    /// makes sure that a socket listens. To be called in every `serve` of [`Stack::turn`](super::Stack::turn).
    ///
    /// # Panics
    /// If the listener is of another stack than `sockets`.
    pub fn pump<S: StreamService>(
        &mut self,
        sockets: &mut Sockets<'_>,
        service: &mut S,
        now: Now,
    ) -> StreamsPumped {
        let mut pumped = StreamsPumped::default();
        pump_timeout(service, now);
        for index in 0..N {
            self.step(index, sockets, service, now, &mut pumped);
        }
        // A service that asks for the same connection for ever must not hold up the others for ever.
        for _ in 0..2 * N {
            let Some(id) = service.poll_ready() else {
                break;
            };
            match self.slots.get_mut(id.index()) {
                Some(slot) if slot.phase == Phase::Open => {
                    slot.pumped = None;
                    self.step(id.index(), sockets, service, now, &mut pumped);
                }
                _ => service.handle_close(now, id),
            }
        }
        self.keep_listening(sockets, now.monotonic);
        let more = self
            .slots
            .iter()
            .any(|slot| slot.phase == Phase::Open && slot.pumped.is_none());
        pumped.deadline = if more {
            Some(now.monotonic)
        } else {
            service.poll_timeout()
        };
        pumped
    }

    /// Goes on with one slot.
    fn step<S: StreamService>(
        &mut self,
        index: usize,
        sockets: &mut Sockets<'_>,
        service: &mut S,
        now: Now,
        pumped: &mut StreamsPumped,
    ) {
        // `index` is below `N` and `N` is no more than a `ConnId` can count: `Stack::listen` made sure of it.
        let (Some(slot), Ok(id)) = (self.slots.get_mut(index), u16::try_from(index)) else {
            return;
        };
        let id = ConnId::new(id);
        let socket = sockets.set.get_mut::<Socket<'_>>(slot.handle);
        let before = slot.phase;
        slot.phase = match (before, socket.state()) {
            (Phase::Free | Phase::HalfOpen, State::Listen) => Phase::Free,
            (Phase::Free | Phase::HalfOpen, State::SynReceived) => Phase::HalfOpen,
            (Phase::Free | Phase::HalfOpen | Phase::Ending, State::Closed | State::TimeWait) => {
                Phase::Ending
            }
            (Phase::Free | Phase::HalfOpen, _) => {
                let peer = socket.remote_endpoint().and_then(address::socket_addr);
                let accepted = peer.is_some_and(|peer| service.handle_open(now, id, peer).is_ok());
                slot.pumped = None;
                slot.end_told = false;
                if accepted {
                    pumped.opened += 1;
                    self.counters.opened += 1;
                    Phase::Open
                } else {
                    pumped.rejected += 1;
                    self.counters.rejected += 1;
                    socket.abort();
                    Phase::Ending
                }
            }
            (phase, _) => phase,
        };
        if slot.phase == Phase::Open && slot.pumped != Some(Signature::of(socket)) {
            let mut transport = TcpTransport::new(socket, &mut slot.end_told);
            let moved = pump_stream(service, id, &mut transport, now);
            pumped.received += moved.received;
            pumped.sent += moved.sent;
            slot.pumped = (!moved.more).then(|| Signature::of(socket));
            if moved.closed {
                pumped.closed += 1;
                slot.phase = Phase::Ending;
            }
        }
        if slot.phase == Phase::Ending && socket.state() == State::Closed {
            // The reset is still to be sent, unless the peer is gone so that nobody can tell where to.
            let unsent = socket.remote_endpoint().is_some();
            let given_up = before == Phase::Ending && slot.at + NEIGHBOUR_TIMEOUT <= now.monotonic;
            if unsent && !given_up {
                sockets.blocked = true;
            } else {
                slot.phase = Phase::Free;
            }
        }
        if slot.phase != before {
            self.changes += 1;
            slot.since = self.changes;
            slot.at = now.monotonic;
            if slot.phase == Phase::Free {
                self.listen(index, sockets);
            }
        }
    }

    /// Lets the socket of slot `index` listen, in a place behind all those with a connection.
    ///
    /// smoltcp hands a segment to the first socket in the set that would have it, and one that listens would have
    /// a repeated request of a connection that another has already: the connection would be there twice, and be
    /// reset. New connections come to the first socket that listens; so all that is needed to keep the order is
    /// to change places with the last connection when one in the middle ends.
    fn listen(&mut self, index: usize, sockets: &mut Sockets<'_>) {
        let Some(ours) = self.slots.get(index).map(|slot| slot.handle) else {
            return;
        };
        let last = self
            .slots
            .iter()
            .enumerate()
            .filter(|&(other, slot)| {
                let socket = sockets.set.get::<Socket<'_>>(slot.handle);
                other != index && socket.remote_endpoint().is_some()
            })
            .max_by_key(|(_, slot)| slot.handle)
            .filter(|(_, slot)| slot.handle > ours);
        let mut place = ours;
        if let Some((other, slot)) = last {
            place = slot.handle;
            let mut two = sockets
                .set
                .iter_mut()
                .filter(|(handle, _)| *handle == ours || *handle == place);
            if let (Some((_, one)), Some((_, another))) = (two.next(), two.next()) {
                core::mem::swap(one, another);
            }
            for (index, handle) in [(index, place), (other, ours)] {
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.handle = handle;
                }
            }
        }
        // The port is not 0, and the socket is closed or listens already.
        let socket = sockets.set.get_mut::<Socket<'_>>(place);
        let _ = socket.listen(self.endpoint);
    }

    /// Makes a socket listen if none does, or at least takes care that nobody is refused.
    fn keep_listening(&mut self, sockets: &mut Sockets<'_>, now: Instant) {
        let listening = (
            self.endpoint.addr.and_then(address::ip_addr),
            self.endpoint.port,
        );
        let wanted = sockets.wanted.is_some_and(|wanted| {
            // Who repeats his request has a half-open connection already, and must not lose it by that.
            let known = self.slots.iter().any(|slot| {
                let socket = sockets.set.get::<Socket<'_>>(slot.handle);
                socket.remote_endpoint().and_then(address::socket_addr) == Some(wanted.by)
            });
            wanted.at == listening && !known
        });
        if !self.slots.iter().any(|slot| slot.phase == Phase::Free) {
            self.recycle(sockets, wanted, now);
        }
        sockets.starved.retain(|&starved| starved != listening);
        if !self.slots.iter().any(|slot| slot.phase == Phase::Free) {
            // It has room for all ports that there can be.
            let _ = sockets.starved.push(listening);
        }
    }

    /// Gives up a connection that does nothing: one in TIME-WAIT, or else one that has been half-open for long,
    /// or not quite so long if somebody else is `wanted` instead.
    fn recycle(&mut self, sockets: &mut Sockets<'_>, wanted: bool, now: Instant) {
        let oldest = |phase: Phase, state: State, least: Duration| {
            self.slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.phase == phase && slot.at + least <= now)
                .filter(|(_, slot)| sockets.set.get::<Socket<'_>>(slot.handle).state() == state)
                .min_by_key(|(_, slot)| slot.since)
                .map(|(index, _)| index)
        };
        let patience = if wanted { HANDSHAKE } else { LONG_HANDSHAKE };
        let (index, count) =
            if let Some(index) = oldest(Phase::Ending, State::TimeWait, Duration::ZERO) {
                (index, &mut self.counters.time_wait_recycled)
            } else if let Some(index) = oldest(Phase::HalfOpen, State::SynReceived, patience) {
                (index, &mut self.counters.half_open_recycled)
            } else {
                return;
            };
        *count += 1;
        if let Some(slot) = self.slots.get_mut(index) {
            // Without a poll in between no reset is sent: the peer in TIME-WAIT has no connection any more that
            // it could reset, and the half-open one learns it with its next segment.
            sockets.set.get_mut::<Socket<'_>>(slot.handle).abort();
            slot.phase = Phase::Free;
            self.changes += 1;
            slot.since = self.changes;
            self.listen(index, sockets);
        }
    }
}
