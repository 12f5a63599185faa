//! A latency against the best it was lately.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The best of the last minute; older ones say nothing of a network that changed.
const SPAN: Duration = Duration::from_secs(60);
/// So many times the best is congestion, where it is not too small to matter.
const FACTOR: u64 = 4;
const FLOOR_US: u64 = 2000;

/// Recent values, only those that may still become the minimum: increasing from front to back.
#[derive(Debug, Default)]
pub(super) struct Best {
    values: VecDeque<(Instant, u64)>,
}

impl Best {
    /// Adds a latency in microseconds; says what the best was when this one is far worse.
    pub(super) fn exceeded(&mut self, now: Instant, micros: u64) -> Option<u64> {
        self.values.retain(|(at, value)| now.saturating_duration_since(*at) <= SPAN && *value < micros);
        self.values.push_back((now, micros));
        let best = self.values.front().map(|(_, v)| *v)?;
        (micros > best * FACTOR && micros >= FLOOR_US).then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_far_above_the_best_of_a_minute_is_told_and_a_lasting_one_is_not() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut best = Best::default();
        assert_eq!(best.exceeded(at(0), 1000), None);
        assert_eq!(best.exceeded(at(1), 3900), None);
        assert_eq!(best.exceeded(at(2), 6000), Some(1000));
        for s in 3..70 {
            best.exceeded(at(s), 6000);
        }
        assert_eq!(best.exceeded(at(70), 6000), None);
        assert_eq!(Best::default().exceeded(at(0), 1), None);
    }

    #[test]
    fn microseconds_that_do_not_matter_are_no_news() {
        let start = Instant::now();
        let mut best = Best::default();
        best.exceeded(start, 10);
        assert_eq!(best.exceeded(start, 1900), None);
    }
}
