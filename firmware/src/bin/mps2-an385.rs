//! The services on the board mps2-an385.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use smoltalk_firmware::app::{self, Memory};
use smoltalk_firmware::board::ethernet::Ethernet;
use smoltalk_firmware::board::mps2_an385::{Lan9118, start};
use static_cell::ConstStaticCell;

static MEMORY: ConstStaticCell<Memory<Ethernet<Lan9118>>> = ConstStaticCell::new(Memory::new());

#[entry]
fn main() -> ! {
    app::run(start(), MEMORY.take())
}
