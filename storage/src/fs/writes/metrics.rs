//! The numbers of a mount's write-back, in the one table that says how they are named.

use std::sync::atomic::Ordering;

use super::WriteBack;

/// What one number of a mount's write-back is called in Prometheus, and how it is found.
pub type BackMetric = (&'static str, &'static str, fn(&WriteBack) -> u64);

/// What is told of each mount with write-back.
pub const BACK_METRICS: [BackMetric; 7] = [
    ("dirty_bytes", "Bytes written that are not yet at the backend.", WriteBack::dirty_bytes),
    ("dirty_files", "Files that are not all at the backend.", WriteBack::dirty_files),
    ("dirty_oldest_seconds", "Age of the oldest change not at the backend.", WriteBack::oldest_seconds),
    ("flushed_bytes_total", "Bytes that reached the backend from the journal.", |b| {
        b.counters.flushed_bytes.load(Ordering::Relaxed)
    }),
    ("flush_errors_total", "Rounds of flushing that failed.", |b| {
        b.counters.flush_errors.load(Ordering::Relaxed)
    }),
    ("write_conflicts_total", "Files of which two copies were kept.", |b| {
        b.counters.conflicts.load(Ordering::Relaxed)
    }),
    ("throttled_writes_total", "Writes that had to go at the backend's speed.", |b| {
        b.counters.throttled_writes.load(Ordering::Relaxed)
    }),
];

impl WriteBack {
    /// Names with values.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        BACK_METRICS.into_iter().map(|(name, _, value)| (name, value(self)))
    }
}
