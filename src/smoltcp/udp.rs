//! Datagrams over smoltcp's UDP sockets.

use core::convert::Infallible;
use core::net::{IpAddr, SocketAddr};

use ::smoltcp::phy::PacketMeta;
use ::smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket, UdpMetadata};
use heapless::Vec;

use super::address;
use super::news::News;
use super::stack::Sockets;
use super::table::Index;
use crate::{Arrival, DatagramTransport, Duration, Instant, Sent, Unreachable};

/// How long a packet may wait for its next hop to say where it is: three requests a second apart
/// (RFC 4861, sections 7.2.2 and 10; Linux does the same for ARP).
pub(super) const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(3);

/// The destinations of waiting datagrams that a socket remembers, to tell of those that did not arrive.
const WAITING: usize = 4;

/// The memory of one UDP socket: rings for `PACKETS` datagrams and `BYTES` bytes of payload in each direction.
///
/// Takes `2 * BYTES + 96 * PACKETS` bytes on a 64-bit machine. A datagram lies in a ring in one piece, and one
/// longer than `BYTES` is dropped by smoltcp before anybody has seen it: so `BYTES` is at least the longest
/// datagram to be received, 1,472 bytes for all that Ethernet carries, and twice that lets a second one come in
/// while the first is answered.
#[derive(Debug)]
pub struct UdpBuffers<const PACKETS: usize, const BYTES: usize> {
    rx_packets: [PacketMetadata; PACKETS],
    rx_bytes: [u8; BYTES],
    tx_packets: [PacketMetadata; PACKETS],
    tx_bytes: [u8; BYTES],
}

impl<const PACKETS: usize, const BYTES: usize> UdpBuffers<PACKETS, BYTES> {
    /// Empty buffers.
    pub const fn new() -> Self {
        Self {
            rx_packets: [PacketMetadata::EMPTY; PACKETS],
            rx_bytes: [0; BYTES],
            tx_packets: [PacketMetadata::EMPTY; PACKETS],
            tx_bytes: [0; BYTES],
        }
    }
}

impl<const PACKETS: usize, const BYTES: usize> Default for UdpBuffers<PACKETS, BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, const PACKETS: usize, const BYTES: usize> From<&'a mut UdpBuffers<PACKETS, BYTES>>
    for Socket<'a>
{
    fn from(buffers: &'a mut UdpBuffers<PACKETS, BYTES>) -> Self {
        Socket::new(
            PacketBuffer::new(
                buffers.rx_packets.as_mut_slice(),
                buffers.rx_bytes.as_mut_slice(),
            ),
            PacketBuffer::new(
                buffers.tx_packets.as_mut_slice(),
                buffers.tx_bytes.as_mut_slice(),
            ),
        )
    }
}

/// A UDP socket of a [`Stack`](super::Stack), made by [`Stack::bind`](super::Stack::bind). 432 bytes.
///
/// In [`Stack::turn`](super::Stack::turn), [`Sockets::udp`] makes a [`DatagramTransport`] of it.
#[derive(Debug)]
pub struct UdpSocket {
    pub(super) index: Index,
    pub(super) local: SocketAddr,
    /// The one address of ours it is bound to, if it is one.
    pub(super) bound: Option<IpAddr>,
    /// Who was heard last, and to which address of ours he spoke.
    heard: Option<(SocketAddr, IpAddr)>,
    /// Bytes ever put into the transmit ring.
    written: u64,
    /// Where in the transmit ring the next byte goes.
    write_at: usize,
    /// How many bytes had left the transmit ring when it last moved, and when that was.
    moved: (u64, Instant),
    /// Destinations of what is in the transmit ring, as far as there is room for them.
    waiting: Vec<SocketAddr, WAITING>,
    /// Destinations that were given up.
    undelivered: Vec<SocketAddr, WAITING>,
    counters: UdpCounters,
}

/// What went wrong at a [`UdpSocket`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Times that the whole transmit queue was thrown away, because its first datagram had waited 3 seconds for
    /// a next hop that does not answer.
    pub flushed: u64,
    /// Datagrams received but not yet read that were lost in this way.
    pub lost: u64,
}

impl UdpSocket {
    pub(super) fn new(index: Index, local: SocketAddr, bound: Option<IpAddr>) -> Self {
        Self {
            index,
            local,
            bound,
            heard: None,
            written: 0,
            write_at: 0,
            moved: (0, Instant::ZERO),
            waiting: Vec::new(),
            undelivered: Vec::new(),
            counters: UdpCounters::default(),
        }
    }

    /// The address it was bound to, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What went wrong so far.
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    /// Gives up what has waited too long for its next hop.
    ///
    /// smoltcp keeps a datagram at the head of the queue until its next hop has said where it is, be that
    /// never, and offers no way to take it out but to close the socket.
    fn watch(&mut self, sockets: &mut Sockets<'_>, now: Instant) {
        let device_full = sockets.device_full;
        let socket = sockets.table.socket::<Socket<'_>>(self.index);
        let queued = socket.send_queue();
        let moved = self.written.wrapping_sub(queued as u64);
        // A queue of empty datagrams alone has no bytes; it shows when it is full.
        if queued == 0 && socket.can_send() {
            self.waiting.clear();
        } else if moved == self.moved.0 && !device_full {
            if now < self.moved.1 + NEIGHBOUR_TIMEOUT {
                return;
            }
            while socket.recv().is_ok() {
                self.counters.lost += 1;
            }
            let endpoint = socket.endpoint();
            socket.close();
            // It was bound to this endpoint until now, so it can be again.
            let _ = socket.bind(endpoint);
            self.counters.flushed += 1;
            self.written = self.written.wrapping_sub(queued as u64);
            self.write_at = 0;
            for &to in &self.waiting {
                if !self.undelivered.contains(&to) {
                    // With more than a few, some are not told of.
                    let _ = self.undelivered.push(to);
                }
            }
            self.waiting.clear();
        }
        self.moved = (self.written.wrapping_sub(socket.send_queue() as u64), now);
    }
}

/// A [`UdpSocket`] at work: what [`pump`](crate::pump) pumps.
///
/// - An answer to the sender of the datagram received last leaves from the address that he had sent it to
///   (RFC 1122, section 4.1.3.5); other datagrams leave from the address that fits the destination.
/// - A datagram to where no route leads, or one longer than the MTU allows, is [`Sent::Unreachable`] at once.
/// - One whose next hop does not answer for 3 seconds is given up, and with it all that was queued behind it:
///   their destinations come back as [`Arrival::Unreachable`].
/// - So do those of which ICMP says that they did not arrive.
#[derive(Debug)]
pub struct UdpTransport<'s, 'a> {
    sockets: &'s mut Sockets<'a>,
    state: &'s mut UdpSocket,
    now: Instant,
    blocked: bool,
}

impl<'s, 'a> UdpTransport<'s, 'a> {
    pub(super) fn new(
        sockets: &'s mut Sockets<'a>,
        state: &'s mut UdpSocket,
        now: Instant,
    ) -> Self {
        state.watch(sockets, now);
        Self {
            sockets,
            state,
            now,
            blocked: false,
        }
    }

    fn source_for(&self, to: SocketAddr) -> Option<IpAddr> {
        let network = &self.sockets.network;
        match (self.state.bound, self.state.heard) {
            (Some(bound), _) => {
                Some(bound).filter(|bound| bound.is_ipv4() == to.is_ipv4() && network.owns(*bound))
            }
            // What came to a broadcast or multicast address is not answered from there.
            (None, Some((peer, ours))) if peer == to && network.owns(ours) => Some(ours),
            (None, _) => network.source_for(to.ip()),
        }
    }
}

impl DatagramTransport for UdpTransport<'_, '_> {
    type Error = Infallible;

    fn recv(&mut self) -> Result<Option<Arrival<'_>>, Infallible> {
        if let Some(to) = self.state.undelivered.pop() {
            let why = Unreachable::NoRoute;
            return Ok(Some(Arrival::Unreachable { to, why }));
        }
        let (port, bound) = (self.state.local.port(), self.state.bound);
        let ours = |news: &mut News| {
            news.from.port() == port && bound.is_none_or(|ip| ip == news.from.ip())
        };
        let socket = self.sockets.table.socket::<Socket<'_>>(self.state.index);
        // The frame with the news is the last one that was taken in: what came before it is heard before it.
        if !socket.can_recv()
            && let Some(news) = self.sockets.news.take_if(ours)
        {
            let News { to, why, .. } = news;
            return Ok(Some(Arrival::Unreachable { to, why }));
        }
        let socket = self.sockets.table.socket::<Socket<'_>>(self.state.index);
        let Ok((payload, meta)) = socket.recv() else {
            return Ok(None);
        };
        let Some(from) = address::socket_addr(meta.endpoint) else {
            return Ok(None);
        };
        self.state.heard = meta
            .local_address
            .and_then(address::ip_addr)
            .map(|ours| (from, ours));
        Ok(Some(Arrival::Datagram { from, payload }))
    }

    fn can_send(&mut self, len: usize) -> bool {
        let socket = self.sockets.table.socket::<Socket<'_>>(self.state.index);
        let capacity = socket.payload_send_capacity();
        // A service whose longest datagram does not fit may still send shorter ones; see `send`.
        let len = len.min(capacity);
        let queued = socket.send_queue();
        // A datagram lies in one piece. What does not fit before the end of the ring could go to its beginning,
        // but padding then takes a second place in the ring of packets, which smoltcp does not let us count:
        // so it waits until the ring has run empty.
        let piece = (capacity - queued).min(capacity - self.state.write_at);
        let free = socket.can_send() && (queued == 0 || len <= piece);
        if !free {
            self.blocked = true;
            self.sockets.blocked = true;
        }
        free
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8]) -> Result<Sent, Infallible> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if let Err(why) = self.sockets.network.route(to) {
            return Ok(Sent::Unreachable(why));
        }
        let (Some(endpoint), Some(source)) = (address::endpoint(to), self.source_for(to)) else {
            return Ok(Sent::Unreachable(Unreachable::NoRoute));
        };
        if payload.len() > self.sockets.network.max_datagram(to.ip()) {
            return Ok(Sent::Unreachable(Unreachable::TooLong));
        }
        let state = &mut *self.state;
        let socket = self.sockets.table.socket::<Socket<'_>>(state.index);
        let was_empty = socket.send_queue() == 0;
        let meta = UdpMetadata {
            endpoint,
            local_address: address::ip_address(source),
            meta: PacketMeta::default(),
        };
        // After `can_send` it fails only if the ring could never hold it.
        if socket.send_slice(payload, meta).is_err() {
            return Ok(Sent::Unreachable(Unreachable::TooLong));
        }
        if was_empty {
            state.write_at = 0;
            state.moved = (state.written, self.now);
            state.waiting.clear();
        }
        state.write_at += payload.len();
        state.written = state.written.wrapping_add(payload.len() as u64);
        if !state.waiting.contains(&to) {
            let _ = state.waiting.push(to);
        }
        self.sockets.table.touch(state.index);
        Ok(Sent::Queued)
    }
}

impl Drop for UdpTransport<'_, '_> {
    fn drop(&mut self) {
        let socket = self.sockets.table.socket::<Socket<'_>>(self.state.index);
        self.sockets.unread |= !self.blocked && socket.can_recv();
    }
}
