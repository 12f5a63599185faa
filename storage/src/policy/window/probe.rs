//! Duplicates: reads at the backend that only tell how fast it is while it gets no hits.
//!
//! ```text
//!   single:  every 200 ms or 5 s    took much less time than those before it, as often as was needed: the backend has recovered
//!   compare: one after another      what a link sustains, beside what the cache does, for readers that come alone
//! ```
//! Nobody waits for either. It does not send them; the daemon does, on [`crate::policy::Route::Probe`].

use crate::policy::{MILLIS, Nanos, SECOND};

/// Time between single duplicates: within a minute after the backend was useful, and later.
const HOPEFUL: Nanos = 200 * MILLIS;
const IDLE: Nanos = 5 * SECOND;
const HOPE: Nanos = 60 * SECOND;
/// Duplicates of one epoch that compares: enough for a link to run out of what it saved up for bursts.
const COMPARE: u32 = 16;
/// Fast answers in a row that make a recovery, at most.
const MOST_IN_ROW: u32 = 8;

#[derive(Debug)]
pub(super) struct Probe {
    last: Nanos,
    /// When a hit was last spilled.
    useful: Nanos,
    /// What single duplicates took lately.
    known: Nanos,
    /// How many were faster, and how many are needed: twice as many after each recovery that was none.
    in_row: u32,
    needed: u32,
    compared: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self { last: 0, useful: 0, known: 0, in_row: 0, needed: 1, compared: 0 }
    }
}

impl Probe {
    /// A hit went to the backend.
    pub(super) fn spilled(&mut self, now: Nanos) {
        self.useful = now;
    }

    /// Whether a duplicate is due at a target that is idle and was `heard` last at that time; the caller sends it if so.
    /// `compare`: the search wants to compare the sides.
    pub(super) fn is_due(&mut self, now: Nanos, heard: Nanos, compare: bool) -> bool {
        let compare = compare && self.compared < COMPARE;
        let hopeful = now.saturating_sub(self.useful) < HOPE;
        let every = if hopeful { HOPEFUL } else { IDLE };
        let due = compare || now.saturating_sub(heard.max(self.last)) >= every;
        if due {
            self.last = now;
            self.compared += u32::from(compare);
        }
        due
    }

    /// The next epoch begins. `pays`: the backend is known to add to what readers get.
    pub(super) fn next_epoch(&mut self, pays: bool) {
        self.compared = 0;
        if pays {
            self.needed = 1;
        }
    }

    /// A single duplicate was answered. Returns whether the backend has recovered. Those of an epoch that compares are not to
    /// be told of: they are slower where a link saves up for bursts.
    pub(super) fn answered(&mut self, latency: Nanos) -> bool {
        if self.known == 0 || latency * 3 >= self.known * 2 {
            self.in_row = 0;
            self.known = if self.known == 0 { latency } else { (self.known * 7 + latency) / 8 };
            return false;
        }
        self.in_row += 1;
        let recovered = self.in_row >= self.needed;
        if recovered {
            (self.known, self.in_row) = (latency, 0);
            self.needed = (self.needed * 2).min(MOST_IN_ROW);
        }
        recovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_told_once() {
        let mut probe = Probe::default();
        assert!((0..20).all(|_| !probe.answered(30 * MILLIS)));
        assert!(!probe.answered(25 * MILLIS), "a little faster");
        assert!(probe.answered(3 * MILLIS));
        assert!(!probe.answered(3 * MILLIS));
    }

    #[test]
    fn lucky_answers_are_seldom_taken_for_a_recovery_and_a_real_one_is_seen_at_once_where_it_paid() {
        let (mut probe, mut random) = (Probe::default(), crate::random::Random(5));
        let told = (0..1000).filter(|_| probe.answered((1 + random.below(19)) * MILLIS)).count();
        assert!(told <= 6, "{told} of 1000");
        assert!((0..20).all(|_| !probe.answered(30 * MILLIS)));
        assert_eq!((0..20).position(|_| probe.answered(3 * MILLIS)), Some(7));
        probe.next_epoch(true);
        assert!((0..20).all(|_| !probe.answered(30 * MILLIS)));
        assert_eq!((0..20).position(|_| probe.answered(3 * MILLIS)), Some(0));
    }

    #[test]
    fn comparing_takes_sixteen_at_once_and_hope_one_in_200_ms() {
        let mut probe = Probe::default();
        let due =
            |probe: &mut Probe, compare| (1..=100).filter(|i| probe.is_due(i * MILLIS, 0, compare)).count();
        assert_eq!(due(&mut probe, true), 16);
        assert_eq!(due(&mut probe, true), 0);
        probe.next_epoch(false);
        assert_eq!(due(&mut probe, true), 16);
        let times = (100..1100).filter(|i| probe.is_due(i * MILLIS, 0, false)).count();
        assert_eq!(times, 5);
        let times = (100_000..110_000).filter(|i| probe.is_due(i * MILLIS, 0, false)).count();
        assert_eq!(times, 2, "long after it was useful");
    }
}
