//! Lines on the UART that never hold up anybody, and commands from it.

use core::fmt::{self, Write};

use heapless::Deque;

use crate::print::count;

/// A serial port.
pub trait Uart {
    /// Sends `byte`, if there is room for it now.
    fn write(&mut self, byte: u8) -> bool;

    /// What was received.
    fn read(&mut self) -> Option<u8>;

    /// Whether there is to be an interrupt when there is room to send. (For a received byte there always is.)
    fn wake_for_room(&mut self, wake: bool);
}

/// What waits to be sent, in bytes: the longest chat message, shown, as long as it is plain text.
const WAITING: usize = 1536;

/// Sends lines in the background. One that does not fit is cut, since waiting would let whoever makes us write
/// decide how long we do nothing else.
pub struct Console<U> {
    uart: U,
    waiting: &'static mut Waiting,
    /// Bytes cut off since the last line that had room.
    cut: u32,
}

/// The memory of a [`Console`].
pub type Waiting = Deque<u8, WAITING>;

impl<U: Uart> Console<U> {
    /// A console on `uart`.
    pub fn new(uart: U, waiting: &'static mut Waiting) -> Self {
        Self {
            uart,
            waiting,
            cut: 0,
        }
    }

    /// Writes a line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        // There is no error: what has no room is cut.
        let _ = writeln!(self, "{line}");
    }

    /// Sends what the UART takes now, and sees to it that the rest goes later.
    pub fn flush(&mut self) {
        while let Some(&byte) = self.waiting.front() {
            if !self.uart.write(byte) {
                break;
            }
            self.waiting.pop_front();
        }
        self.uart.wake_for_room(!self.waiting.is_empty());
    }

    /// Sends everything, however long it takes.
    pub fn drain(&mut self) {
        while !self.waiting.is_empty() {
            self.flush();
        }
    }

    /// The next byte that somebody typed.
    pub fn read(&mut self) -> Option<u8> {
        self.uart.read()
    }
}

impl<U: Uart> Write for Console<U> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        /// Room for the news of what was cut.
        const NEWS: usize = 24;
        if self.cut > 0 && self.waiting.capacity() - self.waiting.len() > 4 * NEWS {
            let cut = core::mem::take(&mut self.cut);
            writeln!(self, "[{} bytes cut]", count(cut))?;
        }
        for byte in text.bytes() {
            let needed = if byte == b'\n' { 2 } else { 1 };
            if self.cut > 0 || self.waiting.capacity() - self.waiting.len() < needed + NEWS {
                self.cut += 1;
                continue;
            }
            if byte == b'\n' {
                let _ = self.waiting.push_back(b'\r');
            }
            // There is room: it was just looked for.
            let _ = self.waiting.push_back(byte);
        }
        Ok(())
    }
}
