//! Log lines that strangers can cause: one now and then, with the number of those left out, so that nobody can fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines of one kind.
const BETWEEN: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether the line is to be written now, and how many were left out since the one before.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = state.last.is_some_and(|last| now.saturating_duration_since(last) < BETWEEN);
        if waits {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_at_once_and_then_once_a_minute_with_what_was_left_out() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due(start), Some(0));
        for second in 1..60 {
            assert_eq!(seldom.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.due(start + BETWEEN), Some(59));
        assert_eq!(seldom.due(start + BETWEEN), None);
    }
}
