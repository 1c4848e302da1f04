//! Where service meets transport: the two traits that a stack implements, and the pumps that move bytes
//! between a service and a transport without knowing what either does.

use core::net::SocketAddr;

use crate::{ConnId, DatagramService, Flow, Instant, Now, StreamService, Unreachable};

/// A socket for datagrams. It never blocks.
pub trait DatagramTransport {
    /// The transport itself is broken, and every further call would fail. What befalls a single datagram is
    /// not an error: see [`Arrival::Unreachable`] and [`Sent::Unreachable`].
    type Error;

    /// Lends the next arrival. `None`: nothing has arrived.
    ///
    /// # Errors
    /// The transport is broken.
    fn recv(&mut self) -> Result<Option<Arrival<'_>>, Self::Error>;

    /// Whether a datagram of `len` bytes of payload would be taken now.
    fn can_send(&mut self, len: usize) -> bool;

    /// Sends one datagram; to be called when [`can_send`](Self::can_send) allows it.
    ///
    /// # Errors
    /// The transport is broken.
    fn send(&mut self, to: SocketAddr, payload: &[u8]) -> Result<Sent, Self::Error>;
}

/// What comes out of a datagram socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// A datagram.
    Datagram {
        /// The sender, an IPv4 address never in its IPv6-mapped form.
        from: SocketAddr,
        /// The payload, whole.
        payload: &'a [u8],
    },
    /// The news that an earlier datagram to `to` did not arrive.
    Unreachable {
        /// Where it was to go.
        to: SocketAddr,
        /// Why it did not.
        why: Unreachable,
    },
}

/// What became of a datagram given to a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Queued,
    /// It cannot go there.
    Unreachable(Unreachable),
}

/// A connection. It never blocks.
pub trait StreamTransport {
    /// The connection is gone: reset, timed out, or never made.
    type Error;

    /// Offers received bytes to `f`, which says how many it consumed; the others stay. `f` is called at most
    /// once, and not at all unless there is data.
    ///
    /// # Errors
    /// The connection is gone, and all data that came before was consumed.
    fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> Result<Received, Self::Error>;

    /// Lends `f` room for bytes to send; `f` says how many it wrote. `f` is called exactly once, with an empty
    /// slice when there is no room or our direction has ended.
    ///
    /// # Errors
    /// The connection is gone, and nothing is left to receive.
    fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, Self::Error>;

    /// Ends our direction once all that was sent has gone out. May be called again.
    fn close(&mut self);

    /// Resets the connection.
    fn abort(&mut self);

    /// Whether both directions have ended and nothing is left to do.
    fn is_closed(&self) -> bool;
}

/// What a stream had to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Data, of which so many bytes were consumed.
    Data(usize),
    /// Nothing for now.
    Nothing,
    /// Nothing, and nothing more will come: the peer has ended its direction.
    End,
}

/// What one [`pump`] moved, and when to call it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Datagrams taken from the transport.
    pub received: u32,
    /// Of those, datagrams that the service would not have.
    pub rejected: u32,
    /// Datagrams given to the transport.
    pub sent: u32,
    /// Datagrams that the transport could not send where they were to go.
    pub undeliverable: u32,
    /// The transport has no room for another datagram, so both directions wait for it.
    pub blocked: bool,
    /// The budget ended before the datagrams did: call again without sleeping.
    pub more: bool,
    /// When the service wants its timeout.
    pub deadline: Option<Instant>,
}

/// Moves datagrams between `service` and `transport`: first a timeout that is due, then what waits to be sent,
/// then up to `budget` received datagrams, each followed by all that the service has to say to it.
///
/// When the transport has no room, receiving waits too, so that nothing is dropped that could wait.
///
/// # Errors
/// The transport is broken. What peers send never is an error: it is counted in [`Pumped::rejected`].
///
/// # Panics
/// If `scratch` has less than [`DatagramService::MAX_DATAGRAM`] bytes: on the first call or never.
pub fn pump<S, T>(
    service: &mut S,
    transport: &mut T,
    now: Now,
    scratch: &mut [u8],
    budget: u32,
) -> Result<Pumped, T::Error>
where
    S: DatagramService,
    T: DatagramTransport,
{
    assert!(
        scratch.len() >= S::MAX_DATAGRAM,
        "the scratch buffer is shorter than the service's longest datagram"
    );
    let mut pumped = Pumped::default();
    if service.poll_timeout().is_some_and(|at| at <= now.monotonic) {
        service.handle_timeout(now);
    }
    loop {
        if !drain(service, transport, now, scratch, &mut pumped)? {
            pumped.blocked = true;
            break;
        }
        if pumped.received >= budget {
            pumped.more = true;
            break;
        }
        match transport.recv()? {
            None => break,
            Some(Arrival::Datagram { from, payload }) => {
                pumped.received += 1;
                if service.handle_datagram(now, from, payload).is_err() {
                    pumped.rejected += 1;
                }
            }
            Some(Arrival::Unreachable { to, why }) => service.handle_unreachable(now, to, why),
        }
    }
    pumped.deadline = service.poll_timeout();
    Ok(pumped)
}

/// Sends what `service` has to say, and returns whether that was all of it, rather than all there was room for.
fn drain<S, T>(
    service: &mut S,
    transport: &mut T,
    now: Now,
    scratch: &mut [u8],
    pumped: &mut Pumped,
) -> Result<bool, T::Error>
where
    S: DatagramService,
    T: DatagramTransport,
{
    while transport.can_send(S::MAX_DATAGRAM) {
        let Some(transmit) = service.poll_transmit(now, scratch) else {
            return Ok(true);
        };
        match transport.send(transmit.to, &scratch[..transmit.len])? {
            Sent::Queued => pumped.sent += 1,
            Sent::Unreachable(why) => {
                pumped.undeliverable += 1;
                service.handle_unreachable(now, transmit.to, why);
            }
        }
    }
    Ok(false)
}

/// What one [`pump_stream`] moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPumped {
    /// Bytes that the service consumed.
    pub received: usize,
    /// Bytes that the transport took.
    pub sent: usize,
    /// The connection is gone: the service has been told, and its [`ConnId`] is free.
    pub closed: bool,
    /// The budget ended before the data did: call again without sleeping.
    pub more: bool,
}

/// The most pieces of data that one [`pump_stream`] takes in, so that one busy peer cannot hold up the others.
const STREAM_BUDGET: u32 = 16;

/// Moves bytes between `service` and one of its open connections: what has arrived, then what the service has
/// to say to it, then the end of the connection if it has come.
///
/// To be called when the connection has data, room or an end to tell of, and for each
/// [`StreamService::poll_ready`]. Timeouts are the service's, not the connection's: see [`pump_timeout`].
pub fn pump_stream<S, T>(service: &mut S, id: ConnId, conn: &mut T, now: Now) -> StreamPumped
where
    S: StreamService,
    T: StreamTransport,
{
    let mut pumped = StreamPumped {
        received: 0,
        sent: 0,
        closed: false,
        more: false,
    };
    let mut budget = STREAM_BUDGET;
    loop {
        // Writing comes before each reading, so that a service that waits for room to answer is asked first,
        // and after the last, so that what was read is answered now.
        if write(service, id, conn, now, &mut pumped).is_err() {
            pumped.closed = true;
            break;
        }
        if budget == 0 {
            pumped.more = true;
            break;
        }
        budget -= 1;
        match conn.recv(|data| service.handle_data(now, id, data)) {
            Ok(Received::Data(consumed)) if consumed > 0 => pumped.received += consumed,
            Ok(Received::Data(_) | Received::Nothing) => break,
            Ok(Received::End) => {
                service.handle_end(now, id);
                pumped.closed =
                    write(service, id, conn, now, &mut pumped).is_err() || conn.is_closed();
                break;
            }
            Err(_) => {
                pumped.closed = true;
                break;
            }
        }
    }
    if pumped.closed {
        service.handle_close(now, id);
    }
    pumped
}

/// Runs the timeout of a [`StreamService`] if it is due. The connections it changed come out of
/// [`StreamService::poll_ready`].
pub fn pump_timeout<S: StreamService>(service: &mut S, now: Now) {
    if service.poll_timeout().is_some_and(|at| at <= now.monotonic) {
        service.handle_timeout(now);
    }
}

/// The connection is gone, by our doing or another's.
struct Gone;

/// Writes what `service` has to say, until it is said or there is no more room.
fn write<S, T>(
    service: &mut S,
    id: ConnId,
    conn: &mut T,
    now: Now,
    pumped: &mut StreamPumped,
) -> Result<(), Gone>
where
    S: StreamService,
    T: StreamTransport,
{
    loop {
        let mut flow = Flow::Open;
        let sent = conn.send(|buf| {
            let (len, then) = service.poll_write(now, id, buf);
            flow = then;
            len
        });
        match (sent, flow) {
            (_, Flow::Abort) => {
                conn.abort();
                return Err(Gone);
            }
            (Err(_), _) => return Err(Gone),
            (Ok(len), Flow::Finish) => {
                pumped.sent += len;
                conn.close();
                return Ok(());
            }
            (Ok(0), Flow::Open) => return Ok(()),
            (Ok(len), Flow::Open) => pumped.sent += len,
        }
    }
}
