//! The monotonic clock, and sleep: SysTick (ARMv7-M architecture reference manual, section B3.3).

use cortex_m::asm;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use smoltalk::Instant;

/// Counts the cycles of the processor since it was made.
///
/// SysTick counts 24 bits down and says when it has begun anew; so the time must be asked for, or slept, within
/// each round (0.3 seconds at 50 MHz). Interrupts stay masked for the whole run of the program: a pending one
/// ends `wfi` all the same, and what there is to do is found out in one place, by looking.
pub struct Clock {
    syst: SYST,
    /// Cycles in a microsecond.
    megahertz: u32,
    /// Cycles until SysTick last began a round.
    base: u64,
    /// Cycles in a round.
    round: u32,
}

/// The longest round.
const LONGEST: u32 = 1 << 24;

impl Clock {
    /// Starts at zero, on a processor that runs at `megahertz`.
    pub fn start(mut syst: SYST, megahertz: u32) -> Self {
        syst.set_clock_source(SystClkSource::Core);
        syst.enable_interrupt();
        let mut clock = Self {
            syst,
            megahertz,
            base: 0,
            round: LONGEST,
        };
        clock.begin_round(LONGEST);
        clock.syst.enable_counter();
        clock
    }

    /// The time since the start.
    pub fn now(&mut self) -> Instant {
        Instant::from_micros(self.cycles() / u64::from(self.megahertz))
    }

    /// Sleeps until `deadline`, or until a device wants something. `None`: only a device ends it, or the need
    /// to count a round.
    ///
    /// To be called with interrupts masked. A device whose interrupt came before the call ends it at once.
    pub fn sleep_until(&mut self, deadline: Option<Instant>) {
        SCB::clear_pendst();
        let now = self.now();
        let left = match deadline {
            None => u64::MAX,
            Some(deadline) if deadline <= now => return,
            Some(deadline) => {
                let micros = deadline.micros() - now.micros();
                // A deadline is far beyond a round before this overflows.
                micros.saturating_mul(u64::from(self.megahertz))
            }
        };
        let round_ends_in = u64::from(SYST::get_current());
        if left < round_ends_in {
            // Below the 24 bits that `round_ends_in` has. A round of one cycle stops the counter.
            self.cut_round((left as u32).max(64));
            asm::dsb();
            asm::wfi();
            self.cut_round(LONGEST);
        } else {
            asm::dsb();
            asm::wfi();
        }
    }

    fn cycles(&mut self) -> u64 {
        loop {
            self.count_round();
            let left = SYST::get_current();
            if !self.count_round() {
                // The counter reads 0 for one cycle, the first of a round.
                let gone = if left == 0 { 0 } else { self.round - left };
                return self.base + u64::from(gone);
            }
        }
    }

    /// Takes note if the counter has begun a round.
    fn count_round(&mut self) -> bool {
        let wrapped = self.syst.has_wrapped();
        if wrapped {
            self.base += u64::from(self.round);
        }
        wrapped
    }

    /// Ends the round here and begins another of `cycles`. What passes between the two is not counted, some ten
    /// cycles: so this is only done for deadlines nearer than the end of the round.
    fn cut_round(&mut self, cycles: u32) {
        self.base = self.cycles();
        self.begin_round(cycles);
    }

    fn begin_round(&mut self, cycles: u32) {
        self.round = cycles;
        self.syst.set_reload(cycles - 1);
        self.syst.clear_current();
    }
}
