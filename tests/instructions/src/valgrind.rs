//! Tells valgrind from where to where to count.

use core::arch::asm;

/// Counts the instructions of `f`, under `valgrind --tool=callgrind --instr-atstart=no`. Elsewhere it only calls `f`.
#[inline(never)]
pub fn count(f: impl FnOnce()) {
    request(START_INSTRUMENTATION);
    f();
    request(STOP_INSTRUMENTATION);
}

// From callgrind.h: the tool's requests begin at 'C' and 'T' in the two upper bytes.
const START_INSTRUMENTATION: u64 = 0x4354_0004;
const STOP_INSTRUMENTATION: u64 = 0x4354_0005;

/// A client request, as valgrind.h makes it for x86-64.
fn request(number: u64) {
    let request = [number, 0, 0, 0, 0, 0];
    // SAFETY: on a processor these are four rotations that add up to no change of `rdi`, and an exchange of `rbx` with
    // itself. valgrind knows them, reads the six words that `rax` points to, and writes its answer to `rdx`.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const request,
            inout("rdx") 0_u64 => _,
        );
    }
}
