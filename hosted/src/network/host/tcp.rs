//! Connections on the host's TCP sockets.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltalk::{
    ConnId, Instant, Now, Received, StreamService, StreamTransport, earliest, pump_stream,
    pump_timeout,
};
use socket2::{Domain, SockRef, Socket, Type};

use super::super::{NetworkEvent, Ready, Sharing, StreamsPumped};
use super::bind;
use crate::error::reason;

/// A listener and its connections, or one outgoing connection.
#[derive(Debug)]
pub struct Streams {
    role: Role,
    local: SocketAddr,
    conns: Vec<Option<Conn>>,
    /// Slots of `conns` without a connection.
    free: Vec<u16>,
    /// Connections that have something to tell, each once.
    ready: VecDeque<u16>,
    /// Connections that have said all and wait for the peer's end, and since when: the oldest first. Some may have
    /// ended otherwise.
    parting: VecDeque<(u16, Instant)>,
    capacity: usize,
    last_error: Option<io::Error>,
    tokens: Tokens,
}

/// The event queue's names for a listener and for its connections.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    pub listener: Token,
    /// The name of the connection in slot 0; the others follow.
    pub first_conn: Token,
}

impl Tokens {
    fn conn(self, slot: u16) -> Token {
        Token(self.first_conn.0 + usize::from(slot))
    }
}

#[derive(Debug)]
enum Role {
    Listener {
        socket: TcpListener,
        /// Whether somebody may wait to be accepted.
        waiting: bool,
        /// The system has no room for more connections: the next attempt, unless one of ours closes before.
        paused_until: Option<Instant>,
        pause_told: bool,
    },
    Connecting {
        stream: TcpStream,
        remote: SocketAddr,
        /// Whether the event queue has said anything about it.
        stirred: bool,
    },
    /// It could not be made, and the service is to be told.
    NotMade,
    /// The outgoing connection is made, or lost and told of.
    Settled,
}

/// How long to wait before accepting again when the system has no room.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections taken in, and connections served, in one turn.
const ACCEPT_BUDGET: u32 = 64;
const READY_BUDGET: u32 = 256;
/// A peer that was answered closes its side within moments. So its end is not waited for, which would take the event
/// queue three calls: it is looked for after this time, or once so many others have been answered, and the event queue
/// is asked only where it has not come by then.
const PARTING: Duration = Duration::from_millis(10);
const MOST_PARTING: usize = 64;
/// Bytes that are copied rather than written at once: so many fit into one segment nearly everywhere.
const SHORT: usize = 512;
/// Accepting where nobody waits costs the system as much as making a socket, and asking it first a tenth of that. When so
/// many came together that is not worth it any more.
const CROWD: u32 = 4;
/// As long a queue of connections to be accepted as the system grants.
const BACKLOG: i32 = 4_096;

impl Streams {
    /// Listens at `local` for up to `capacity` connections at a time.
    pub fn listen(
        local: SocketAddr,
        sharing: Sharing,
        capacity: usize,
        tokens: Tokens,
        registry: &Registry,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if local.is_ipv6() {
            socket.set_only_v6(!local.ip().is_unspecified())?;
        }
        // Without it connections that have just ended would keep the port from being bound again.
        socket.set_reuse_address(true)?;
        bind(&socket, local, sharing)?;
        // No TCP_DEFER_ACCEPT: it saves nothing where what the peer says comes right after its connection, and one who
        // says nothing would hear nothing, not even a reset, when the listener is closed.
        socket.listen(BACKLOG)?;
        let mut socket = TcpListener::from_std(socket.into());
        registry.register(&mut socket, tokens.listener, Interest::READABLE)?;
        let local = socket.local_addr()?;
        let role = Role::Listener {
            socket,
            waiting: true,
            paused_until: None,
            pause_told: false,
        };
        Ok(Self::new(role, local, capacity, tokens))
    }

    /// Begins a connection to `remote`. That it cannot be made comes out of [`serve`](Self::serve).
    pub fn dial(remote: SocketAddr, tokens: Tokens, registry: &Registry) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let connecting = socket.connect(&remote.into());
        let mut stream = TcpStream::from_std(socket.into());
        let unspecified = SocketAddr::new(remote.ip(), 0);
        let (role, local, last_error) = match connecting {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                (Role::NotMade, unspecified, Some(error))
            }
            _ => {
                registry.register(
                    &mut stream,
                    tokens.conn(0),
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                let local = stream.local_addr()?;
                let role = Role::Connecting {
                    stream,
                    remote,
                    stirred: true,
                };
                (role, local, None)
            }
        };
        Ok(Self {
            last_error,
            ..Self::new(role, local, 1, tokens)
        })
    }

    fn new(role: Role, local: SocketAddr, capacity: usize, tokens: Tokens) -> Self {
        Self {
            role,
            local,
            conns: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            parting: VecDeque::new(),
            capacity,
            last_error: None,
            tokens,
        }
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn last_error(&self) -> Option<&io::Error> {
        self.last_error.as_ref()
    }

    /// Notes that the event queue has news of the listener.
    pub fn set_waiting(&mut self) {
        if let Role::Listener { waiting, .. } = &mut self.role {
            *waiting = true;
        }
    }

    /// Notes what the event queue said of a connection.
    pub fn set_ready(&mut self, slot: u16, ready: Ready) {
        if let Role::Connecting { stirred, .. } = &mut self.role {
            *stirred = true;
        }
        if let Some(Some(conn)) = self.conns.get_mut(usize::from(slot)) {
            conn.readable |= ready.readable;
            conn.writable |= ready.writable;
            conn.last_words |= ready.ended;
            if !conn.queued {
                conn.queued = true;
                self.ready.push_back(slot);
            }
        }
    }

    /// Serves every connection that has something to tell.
    pub fn serve<S: StreamService>(
        &mut self,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
    ) -> io::Result<StreamsPumped> {
        let mut pumped = StreamsPumped::default();
        pump_timeout(service, now);
        self.settle(service, now, driver, &mut pumped);
        self.part(service, now, driver, &mut pumped);
        self.serve_demands(service, now, driver, &mut pumped);
        // Only those ready by now: one that has more to say at once must not keep the others waiting.
        for _ in 0..self.ready.len().min(READY_BUDGET as usize) {
            let Some(slot) = self.ready.pop_front() else {
                break;
            };
            if let Some(Some(conn)) = self.conns.get_mut(usize::from(slot)) {
                conn.queued = false;
                self.pump(slot, service, now, driver, &mut pumped);
            }
        }
        let accepting = self.accept(service, now, driver, &mut pumped)?;
        let resume = match self.role {
            _ if accepting || !self.ready.is_empty() => Some(now.monotonic),
            Role::Listener { paused_until, .. } => paused_until,
            _ => None,
        };
        let parting = self.parting.front().map(|(_, since)| *since + PARTING);
        pumped.deadline = earliest(earliest(service.poll_timeout(), resume), parting);
        Ok(pumped)
    }

    /// Looks whether those who were answered have closed their side.
    fn part<S: StreamService>(
        &mut self,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
        pumped: &mut StreamsPumped,
    ) {
        // They have descriptors, and so must not be a large part of the connections.
        let most = (self.capacity / 16).clamp(1, MOST_PARTING);
        while let Some(&(slot, since)) = self.parting.front() {
            if self.parting.len() <= most && now.monotonic < since + PARTING {
                break;
            }
            self.parting.pop_front();
            if let Some(Some(conn)) = self.conns.get_mut(usize::from(slot))
                && conn.parting == Parting::Since(since)
            {
                conn.parting = Parting::Over;
                conn.readable = true;
                self.pump(slot, service, now, driver, pumped);
            }
        }
    }

    /// Serves the connections on which the service has something to do of its own accord.
    fn serve_demands<S: StreamService>(
        &mut self,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
        pumped: &mut StreamsPumped,
    ) {
        let mut last = None;
        while let Some(id) = service.poll_ready() {
            if last == Some(id) {
                // It was just pumped and still has something to say: there is no room, and an event will come.
                break;
            }
            last = Some(id);
            let slot = id.index();
            if self.conns.get(slot).is_some_and(Option::is_some) {
                self.pump(slot as u16, service, now, driver, pumped);
            } else {
                service.handle_close(now, id);
            }
        }
    }

    /// Follows up an outgoing connection.
    fn settle<S: StreamService>(
        &mut self,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
        pumped: &mut StreamsPumped,
    ) {
        match std::mem::replace(&mut self.role, Role::Settled) {
            Role::Connecting {
                stream,
                remote,
                stirred: true,
            } => match connected(&stream) {
                Ok(true) => {
                    if let Ok(local) = stream.local_addr() {
                        self.local = local;
                    }
                    let conn = Conn::new(stream, Some(Interest::READABLE | Interest::WRITABLE));
                    self.open(conn, remote, service, now, driver, pumped);
                }
                Ok(false) => {
                    self.role = Role::Connecting {
                        stream,
                        remote,
                        stirred: false,
                    };
                }
                Err(error) => {
                    self.last_error = Some(error);
                    service.handle_close(now, ConnId::new(0));
                    pumped.closed += 1;
                }
            },
            Role::NotMade => {
                service.handle_close(now, ConnId::new(0));
                pumped.closed += 1;
            }
            role => self.role = role,
        }
    }

    /// Takes in those who wait, and returns whether there are more.
    fn accept<S: StreamService>(
        &mut self,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
        pumped: &mut StreamsPumped,
    ) -> io::Result<bool> {
        for number in 0..ACCEPT_BUDGET {
            if self.free.is_empty() && self.conns.len() >= self.capacity {
                // Those who wait stay in the system's queue until a connection has closed.
                return Ok(false);
            }
            let Role::Listener {
                socket,
                waiting,
                paused_until,
                pause_told,
            } = &mut self.role
            else {
                return Ok(false);
            };
            if !*waiting || paused_until.is_some_and(|until| now.monotonic < until) {
                return Ok(false);
            }
            *paused_until = None;
            if (1..CROWD).contains(&number) && !is_readable(socket) {
                *waiting = false;
                return Ok(false);
            }
            let (stream, peer) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *waiting = false;
                    return Ok(false);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        *paused_until = Some(now.monotonic + PAUSE);
                        if !std::mem::replace(pause_told, true) {
                            driver.told.push_back(NetworkEvent::AcceptPaused {
                                local: self.local,
                                why: reason(&error),
                            });
                        }
                        return Ok(false);
                    }
                    Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) | None => {
                        return Err(error);
                    }
                    // It was the connection that failed, before it was ours (accept(2), "Error handling").
                    Some(_) => continue,
                },
            };
            *pause_told = false;
            let peer = match peer {
                SocketAddr::V6(addr) if addr.ip().to_ipv4_mapped().is_some() => {
                    SocketAddr::new(addr.ip().to_canonical(), addr.port())
                }
                peer => peer,
            };
            // Served at once, and given to the event queue only if that was not all: most need just this.
            self.open(Conn::new(stream, None), peer, service, now, driver, pumped);
            self.serve_demands(service, now, driver, pumped);
        }
        Ok(true)
    }

    fn open<S: StreamService>(
        &mut self,
        conn: Conn,
        peer: SocketAddr,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
        pumped: &mut StreamsPumped,
    ) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            (self.conns.len() - 1) as u16
        });
        let id = ConnId::new(slot);
        if service.handle_open(now, id, peer).is_err() {
            conn.reset();
            self.free.push(slot);
            pumped.rejected += 1;
            return;
        }
        pumped.opened += 1;
        self.conns[usize::from(slot)] = Some(conn);
        self.pump(slot, service, now, driver, pumped);
    }

    /// Pumps the connection in `slot`, and drops it if that was its end.
    fn pump<S: StreamService>(
        &mut self,
        slot: u16,
        service: &mut S,
        now: Now,
        driver: &mut Driver<'_>,
        pumped: &mut StreamsPumped,
    ) {
        let place = &mut self.conns[usize::from(slot)];
        let Some(conn) = place else { return };
        let id = ConnId::new(slot);
        let mut pipe = Pipe {
            conn,
            scratch: driver.scratch,
        };
        let mut moved = pump_stream(service, id, &mut pipe, now);
        pumped.received += moved.received;
        pumped.sent += moved.sent;
        if !moved.closed && conn.may_part() && matches!(self.role, Role::Listener { .. }) {
            conn.parting = Parting::Since(now.monotonic);
            self.parting.push_back((slot, now.monotonic));
        } else if !moved.closed
            && let Err(error) = conn.watch(driver.registry, self.tokens.conn(slot))
        {
            // Nothing would ever be heard of it again.
            conn.error = Some(error);
            conn.aborted = true;
            service.handle_close(now, id);
            moved.closed = true;
        }
        if moved.closed {
            if let Some(conn) = place.take() {
                if !matches!(self.role, Role::Listener { .. }) {
                    self.last_error = conn.end();
                } else {
                    conn.end();
                }
            }
            self.free.push(slot);
            pumped.closed += 1;
            if let Role::Listener { paused_until, .. } = &mut self.role {
                *paused_until = None;
            }
        } else if moved.more && !conn.queued {
            conn.queued = true;
            self.ready.push_back(slot);
        }
    }
}

/// What serving connections takes besides the connections.
#[derive(Debug)]
pub struct Driver<'a> {
    pub registry: &'a Registry,
    pub scratch: &'a mut [u8],
    pub told: &'a mut VecDeque<NetworkEvent>,
}

/// Whether somebody waits to be accepted.
fn is_readable(listener: &TcpListener) -> bool {
    let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    // An error comes out of accepting.
    poll(&mut asked, PollTimeout::ZERO) != Ok(0)
}

/// Whether a connection that was being made is made. An error: it never will be.
fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the end of a connection is awaited without the event queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    No,
    /// It is among those [`parting`](Streams::parting) since then.
    Since(Instant),
    /// It was, and had not ended.
    Over,
}

/// A connection, and what waits between it and the service.
#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    /// What the event queue was asked for, if anything.
    watched: Option<Interest>,
    readable: bool,
    writable: bool,
    /// The event queue has said that the peer has ended its direction.
    last_words: bool,
    parting: Parting,
    /// Something was written, and what is written next is not to wait for its acknowledgement.
    written: bool,
    nodelay: bool,
    /// In the queue of those that have something to tell.
    queued: bool,
    /// The peer has ended its direction.
    ended: bool,
    /// Ours is to end, and has ended.
    finishing: bool,
    finished: bool,
    /// Nothing can be written any more.
    broken: bool,
    aborted: bool,
    error: Option<io::Error>,
    /// Bytes that the service did not want yet, and bytes that the system had no room for yet.
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Conn {
    fn new(stream: TcpStream, watched: Option<Interest>) -> Self {
        Self {
            stream,
            watched,
            readable: true,
            writable: true,
            last_words: false,
            parting: Parting::No,
            written: false,
            nodelay: false,
            queued: false,
            ended: false,
            finishing: false,
            finished: false,
            broken: false,
            aborted: false,
            error: None,
            unread: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Whether all is said and only the peer's end is missing, of which the event queue was not asked to tell.
    fn may_part(&self) -> bool {
        self.parting != Parting::Over
            && self.watched.is_none()
            && self.finished
            && !self.readable
            && !self.broken
            && self.unread.is_empty()
    }

    /// Writes as much as the system takes. The `last` bytes leave when our direction ends, in one segment with that.
    fn write(&mut self, bytes: &[u8], last: bool) -> usize {
        if std::mem::replace(&mut self.written, true) && !std::mem::replace(&mut self.nodelay, true)
        {
            // The first goes out at once, and most connections have no second. What a service writes later is all
            // that it has to say by then: there is nothing to wait for.
            let _ = self.stream.set_nodelay(true);
        }
        let more = if last { libc::MSG_MORE } else { 0 };
        let written = SockRef::from(&self.stream).send_with_flags(bytes, libc::MSG_NOSIGNAL | more);
        self.judge_write(written)
    }

    /// Asks the event queue for what we wait for; for room to write only while we do.
    fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let wanted = if self.unsent.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        match self.watched {
            None => self.stream.register(registry, token, wanted)?,
            Some(watched) if watched != wanted => {
                self.stream.reregister(registry, token, wanted)?;
            }
            Some(_) => return Ok(()),
        }
        self.watched = Some(wanted);
        Ok(())
    }

    /// Writes what waits, then ends our direction if that is asked for.
    fn flush(&mut self) {
        while !self.unsent.is_empty() && self.writable && !self.broken {
            let unsent = std::mem::take(&mut self.unsent);
            let written = self.write(&unsent, self.finishing);
            if !self.broken {
                self.unsent = unsent;
                self.unsent.drain(..written);
            }
        }
        if self.unsent.is_empty() {
            // An idle connection keeps no buffer.
            self.unsent = Vec::new();
        }
        if self.finishing && !self.finished && (self.unsent.is_empty() || self.broken) {
            self.finished = true;
            // It fails when the connection is gone, and reading tells of that.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// How much was written, having noted why it was not more.
    fn judge_write(&mut self, written: io::Result<usize>) -> usize {
        match written {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                self.broken = true;
                self.unsent.clear();
                self.error.get_or_insert(error);
                0
            }
        }
    }

    /// Closes it, and says what was wrong with it.
    fn end(self) -> Option<io::Error> {
        let Self {
            stream,
            aborted,
            error,
            ..
        } = self;
        if aborted {
            reset(&stream);
        }
        error
    }

    fn reset(self) {
        reset(&self.stream);
    }
}

/// Makes the close that follows send an RST instead of a FIN, and throw away what was not sent.
fn reset(stream: &TcpStream) {
    // It fails only on what is no socket.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A connection as the pump sees it.
struct Pipe<'a> {
    conn: &'a mut Conn,
    scratch: &'a mut [u8],
}

/// The connection is gone; why is in [`Conn::error`].
struct Gone;

impl StreamTransport for Pipe<'_> {
    type Error = Gone;

    fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> Result<Received, Gone> {
        let conn = &mut *self.conn;
        if !conn.unread.is_empty() {
            let consumed = f(&conn.unread).min(conn.unread.len());
            conn.unread.drain(..consumed);
            if conn.unread.is_empty() {
                conn.unread = Vec::new();
            }
            return Ok(Received::Data(consumed));
        }
        loop {
            if conn.ended {
                return if conn.broken {
                    Err(Gone)
                } else {
                    Ok(Received::End)
                };
            }
            // Where nothing can be written, only the system knows whether there is anything left to read.
            if !conn.readable && !conn.broken {
                return Ok(Received::Nothing);
            }
            match conn.stream.read(self.scratch) {
                Ok(0) => conn.ended = true,
                Ok(len) => {
                    if len < self.scratch.len() && !conn.last_words {
                        // That was all. The event queue tells of what comes, unless it has told already: an end.
                        conn.readable = false;
                    }
                    let data = &self.scratch[..len];
                    let consumed = f(data).min(len);
                    conn.unread.extend_from_slice(&data[consumed..]);
                    return Ok(Received::Data(consumed));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    conn.readable = false;
                    return if conn.broken {
                        Err(Gone)
                    } else {
                        Ok(Received::Nothing)
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    conn.error.get_or_insert(error);
                    return Err(Gone);
                }
            }
        }
    }

    fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, Gone> {
        let conn = &mut *self.conn;
        conn.flush();
        let room = if conn.unsent.is_empty() && !conn.finishing && !conn.broken {
            &mut *self.scratch
        } else {
            &mut []
        };
        let len = f(room).min(room.len());
        let mut rest = &room[..len];
        // A few bytes wait until it is known whether they are the last: the next call tells.
        while rest.len() > SHORT && conn.writable && !conn.broken {
            rest = &rest[conn.write(rest, false)..];
        }
        if !conn.broken {
            conn.unsent.extend_from_slice(rest);
        }
        // A broken connection may still have something to read: reading finds its end.
        Ok(len)
    }

    fn close(&mut self) {
        self.conn.finishing = true;
        self.conn.flush();
    }

    fn abort(&mut self) {
        self.conn.aborted = true;
    }

    fn is_closed(&self) -> bool {
        self.conn.finished && self.conn.ended && self.conn.unread.is_empty()
    }
}
