//! How much of the stack was ever used: cortex-m-rt paints it before the program starts.

use cortex_m_rt::heap_start;

/// What cortex-m-rt's `paint-stack` paints with.
const PAINT: u32 = 0xcccc_cccc;

unsafe extern "C" {
    /// The linker's name for the end of the RAM, where the stack begins and from where it grows down.
    static _stack_start: u32;
}

/// Bytes from the beginning of the stack to the farthest word that was ever written.
pub fn peak() -> usize {
    let top = &raw const _stack_start;
    // Without a heap the stack ends where one would begin.
    let mut word = heap_start().cast_const();
    // SAFETY: `word` is a word between the end of the static data and the beginning of the stack, so it is in
    // RAM; no Rust value is there, or if one is, it is read as mere bits.
    while word < top && unsafe { word.read_volatile() } == PAINT {
        word = word.wrapping_add(1);
    }
    top.addr() - word.addr()
}
