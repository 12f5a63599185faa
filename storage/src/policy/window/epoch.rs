//! Measures what readers got at one setting of the windows.
//!
//! ```text
//!   restart -> settle (the old setting's requests drain) -> measure -> Epoch
//! ```
//! An epoch belongs to the size class that moved most bytes in it; only that class's search learns from it. Time in which
//! nobody reads is not measured: readers who pause are not a slow device.

use super::{CLASSES, class_of};
use crate::policy::search::{Epoch, Search};
use crate::policy::{Ask, Completion, MILLIS, Nanos, Outstanding, SECOND, Side};

/// Reads an epoch needs, and the least and the most time it takes. Large reads are few, so fewer of them are enough after some
/// time.
const READS: u32 = 128;
const FEW_READS: u32 = 16;
const SHORTEST: Nanos = 20 * MILLIS;
const LONG: Nanos = 300 * MILLIS;
const LONGEST: Nanos = SECOND;
const SETTLE_READS: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Both on a clock that stands still while nobody reads.
    since: Nanos,
    settled: Option<Nanos>,
    /// How far that clock is behind, and when the last read ended.
    idle: Nanos,
    last: Nanos,
    reads: u32,
    bytes: [u64; CLASSES],
    /// Of those, by parts of striped reads.
    striped: u64,
    in_flight: u64,
    /// Most reads under way at once.
    concurrent: u32,
    timings: [[Timing; CLASSES]; 2],
    spilled: u64,
    cache_when_spilled: u64,
    streams: Seen,
    targets: Seen,
}

/// Reads of one class at one side, duplicates included.
#[derive(Clone, Copy, Debug, Default)]
struct Timing {
    reads: u64,
    nanos: Nanos,
}

impl Timing {
    fn mean(self) -> Nanos {
        self.nanos.checked_div(self.reads).unwrap_or(0)
    }
}

/// Which streams or targets were active: by bucket, so more than 64 count as 64.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    before: u64,
    now: u64,
}

impl Meter {
    /// Begins to settle at a new setting.
    pub(super) fn restart(&mut self, now: Nanos) {
        let older = |seen: Seen| Seen { before: seen.now, now: 0 };
        let (streams, targets) = (older(self.streams), older(self.targets));
        *self =
            Self { since: now - self.idle, streams, targets, idle: self.idle, last: now, ..Self::default() };
    }

    /// A hit arrived and was routed.
    pub(super) fn arrived(&mut self, now: Nanos, ask: Ask, out: &Outstanding, spilled: bool) {
        let len = u64::from(ask.len);
        if out.cache.reads + out.backend.reads == 0 {
            self.idle += now.saturating_sub(self.last);
            self.last = now;
        }
        self.streams.now |= 1 << ask.stream.bucket();
        self.targets.now |= 1 << ask.target.bucket();
        self.in_flight = self.in_flight.max(out.cache.bytes + out.backend.bytes + len);
        self.concurrent = self.concurrent.max(out.cache.reads + out.backend.reads + 1);
        if spilled {
            self.spilled += 1;
            self.cache_when_spilled += out.cache.bytes;
        }
    }

    /// Streams seen lately, at least 1.
    pub(super) fn active_streams(&self) -> u32 {
        (self.streams.before | self.streams.now).count_ones().max(1)
    }

    /// Whether a target, by its bucket, was asked for lately.
    pub(super) fn is_active(&self, target: usize) -> bool {
        (self.targets.before | self.targets.now) >> target & 1 == 1
    }

    /// A read completed; returns the class and the epoch when enough was seen. `drains`: how long reads at the backend take.
    pub(super) fn completed(
        &mut self,
        now: Nanos,
        done: &Completion,
        drains: Nanos,
        searches: &[Search; CLASSES],
    ) -> Option<(usize, Epoch)> {
        let timing = &mut self.timings[done.side as usize][class_of(done.len)];
        timing.reads += 1;
        timing.nanos += done.latency;
        if !done.useful {
            return None;
        }
        self.last = now;
        let (now, drains) = (now - self.idle, drains.min(LONGEST));
        self.reads += 1;
        self.bytes[class_of(done.len)] += u64::from(done.len);
        self.striped += if done.striped { u64::from(done.len) } else { 0 };
        let class = (0..CLASSES).max_by_key(|c| self.bytes[*c]).unwrap_or(0);
        let Some(settled) = self.settled else {
            if self.reads >= SETTLE_READS.min(self.concurrent + 1) && now - self.since >= drains * 3 / 2 {
                let Self { since, idle, last, streams, targets, .. } = *self;
                *self = Self { since, settled: Some(now), idle, last, streams, targets, ..Self::default() };
                return None;
            }
            let lost = self.lost(now, self.since, &searches[class]);
            return lost.then(|| (class, self.epoch(now, self.since, class)));
        };
        let elapsed = now - settled;
        let few = self.reads >= FEW_READS && elapsed >= LONG;
        let enough = (self.reads >= READS || few) && elapsed >= SHORTEST.max(drains * 3);
        let over = enough || elapsed >= LONGEST || self.lost(now, settled, &searches[class]);
        over.then(|| (class, self.epoch(now, settled, class)))
    }

    /// Whether most of what was read was striped: then the level had no say, and the rate says nothing of it.
    pub(super) fn is_striped(&self) -> bool {
        self.striped * 2 > self.bytes.iter().sum()
    }

    fn lost(&self, now: Nanos, since: Nanos, search: &Search) -> bool {
        let bytes: u64 = self.bytes.iter().sum();
        search.is_lost(bytes, (now - since) as f64 / SECOND as f64, bytes / u64::from(self.reads.max(1)))
    }

    fn epoch(&self, now: Nanos, since: Nanos, class: usize) -> Epoch {
        let total: u64 = self.bytes.iter().sum();
        let latency = |side: Side| self.timings[side as usize][class].mean();
        Epoch {
            rate: total as f64 * SECOND as f64 / (now - since).max(1) as f64,
            in_flight: self.in_flight,
            unit: (total / u64::from(self.reads.max(1))).max(4096),
            cache_when_spilled: self.cache_when_spilled.checked_div(self.spilled).unwrap_or(0),
            cache_latency: latency(Side::Cache),
            backend_latency: latency(Side::Backend),
        }
    }
}
