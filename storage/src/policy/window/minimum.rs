//! A minimum that forgets: the smallest value of the last 15 to 30 seconds.
//!
//! A minimum that never ages turns every lasting change of a device into "congestion" for ever.

use crate::policy::{Nanos, SECOND};

const HALF: Nanos = 15 * SECOND;

/// Two half-windows; the older one is dropped when the younger one is full.
#[derive(Debug, Default)]
pub(super) struct ExpiringMin {
    since: Nanos,
    young: Option<Nanos>,
    old: Option<Nanos>,
}

impl ExpiringMin {
    pub(super) fn add(&mut self, now: Nanos, value: Nanos) {
        self.rotate(now);
        self.young = Some(self.young.map_or(value, |y| y.min(value)));
    }

    /// The minimum, 0 when nothing was added lately.
    pub(super) fn get(&mut self, now: Nanos) -> Nanos {
        self.rotate(now);
        self.young.into_iter().chain(self.old).min().unwrap_or(0)
    }

    fn rotate(&mut self, now: Nanos) {
        let age = now.saturating_sub(self.since);
        if age >= HALF {
            self.old = if age < 2 * HALF { self.young } else { None };
            self.young = None;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_forgotten_after_thirty_seconds() {
        let mut min = ExpiringMin::default();
        min.add(SECOND, 5);
        min.add(20 * SECOND, 9);
        assert_eq!(min.get(21 * SECOND), 5);
        min.add(36 * SECOND, 9);
        assert_eq!(min.get(36 * SECOND), 9);
        assert_eq!(min.get(100 * SECOND), 0);
    }
}
