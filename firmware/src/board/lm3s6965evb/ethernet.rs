//! The Stellaris Ethernet controller (data sheet, chapter 17). Frames go through two FIFOs of 2 KB, a word at a
//! time.

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::board::{FrameBuffer, Frames, MAX_FRAME, Mac, MacCounters};
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
pub struct Ethernet {
    registers: Registers,
    mac: [u8; 6],
    frames: &'static mut Frames,
    counters: MacCounters,
}

impl Ethernet {
    pub(super) fn start(
        mut registers: Registers,
        mac: [u8; 6],
        frames: &'static mut Frames,
    ) -> Self {
        const ENABLE: u32 = 1;
        const ALL_MULTICAST: u32 = 1 << 1;
        const REJECT_BAD_CRC: u32 = 1 << 3;
        const RESET_FIFO: u32 = 1 << 4;
        const PAD: u32 = 1 << 1;
        const APPEND_CRC: u32 = 1 << 2;
        const FULL_DUPLEX: u32 = 1 << 4;
        let [a, b, c, d, e, f] = mac;
        registers.write(INTERRUPT_MASK, 0);
        registers.write(RX_CONTROL, RESET_FIFO);
        registers.write(ADDRESS_0, u32::from_le_bytes([a, b, c, d]));
        registers.write(ADDRESS_1, u32::from_le_bytes([e, f, 0, 0]));
        // A frame is sent when it is whole.
        registers.write(THRESHOLD, 0x3f);
        registers.write(TX_CONTROL, ENABLE | PAD | APPEND_CRC | FULL_DUPLEX);
        registers.write(RX_CONTROL, ENABLE | ALL_MULTICAST | REJECT_BAD_CRC);
        registers.write(INTERRUPT_MASK, RX | OVERRUN);
        Self {
            registers,
            mac,
            frames,
            counters: MacCounters::default(),
        }
    }

    /// Takes the next frame out of the FIFO into `rx`, and returns its length. `None`: it is none to hand on.
    fn take_frame(&mut self) -> Option<usize> {
        // Before the frame: half a word with the length of everything; after it: the check sequence.
        let first = self.registers.read(DATA);
        let total = (first & 0xffff) as usize;
        let words = self.frames.rx.words();
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

    fn can_send(&self) -> bool {
        self.registers.read(TX_REQUEST) & 1 == 0
    }
}

impl Mac for Ethernet {
    fn address(&self) -> [u8; 6] {
        self.mac
    }

    fn listen(&mut self, wake_for_room: bool) -> bool {
        let status = self.registers.read(STATUS);
        if status & OVERRUN != 0 {
            self.counters.overrun += 1;
        }
        self.registers.write(
            STATUS,
            status & (RX | TX_ERROR | TX_EMPTY | OVERRUN | RX_ERROR),
        );
        let room = if wake_for_room { TX_EMPTY } else { 0 };
        self.registers.write(INTERRUPT_MASK, RX | OVERRUN | room);
        // Looked for after the acknowledgement: a frame that came between the two is seen here.
        self.registers.read(PACKETS) != 0 || wake_for_room && self.can_send()
    }

    fn counters(&self) -> MacCounters {
        self.counters
    }
}

impl Device for Ethernet {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        // A frame is taken in only when its answer could be sent.
        while self.registers.read(PACKETS) != 0 && self.can_send() {
            let Some(len) = self.take_frame() else {
                self.counters.malformed += 1;
                continue;
            };
            self.counters.received += 1;
            let frame = &self.frames.rx.bytes()[2..2 + len];
            let tx = TxToken {
                registers: &mut self.registers,
                buffer: &mut self.frames.tx,
                sent: &mut self.counters.sent,
            };
            return Some((RxToken(frame), tx));
        }
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        self.can_send().then_some(TxToken {
            registers: &mut self.registers,
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
pub struct TxToken<'a> {
    registers: &'a mut Registers,
    buffer: &'a mut FrameBuffer,
    sent: &'a mut u32,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let bytes = self.buffer.bytes();
        let result = f(&mut bytes[2..2 + len]);
        // The first half word is the length without the header.
        let length = (len as u16).saturating_sub(14);
        bytes[..2].copy_from_slice(&length.to_le_bytes());
        for &word in &self.buffer.words()[..(2 + len).div_ceil(4)] {
            self.registers.write(DATA, word);
        }
        self.registers.write(TX_REQUEST, 1);
        *self.sent += 1;
        result
    }
}
