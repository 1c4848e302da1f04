//! Datagrams on the host's UDP sockets.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use mio::{Interest, Registry, Token};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, setsockopt, sockopt,
};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use smoltalk::{Arrival, DatagramTransport, Pumped, Sent, Unreachable};
use socket2::{Domain, Socket, Type};

use super::super::Sharing;
use super::bind;
use super::outbox::Outbox;
use super::sendmmsg::{Message, SendBuffers};

/// A UDP socket, and what waits between it and the service.
#[derive(Debug)]
pub struct Datagrams {
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    token: Token,
    batch: Batch,
    sources: Option<Sources>,
    /// Answers that leave together, or that the system had no room for.
    outbox: Outbox,
    buffers: SendBuffers,
    /// Whether the system cuts merged datagrams apart.
    merging: bool,
    /// The system has no room: nothing leaves until it has.
    blocked: bool,
    /// What could not leave although the service thinks that it has, to be told.
    failed: VecDeque<(SocketAddr, Unreachable)>,
    /// How many were put there since it was asked last.
    failures: u32,
    news: News,
    readable: bool,
    writable: bool,
    /// How often more is still expected although nothing came.
    hope: u32,
}

/// Whether the system is asked what became of datagrams sent from a socket without a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Unwatched,
    /// There is none.
    None,
    /// There may be some.
    Perhaps,
}

impl Datagrams {
    /// A socket at `local` for datagrams from anyone.
    pub fn bind(
        local: SocketAddr,
        sharing: Sharing,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
        if local.is_ipv6() {
            // An unspecified address means every address, the IPv4 ones too, whatever the system's default is.
            socket.set_only_v6(!local.ip().is_unspecified())?;
        }
        // No SO_REUSEADDR: on Linux it would let another socket take all our datagrams, and us another's.
        bind(&socket, local, sharing)?;
        Self::new(socket, None, token, registry)
    }

    /// A socket at a free port for datagrams to and from `remote`.
    pub fn dial(remote: SocketAddr, token: Token, registry: &Registry) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None)?;
        socket.connect(&remote.into())?;
        Self::new(socket, Some(remote), token, registry)
    }

    fn new(
        socket: Socket,
        remote: Option<SocketAddr>,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        // As much as the system grants, for bursts.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = addr(&socket)?;
        // What each datagram would carry, and nobody here reads. Some systems have not all of it.
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &false);
        let _ = socket.set_recv_tos_v4(false);
        let _ = socket.set_recv_tclass_v6(false);
        if !local.ip().is_unspecified() {
            let _ = setsockopt(&socket, sockopt::Ipv4PacketInfo, &false);
            let _ = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &false);
        }
        // Linux 4.18 and later.
        let merging = getsockopt(&socket, sockopt::UdpGsoSegment).is_ok();
        let mut socket = mio::net::UdpSocket::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self {
            socket,
            state,
            local,
            remote,
            token,
            batch: Batch::new(),
            sources: local.ip().is_unspecified().then(Sources::new),
            outbox: Outbox::default(),
            buffers: SendBuffers::default(),
            merging,
            blocked: false,
            failed: VecDeque::new(),
            failures: 0,
            news: News::Unwatched,
            readable: true,
            writable: true,
            hope: 0,
        })
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks the system to keep what ICMP says about datagrams from here (ip(7), `IP_RECVERR`).
    pub fn watch_unreachable(&mut self) -> io::Result<()> {
        if self.local.is_ipv6() {
            setsockopt(&self.socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // An IPv6 socket sends IPv4 too, if it is bound to every address.
        setsockopt(&self.socket, sockopt::Ipv4RecvErr, &true)?;
        self.news = News::Perhaps;
        Ok(())
    }

    /// Notes what the event queue said.
    pub fn set_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
        if readable && self.news == News::None {
            self.news = News::Perhaps;
        }
    }

    /// Looks for datagrams although the event queue has said nothing, if some came lately.
    pub fn expect(&mut self) -> bool {
        self.readable |= self.hope > 0;
        self.hope = self.hope.saturating_sub(1);
        self.readable
    }

    /// The next datagram that is known not to have arrived.
    fn poll_news(&mut self) -> Option<(SocketAddr, Unreachable)> {
        while self.news == News::Perhaps {
            let Ok((to, errno)) = read_error(&self.socket) else {
                self.news = News::None;
                break;
            };
            if let (Some(to), Some(why)) = (to, unreachable(errno)) {
                return Some((to, why));
            }
        }
        None
    }

    pub fn transport<'a>(&'a mut self, registry: &'a Registry) -> Transport<'a> {
        Transport {
            endpoint: self,
            registry,
            received: false,
            more: false,
        }
    }

    /// Sends one datagram now.
    fn transmit(
        &mut self,
        source: Option<IpAddr>,
        to: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        match self.transmit_from(source, to, payload) {
            // It may be the news of another datagram, and this one was not sent for it. It comes only once.
            Err(error)
                if self.news != News::Unwatched
                    && error.raw_os_error().and_then(unreachable).is_some() =>
            {
                self.news = News::Perhaps;
                self.transmit_from(source, to, payload)
            }
            // The address that the peer wrote to was a broadcast address, or it is not ours any more.
            Err(error)
                if source.is_some()
                    && error.raw_os_error().and_then(unreachable) == Some(Unreachable::NoRoute) =>
            {
                self.transmit_from(None, to, payload)
            }
            result => result,
        }
    }

    fn transmit_from(
        &mut self,
        source: Option<IpAddr>,
        to: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        let message = Message {
            to,
            source,
            payload,
            segment: None,
        };
        self.buffers
            .send(
                self.socket.as_fd(),
                self.local.is_ipv6(),
                [message].into_iter(),
            )
            .map(|_| ())
    }

    /// Sends what waits. What cannot go where it is to go is noted; `WouldBlock`: the rest waits on.
    fn flush(&mut self) -> io::Result<()> {
        let mut outbox = std::mem::take(&mut self.outbox);
        let flushed = self.flush_from(&mut outbox);
        self.outbox = outbox;
        flushed
    }

    fn flush_from(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        let is_ipv6 = self.local.is_ipv6();
        while let Err(error) = outbox.send(&mut self.buffers, self.socket.as_fd(), is_ipv6) {
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(error);
            }
            if self.news != News::Unwatched {
                // It may have been the news of another datagram.
                self.news = News::Perhaps;
            }
            let count = outbox.first().map_or(0, |(_, count)| count);
            for _ in 0..count {
                let Some((message, _)) = outbox.first() else {
                    break;
                };
                let Message { to, source, .. } = message;
                let sent = self.transmit(source, to, message.payload);
                if let Sent::Unreachable(why) =
                    sent.map_or_else(Self::judge, |()| Ok(Sent::Queued))?
                {
                    self.failed.push_back((to, why));
                    self.failures += 1;
                }
                outbox.remove_first();
            }
        }
        Ok(())
    }

    /// What a failed transmission means. An error only if the socket itself is broken.
    fn judge(error: io::Error) -> io::Result<Sent> {
        match error.raw_os_error() {
            // Lost on the way, as far as the sender can tell: nothing says that it cannot go there.
            Some(libc::ENOBUFS | libc::ENOMEM) => Ok(Sent::Queued),
            Some(errno) => match unreachable(errno) {
                Some(why) => Ok(Sent::Unreachable(why)),
                None => Err(error),
            },
            None => Err(error),
        }
    }
}

/// A socket as the pump sees it.
#[derive(Debug)]
pub struct Transport<'a> {
    endpoint: &'a mut Datagrams,
    registry: &'a Registry,
    /// The system was asked for datagrams.
    received: bool,
    /// It may have more.
    more: bool,
}

impl Transport<'_> {
    /// Sends what waits, unless there is no room for it, and returns whether nothing waits any more.
    fn flush(&mut self) -> io::Result<bool> {
        let endpoint = &mut *self.endpoint;
        if endpoint.outbox.is_empty() {
            return Ok(true);
        }
        if endpoint.blocked && !endpoint.writable {
            return Ok(false);
        }
        let blocked = match endpoint.flush() {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => return Err(error),
        };
        self.set_blocked(blocked)?;
        Ok(!blocked)
    }

    /// Notes whether the system has no room, and asks the event queue for what we wait for. Room to send only while
    /// we do: each datagram that has left would wake us otherwise.
    fn set_blocked(&mut self, blocked: bool) -> io::Result<()> {
        let endpoint = &mut *self.endpoint;
        endpoint.writable &= !blocked;
        if std::mem::replace(&mut endpoint.blocked, blocked) == blocked {
            return Ok(());
        }
        let interest = if blocked {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.registry
            .reregister(&mut endpoint.socket, endpoint.token, interest)
    }

    /// Sends what the pump has left behind, and says in `pumped` what has become known since.
    pub fn finish(&mut self, pumped: Pumped) -> io::Result<Pumped> {
        self.flush()?;
        let failures = std::mem::take(&mut self.endpoint.failures);
        Ok(Pumped {
            sent: pumped.sent.saturating_sub(failures),
            undeliverable: pumped.undeliverable + failures,
            more: pumped.more || self.more,
            ..pumped
        })
    }
}

impl DatagramTransport for Transport<'_> {
    type Error = io::Error;

    fn recv(&mut self) -> io::Result<Option<Arrival<'_>>> {
        if self.endpoint.batch.is_empty() && !self.flush()? {
            return Ok(None);
        }
        let endpoint = &mut *self.endpoint;
        if let Some((to, why)) = endpoint.failed.pop_front() {
            return Ok(Some(Arrival::Unreachable { to, why }));
        }
        if endpoint.batch.is_empty()
            && let Some((to, why)) = endpoint.poll_news()
        {
            return Ok(Some(Arrival::Unreachable { to, why }));
        }
        if endpoint.batch.is_empty() && endpoint.readable && self.received {
            // It came after the time that this pump goes by: the next one reads the clock anew.
            self.more = true;
            return Ok(None);
        }
        while endpoint.batch.is_empty() && endpoint.readable {
            let received = endpoint
                .batch
                .fill(&endpoint.state, UdpSockRef::from(&endpoint.socket));
            match received {
                // A socket without a peer has no errors to tell of, so fewer than asked for means: that was all.
                Ok(full) => {
                    endpoint.hope = HOPE;
                    self.received = true;
                    endpoint.readable =
                        full || endpoint.remote.is_some() || endpoint.news != News::Unwatched;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    endpoint.readable = false;
                }
                Err(error) => {
                    let errno = error.raw_os_error();
                    if matches!(errno, Some(libc::ENOBUFS | libc::ENOMEM)) {
                        // It stays where it is, and the next turn tries again.
                        return Ok(None);
                    }
                    let Some(why) = errno.and_then(unreachable) else {
                        return Err(error);
                    };
                    let news = match endpoint.remote {
                        Some(to) => Some((to, why)),
                        None if endpoint.news == News::Unwatched => None,
                        None => {
                            endpoint.news = News::Perhaps;
                            endpoint.poll_news()
                        }
                    };
                    let Some((to, why)) = news else { continue };
                    return Ok(Some(Arrival::Unreachable { to, why }));
                }
            }
        }
        let Some(next) = endpoint.batch.next() else {
            return Ok(None);
        };
        if let (Some(sources), Some(to)) = (&mut endpoint.sources, next.to) {
            sources.put(next.from, to);
        }
        Ok(Some(Arrival::Datagram {
            from: next.from,
            payload: endpoint.batch.bytes(next.bytes),
        }))
    }

    fn can_send(&mut self, len: usize) -> bool {
        let endpoint = &*self.endpoint;
        if endpoint.blocked || !endpoint.outbox.has_room(len) {
            // An error of the socket itself comes out of the next call.
            return self.flush().unwrap_or(true);
        }
        true
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8]) -> io::Result<Sent> {
        let endpoint = &mut *self.endpoint;
        let source = endpoint
            .sources
            .as_ref()
            .and_then(|sources| sources.get(to));
        // Other datagrams wait to be answered, and what is said to them may leave together with this.
        let more = !endpoint.batch.is_empty() && endpoint.remote.is_none();
        if more || !endpoint.outbox.is_empty() {
            endpoint.outbox.push(to, source, payload, endpoint.merging);
            if !more {
                self.flush()?;
            }
            return Ok(Sent::Queued);
        }
        match endpoint.transmit(source, to, payload) {
            Ok(()) => Ok(Sent::Queued),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                endpoint.outbox.push(to, source, payload, false);
                self.set_blocked(true)?;
                Ok(Sent::Queued)
            }
            Err(error) => Datagrams::judge(error),
        }
    }
}

/// How often a server that spins looks again where something came, before it leaves that to the event queue.
const HOPE: u32 = 1_000;

/// The address that a socket is bound to.
fn addr(socket: &Socket) -> io::Result<SocketAddr> {
    // It has been bound or connected, with an address of IP.
    let local = socket.local_addr()?.as_socket();
    local.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// What the system asks for a receive buffer: 2 MiB, some thousands of small datagrams.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Why a datagram cannot go where it was to go, if that is what `errno` says.
fn unreachable(errno: i32) -> Option<Unreachable> {
    match errno {
        libc::ECONNREFUSED => Some(Unreachable::Refused),
        libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::ENETDOWN
        | libc::EHOSTDOWN
        | libc::ENODEV
        | libc::ENONET
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT
        | libc::ENOPROTOOPT
        | libc::EPROTO
        | libc::ETIMEDOUT
        | libc::EINVAL => Some(Unreachable::NoRoute),
        libc::EPERM | libc::EACCES => Some(Unreachable::Prohibited),
        libc::EMSGSIZE => Some(Unreachable::TooLong),
        _ => None,
    }
}

/// Takes the next entry out of the socket's error queue: where the datagram was to go, and why it did not.
fn read_error(socket: &mio::net::UdpSocket) -> io::Result<(Option<SocketAddr>, i32)> {
    // The datagram itself is in the queue as well, and is not looked at.
    let mut payload = [];
    let mut buffers = [IoSliceMut::new(&mut payload)];
    // More than enough for the error and all else that was asked for with each datagram.
    let mut control = vec![0; 512];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut control),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )?;
    let to = message.address.and_then(|to| {
        let v4 = to
            .as_sockaddr_in()
            .map(|to| SocketAddr::from(SocketAddrV4::from(*to)));
        let v6 = to.as_sockaddr_in6().map(|to| SocketAddrV6::from(*to));
        v4.or_else(|| {
            v6.map(|to| match to.ip().to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(v4.into(), to.port()),
                None => to.into(),
            })
        })
    });
    let errno = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            Some(error.ee_errno.cast_signed())
        }
        _ => None,
    });
    Ok((to, errno.unwrap_or(0)))
}

/// Datagrams taken from the system in one call.
#[derive(Debug)]
struct Batch {
    buffers: Box<[u8]>,
    metas: [RecvMeta; Self::BUFFERS],
    /// Buffers that were filled, and that are offered next.
    count: usize,
    offered: usize,
    /// The buffer and the place in it where the next datagram begins.
    index: usize,
    offset: usize,
}

/// A received datagram.
struct Datagram {
    from: SocketAddr,
    /// The address it was sent to, if the system told.
    to: Option<IpAddr>,
    bytes: Range<usize>,
}

impl Batch {
    const BUFFERS: usize = 32;
    /// Bytes in each: the longest datagram there is, and as many as the kernel puts together at most.
    const SIZE: usize = 65_536;

    /// The buffers take memory only once they are written to.
    fn new() -> Self {
        Self {
            buffers: vec![0; Self::BUFFERS * Self::SIZE].into_boxed_slice(),
            metas: [RecvMeta::default(); Self::BUFFERS],
            count: 0,
            offered: Self::BUFFERS,
            index: 0,
            offset: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.index == self.count
    }

    /// Takes in what has arrived, and returns whether there may be more.
    fn fill(&mut self, state: &UdpSocketState, socket: UdpSockRef<'_>) -> io::Result<bool> {
        (self.count, self.index, self.offset) = (0, 0, 0);
        let mut buffers = self.buffers.chunks_exact_mut(Self::SIZE);
        let mut slices: [IoSliceMut<'_>; Self::BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let offered = std::mem::replace(&mut self.offered, Self::BUFFERS);
        let received = state.recv(socket, &mut slices[..offered], &mut self.metas);
        self.count = *received.as_ref().unwrap_or(&0);
        if self.count <= 1 && self.count < offered {
            // Where one comes at a time, looking for the next would keep it waiting for its answer.
            self.offered = 1;
        }
        received.map(|count| count == offered)
    }

    fn next(&mut self) -> Option<Datagram> {
        if self.is_empty() {
            return None;
        }
        let meta = &self.metas[self.index];
        let base = self.index * Self::SIZE;
        let start = self.offset;
        // The kernel may have put several datagrams of one sender into one buffer, each `stride` long but the
        // last. An empty datagram has a stride of nothing.
        let end = match meta.stride {
            0 => meta.len,
            stride => meta.len.min(start + stride),
        };
        let datagram = Datagram {
            from: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
            to: meta.dst_ip,
            bytes: base + start..base + end,
        };
        // An IPv6 address of one link only is nothing without its scope.
        let datagram = match meta.addr {
            SocketAddr::V6(addr) if addr.ip().to_ipv4_mapped().is_none() => Datagram {
                from: addr.into(),
                ..datagram
            },
            _ => datagram,
        };
        if end >= meta.len {
            self.index += 1;
            self.offset = 0;
        } else {
            self.offset = end;
        }
        Some(datagram)
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffers[range]
    }
}

/// To which of our addresses the last peers wrote, so that the answer comes from there. A peer that another has
/// pushed out is answered from the address that the system prefers.
#[derive(Debug)]
struct Sources {
    entries: [Option<(SocketAddr, IpAddr)>; Self::ENTRIES],
    hasher: RandomState,
}

impl Sources {
    const ENTRIES: usize = 64;

    fn new() -> Self {
        Self {
            entries: [None; Self::ENTRIES],
            hasher: RandomState::new(),
        }
    }

    fn slot(&self, peer: SocketAddr) -> usize {
        self.hasher.hash_one(peer) as usize % Self::ENTRIES
    }

    fn put(&mut self, peer: SocketAddr, source: IpAddr) {
        self.entries[self.slot(peer)] = (!source.is_multicast()).then_some((peer, source));
    }

    fn get(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.entries[self.slot(peer)]
            .filter(|(known, _)| *known == peer)
            .map(|(_, source)| source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_that_the_kernel_put_together_come_apart_again() {
        let mut batch = Batch::new();
        let mut put = |index: usize, bytes: &[u8], stride: usize, from: &str| {
            let start = index * Batch::SIZE;
            batch.buffers[start..start + bytes.len()].copy_from_slice(bytes);
            batch.metas[index].len = bytes.len();
            batch.metas[index].stride = stride;
            batch.metas[index].addr = from.parse().unwrap();
        };
        put(0, b"aaabbbc", 3, "[::ffff:192.0.2.1]:7");
        put(1, b"", 0, "192.0.2.2:7");
        put(2, b"whole", 5, "[fe80::1%3]:7");
        batch.count = 3;
        let mut seen = Vec::new();
        while let Some(datagram) = batch.next() {
            seen.push((
                datagram.from.to_string(),
                String::from_utf8_lossy(batch.bytes(datagram.bytes)).into_owned(),
            ));
        }
        let expected = [
            ("192.0.2.1:7", "aaa"),
            ("192.0.2.1:7", "bbb"),
            ("192.0.2.1:7", "c"),
            ("192.0.2.2:7", ""),
            ("[fe80::1%3]:7", "whole"),
        ];
        assert_eq!(
            seen,
            expected.map(|(from, payload)| (from.to_owned(), payload.to_owned()))
        );
        assert!(batch.is_empty());
    }

    /// A socket with a peer to send to, and that peer.
    fn pair(poll: &mio::Poll) -> (Datagrams, std::net::UdpSocket, SocketAddr) {
        let any = "127.0.0.1:0".parse().unwrap();
        let endpoint = Datagrams::bind(any, Sharing::Alone, Token(0), poll.registry()).unwrap();
        let peer = std::net::UdpSocket::bind(any).unwrap();
        peer.set_nonblocking(true).unwrap();
        let to = peer.local_addr().unwrap();
        (endpoint, peer, to)
    }

    #[test]
    fn a_datagram_that_the_system_had_no_room_for_is_kept_and_holds_up_the_others() {
        let poll = mio::Poll::new().unwrap();
        let (mut endpoint, peer, to) = pair(&poll);
        endpoint.outbox.push(to, None, b"kept", false);
        (endpoint.blocked, endpoint.writable) = (true, false);
        assert!(!endpoint.transport(poll.registry()).can_send(1));
        endpoint.set_ready(true, false);
        assert!(!endpoint.transport(poll.registry()).can_send(1));
        endpoint.set_ready(false, true);
        assert!(endpoint.transport(poll.registry()).can_send(1));
        let mut payload = [0; 8];
        assert_eq!(peer.recv(&mut payload).unwrap(), 4);
        assert_eq!(&payload[..4], b"kept");
        // Once, that is.
        assert!(endpoint.transport(poll.registry()).can_send(1));
        assert!(peer.recv(&mut payload).is_err());
    }

    #[test]
    fn a_kept_datagram_that_cannot_go_there_is_told_of() {
        let poll = mio::Poll::new().unwrap();
        let (mut endpoint, _, _) = pair(&poll);
        let to = "127.0.0.1:0".parse().unwrap();
        endpoint.outbox.push(to, None, b"", false);
        endpoint.blocked = true;
        let mut transport = endpoint.transport(poll.registry());
        assert!(transport.can_send(1));
        let why = Unreachable::NoRoute;
        assert_eq!(
            transport.recv().unwrap(),
            Some(Arrival::Unreachable { to, why })
        );
        assert_eq!(transport.recv().unwrap(), None);
    }

    #[test]
    fn what_leaves_together_goes_each_where_it_can_and_the_others_are_told_of() {
        let poll = mio::Poll::new().unwrap();
        for merge in [true, false] {
            let (mut endpoint, peer, to) = pair(&poll);
            let nowhere = "127.0.0.1:0".parse().unwrap();
            for (to, payload) in [
                (to, "a1"),
                (to, "a2"),
                (nowhere, "b1"),
                (nowhere, "b2"),
                (to, "a3"),
            ] {
                endpoint.outbox.push(to, None, payload.as_bytes(), merge);
            }
            let pumped = Pumped {
                sent: 5,
                ..Pumped::default()
            };
            let mut transport = endpoint.transport(poll.registry());
            let pumped = transport.finish(pumped).unwrap();
            assert_eq!((pumped.sent, pumped.undeliverable), (3, 2));
            for expected in [b"a1", b"a2", b"a3"] {
                let mut payload = [0; 8];
                assert_eq!(peer.recv(&mut payload).unwrap(), 2);
                assert_eq!(&payload[..2], expected);
            }
            assert!(peer.recv(&mut [0; 8]).is_err());
            let told = Arrival::Unreachable {
                to: nowhere,
                why: Unreachable::NoRoute,
            };
            assert_eq!(transport.recv().unwrap(), Some(told));
            assert_eq!(transport.recv().unwrap(), Some(told));
            assert_eq!(transport.recv().unwrap(), None);
        }
    }

    #[test]
    fn answers_leave_together_from_elsewhere_if_they_cannot_leave_from_where_they_were_asked() {
        let poll = mio::Poll::new().unwrap();
        let (mut endpoint, peer, to) = pair(&poll);
        for _ in 0..2 {
            let source = Some([192, 0, 2, 1].into());
            endpoint.outbox.push(to, source, b"hi", true);
        }
        let mut transport = endpoint.transport(poll.registry());
        assert_eq!(
            transport.finish(Pumped::default()).unwrap().undeliverable,
            0
        );
        for _ in 0..2 {
            assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 2);
        }
    }

    #[test]
    fn an_answer_leaves_from_elsewhere_if_it_cannot_leave_from_where_it_was_asked() {
        let poll = mio::Poll::new().unwrap();
        let (mut endpoint, peer, to) = pair(&poll);
        let mut sources = Sources::new();
        sources.put(to, [192, 0, 2, 1].into());
        endpoint.sources = Some(sources);
        let mut transport = endpoint.transport(poll.registry());
        assert_eq!(transport.send(to, b"hi").unwrap(), Sent::Queued);
        assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 2);
    }

    #[test]
    fn icmp_s_refusals_come_with_the_address_that_refused_and_cost_nobody_else_a_datagram() {
        let poll = mio::Poll::new().unwrap();
        for (local, ip) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:0", "[::1]:0"),
            ("[::]:0", "127.0.0.1:0"),
            ("[::]:0", "[::1]:0"),
        ] {
            let mut endpoint = Datagrams::bind(
                local.parse().unwrap(),
                Sharing::Alone,
                Token(0),
                poll.registry(),
            )
            .unwrap();
            endpoint.watch_unreachable().unwrap();
            let peer = std::net::UdpSocket::bind(ip).unwrap();
            // It has a port and takes nothing from us there, having a peer of its own.
            let refusing = std::net::UdpSocket::bind(ip).unwrap();
            refusing.connect(peer.local_addr().unwrap()).unwrap();
            let refuses = refusing.local_addr().unwrap();
            let mut transport = endpoint.transport(poll.registry());
            // On the loopback the refusal is there when the first call returns, and the second one gets it.
            assert_eq!(transport.send(refuses, b"one").unwrap(), Sent::Queued);
            let to = peer.local_addr().unwrap();
            assert_eq!(transport.send(to, b"two").unwrap(), Sent::Queued);
            assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 3);
            let why = Unreachable::Refused;
            let told = Some(Arrival::Unreachable { to: refuses, why });
            assert_eq!(transport.recv().unwrap(), told, "from {local} to {refuses}");
            assert_eq!(transport.recv().unwrap(), None);
            // And again, without anything sent in between.
            assert_eq!(transport.send(refuses, b"three").unwrap(), Sent::Queued);
            endpoint.set_ready(true, false);
            let mut transport = endpoint.transport(poll.registry());
            assert_eq!(transport.recv().unwrap(), told);
            assert_eq!(transport.recv().unwrap(), None);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_told_at_once_and_breaks_nothing() {
        let poll = mio::Poll::new().unwrap();
        let (mut endpoint, peer, to) = pair(&poll);
        let mut transport = endpoint.transport(poll.registry());
        for (to, len, why) in [
            (to, 65_508, Unreachable::TooLong),
            ("127.0.0.1:0".parse().unwrap(), 1, Unreachable::NoRoute),
            ("[::1]:9".parse().unwrap(), 1, Unreachable::NoRoute),
            (
                "255.255.255.255:9".parse().unwrap(),
                1,
                Unreachable::Prohibited,
            ),
        ] {
            assert_eq!(
                transport.send(to, &vec![0; len]).unwrap(),
                Sent::Unreachable(why),
                "{to}"
            );
        }
        assert_eq!(transport.send(to, b"hi").unwrap(), Sent::Queued);
        assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 2);
    }

    #[test]
    fn sources_forget_and_never_mix_up() {
        let mut sources = Sources::new();
        let peer = |port| SocketAddr::new([192, 0, 2, 1].into(), port);
        for port in 1..=1_000u16 {
            let [high, low] = port.to_be_bytes();
            sources.put(peer(port), [127, 0, high, low].into());
            assert!(sources.get(peer(port)).is_some());
        }
        let remembered = (1..=1_000u16).filter(|&port| {
            let [high, low] = port.to_be_bytes();
            sources
                .get(peer(port))
                .is_some_and(|source| source == IpAddr::from([127, 0, high, low]))
        });
        assert!((1..=Sources::ENTRIES).contains(&remembered.count()));
        sources.put(peer(1), [224, 0, 0, 1].into());
        assert_eq!(sources.get(peer(1)), None);
    }
}
