//! What reads usually take, so that one that only queues is not taken for one that is lost.
//!
//! Sixteen reads of 1 MiB at a device of 60 MB/s take 280 ms each. Asking the other side for each of them would be reading
//! many of them twice.

use super::window::{CLASSES, class_of};
use super::{Completion, Nanos, Role, Side};

/// A read is lost when it has taken this many times as long as others of its size at its side.
const TIMES: Nanos = 4;

/// Mean latencies that forget, by side and size class.
#[derive(Debug, Default)]
pub(super) struct Usual {
    means: [[Nanos; CLASSES]; 2],
}

impl Usual {
    /// A read of a hit ended; stragglers of a lost backend are not to be told of. A single one counts as four times the mean at
    /// most: a queue grows from read to read. One that the other side outran counts for little, so that a side that loses some is
    /// not waited for, and one that has become slow is.
    pub(super) fn completed(&mut self, done: &Completion) {
        let most = match done.role {
            Role::Whole | Role::Striped => TIMES * 2,
            Role::Outrun => 3,
            // A miss has to wait whatever it takes.
            Role::Miss | Role::Duplicate => return,
        };
        if done.ok {
            let mean = &mut self.means[done.side as usize][class_of(done.len)];
            *mean = match *mean {
                0 if done.role == Role::Outrun => done.latency / TIMES,
                0 => done.latency,
                mean => (mean * 7 + done.latency.min(mean * most / 2)) / 8,
            };
        }
    }

    /// How long a read of `len` at `side` may take; 0 before the first one.
    pub(super) fn patience(&self, side: Side, len: u32) -> Nanos {
        self.means[side as usize][class_of(len)] * TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{MILLIS, StreamId, TargetId};

    fn done(latency: Nanos, role: Role) -> Completion {
        let (stream, target) = (StreamId(0), TargetId(0));
        Completion { stream, target, side: Side::Cache, len: 1 << 20, latency, ok: true, role }
    }

    /// Of four connections one hangs for 1.6 s at a time: what was asked for at the other side there is no measure.
    #[test]
    fn reads_that_are_lost_teach_no_patience() {
        let mut usual = Usual::default();
        for read in 0..400 {
            let lost = read % 4 == 3;
            let (latency, role) =
                if lost { (1600 * MILLIS, Role::Outrun) } else { (20 * MILLIS, Role::Whole) };
            usual.completed(&done(latency, role));
        }
        assert!(usual.patience(Side::Cache, 1 << 20) <= 105 * MILLIS);
        usual.completed(&done(10_000 * MILLIS, Role::Whole));
        assert!(usual.patience(Side::Cache, 1 << 20) <= 150 * MILLIS, "one stall");
    }

    /// A side that has become slow as a whole, so that each of its reads is outrun: it is waited for again.
    #[test]
    fn a_side_that_became_slow_is_not_read_twice_for_ever() {
        let mut usual = Usual::default();
        usual.completed(&done(20 * MILLIS, Role::Whole));
        let outrun = |usual: &Usual| usual.patience(Side::Cache, 1 << 20) < 400 * MILLIS;
        let twice = (0..1000).take_while(|_| {
            usual.completed(&done(400 * MILLIS, Role::Outrun));
            outrun(&usual)
        });
        assert!(twice.count() < 64);
        usual.completed(&done(60_000 * MILLIS, Role::Miss));
        assert!(usual.patience(Side::Cache, 1 << 20) < 1000 * MILLIS, "a miss");
    }

    #[test]
    fn a_queue_that_grows_is_followed() {
        let mut usual = Usual::default();
        for read in 1..=64 {
            let latency = read * 17 * MILLIS;
            assert!(read < 4 || usual.patience(Side::Cache, 1 << 20) > latency, "read {read}");
            usual.completed(&done(latency, Role::Whole));
        }
    }
}
