//! smoltcp's device for controllers that frames are copied into and out of, as those of small parts are.

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use static_cell::ConstStaticCell;

use super::{Mac, MacCounters};

/// The longest frame, in bytes, without its check sequence: 14 bytes of header and 1,500 of payload.
pub const MAX_FRAME: usize = 1514;

/// What a driver does. The rest is the same for all: see [`Ethernet`].
pub trait Controller {
    /// Bytes in a [`FrameBuffer`] before the frame, at most 2.
    const LEAD: usize;

    /// The address that it receives for.
    fn address(&self) -> [u8; 6];

    /// Whether a frame waits to be taken.
    fn has_frame(&mut self) -> bool;

    /// Takes the frame that waits, and returns its length without the check sequence. `None`: it was damaged, or no
    /// frame has that length; it is gone all the same.
    fn take_frame(&mut self, buffer: &mut FrameBuffer) -> Option<usize>;

    /// Whether there is room for a frame to send, of any length.
    fn can_send(&mut self) -> bool;

    /// Sends the frame of `len` bytes in `buffer`. The controller pads it, and appends the check sequence.
    fn send(&mut self, buffer: &mut FrameBuffer, len: usize);

    /// Acknowledges its interrupts, and sees to it that the next frame causes one, and so does room to send if
    /// `wake_for_room`. Returns how many frames were lost since it was last asked.
    fn acknowledge(&mut self, wake_for_room: bool) -> u32;
}

/// A frame's memory, in the words in which controllers hand it over: two bytes before it so that a driver can
/// shift it by half a word, and room behind it for a check sequence.
#[derive(Debug)]
pub struct FrameBuffer([u32; Self::WORDS]);

impl FrameBuffer {
    /// How many words it has.
    pub const WORDS: usize = (2 + MAX_FRAME + 4).div_ceil(4);

    /// All zeroes.
    pub const fn new() -> Self {
        Self([0; Self::WORDS])
    }

    /// Its words, in the order and with the bytes as they are in memory.
    pub fn words(&mut self) -> &mut [u32] {
        &mut self.0
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        let bytes = self.0.as_mut_ptr().cast();
        // SAFETY: the same memory as bytes, which have no alignment and no invalid values; borrowed for as long.
        unsafe { core::slice::from_raw_parts_mut(bytes, Self::WORDS * 4) }
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory for a frame each way. It is outside of the driver, so that a driver is small enough to be moved.
#[derive(Debug)]
pub struct Frames {
    rx: FrameBuffer,
    tx: FrameBuffer,
}

/// The one Ethernet controller's.
static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames {
    rx: FrameBuffer::new(),
    tx: FrameBuffer::new(),
});

/// A controller as smoltcp's device.
#[derive(Debug)]
pub struct Ethernet<C> {
    controller: C,
    frames: &'static mut Frames,
    counters: MacCounters,
}

impl<C: Controller> Ethernet<C> {
    /// The device on `controller`.
    ///
    /// # Panics
    /// If there is one already: there is memory for the frames of one.
    pub fn new(controller: C) -> Self {
        Self {
            controller,
            frames: FRAMES.take(),
            counters: MacCounters::default(),
        }
    }
}

impl<C: Controller> Mac for Ethernet<C> {
    fn address(&self) -> [u8; 6] {
        self.controller.address()
    }

    fn listen(&mut self, wake_for_room: bool) -> bool {
        self.counters.overrun += self.controller.acknowledge(wake_for_room);
        // Looked for after the acknowledgement: a frame that came between the two is seen here.
        self.controller.has_frame() || wake_for_room && self.controller.can_send()
    }

    fn counters(&self) -> MacCounters {
        self.counters
    }
}

impl<C: Controller> Device for Ethernet<C> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, C>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_, C>)> {
        // A frame is taken in only when its answer could be sent.
        while self.controller.has_frame() && self.controller.can_send() {
            let Some(len) = self.controller.take_frame(&mut self.frames.rx) else {
                self.counters.malformed += 1;
                continue;
            };
            self.counters.received += 1;
            let tx = TxToken {
                controller: &mut self.controller,
                buffer: &mut self.frames.tx,
                sent: &mut self.counters.sent,
            };
            return Some((RxToken(&self.frames.rx.bytes()[C::LEAD..C::LEAD + len]), tx));
        }
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_, C>> {
        self.controller.can_send().then_some(TxToken {
            controller: &mut self.controller,
            buffer: &mut self.frames.tx,
            sent: &mut self.counters.sent,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame received.
#[derive(Debug)]
pub struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to send.
#[derive(Debug)]
pub struct TxToken<'a, C> {
    controller: &'a mut C,
    buffer: &'a mut FrameBuffer,
    sent: &'a mut u32,
}

impl<C: Controller> phy::TxToken for TxToken<'_, C> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let result = f(&mut self.buffer.bytes()[C::LEAD..C::LEAD + len]);
        self.controller.send(self.buffer, len);
        *self.sent += 1;
        result
    }
}
