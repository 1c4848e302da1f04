//! The PL011 UART (Arm, DDI 0183; data sheet, chapter 13).

use crate::console::Uart;
use crate::mmio::Registers;

/// Where UART0 is.
pub(super) const UART0: usize = 0x4000_c000;

const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const RX_EMPTY: u32 = 1 << 4;
const TX_FULL: u32 = 1 << 5;
const BAUD_INTEGER: usize = 0x24;
const BAUD_FRACTION: usize = 0x28;
const LINE: usize = 0x2c;
const CONTROL: usize = 0x30;
const INTERRUPT_MASK: usize = 0x38;
const INTERRUPT_CLEAR: usize = 0x44;
const RX: u32 = 1 << 4;
const TX: u32 = 1 << 5;

/// A UART at 115,200 baud, 8 bits, no parity.
#[derive(Debug)]
pub struct Pl011 {
    registers: Registers,
}

impl Pl011 {
    pub(super) fn start(mut registers: Registers, hertz: u32) -> Self {
        // The divisor, in 64ths.
        let divisor = (hertz * 4 + 115_200 / 2) / 115_200;
        registers.write(CONTROL, 0);
        registers.write(BAUD_INTEGER, divisor >> 6);
        registers.write(BAUD_FRACTION, divisor & 0x3f);
        // 8 bits, and no FIFO, so that each byte causes an interrupt.
        registers.write(LINE, 3 << 5);
        registers.write(INTERRUPT_MASK, RX);
        // Transmitter, receiver, both on.
        registers.write(CONTROL, 1 << 9 | 1 << 8 | 1);
        Self { registers }
    }
}

impl Uart for Pl011 {
    fn write(&mut self, byte: u8) -> bool {
        let room = self.registers.read(FLAGS) & TX_FULL == 0;
        if room {
            self.registers.write(DATA, byte.into());
        }
        room
    }

    fn read(&mut self) -> Option<u8> {
        self.registers.write(INTERRUPT_CLEAR, RX);
        let empty = self.registers.read(FLAGS) & RX_EMPTY != 0;
        // The upper bits tell of errors.
        (!empty).then(|| self.registers.read(DATA) as u8)
    }

    fn wake_for_room(&mut self, wake: bool) {
        if wake {
            self.registers.write(INTERRUPT_MASK, RX | TX);
        } else {
            self.registers.write(INTERRUPT_MASK, RX);
            self.registers.write(INTERRUPT_CLEAR, TX);
        }
    }
}

/// Sends a byte, and waits until it could.
pub(super) fn last_words(byte: u8) {
    // SAFETY: the data sheet has UART0 there. Its owner does not run any more.
    let registers = unsafe { Registers::new(UART0) };
    let mut uart = Pl011 { registers };
    while !uart.write(byte) {}
}
