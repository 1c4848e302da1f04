//! Registers of devices.

/// The 4 KB in which a device has its registers, 32 bits each.
#[derive(Debug)]
pub struct Registers {
    base: *mut u32,
}

// SAFETY: registers are the same from wherever they are used; the device is used by one owner at a time.
unsafe impl Send for Registers {}

impl Registers {
    /// How many bytes of addresses a device has.
    const LEN: usize = 0x1000;

    /// The registers from address `base` on.
    ///
    /// # Safety
    /// From `base` to `base + 4095` there is a device: reading and writing there changes nothing in memory,
    /// and nobody else does it as long as this value lives.
    pub const unsafe fn new(base: usize) -> Self {
        Self {
            base: base as *mut u32,
        }
    }

    /// Reads the register `offset` bytes from the base.
    pub fn read(&self, offset: usize) -> u32 {
        let register = self.register(offset);
        // SAFETY: it is a register of the device, by the contract of `new` and the check in `register`.
        unsafe { register.read_volatile() }
    }

    /// Writes the register `offset` bytes from the base.
    pub fn write(&mut self, offset: usize, value: u32) {
        let register = self.register(offset);
        // SAFETY: it is a register of the device, by the contract of `new` and the check in `register`.
        unsafe { register.write_volatile(value) }
    }

    /// Reads a register and writes what `change` makes of it.
    pub fn modify(&mut self, offset: usize, change: impl FnOnce(u32) -> u32) {
        let value = self.read(offset);
        self.write(offset, change(value));
    }

    /// With `offset` known at compile time, as they all are, nothing of the check is left.
    #[inline(always)]
    fn register(&self, offset: usize) -> *mut u32 {
        assert!(offset < Self::LEN && offset.is_multiple_of(4));
        self.base.wrapping_byte_add(offset)
    }
}
