//! A pool of sockets that listen at one address.

use core::net::SocketAddr;

use ::smoltcp::socket::tcp::{Socket, State};
use ::smoltcp::wire::IpListenEndpoint;

use super::address;
use super::stack::Sockets;
use super::table::{Index, List, Phase};
use super::tcp::TcpTransport;
use super::udp::NEIGHBOUR_TIMEOUT;
use crate::{ConnId, Duration, Instant, Now, StreamService, pump_stream, pump_timeout};

/// `N` TCP sockets that listen at one address, made by [`Stack::listen`](super::Stack::listen). 2 bytes each and
/// 88 besides, on a 64-bit machine; the sockets themselves are in the stack's memory.
///
/// smoltcp has no backlog: a socket that listens takes one connection. So each connection is on a socket of the
/// pool, and as many more can come as others listen. When a connection request (SYN) comes and none does,
///
/// - the oldest connection in TIME-WAIT makes room at once: TIME-WAIT (RFC 9293, section 3.6.1; 10 seconds in
///   smoltcp) protects later connections between the same two ports, and is kept for as long as there is room, for
///   1,024 connections at most;
/// - or else the oldest half-open connection makes room (its client has not answered our SYN-ACK), but not before
///   it is 100 ms old, so that a flood of forged requests cannot shut others out;
/// - or else the request is left without answer, where smoltcp would refuse it, and comes again;
/// - connections that are open are the service's: let its own limit be below `N` (`max_connections` in
///   [`greeting::Config`](crate::greeting::Config)), so that it gives one up in time.
#[derive(Debug)]
pub struct Listener<const N: usize> {
    local: SocketAddr,
    /// Its number in the stack.
    number: u8,
    /// The socket of each connection.
    indices: [Index; N],
    opened: u64,
    rejected: u64,
    counters: ListenerCounters,
    listening: u16,
}

/// How many listeners a stack can have.
pub(super) const LISTENERS: usize = 4;

/// What a stack knows of a listener: where it listens, and what its sockets do that are not the service's.
#[derive(Debug)]
pub(super) struct Backlog {
    endpoint: IpListenEndpoint,
    /// Those that listen.
    free: List,
    /// Those that wait for the client's answer, the oldest first.
    half_open: List,
    /// Those in TIME-WAIT, the oldest first.
    time_wait: List,
    time_wait_recycled: u64,
    half_open_recycled: u64,
}

/// How long a half-open connection is left alone while others want to connect: longer than most round trips, or
/// else a crowd of honest clients far away would shut itself out.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// How many connections are kept in TIME-WAIT: beyond that the oldest makes room, so that those who come and go
/// use the same memory again and again, which is in the processor's cache, and not all that there is.
const MOST_TIME_WAIT: u16 = 1_024;

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

impl Sockets<'_> {
    /// The number of the listener that takes connections to `to`.
    pub(super) fn backlog_at(&self, to: SocketAddr) -> Option<u8> {
        let listens = |backlog: &Backlog| {
            let bound = backlog.endpoint.addr.and_then(address::ip_addr);
            // What comes to a broadcast address is no connection (RFC 9293, section 3.9.2.3).
            let ours = bound.map_or_else(|| self.network.owns(to.ip()), |ip| ip == to.ip());
            backlog.endpoint.port == to.port() && ours
        };
        let number = self.backlogs.iter().position(listens)?;
        u8::try_from(number).ok()
    }

    /// The socket with the connection of `from` to `to`. A request for a new one (`asks`, its sequence number) in the
    /// place of one in TIME-WAIT is for a socket that listens.
    pub(super) fn flow(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        asks: Option<u32>,
    ) -> Option<Index> {
        let index = self.table.flow(from, to)?;
        let slot = &self.table.entry(index).slot;
        // RFC 9293, section 3.10.7.4: a client that uses its port again need not wait, if it counts on from where it
        // was. smoltcp does not say where that is; that it began later than before keeps old copies of the request
        // out, and a client that did not is answered by smoltcp.
        let begins_later = asks.is_some_and(|asks| asks.wrapping_sub(slot.sequence) as i32 > 0);
        if slot.phase != Phase::TimeWait || !begins_later {
            return Some(index);
        }
        let number = usize::from(slot.listener);
        let backlog = self.backlogs.get_mut(number)?;
        self.table.unlink(&mut backlog.time_wait, index);
        backlog.time_wait_recycled += 1;
        self.table.socket::<Socket<'_>>(index).abort();
        self.listen(index, number);
        None
    }

    /// A socket that listens, if need be in the place of a connection that does nothing.
    pub(super) fn room_for_connection(&mut self, backlog: u8, now: Instant) -> Option<Index> {
        let number = usize::from(backlog);
        let backlog = self.backlogs.get_mut(number)?;
        if backlog.time_wait.len < MOST_TIME_WAIT
            && let Some(index) = backlog.free.first()
        {
            return Some(index);
        }
        let (list, count) = if backlog.time_wait.first().is_some() {
            (&mut backlog.time_wait, &mut backlog.time_wait_recycled)
        } else {
            (&mut backlog.half_open, &mut backlog.half_open_recycled)
        };
        let index = list.first()?;
        let slot = &self.table.entry(index).slot;
        if slot.phase == Phase::HalfOpen && now < slot.at + HANDSHAKE {
            return None;
        }
        *count += 1;
        self.table.unlink(list, index);
        // Without a poll in between no reset is sent: the peer in TIME-WAIT has no connection any more that it
        // could reset, and the half-open one learns it with its next segment.
        self.table.socket::<Socket<'_>>(index).abort();
        self.listen(index, number);
        Some(index)
    }

    /// Takes note of a request that a socket which listened has heard.
    pub(super) fn connection_asked(
        &mut self,
        index: Index,
        from: SocketAddr,
        to: SocketAddr,
        sequence: u32,
        now: Instant,
    ) {
        let (socket, slot) = self.table.connection(index);
        if socket.state() == State::Listen {
            // It was not a whole one.
            return;
        }
        slot.phase = Phase::HalfOpen;
        slot.at = now;
        slot.sequence = sequence;
        if let Some(backlog) = self.backlogs.get_mut(usize::from(slot.listener)) {
            self.table.unlink(&mut backlog.free, index);
            self.table.push(&mut backlog.half_open, index);
        }
        self.table.note_flow(index, from, to.port());
        self.table.touch(index);
    }

    /// Lets a socket listen that has no connection and is in no list.
    fn listen(&mut self, index: Index, number: usize) {
        self.table.forget_flow(index);
        self.table.forget_wait(index);
        let (socket, slot) = self.table.connection(index);
        slot.phase = Phase::Free;
        if let Some(backlog) = self.backlogs.get_mut(number) {
            // The port is not 0, and the socket is closed or listens already.
            let _ = socket.listen(backlog.endpoint);
            self.table.push(&mut backlog.free, index);
        }
    }
}

impl<const N: usize> Listener<N> {
    /// There is room for one more.
    pub(super) fn new(
        sockets: &mut Sockets<'_>,
        local: SocketAddr,
        endpoint: IpListenEndpoint,
        indices: [Index; N],
    ) -> Self {
        let number = sockets.backlogs.len();
        let _ = sockets.backlogs.push(Backlog {
            endpoint,
            free: List::EMPTY,
            half_open: List::EMPTY,
            time_wait: List::EMPTY,
            time_wait_recycled: 0,
            half_open_recycled: 0,
        });
        for (conn, &index) in indices.iter().enumerate() {
            let slot = &mut sockets.table.entry(index).slot;
            slot.listener = number as u8;
            // `Stack::listen` made sure that it is no more than a `ConnId` can count.
            slot.conn = conn as u16;
            sockets.listen(index, number);
        }
        let mut listener = Self {
            local,
            number: number as u8,
            indices,
            opened: 0,
            rejected: 0,
            counters: ListenerCounters::default(),
            listening: 0,
        };
        listener.count(sockets);
        listener
    }

    /// The address it listens at, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What happened until the last pump.
    pub fn counters(&self) -> ListenerCounters {
        self.counters
    }

    /// How many of its sockets waited for a connection at the last pump.
    pub fn listening(&self) -> usize {
        self.listening.into()
    }

    /// Hands new connections to `service`, and moves bytes between it and those in which something has changed. To
    /// be called in every `serve` of [`Stack::turn`](super::Stack::turn).
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
        let mut more = false;
        let mut changed = sockets.table.take_changed(self.number);
        while let Some(index) = sockets.table.pop_changed(&mut changed) {
            more |= self.step(index, sockets, service, now, &mut pumped);
        }
        // A service that asks for the same connection for ever must not hold up the others for ever.
        for _ in 0..2 * N {
            let Some(id) = service.poll_ready() else {
                break;
            };
            let index = self.indices.get(id.index()).copied();
            match index {
                Some(index) if sockets.table.entry(index).slot.phase == Phase::Open => {
                    more |= self.step(index, sockets, service, now, &mut pumped);
                }
                _ => service.handle_close(now, id),
            }
        }
        self.count(sockets);
        pumped.deadline = if more {
            Some(now.monotonic)
        } else {
            service.poll_timeout()
        };
        pumped
    }

    /// Goes on with one connection. Returns whether there is more to do at once.
    fn step<S: StreamService>(
        &mut self,
        index: Index,
        sockets: &mut Sockets<'_>,
        service: &mut S,
        now: Now,
        pumped: &mut StreamsPumped,
    ) -> bool {
        let mut more = false;
        let (socket, slot) = sockets.table.connection(index);
        let id = ConnId::new(slot.conn);
        let before = slot.phase;
        let mut phase = match (before, socket.state()) {
            (Phase::Free | Phase::HalfOpen, State::Listen) => Phase::Free,
            (Phase::HalfOpen, State::SynReceived) => Phase::HalfOpen,
            (Phase::Free | Phase::HalfOpen, State::Closed | State::TimeWait) => Phase::Ending,
            (Phase::Free | Phase::HalfOpen, _) => {
                let peer = socket.remote_endpoint().and_then(address::socket_addr);
                let accepted = peer.is_some_and(|peer| service.handle_open(now, id, peer).is_ok());
                slot.end_told = false;
                if accepted {
                    pumped.opened += 1;
                    self.opened += 1;
                    Phase::Open
                } else {
                    pumped.rejected += 1;
                    self.rejected += 1;
                    socket.abort();
                    Phase::Ending
                }
            }
            (phase, _) => phase,
        };
        if phase == Phase::Open {
            let mut transport = TcpTransport::new(socket, &mut slot.end_told);
            let moved = pump_stream(service, id, &mut transport, now);
            pumped.received += moved.received;
            pumped.sent += moved.sent;
            more = moved.more;
            if moved.closed {
                pumped.closed += 1;
                phase = Phase::Ending;
            }
        }
        let mut again = more;
        match (phase, socket.state()) {
            (Phase::Ending, State::TimeWait) => phase = Phase::TimeWait,
            (Phase::Ending | Phase::TimeWait, State::Closed) => {
                // The reset is still to be sent, unless the peer is gone so that nobody can tell where to.
                let unsent = socket.remote_endpoint().is_some();
                let given_up =
                    before == Phase::Ending && slot.at + NEIGHBOUR_TIMEOUT <= now.monotonic;
                if unsent && !given_up {
                    sockets.blocked = true;
                    again = true;
                } else {
                    phase = Phase::Free;
                }
            }
            _ => {}
        }
        if phase != before {
            slot.phase = phase;
            slot.at = now.monotonic;
            let number = usize::from(self.number);
            if let Some(backlog) = sockets.backlogs.get_mut(number) {
                match before {
                    Phase::Free => sockets.table.unlink(&mut backlog.free, index),
                    Phase::HalfOpen => sockets.table.unlink(&mut backlog.half_open, index),
                    Phase::TimeWait => sockets.table.unlink(&mut backlog.time_wait, index),
                    Phase::Open | Phase::Ending => {}
                }
                if phase == Phase::TimeWait {
                    sockets.table.push(&mut backlog.time_wait, index);
                }
            }
            if phase == Phase::Free {
                sockets.listen(index, number);
            }
        }
        sockets.table.touch(index);
        if again {
            sockets.table.mark_changed(index);
        }
        more
    }

    /// Notes what the user may ask for between two turns.
    fn count(&mut self, sockets: &Sockets<'_>) {
        let Some(backlog) = sockets.backlogs.get(usize::from(self.number)) else {
            return;
        };
        self.listening = backlog.free.len;
        self.counters = ListenerCounters {
            opened: self.opened,
            rejected: self.rejected,
            time_wait_recycled: backlog.time_wait_recycled,
            half_open_recycled: backlog.half_open_recycled,
        };
    }
}
