//! The SMSC LAN9118 Ethernet controller, or LAN9220 on the board itself (data sheet LAN9118, revision 1.5).

use crate::board::ethernet::{Controller, FrameBuffer, MAX_FRAME};
use crate::mmio::Registers;

const RX_DATA: usize = 0x00;
const TX_DATA: usize = 0x20;
const RX_STATUS: usize = 0x40;
const TX_STATUS: usize = 0x48;
const INTERRUPT_CONFIG: usize = 0x54;
const INTERRUPT_STATUS: usize = 0x58;
const INTERRUPT_ENABLE: usize = 0x5c;
const FIFO_INTERRUPT: usize = 0x68;
const TX_CONFIG: usize = 0x70;
const HARDWARE_CONFIG: usize = 0x74;
const RX_FIFO: usize = 0x7c;
const TX_FIFO: usize = 0x80;
const POWER: usize = 0x84;
/// Frames lost since it was last read.
const RX_DROPPED: usize = 0xa0;
const MAC_COMMAND: usize = 0xa4;
const MAC_DATA: usize = 0xa8;

/// Registers of the MAC, behind `MAC_COMMAND`.
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;

/// Bits of `INTERRUPT_STATUS` and `INTERRUPT_ENABLE`: a frame is there, room to send is there.
const RX: u32 = 1 << 3;
const TX_ROOM: u32 = 1 << 9;

/// What a frame needs in the transmit FIFO: two words of commands, itself, and the rest of its last word.
const TX_NEEDED: u32 = (8 + MAX_FRAME as u32 + 3) & !3;

/// The controller.
#[derive(Debug)]
pub struct Lan9118 {
    registers: Registers,
    address: [u8; 6],
}

impl Lan9118 {
    pub(super) fn start(mut registers: Registers) -> Self {
        const READY: u32 = 1;
        const SOFT_RESET: u32 = 1;
        const MUST_BE_ONE: u32 = 1 << 20;
        const TX_FIFO_5_KB: u32 = 5 << 16;
        const PUSH_PULL: u32 = 1;
        const ACTIVE_HIGH: u32 = 1 << 4;
        const ENABLE: u32 = 1 << 8;
        const TX_ON: u32 = 1 << 1;
        const MAC_RX: u32 = 1 << 2;
        const MAC_TX: u32 = 1 << 3;
        const ALL_MULTICAST: u32 = 1 << 19;
        const FULL_DUPLEX: u32 = 1 << 20;
        registers.write(HARDWARE_CONFIG, SOFT_RESET);
        while registers.read(HARDWARE_CONFIG) & SOFT_RESET != 0
            || registers.read(POWER) & READY == 0
        {}
        registers.write(HARDWARE_CONFIG, MUST_BE_ONE | TX_FIFO_5_KB);
        // A frame is told of from the first; room to send, when there is so much of it, in units of 64 bytes.
        registers.write(FIFO_INTERRUPT, TX_NEEDED.div_ceil(64) << 24);
        registers.write(INTERRUPT_STATUS, u32::MAX);
        registers.write(INTERRUPT_ENABLE, RX);
        registers.write(INTERRUPT_CONFIG, ENABLE | ACTIVE_HIGH | PUSH_PULL);
        let low = read_mac(&mut registers, MAC_ADDRESS_LOW).to_le_bytes();
        let high = read_mac(&mut registers, MAC_ADDRESS_HIGH).to_le_bytes();
        let control = MAC_RX | MAC_TX | ALL_MULTICAST | FULL_DUPLEX;
        write_mac(&mut registers, MAC_CONTROL, control);
        registers.write(TX_CONFIG, TX_ON);
        Self {
            registers,
            address: [low[0], low[1], low[2], low[3], high[0], high[1]],
        }
    }
}

fn mac_command(registers: &mut Registers, command: u32) {
    const BUSY: u32 = 1 << 31;
    registers.write(MAC_COMMAND, BUSY | command);
    while registers.read(MAC_COMMAND) & BUSY != 0 {}
}

fn read_mac(registers: &mut Registers, register: u32) -> u32 {
    const READ: u32 = 1 << 30;
    mac_command(registers, READ | register);
    registers.read(MAC_DATA)
}

fn write_mac(registers: &mut Registers, register: u32, value: u32) {
    registers.write(MAC_DATA, value);
    mac_command(registers, register);
}

impl Controller for Lan9118 {
    const LEAD: usize = 0;

    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn has_frame(&mut self) -> bool {
        self.registers.read(RX_FIFO) >> 16 & 0xff != 0
    }

    fn take_frame(&mut self, buffer: &mut FrameBuffer) -> Option<usize> {
        let status = self.registers.read(RX_STATUS);
        let error = status & 1 << 15 != 0;
        let total = (status >> 16 & 0x3fff) as usize;
        let words = buffer.words();
        // All of it must be taken out, whether there is room for it or not.
        for index in 0..total.div_ceil(4) {
            let word = self.registers.read(RX_DATA);
            if let Some(room) = words.get_mut(index) {
                *room = word;
            }
        }
        // The check sequence is at the end.
        let len = total.checked_sub(4)?;
        (!error && (14..=MAX_FRAME).contains(&len)).then_some(len)
    }

    fn can_send(&mut self) -> bool {
        let state = self.registers.read(TX_FIFO);
        // How frames were sent must be taken out, or there is no room for more news in the end.
        for _ in 0..state >> 16 & 0xff {
            self.registers.read(TX_STATUS);
        }
        state & 0xffff >= TX_NEEDED
    }

    fn send(&mut self, buffer: &mut FrameBuffer, len: usize) {
        const FIRST: u32 = 1 << 13;
        const LAST: u32 = 1 << 12;
        let length = len as u32;
        self.registers.write(TX_DATA, FIRST | LAST | length);
        self.registers.write(TX_DATA, length);
        for &word in &buffer.words()[..len.div_ceil(4)] {
            self.registers.write(TX_DATA, word);
        }
    }

    fn acknowledge(&mut self, wake_for_room: bool) -> u32 {
        self.registers.write(INTERRUPT_STATUS, RX | TX_ROOM);
        let room = if wake_for_room { TX_ROOM } else { 0 };
        self.registers.write(INTERRUPT_ENABLE, RX | room);
        self.registers.read(RX_DROPPED)
    }
}
