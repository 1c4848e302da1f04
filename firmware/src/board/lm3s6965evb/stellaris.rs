//! The Stellaris Ethernet controller (data sheet, chapter 17). Frames go through two FIFOs of 2 KB, a word at a
//! time.

use crate::board::ethernet::{Controller, FrameBuffer, MAX_FRAME};
use crate::mmio::Registers;

/// Read: what happened. Written: what of it is seen to.
const STATUS: usize = 0x00;
const INTERRUPT_MASK: usize = 0x04;
const RX_CONTROL: usize = 0x08;
const TX_CONTROL: usize = 0x0c;
const DATA: usize = 0x10;
const ADDRESS_0: usize = 0x14;
const ADDRESS_1: usize = 0x18;
const THRESHOLD: usize = 0x1c;
/// Frames in the receive FIFO.
const PACKETS: usize = 0x34;
/// 1 as long as a frame is being sent.
const TX_REQUEST: usize = 0x38;

/// Bits of `STATUS` and `INTERRUPT_MASK`.
const RX: u32 = 1;
const TX_ERROR: u32 = 1 << 1;
const TX_EMPTY: u32 = 1 << 2;
const OVERRUN: u32 = 1 << 3;
const RX_ERROR: u32 = 1 << 4;

/// The controller.
#[derive(Debug)]
pub struct Stellaris {
    registers: Registers,
    address: [u8; 6],
}

impl Stellaris {
    pub(super) fn start(mut registers: Registers, address: [u8; 6]) -> Self {
        const ENABLE: u32 = 1;
        const ALL_MULTICAST: u32 = 1 << 1;
        const REJECT_BAD_CRC: u32 = 1 << 3;
        const RESET_FIFO: u32 = 1 << 4;
        const PAD: u32 = 1 << 1;
        const APPEND_CRC: u32 = 1 << 2;
        const FULL_DUPLEX: u32 = 1 << 4;
        let [a, b, c, d, e, f] = address;
        registers.write(INTERRUPT_MASK, 0);
        registers.write(RX_CONTROL, RESET_FIFO);
        registers.write(ADDRESS_0, u32::from_le_bytes([a, b, c, d]));
        registers.write(ADDRESS_1, u32::from_le_bytes([e, f, 0, 0]));
        // A frame is sent when it is whole.
        registers.write(THRESHOLD, 0x3f);
        registers.write(TX_CONTROL, ENABLE | PAD | APPEND_CRC | FULL_DUPLEX);
        registers.write(RX_CONTROL, ENABLE | ALL_MULTICAST | REJECT_BAD_CRC);
        registers.write(INTERRUPT_MASK, RX | OVERRUN);
        Self { registers, address }
    }
}

impl Controller for Stellaris {
    /// Half a word with a length.
    const LEAD: usize = 2;

    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn has_frame(&mut self) -> bool {
        self.registers.read(PACKETS) != 0
    }

    fn take_frame(&mut self, buffer: &mut FrameBuffer) -> Option<usize> {
        // Before the frame: the length of everything; after it: the check sequence.
        let first = self.registers.read(DATA);
        let total = (first & 0xffff) as usize;
        let words = buffer.words();
        if let Some(word) = words.first_mut() {
            *word = first;
        }
        // All of it must be taken out, whether there is room for it or not.
        for index in 1..total.div_ceil(4) {
            let word = self.registers.read(DATA);
            if let Some(room) = words.get_mut(index) {
                *room = word;
            }
        }
        let len = total.checked_sub(2 + 4)?;
        (14..=MAX_FRAME).contains(&len).then_some(len)
    }

    fn can_send(&mut self) -> bool {
        self.registers.read(TX_REQUEST) & 1 == 0
    }

    fn send(&mut self, buffer: &mut FrameBuffer, len: usize) {
        // Before the frame: its length without the header.
        let length = (len as u16).saturating_sub(14);
        buffer.bytes()[..2].copy_from_slice(&length.to_le_bytes());
        for &word in &buffer.words()[..(2 + len).div_ceil(4)] {
            self.registers.write(DATA, word);
        }
        self.registers.write(TX_REQUEST, 1);
    }

    fn acknowledge(&mut self, wake_for_room: bool) -> u32 {
        let status = self.registers.read(STATUS);
        self.registers.write(
            STATUS,
            status & (RX | TX_ERROR | TX_EMPTY | OVERRUN | RX_ERROR),
        );
        let room = if wake_for_room { TX_EMPTY } else { 0 };
        self.registers.write(INTERRUPT_MASK, RX | OVERRUN | room);
        // It does not count: some frames were lost, and that is one.
        u32::from(status & OVERRUN != 0)
    }
}
