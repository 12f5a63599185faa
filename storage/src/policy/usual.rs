//! What reads usually take, so that one that only queues is not taken for one that is lost.
//!
//! Sixteen reads of 1 MiB at a device of 60 MB/s take 280 ms each. Asking the other side for each of them would be reading
//! many of them twice.

use super::window::{CLASSES, class_of};
use super::{Completion, Nanos, Side};

/// A read is lost when it has taken this many times as long as others of its size at its side.
const TIMES: Nanos = 4;

/// Mean latencies that forget, by side and size class.
#[derive(Debug, Default)]
pub(super) struct Usual {
    means: [[Nanos; CLASSES]; 2],
}

impl Usual {
    /// A read ended in time; stragglers of a lost backend are not to be told of.
    pub(super) fn completed(&mut self, done: &Completion) {
        if done.ok {
            let mean = &mut self.means[done.side as usize][class_of(done.len)];
            *mean = if *mean == 0 { done.latency } else { (*mean * 7 + done.latency) / 8 };
        }
    }

    /// How long a read of `len` at `side` may take; 0 before the first one.
    pub(super) fn patience(&self, side: Side, len: u32) -> Nanos {
        self.means[side as usize][class_of(len)] * TIMES
    }
}
