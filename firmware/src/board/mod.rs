//! What the program asks of a board, and the boards.
//!
//! A board of your own is another folder here: a memory map for the linker, a `start` that makes a [`Board`], and a
//! driver for its Ethernet controller. That is [`ethernet::Controller`] for one that copies frames, or else smoltcp's
//! [`Device`] with [`Mac`] on top.

use smoltcp::phy::Device;

pub mod ethernet;
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
