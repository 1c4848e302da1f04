//! Arm MPS2 FPGA board with a Cortex-M3 (application note AN385, DAI 0385). QEMU: `-M mps2-an385`.

mod lan9118;
mod uart;

pub use lan9118::Lan9118;
pub use uart::Cmsdk;

use super::ethernet::Ethernet;
use super::{Board, Interrupt};
use crate::mmio::Registers;

/// UART 0 receive and transmit, Ethernet: AN385, section 4.8.
const INTERRUPTS: &[Interrupt] = &[Interrupt(0), Interrupt(1), Interrupt(13)];

/// AN385, section 4.1.
const MEGAHERTZ: u32 = 25;

/// Starts the board's two devices.
///
/// # Panics
/// If it was started before.
pub fn start() -> Board<Ethernet<Lan9118>, Cmsdk> {
    // SAFETY: AN385 has the Ethernet controller there, and there is but one `start`.
    let ethernet = unsafe { Registers::new(0x4020_0000) };
    // SAFETY: AN385 has UART 0 there, and there is but one `start`. `last_words` only writes single bytes when
    // nobody will use the UART any more.
    let uart = unsafe { Registers::new(uart::UART0) };
    Board {
        name: "mps2-an385",
        megahertz: MEGAHERTZ,
        mac: Ethernet::new(Lan9118::start(ethernet)),
        uart: Cmsdk::start(uart, MEGAHERTZ * 1_000_000),
        interrupts: INTERRUPTS,
        last_words: uart::last_words,
    }
}
