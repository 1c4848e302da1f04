//! The APB UART of Arm's Cortex-M system design kit (DDI 0479, section 4.3).

use crate::console::Uart;
use crate::mmio::Registers;

/// Where UART 0 is.
pub(super) const UART0: usize = 0x4000_4000;

const DATA: usize = 0x00;
const STATE: usize = 0x04;
const TX_FULL: u32 = 1;
const RX_FULL: u32 = 1 << 1;
const CONTROL: usize = 0x08;
const TX: u32 = 1;
const RX: u32 = 1 << 1;
const TX_INTERRUPT: u32 = 1 << 2;
const RX_INTERRUPT: u32 = 1 << 3;
const INTERRUPT_CLEAR: usize = 0x0c;
const BAUD_DIVIDER: usize = 0x10;

/// A UART at 115,200 baud, 8 bits, no parity.
#[derive(Debug)]
pub struct Cmsdk {
    registers: Registers,
}

impl Cmsdk {
    pub(super) fn start(mut registers: Registers, hertz: u32) -> Self {
        registers.write(BAUD_DIVIDER, hertz / 115_200);
        registers.write(CONTROL, TX | RX | RX_INTERRUPT);
        Self { registers }
    }
}

impl Uart for Cmsdk {
    fn write(&mut self, byte: u8) -> bool {
        let room = self.registers.read(STATE) & TX_FULL == 0;
        if room {
            self.registers.write(DATA, byte.into());
        }
        room
    }

    fn read(&mut self) -> Option<u8> {
        self.registers.write(INTERRUPT_CLEAR, 1 << 1);
        let full = self.registers.read(STATE) & RX_FULL != 0;
        full.then(|| self.registers.read(DATA) as u8)
    }

    fn wake_for_room(&mut self, wake: bool) {
        let tx_interrupt = if wake { TX_INTERRUPT } else { 0 };
        self.registers
            .write(CONTROL, TX | RX | RX_INTERRUPT | tx_interrupt);
        self.registers.write(INTERRUPT_CLEAR, 1);
    }
}

/// Sends a byte, and waits until it could.
pub(super) fn last_words(byte: u8) {
    // SAFETY: AN385 has UART 0 there. Its owner does not run any more.
    let registers = unsafe { Registers::new(UART0) };
    let mut uart = Cmsdk { registers };
    while !uart.write(byte) {}
}
