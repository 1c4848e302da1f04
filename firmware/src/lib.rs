//! smoltalk's services on microcontrollers, with nothing underneath: no operating system, no heap.
//!
//! A binary for each board starts it ([`board`]) and hands it to [`app::run`], which is the same for all.
#![no_std]

pub mod app;
pub mod board;
pub mod clock;
mod config;
pub mod console;
mod fault;
mod memmove;
mod mmio;
mod paint;
mod print;

/// A place in the vector table.
type Vector = unsafe extern "C" fn();

unsafe extern "C" {
    /// See `fault`.
    fn DefaultHandler();
}

/// What the processor calls when an interrupt of the part comes: nothing, since interrupts are masked from the
/// program's first step to its last. So one entry, which cortex-m-rt asks for, stands for all.
// SAFETY: this is where cortex-m-rt's linker script looks for the table, and what the processor reads there.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [Vector; 1] = [DefaultHandler];
