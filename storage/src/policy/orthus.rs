//! The `orthus` baseline: random admission at a ratio found by slope following (non-hierarchical caching,
//! FAST'21). Kept as published, with the 50 ms step of the branch that its followers measure against.
//!
//! ```text
//!   measure r, r+1 %, r-1 % (50 ms each); the best one becomes r; for ever
//! ```
//! Waiting for a stable miss ratio is not part of this: the splitter sees hits only.

use super::{Completion, MILLIS, Nanos, Side};
use crate::random::Random;

const STEP: Nanos = 50 * MILLIS;

/// State of the baseline.
#[derive(Debug)]
pub struct Orthus {
    percent: i32,
    trial: usize,
    results: [u64; 3],
    bytes: u64,
    step_start: Nanos,
    random: Random,
}

/// Offsets of the three trials, in the order they are measured.
const OFFSETS: [i32; 3] = [0, 1, -1];

impl Default for Orthus {
    fn default() -> Self {
        Self { percent: 100, trial: 0, results: [0; 3], bytes: 0, step_start: 0, random: Random(0) }
    }
}

impl Orthus {
    pub(super) fn route(&mut self, now: Nanos) -> Side {
        if now.saturating_sub(self.step_start) >= STEP {
            self.advance(now);
        }
        let admitted = self.random.below(100) < u64::from(self.current().unsigned_abs());
        if admitted { Side::Cache } else { Side::Backend }
    }

    pub(super) fn completed(&mut self, done: &Completion) {
        if done.role.is_useful() {
            self.bytes += u64::from(done.len);
        }
    }

    fn current(&self) -> i32 {
        (self.percent + OFFSETS[self.trial]).clamp(0, 100)
    }

    fn advance(&mut self, now: Nanos) {
        let elapsed = (now - self.step_start).max(1);
        self.results[self.trial] = (u128::from(self.bytes) * 1_000_000_000 / u128::from(elapsed)) as u64;
        self.bytes = 0;
        self.step_start = now;
        self.trial += 1;
        if self.trial == OFFSETS.len() {
            self.trial = 0;
            let [middle, up, down] = self.results;
            if up > middle && up >= down {
                self.percent += 1;
            } else if down > middle {
                self.percent -= 1;
            }
            self.percent = self.percent.clamp(0, 100);
        }
    }
}
