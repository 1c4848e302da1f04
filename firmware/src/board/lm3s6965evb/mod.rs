//! Stellaris LM3S6965 Ethernet evaluation board (Texas Instruments, data sheet SPMS042): Cortex-M3, 256 KB of
//! flash, 64 KB of RAM. QEMU: `-M lm3s6965evb`.

mod stellaris;
mod uart;

pub use stellaris::Stellaris;
pub use uart::Pl011;

use super::ethernet::Ethernet;
use super::{Board, Interrupt};
use crate::mmio::Registers;

/// Data sheet, table 2-9.
const INTERRUPTS: &[Interrupt] = &[Interrupt(5), Interrupt(42)];

/// Starts the board: the clock, the pins and the two devices.
///
/// # Panics
/// If it was started before.
pub fn start() -> Board<Ethernet<Stellaris>, Pl011> {
    // SAFETY: the data sheet has system control there, and there is but one `start`.
    let mut system = unsafe { Registers::new(0x400f_e000) };
    run_at_50_megahertz(&mut system);
    power(&mut system);
    connect_pins();
    // USER0 and USER1 hold the address that the board was given in the factory, three bytes each.
    let [a, b, c, _] = system.read(0x1e0).to_le_bytes();
    let [d, e, f, _] = system.read(0x1e4).to_le_bytes();
    let factory = [a, b, c, d, e, f];
    // Never written flash is all ones. The address is one for local use (IEEE 802, section 8.4.4).
    let address = if factory == [0xff; 6] {
        [0x02, 0, 0, 0, 0, 0x45]
    } else {
        factory
    };
    // SAFETY: the data sheet has the Ethernet controller there, and there is but one `start`.
    let ethernet = unsafe { Registers::new(0x4004_8000) };
    // SAFETY: the data sheet has UART0 there, and there is but one `start`. `last_words` only writes single
    // bytes when nobody will use the UART any more.
    let uart = unsafe { Registers::new(uart::UART0) };
    Board {
        name: "lm3s6965evb",
        megahertz: MEGAHERTZ,
        mac: Ethernet::new(Stellaris::start(ethernet, address)),
        uart: Pl011::start(uart, MEGAHERTZ * 1_000_000),
        interrupts: INTERRUPTS,
        last_words: uart::last_words,
    }
}

const MEGAHERTZ: u32 = 50;

/// Data sheet, section 5.2.5.3: the PLL (200 MHz from the 8 MHz crystal), divided by 4.
fn run_at_50_megahertz(system: &mut Registers) {
    const RIS: usize = 0x050;
    const RCC: usize = 0x060;
    const BYPASS: u32 = 1 << 11;
    const PWRDN: u32 = 1 << 13;
    const USESYSDIV: u32 = 1 << 22;
    const XTAL: u32 = 0xf << 6;
    const XTAL_8_MHZ: u32 = 0xe << 6;
    const OSCSRC: u32 = 3 << 4;
    const MOSCDIS: u32 = 1;
    const SYSDIV: u32 = 0xf << 23;
    const SYSDIV_4: u32 = 3 << 23;
    system.modify(RCC, |rcc| (rcc | BYPASS) & !(USESYSDIV | MOSCDIS));
    system.modify(RCC, |rcc| rcc & !(XTAL | OSCSRC | PWRDN) | XTAL_8_MHZ);
    system.modify(RCC, |rcc| rcc & !SYSDIV | SYSDIV_4 | USESYSDIV);
    // The PLL has locked.
    while system.read(RIS) & 1 << 6 == 0 {}
    system.modify(RCC, |rcc| rcc & !BYPASS);
}

/// Clocks for the devices in use.
fn power(system: &mut Registers) {
    const RCGC1: usize = 0x104;
    const RCGC2: usize = 0x108;
    let (uart0, port_a, port_f, emac, ephy) = (1, 1, 1 << 5, 1 << 28, 1 << 30);
    system.modify(RCGC1, |on| on | uart0);
    system.modify(RCGC2, |on| on | port_a | port_f | emac | ephy);
    // A device may be used three cycles later.
    cortex_m::asm::delay(3);
}

/// Pins A0 and A1 are the UART's, F2 and F3 the LEDs of the Ethernet socket.
fn connect_pins() {
    const AFSEL: usize = 0x420;
    const DEN: usize = 0x51c;
    for (port, pins) in [(0x4000_4000, 0b11), (0x4002_5000, 0b1100)] {
        // SAFETY: the data sheet has the GPIO port there, and nobody else uses it.
        let mut port = unsafe { Registers::new(port) };
        port.modify(AFSEL, |on| on | pins);
        port.modify(DEN, |on| on | pins);
    }
}
