//! How a rank waits: spin, then yield, then sleep on the peer's pidfd, and never longer than allowed.
//!
//! ```text
//!   spinning ──few µs──▶ yielding ──4 ms──▶ sleeping 1/8 of the time waited (at most 10 ms)
//!      ▲                    │  every ms: is the peer alive, are all words sane, is it too late?
//!      └──── progress ──────┴──────────────▶ PeerLost · Timeout · Corrupt · Poisoned
//! ```
//! The waker does nothing for a sleeper: posting stays one plain store, and no wake-up can get lost.
//! The price is a delay of an eighth of the time already waited, after 4 ms.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::Result;
use crate::{liveness, sys};

const SLEEP_AFTER: Duration = Duration::from_millis(4);
const SLEEP_MAX: Duration = Duration::from_millis(10);
const AUDIT_EVERY: Duration = Duration::from_millis(1);
const YIELDS_PER_CLOCK: u32 = 8;

/// The state of one wait.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    turns: u32,
    since: Option<Instant>,
    audited: Option<Instant>,
    ticks: u64,
}

impl Pause {
    /// One turn of a wait that found nothing new.
    ///
    /// # Errors
    /// The fault that ends the wait.
    #[inline]
    pub(crate) fn turn(&mut self, core: &Core) -> Result<()> {
        if core.ticks() != self.ticks {
            *self = Self { ticks: core.ticks(), ..Self::default() };
        }
        self.turns += 1;
        if self.turns < core.spin_turns() {
            std::hint::spin_loop();
            return Ok(());
        }
        self.slow_turn(core)
    }

    #[cold]
    fn slow_turn(&mut self, core: &Core) -> Result<()> {
        core.check_fault()?; // an operation in another lane may have failed meanwhile
        sys::yield_now();
        if self.since.is_some() && !self.turns.is_multiple_of(YIELDS_PER_CLOCK) {
            return Ok(());
        }
        let now = Instant::now();
        let waited = now - *self.since.get_or_insert(now);
        if now - *self.audited.get_or_insert(now) < AUDIT_EVERY {
            return Ok(());
        }
        self.audited = Some(now);
        core.audit(waited)?;
        if waited > SLEEP_AFTER {
            let left = core.timeout().saturating_sub(waited);
            let nap = (waited / 8).min(SLEEP_MAX).min(left);
            liveness::sleep_watching(core.awaited_process(), nap);
            // The next turn looks at the clock again.
            self.turns = self.turns.next_multiple_of(YIELDS_PER_CLOCK) - 1;
        }
        Ok(())
    }

    /// A turn for `test`: never yields or sleeps, but notices faults.
    pub(crate) fn glance(&mut self, core: &Core) -> Result<()> {
        if core.ticks() != self.ticks {
            *self = Self { ticks: core.ticks(), ..Self::default() };
        }
        let now = Instant::now();
        let waited = now - *self.since.get_or_insert(now);
        if now - *self.audited.get_or_insert(now) >= AUDIT_EVERY {
            self.audited = Some(now);
            core.audit(waited)?;
        }
        Ok(())
    }
}
