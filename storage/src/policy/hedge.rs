//! Hedged reads: a hit that takes longer than nearly all others of its kind is read at the other copy too, and the first answer
//! counts (Dean, Barroso, "The tail at scale", CACM 2013). It helps the tail, not the mean, and costs reads, so it has a
//! budget: a share of the hits, no more than a few of it saved up.
//!
//! ```text
//!   arrived()                  each hit puts its share of a read into the budget
//!   deadline(side, len)        what all but that share of the side's reads of that size class keep; none until enough was seen
//!   spend()                    takes a read out of the budget, or says no
//! ```
//! It does not know which reads are under way: who does asks for their deadlines.

use super::window::{CLASSES, class_of};
use super::{Completion, Nanos, Role, Side};

/// Completions before a percentile is believed.
const ENOUGH: u32 = 200;
/// How far one read moves a percentile.
const STEP: f64 = 0.05;
/// Hedges that may be saved up.
const SAVED: f64 = 8.0;

/// A percentile that follows what it is told: each read moves it up or down by a step, in such a proportion that it rests
/// where the wanted share of them lies above.
#[derive(Clone, Copy, Debug, Default)]
struct Percentile {
    value: f64,
    seen: u32,
}

impl Percentile {
    fn add(&mut self, latency: Nanos, above: f64) {
        let latency = latency as f64;
        self.seen = self.seen.saturating_add(1);
        if self.seen <= 16 {
            self.value = self.value.max(latency);
        } else if latency > self.value {
            self.value *= 1.0 + STEP * (1.0 - above);
        } else {
            self.value *= 1.0 - STEP * above;
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hedges {
    share: f64,
    budget: f64,
    latencies: [[Percentile; CLASSES]; 2],
}

impl Hedges {
    /// At most `percent` of the hits are hedged.
    pub(super) fn new(percent: u8) -> Self {
        Self { share: f64::from(percent) / 100.0, budget: 0.0, latencies: Default::default() }
    }

    /// A hit was asked for.
    pub(super) fn arrived(&mut self) {
        self.budget = (self.budget + self.share).min(SAVED);
    }

    /// A read ended in time; stragglers of a lost backend are not to be told of.
    pub(super) fn completed(&mut self, done: &Completion) {
        if done.ok && done.role != Role::Duplicate {
            self.latencies[done.side as usize][class_of(done.len)].add(done.latency, self.share);
        }
    }

    /// From which age on a read of `len` at `side` is late.
    pub(super) fn deadline(&self, side: Side, len: u32) -> Option<Nanos> {
        let percentile = self.latencies[side as usize][class_of(len)];
        (self.share > 0.0 && percentile.seen >= ENOUGH).then_some(percentile.value as Nanos)
    }

    /// Whether one more read may be hedged.
    pub(super) fn spend(&mut self) -> bool {
        let enough = self.budget >= 1.0;
        self.budget -= f64::from(u8::from(enough));
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{MILLIS, StreamId, TargetId};
    use crate::random::Random;

    fn done(side: Side, latency: Nanos) -> Completion {
        let (stream, target) = (StreamId(1), TargetId(0));
        Completion { stream, target, side, len: 65536, latency, ok: true, role: Role::Whole }
    }

    #[test]
    fn the_deadline_rests_where_the_budgets_share_of_reads_lies_above() {
        let (mut hedges, mut random) = (Hedges::new(2), Random(5));
        let mut draw = || (1 + random.below(1000)) * MILLIS / 100;
        for _ in 0..ENOUGH - 1 {
            hedges.completed(&done(Side::Backend, draw()));
            assert_eq!(hedges.deadline(Side::Backend, 65536), None);
        }
        let (mut late, mut all) = (0, 0);
        for i in 0..20_000 {
            let latency = draw();
            let deadline = hedges.deadline(Side::Backend, 65536).unwrap_or(0);
            hedges.completed(&done(Side::Backend, latency));
            if i > 2000 {
                all += 1;
                late += u32::from(latency > deadline);
            }
        }
        let share = f64::from(late) / f64::from(all);
        assert!((0.01..0.04).contains(&share), "{share}");
        assert_eq!(hedges.deadline(Side::Cache, 65536), None, "the other side was never seen");
    }

    #[test]
    fn no_more_than_the_budget_is_hedged_and_none_without_one() {
        let mut spent = 0;
        let mut hedges = Hedges::new(2);
        for _ in 0..10_000 {
            hedges.arrived();
            spent += u32::from(hedges.spend());
        }
        assert!((190..=200).contains(&spent), "{spent}");
        (0..100_000).for_each(|_| hedges.arrived());
        assert!((0..100).filter(|_| hedges.spend()).count() <= SAVED as usize, "a pause saves up a few only");
        let mut none = Hedges::new(0);
        (0..1000).for_each(|_| none.completed(&done(Side::Cache, MILLIS)));
        none.arrived();
        assert!(!none.spend());
        assert_eq!(none.deadline(Side::Cache, 65536), None);
    }
}
