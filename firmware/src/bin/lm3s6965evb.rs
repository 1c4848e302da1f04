//! The services on the board lm3s6965evb.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use smoltalk_firmware::app::{self, Memory};
use smoltalk_firmware::board::ethernet::Ethernet;
use smoltalk_firmware::board::lm3s6965evb::{Stellaris, start};
use static_cell::ConstStaticCell;

static MEMORY: ConstStaticCell<Memory<Ethernet<Stellaris>>> = ConstStaticCell::new(Memory::new());

#[entry]
fn main() -> ! {
    app::run(start(), MEMORY.take())
}
