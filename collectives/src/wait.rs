//! How a rank waits: spin, then yield, then sleep on the peer's pidfd, and never longer than allowed.
//!
//! ```text
//!   spinning ──few µs──▶ yielding ──4 ms──▶ sleeping 1/8 of the time waited (at most 10 ms)
//!      ▲                    │  every ms: is the peer alive, are all words sane, is it too late?
//!      └──── progress ──────┴──────────────▶ PeerLost · Timeout · Corrupt · Poisoned
//! ```
//! The waker does nothing for a sleeper: posting stays one plain store, and no wake-up can get lost.
//! The price is a delay of an eighth of the time already waited, after 4 ms.
//!
//! [`Pause`] paces whoever polls: anything that moves anywhere makes it spin again. [`Watch`] belongs to one waiter, a lane or a
//! blocking call, and gives its own peer up: what others do meanwhile is no sign of life of that peer.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::{liveness, sys};

const SLEEP_AFTER: Duration = Duration::from_millis(4);
const SLEEP_MAX: Duration = Duration::from_millis(10);
const AUDIT_EVERY: Duration = Duration::from_millis(1);
const YIELDS_PER_CLOCK: u32 = 8;
/// The clock is looked at after so many turns also where something moves all the time.
const TURNS_PER_CLOCK: u32 = 5000;

/// The pace of one who polls.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    turns: u32,
    /// Turns since the clock was looked at, progress or not.
    unclocked: u32,
    since: Option<Instant>,
    audited: Option<Instant>,
    ticks: u64,
}

impl Pause {
    /// One turn after a poll that found nothing new; the time, when an audit is due.
    ///
    /// # Errors
    /// The fault that another operation had meanwhile.
    #[inline]
    pub(crate) fn turn(&mut self, core: &Core) -> Result<Option<Instant>> {
        if core.ticks() != self.ticks {
            (self.ticks, self.turns, self.since) = (core.ticks(), 0, None);
        }
        self.turns += 1;
        self.unclocked += 1;
        if self.turns < core.spin_turns() && self.unclocked < TURNS_PER_CLOCK {
            std::hint::spin_loop();
            return Ok(None);
        }
        self.slow_turn(core)
    }

    #[cold]
    fn slow_turn(&mut self, core: &Core) -> Result<Option<Instant>> {
        core.check_fault()?; // an operation in another lane may have failed meanwhile
        if self.turns >= core.spin_turns() {
            sys::yield_now();
            let early = !self.turns.is_multiple_of(YIELDS_PER_CLOCK) && self.unclocked < TURNS_PER_CLOCK;
            if self.since.is_some() && early {
                return Ok(None);
            }
        }
        self.unclocked = 0;
        let now = Instant::now();
        self.since.get_or_insert(now);
        Ok(self.audit_is_due(now).then_some(now))
    }

    /// Whether the last audit was long enough ago; then the next one is now.
    pub(crate) fn audit_is_due(&mut self, now: Instant) -> bool {
        let due = now - *self.audited.get_or_insert(now) >= AUDIT_EVERY;
        if due {
            self.audited = Some(now);
        }
        due
    }

    /// Sleeps a little when nothing has moved for a while.
    pub(crate) fn nap(&mut self, core: &Core, now: Instant) {
        let waited = self.since.map_or(Duration::ZERO, |since| now - since);
        if waited > SLEEP_AFTER {
            let left = core.timeout().saturating_sub(waited);
            let nap = (waited / 8).min(SLEEP_MAX).min(left);
            liveness::sleep_watching(core.process(core.awaited()), nap);
            // The next turn looks at the clock again.
            self.turns = self.turns.next_multiple_of(YIELDS_PER_CLOCK) - 1;
        }
    }
}

/// Whom one waiter waits for, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    moved: bool,
    /// The rank, and what had been heard of it at the last audit.
    awaited: Option<(usize, u64)>,
    since: Option<Instant>,
    /// The rank was found dead, or to have left, at the last audit.
    condemned: bool,
}

impl Watch {
    /// The waiter was polled and is not done; `ticks` are those before.
    #[inline]
    pub(crate) fn polled(&mut self, core: &Core, ticks: u64) {
        self.moved |= core.ticks() != ticks;
        let rank = core.awaited();
        if self.awaited.is_none_or(|(known, _)| known != rank) {
            (self.moved, self.awaited) = (true, Some((rank, core.heard(rank))));
        }
    }

    /// The waiter is done.
    #[inline]
    pub(crate) fn done(&mut self) {
        *self = Self::default();
    }

    /// Looks for a reason to give the wait up. All waiters were polled since the last audit.
    ///
    /// A peer may post its last step and exit or free the communicator at once, so a dead peer gets one more look: it is lost when
    /// the wait, polled again after the death was noticed, has not moved. A peer that lives is late when nothing was heard of it for the timeout,
    /// in this wait or in another.
    pub(crate) fn audit(&mut self, core: &Core, now: Instant) -> Result<()> {
        let Some((rank, heard)) = self.awaited else { return Ok(()) };
        if self.moved || core.heard(rank) != heard {
            *self = Self { awaited: Some((rank, core.heard(rank))), ..Self::default() };
        }
        if now - *self.since.get_or_insert(now) > core.timeout() {
            return Err(Error::Timeout { rank, millis: core.timeout().as_millis() as u64 });
        }
        let gone = rank != core.rank() && core.is_lost(rank);
        if gone && self.condemned {
            return Err(Error::PeerLost { rank });
        }
        self.condemned = gone;
        Ok(())
    }
}
