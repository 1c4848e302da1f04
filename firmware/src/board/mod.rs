//! What the program asks of a board, and the boards.
//!
//! A board of your own is another folder here: a memory map for the linker, this trait, and a driver for its
//! Ethernet controller, which is smoltcp's [`Device`] with [`Mac`] on top.

use smoltcp::phy::Device;
use static_cell::ConstStaticCell;

pub mod lm3s6965evb;
pub mod mps2_an385;

/// A board that has been started.
pub struct Board<M, U> {
    /// What it is called.
    pub name: &'static str,
    /// How fast its processor runs, and SysTick with it: whole megahertz.
    pub megahertz: u32,
    /// Its Ethernet controller.
    pub mac: M,
    /// Its serial port.
    pub uart: U,
    /// The interrupts of both.
    pub interrupts: &'static [Interrupt],
    /// Sends a byte on the serial port and waits until it could, whatever state the port is in.
    pub last_words: fn(u8),
}

/// The number of an interrupt of the part.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt(pub u16);

// SAFETY: a number stands for itself, and boards only have those that the part has.
unsafe impl cortex_m::interrupt::InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

/// An Ethernet controller.
pub trait Mac: Device {
    /// Its address.
    fn address(&self) -> [u8; 6];

    /// Sees to it that the next frame that arrives causes an interrupt, and so does room to send if
    /// `wake_for_room`. Returns whether there is a frame already: then there may be no interrupt.
    fn listen(&mut self, wake_for_room: bool) -> bool;

    /// What happened so far.
    fn counters(&self) -> MacCounters;
}

/// What happened at an Ethernet controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct MacCounters {
    /// Frames received and handed on.
    pub received: u32,
    /// Frames sent.
    pub sent: u32,
    /// Frames received and thrown away: damaged, or of a length that no frame has.
    pub malformed: u32,
    /// Frames lost because there was no room for them, or times that some were if the controller does not count.
    pub overrun: u32,
}

/// The longest frame, in bytes, without its check sequence: 14 bytes of header and 1,500 of payload.
pub const MAX_FRAME: usize = 1514;

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

/// Memory for a frame each way. It is outside of the driver, so that a driver is small enough to be moved.
#[derive(Debug)]
pub struct Frames {
    /// The frame that was received.
    pub rx: FrameBuffer,
    /// The frame to send.
    pub tx: FrameBuffer,
}

/// The one Ethernet controller's.
static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames {
    rx: FrameBuffer::new(),
    tx: FrameBuffer::new(),
});

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}
