//! `memmove`, small. The one of the compiler's library is fast and takes 1,600 bytes of flash, and what is moved here
//! over itself is a few dozen bytes now and then: what is copied is copied by `memcpy`, which stays the library's.
//!
//! In assembly, since a compiler that sees such a loop makes a call of `memmove` of it.

core::arch::global_asm!(
    ".section .text.memmove, \"ax\", %progbits",
    ".global memmove",
    ".global __aeabi_memmove",
    ".global __aeabi_memmove4",
    ".global __aeabi_memmove8",
    ".thumb_func",
    "memmove:",
    ".thumb_func",
    "__aeabi_memmove:",
    ".thumb_func",
    "__aeabi_memmove4:",
    ".thumb_func",
    "__aeabi_memmove8:",
    // r0: where to, and what is returned; r1: where from; r2: how many bytes.
    "   cmp     r0, r1",
    "   bhi     2f",
    // From the first byte to the last: nothing that is still to be read is written over.
    "   mov     r12, r0",
    "1: subs    r2, #1",
    "   bmi     3f",
    "   ldrb    r3, [r1], #1",
    "   strb    r3, [r12], #1",
    "   b       1b",
    // From the last to the first.
    "2: subs    r2, #1",
    "   bmi     3f",
    "   ldrb    r3, [r1, r2]",
    "   strb    r3, [r0, r2]",
    "   b       2b",
    "3: bx      lr",
    ".text",
);
