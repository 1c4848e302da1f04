//! A cable with a network device at each end.

use core::error::Error;
use core::fmt;

use heapless::{Deque, Vec};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};

use super::Impairments;
use crate::random::Rng;
use crate::{Duration, Instant};

/// The longest frame, in bytes: 1,500 of payload and 14 of header (IEEE 802.3, the checksum not counted).
pub const MAX_FRAME: usize = 1514;

/// The cable between two [`EthernetPort`]s, with what befalls the frames on it.
///
/// Every frame has an arrival time when it is put on the cable, and lies in the queue of the port that it goes
/// to until then.
#[derive(Clone, Debug)]
pub struct Ethernet {
    impairments: Impairments,
    rng: Rng,
    counters: EthernetCounters,
}

/// What an [`Ethernet`] did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EthernetCounters {
    /// Frames put on the cable.
    pub sent: u64,
    /// Frames that it lost.
    pub lost: u64,
    /// Frames that it doubled.
    pub duplicated: u64,
    /// Frames with one bit of their IP packet turned over.
    pub corrupted: u64,
}

impl Ethernet {
    /// A cable.
    pub const fn new(seed: u64, impairments: Impairments) -> Self {
        Self {
            impairments,
            rng: Rng::new(seed),
            counters: EthernetCounters {
                sent: 0,
                lost: 0,
                duplicated: 0,
                corrupted: 0,
            },
        }
    }

    /// Changes what befalls frames from now on.
    pub fn set_impairments(&mut self, impairments: Impairments) {
        self.impairments = impairments;
    }

    /// Puts what the two ports have sent on the way to the other one. A frame for which there is no room waits
    /// in its sender's queue, as it would with flow control (IEEE 802.3, annex 31B).
    pub fn exchange<const A: usize, const B: usize>(
        &mut self,
        now: Instant,
        a: &mut EthernetPort<A>,
        b: &mut EthernetPort<B>,
    ) {
        self.carry(now, a, b);
        self.carry(now, b, a);
    }

    /// What happened so far.
    pub fn counters(&self) -> EthernetCounters {
        self.counters
    }

    fn carry<const A: usize, const B: usize>(
        &mut self,
        now: Instant,
        from: &mut EthernetPort<A>,
        to: &mut EthernetPort<B>,
    ) {
        // Room for a frame and its double.
        while to.rx.len() + 2 <= B.max(2) {
            let Some(frame) = from.tx.pop_front() else {
                return;
            };
            self.counters.sent += 1;
            let mut copies = 0;
            for arrives in self.impairments.arrivals(&mut self.rng, now) {
                copies += 1;
                let mut copy = frame.clone();
                // The Ethernet header and ARP have nothing but the frame's checksum to guard them, and a device
                // that finds that wrong drops the frame. What reaches a stack broken was broken inside.
                let guarded = if copy.bytes.get(12..14) == Some(&[0x08, 0x06]) {
                    copy.bytes.len()
                } else {
                    14
                };
                let packet = copy.bytes.get_mut(guarded..).unwrap_or_default();
                let bits = 8 * packet.len();
                if let Some(bit) = self.impairments.corrupted_bit(&mut self.rng, bits)
                    && let Some(byte) = packet.get_mut(bit / 8)
                {
                    *byte ^= 1 << (bit % 8);
                    self.counters.corrupted += 1;
                }
                to.push(arrives, copy);
            }
            self.counters.lost += u64::from(copies == 0);
            self.counters.duplicated += u64::from(copies == 2);
        }
    }
}

/// A network device: it has room for `QUEUE` frames received and `QUEUE` frames to be sent, at 1,544 bytes each.
#[derive(Debug)]
pub struct EthernetPort<const QUEUE: usize> {
    rx: Vec<Frame, QUEUE>,
    tx: Deque<Frame, QUEUE>,
    /// Numbers the frames, so that of two that arrive at one moment the first sent comes first.
    count: u64,
}

#[derive(Clone, Debug)]
struct Frame {
    arrives: Instant,
    number: u64,
    bytes: Vec<u8, MAX_FRAME>,
}

impl<const QUEUE: usize> EthernetPort<QUEUE> {
    /// A device with nothing to receive.
    pub const fn new() -> Self {
        Self {
            rx: Vec::new(),
            tx: Deque::new(),
            count: 0,
        }
    }

    /// When the next frame can be received.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.rx.iter().map(|frame| frame.arrives).min()
    }

    /// Whether frames wait to be put on the cable.
    pub fn has_sent(&self) -> bool {
        !self.tx.is_empty()
    }

    /// Lets the device receive `frame` at `arrives`, as if it had come over the cable.
    ///
    /// # Errors
    /// The queue is full, or the frame is longer than [`MAX_FRAME`].
    pub fn deliver(&mut self, arrives: Instant, frame: &[u8]) -> Result<(), Full> {
        if self.rx.is_full() {
            return Err(Full);
        }
        let bytes = Vec::from_slice(frame).map_err(|_| Full)?;
        self.push(
            arrives,
            Frame {
                arrives,
                number: 0,
                bytes,
            },
        );
        Ok(())
    }

    /// Takes the next frame that the device has sent off the cable, and shows it to `f`.
    pub fn take_sent<R>(&mut self, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.tx.pop_front().map(|frame| f(&frame.bytes))
    }

    fn push(&mut self, arrives: Instant, mut frame: Frame) {
        self.count += 1;
        frame.arrives = arrives;
        frame.number = self.count;
        // The caller has looked for room.
        let _ = self.rx.push(frame);
    }
}

impl<const QUEUE: usize> Default for EthernetPort<QUEUE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const QUEUE: usize> Device for EthernetPort<QUEUE> {
    type RxToken<'a> = RxToken<'a, QUEUE>;
    type TxToken<'a> = TxToken<'a, QUEUE>;

    fn receive(
        &mut self,
        now: smoltcp::time::Instant,
    ) -> Option<(RxToken<'_, QUEUE>, TxToken<'_, QUEUE>)> {
        if self.tx.is_full() {
            return None;
        }
        let now = Instant::ZERO
            + Duration::from_micros(u64::try_from(now.total_micros()).unwrap_or_default());
        let (index, _) = self
            .rx
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.arrives <= now)
            .min_by_key(|(_, frame)| (frame.arrives, frame.number))?;
        let rx = RxToken {
            queue: &mut self.rx,
            index,
        };
        Some((rx, TxToken(&mut self.tx)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<TxToken<'_, QUEUE>> {
        (!self.tx.is_full()).then_some(TxToken(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities
    }
}

/// A port is large, and a stack that owns it is too; so a stack may also have one that lies elsewhere.
impl<const QUEUE: usize> Device for &mut EthernetPort<QUEUE> {
    type RxToken<'a>
        = RxToken<'a, QUEUE>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, QUEUE>
    where
        Self: 'a;

    fn receive(
        &mut self,
        now: smoltcp::time::Instant,
    ) -> Option<(RxToken<'_, QUEUE>, TxToken<'_, QUEUE>)> {
        (**self).receive(now)
    }

    fn transmit(&mut self, now: smoltcp::time::Instant) -> Option<TxToken<'_, QUEUE>> {
        (**self).transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        (**self).capabilities()
    }
}

/// A frame that has arrived.
#[derive(Debug)]
pub struct RxToken<'a, const QUEUE: usize> {
    queue: &'a mut Vec<Frame, QUEUE>,
    index: usize,
}

impl<const QUEUE: usize> phy::RxToken for RxToken<'_, QUEUE> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let frame = self.queue.swap_remove(self.index);
        f(&frame.bytes)
    }
}

/// Room for a frame to be sent.
#[derive(Debug)]
pub struct TxToken<'a, const QUEUE: usize>(&'a mut Deque<Frame, QUEUE>);

impl<const QUEUE: usize> phy::TxToken for TxToken<'_, QUEUE> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = Vec::new();
        // The stack keeps to the device's `max_transmission_unit`.
        let _ = bytes.resize(len.min(MAX_FRAME), 0);
        let result = f(&mut bytes);
        // A token is only given out if there is room.
        let _ = self.0.push_back(Frame {
            arrives: Instant::ZERO,
            number: 0,
            bytes,
        });
        result
    }
}

/// A frame found no room in the queue of the device, or is too long for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device has no room for the frame")
    }
}

impl Error for Full {}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::{RxToken as _, TxToken as _};
    use std::vec::Vec as StdVec;

    fn send(port: &mut EthernetPort<8>, byte: u8) {
        port.transmit(smoltcp::time::Instant::ZERO)
            .unwrap()
            .consume(60, |frame| frame.fill(byte));
    }

    fn received(port: &mut EthernetPort<8>, at: i64) -> StdVec<StdVec<u8>> {
        let mut all = StdVec::new();
        while let Some((frame, _)) = port.receive(smoltcp::time::Instant::from_micros(at)) {
            all.push(frame.consume(<[u8]>::to_vec));
        }
        all
    }

    #[test]
    fn frames_arrive_in_their_time_and_order() {
        let delay = Duration::from_micros(10);
        let mut cable = Ethernet::new(
            1,
            Impairments {
                delay: (delay, delay),
                ..Impairments::default()
            },
        );
        let (mut a, mut b) = (EthernetPort::<8>::new(), EthernetPort::<8>::new());
        send(&mut a, 1);
        send(&mut a, 2);
        cable.exchange(Instant::from_micros(5), &mut a, &mut b);
        assert_eq!(b.next_arrival(), Some(Instant::from_micros(15)));
        assert!(received(&mut b, 14).is_empty());
        assert_eq!(received(&mut b, 15), [[1; 60], [2; 60]]);
    }

    #[test]
    fn a_full_port_holds_the_sender_back_and_nothing_is_lost() {
        let mut cable = Ethernet::new(1, Impairments::default());
        let (mut a, mut b) = (EthernetPort::<8>::new(), EthernetPort::<8>::new());
        let mut got = 0;
        for n in 0..50 {
            while a.transmit(smoltcp::time::Instant::ZERO).is_none() {
                cable.exchange(Instant::ZERO, &mut a, &mut b);
                got += received(&mut b, 0).len();
            }
            send(&mut a, n);
        }
        while a.has_sent() || b.next_arrival().is_some() {
            cable.exchange(Instant::ZERO, &mut a, &mut b);
            got += received(&mut b, 0).len();
        }
        assert_eq!(got, 50);
        assert_eq!(cable.counters().lost, 0);
    }

    #[test]
    fn corruption_turns_one_bit() {
        let mut cable = Ethernet::new(
            1,
            Impairments {
                corruption: 1_000,
                ..Impairments::default()
            },
        );
        let (mut a, mut b) = (EthernetPort::<8>::new(), EthernetPort::<8>::new());
        send(&mut a, 0);
        cable.exchange(Instant::ZERO, &mut a, &mut b);
        let frames = received(&mut b, 0);
        let ones: u32 = frames[0].iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
        assert_eq!(frames[0][..14], [0; 14]);
    }
}
