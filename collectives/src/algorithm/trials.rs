//! Which of two ways a source takes: its data through staging, or read by its peers with one copy.
//!
//! Neither wins always. What was written just before the call lies in the source's own cache, from which staging is faster; what is
//! sent again unchanged lies in the reader's cache already, and the kernel's copy takes half of the time. Which of these a program does,
//! the library cannot know, but it can measure: the source tries both, then keeps to the better, and now and then tries again. It
//! alone decides and tells its readers with the data, so nothing has to be agreed.

use std::time::Duration;

use crate::algorithm::Kind;

/// Operations of one kind and of sizes with the same logarithm are alike.
pub(crate) type Class = (Kind, u32);

/// How the data of one operation travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Staged,
    Lent,
}

/// Trials of each way at the beginning: the first ones meet untouched pages.
const FIRST: u32 = 4;
/// Operations between two later trials of the way that is not in use.
const PERIOD: u32 = 64;

/// The experience of one source with one operation and size class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trials {
    calls: u32,
    /// The shortest time of each way, which grows a little with each trial, so that it follows the program.
    best: [Duration; 2],
}

impl Default for Trials {
    fn default() -> Self {
        Self { calls: 0, best: [Duration::MAX; 2] }
    }
}

impl Trials {
    /// The way of the next operation, and whether its time is wanted.
    pub(crate) fn next(&mut self) -> (Way, bool) {
        let call = self.calls;
        self.calls = call.checked_add(1).unwrap_or(2 * FIRST);
        if call < 2 * FIRST {
            return (if call.is_multiple_of(2) { Way::Staged } else { Way::Lent }, true);
        }
        let better = if self.best[0] <= self.best[1] { Way::Staged } else { Way::Lent };
        match (call % PERIOD, better) {
            (0, Way::Staged) => (Way::Lent, true),
            (0, Way::Lent) => (Way::Staged, true),
            (1, _) => (better, true),
            _ => (better, false),
        }
    }

    /// An operation took `time`, from its beginning until all readers were done.
    pub(crate) fn record(&mut self, way: Way, time: Duration) {
        let best = &mut self.best[way as usize];
        *best = time.min(best.saturating_add(*best / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `calls` operations that take so many microseconds staged and lent; how many were lent.
    fn run(trials: &mut Trials, calls: u32, micros: [u64; 2]) -> u32 {
        (0..calls)
            .filter(|_| {
                let (way, measured) = trials.next();
                if measured {
                    trials.record(way, Duration::from_micros(micros[way as usize]));
                }
                way == Way::Lent
            })
            .count() as u32
    }

    #[test]
    fn both_ways_are_tried_and_the_better_one_is_kept() {
        let mut trials = Trials::default();
        assert_eq!(run(&mut trials, 2 * FIRST, [20, 10]), FIRST);
        assert!(run(&mut trials, 640, [20, 10]) >= 620);
        let mut trials = Trials::default();
        run(&mut trials, 2 * FIRST, [10, 20]);
        assert!(run(&mut trials, 640, [10, 20]) <= 20);
    }

    #[test]
    fn a_program_that_changes_its_habits_is_followed() {
        let mut trials = Trials::default();
        run(&mut trials, 1000, [20, 10]);
        run(&mut trials, 20 * PERIOD, [20, 25]);
        assert!(run(&mut trials, 640, [20, 25]) <= 20);
        run(&mut trials, 2 * PERIOD, [20, 10]);
        assert!(run(&mut trials, 640, [20, 10]) >= 620);
    }

    #[test]
    fn counting_never_ends() {
        let mut trials = Trials { calls: u32::MAX, ..Trials::default() };
        trials.next();
        assert!(trials.calls >= 2 * FIRST);
    }
}
