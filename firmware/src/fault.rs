//! Last words: what is reported, and how, when the program cannot go on.

use core::cell::Cell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
use critical_section::Mutex;

use crate::print::{Hex, Number, Plain, count};

/// Sends one byte, and waits until it could.
type Write1 = fn(u8);

static UART: Mutex<Cell<Option<Write1>>> = Mutex::new(Cell::new(None));

/// Says where reports go. Until then they go nowhere.
pub fn report_to(uart: Write1) {
    critical_section::with(|token| UART.borrow(token).set(Some(uart)));
}

/// Ends the program. Under QEMU or a debugger, with an exit code; otherwise the processor stops, and only a
/// reset or a watchdog starts it again.
pub fn exit(success: bool) -> ! {
    #[cfg(feature = "semihosting")]
    {
        use cortex_m_semihosting::debug::{EXIT_FAILURE, EXIT_SUCCESS, exit};
        exit(if success { EXIT_SUCCESS } else { EXIT_FAILURE });
    }
    let _ = success;
    cortex_m::interrupt::disable();
    loop {
        cortex_m::asm::wfi();
    }
}

/// The UART, written to without regard to what else is waiting for it.
struct LastWords;

impl Write for LastWords {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let uart = critical_section::with(|token| UART.borrow(token).get());
        if let Some(write) = uart {
            for byte in text.bytes() {
                if byte == b'\n' {
                    write(b'\r');
                }
                write(byte);
            }
        }
        Ok(())
    }
}

// Where, and not what: the messages of all the checks in the libraries, and the code to format them, take 9 KB.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // There is no error, and nobody to tell of it.
    let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
    let _ = writeln!(LastWords, "\npanic at {}:{}", Plain(file), count(line));
    exit(false)
}

// SAFETY: it does not return, so it does not matter in what state it finds things.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    let _ = writeln!(
        LastWords,
        "\nhard fault at {}, called from {}, r0 to r3 {} {} {} {}",
        Hex(frame.pc()),
        Hex(frame.lr()),
        Hex(frame.r0()),
        Hex(frame.r1()),
        Hex(frame.r2()),
        Hex(frame.r3())
    );
    exit(false)
}

// SAFETY: as above.
#[exception]
unsafe fn DefaultHandler(number: i16) -> ! {
    // Interrupts are masked and only ever end a sleep, so this is one of the faults.
    let _ = writeln!(LastWords, "\nexception {}", Number(number.into()));
    exit(false)
}
