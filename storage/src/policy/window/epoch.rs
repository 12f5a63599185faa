//! Measures what readers got at one setting of the windows.
//!
//! ```text
//!   restart -> settle (the old setting's requests drain) -> measure -> close (what is under way ends) -> Epoch
//! ```
//! Reads that queue end in bunches: who counts what ended in a time is wrong by a bunch at each end of it. A read counts for the
//! part of its life that lies between the two, which is why those under way at the end are waited for.
//!
//! An epoch belongs to the size class that moved most bytes in it; only that class's search learns from it. Time in which
//! nobody reads is not measured: readers who pause are not a slow device. Before a pause the queues run empty and after it they
//! fill: no epoch ends then unless it lasts too long, and where readers seldom pause, one that is cut by a pause is begun again.

use super::{CLASSES, class_of};
use crate::policy::search::{Epoch, Search};
use crate::policy::{Ask, Completion, MILLIS, Nanos, Outstanding, Role, SECOND, Side};

/// Reads an epoch needs, and the least and the most time it takes. Large reads are few, so fewer of them are enough after some
/// time.
const READS: u32 = 128;
const FEW_READS: u32 = 16;
const SHORTEST: Nanos = 20 * MILLIS;
const LONG: Nanos = 300 * MILLIS;
const LONGEST: Nanos = SECOND;
/// How often all that is under way is to have been answered: what queues together often ends together.
const TURNS: u32 = 2;
/// A pause that is none: the next read of somebody who waits for each.
const PAUSE: Nanos = 20 * MILLIS;

#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Both on a clock that stands still while nobody reads.
    since: Nanos,
    settled: Option<Nanos>,
    /// How far that clock is behind, and when the last read ended.
    idle: Nanos,
    last: Nanos,
    /// Whether an epoch has ended since the last pause.
    seldom: bool,
    /// Useful reads that ended, settling or since, and their bytes.
    reads: u32,
    bytes: [u64; CLASSES],
    /// Bytes of the time since `settled` until now, or until the end: each read by the part of its life in it.
    served: f64,
    /// When measuring ended, and how many reads were under way then that are still.
    closing: Option<(Nanos, u32)>,
    /// What the slowest read took.
    longest: Nanos,
    /// Of `bytes`, by parts of striped reads.
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
        let Self { idle, seldom, .. } = *self;
        *self = Self { since: now - idle, streams, targets, idle, last: now, seldom, ..Self::default() };
    }

    /// A read comes and finds none under way. The first ones after a pause often come past the policy, because what they read is
    /// to be validated first.
    pub(super) fn woken(&mut self, now: Nanos) {
        let pause = now.saturating_sub(self.last);
        self.idle += pause;
        self.last = now;
        if pause > PAUSE && std::mem::take(&mut self.seldom) {
            let both = |seen: Seen| Seen { before: 0, now: seen.before | seen.now };
            (self.streams, self.targets) = (both(self.streams), both(self.targets));
            self.restart(now);
        }
    }

    /// A hit arrived and was routed.
    pub(super) fn arrived(&mut self, now: Nanos, ask: Ask, out: &Outstanding, spilled: bool) {
        if out.reads() == 0 {
            self.woken(now);
        }
        self.streams.now |= 1 << ask.stream.bucket();
        self.targets.now |= 1 << ask.target.bucket();
        self.under_way(ask.len, out);
        if spilled {
            self.spilled += 1;
            self.cache_when_spilled += out.cache.bytes;
        }
    }

    /// A read of `len` is or was under way beside `out`.
    fn under_way(&mut self, len: u32, out: &Outstanding) {
        self.in_flight = self.in_flight.max(out.bytes() + u64::from(len));
        self.concurrent = self.concurrent.max(out.reads() + 1);
    }

    /// Streams seen lately, at least 1.
    pub(super) fn active_streams(&self) -> u32 {
        (self.streams.before | self.streams.now).count_ones().max(1)
    }

    /// Whether a target, by its bucket, was asked for lately.
    pub(super) fn is_active(&self, target: usize) -> bool {
        (self.targets.before | self.targets.now) >> target & 1 == 1
    }

    /// A read completed and left `out` under way; returns the class and the epoch when enough was seen. `drains`: how long reads at
    /// the backend take.
    pub(super) fn completed(
        &mut self,
        now: Nanos,
        done: &Completion,
        out: &Outstanding,
        drains: Nanos,
        searches: &[Search; CLASSES],
    ) -> Option<(usize, Epoch)> {
        let timing = &mut self.timings[done.side as usize][class_of(done.len)];
        timing.reads += 1;
        timing.nanos += done.latency;
        if !done.role.is_useful() {
            return None;
        }
        self.last = now;
        let (now, drains) = (now - self.idle, drains.min(LONGEST));
        self.reads += 1;
        // What was sent before the setting changed is under way too.
        self.under_way(done.len, out);
        self.bytes[class_of(done.len)] += u64::from(done.len);
        self.striped += if done.role == Role::Striped { u64::from(done.len) } else { 0 };
        let class = (0..CLASSES).max_by_key(|c| self.bytes[*c]).unwrap_or(0);
        let Some(settled) = self.settled else {
            if self.reads > self.concurrent && now - self.since >= drains * 3 / 2 {
                let Self { since, idle, last, seldom, streams, targets, .. } = *self;
                let settled = Some(now);
                *self = Self { since, settled, idle, last, seldom, streams, targets, ..Self::default() };
                return None;
            }
            let lost = self.lost(now, self.since, &searches[class]);
            return lost.then(|| (class, self.epoch(self.total(), now - self.since, class)));
        };
        let began = now.saturating_sub(done.latency);
        if self.closing.is_none() {
            self.longest = self.longest.max(done.latency);
        }
        let end = self.closing.map_or(now, |(end, _)| end);
        let within = end.saturating_sub(began.max(settled));
        // The queues may run empty after the end: what took longer because of that was as far as others at that time.
        let life = if self.closing.is_some() { done.latency.min(self.longest) } else { done.latency };
        self.served += f64::from(done.len) * (within as f64 / life.max(1) as f64).min(1.0);
        if let Some((_, left)) = &mut self.closing {
            *left = left.saturating_sub(u32::from(began < end));
            // Some never answer, or what they bring is of no use: copies, and what is lost with its target.
            let over = *left == 0 || now - end >= 2 * self.longest;
            return over.then(|| (class, self.epoch(self.served, end - settled, class)));
        }
        let elapsed = now - settled;
        let few = self.reads >= FEW_READS.max(TURNS * self.concurrent) && elapsed >= LONG;
        let runs_empty = (out.reads() + 1) * 2 < self.concurrent;
        let enough =
            (self.reads >= READS.max(TURNS * self.concurrent) || few) && elapsed >= SHORTEST.max(drains * 2);
        if self.lost(now, settled, &searches[class]) {
            return Some((class, self.epoch(self.total(), elapsed, class)));
        }
        if enough && !runs_empty || elapsed >= LONGEST {
            if out.reads() == 0 {
                return Some((class, self.epoch(self.served, elapsed, class)));
            }
            self.closing = Some((now, out.reads()));
        }
        None
    }

    /// Bytes of useful reads that ended.
    fn total(&self) -> f64 {
        self.bytes.iter().sum::<u64>() as f64
    }

    /// Whether most of what was read was striped: then the level had no say, and the rate says nothing of it.
    pub(super) fn is_striped(&self) -> bool {
        self.striped * 2 > self.bytes.iter().sum()
    }

    fn lost(&self, now: Nanos, since: Nanos, search: &Search) -> bool {
        let bytes: u64 = self.bytes.iter().sum();
        let (seconds, unit) = ((now - since) as f64 / SECOND as f64, bytes / u64::from(self.reads.max(1)));
        search.is_lost(bytes, seconds, unit, self.concurrent <= 1)
    }

    /// `bytes` were read in a `time`.
    fn epoch(&mut self, bytes: f64, time: Nanos, class: usize) -> Epoch {
        self.seldom = true;
        let total: u64 = self.bytes.iter().sum();
        let latency = |side: Side| self.timings[side as usize][class].mean();
        Epoch {
            rate: bytes * SECOND as f64 / time.max(1) as f64,
            in_flight: self.in_flight,
            unit: (total / u64::from(self.reads.max(1))).max(4096),
            cache_when_spilled: self.cache_when_spilled.checked_div(self.spilled).unwrap_or(0),
            cache_latency: latency(Side::Cache),
            backend_latency: latency(Side::Backend),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{InFlight, StreamId, TargetId};

    const LEN: u32 = 65536;
    const DEPTH: u32 = 64;

    /// Runs of `reads` each, with a pause between: the rates of the epochs, in reads per second. A read ends every millisecond while all
    /// are under way, and every two while fewer are.
    fn epochs(reads: u32, runs: u32) -> Vec<u64> {
        let (mut meter, searches) = (Meter::default(), <[Search; CLASSES]>::default());
        let (mut now, mut found) = (SECOND, Vec::new());
        let ask = Ask { stream: StreamId(1), target: TargetId(0), len: LEN };
        for _ in 0..runs {
            let (mut under_way, mut sent, mut ended) = (0, 0, 0);
            let mut began = std::collections::VecDeque::new();
            while ended < reads {
                while under_way < DEPTH && sent < reads {
                    let cache = InFlight { reads: under_way, bytes: u64::from(under_way * LEN) };
                    meter.arrived(now, ask, &Outstanding { cache, ..Outstanding::default() }, false);
                    (under_way, sent) = (under_way + 1, sent + 1);
                    began.push_back(now);
                }
                now += if under_way == DEPTH { MILLIS } else { 2 * MILLIS };
                (under_way, ended) = (under_way - 1, ended + 1);
                let done = Completion {
                    stream: ask.stream,
                    target: ask.target,
                    side: Side::Cache,
                    len: LEN,
                    latency: now - began.pop_front().expect("one is under way"),
                    ok: true,
                    role: Role::Whole,
                };
                let cache = InFlight { reads: under_way, bytes: u64::from(under_way * LEN) };
                let out = Outstanding { cache, ..Outstanding::default() };
                if let Some((_, epoch)) = meter.completed(now, &done, &out, 0, &searches) {
                    found.push((epoch.rate / f64::from(LEN)).round() as u64);
                    meter.restart(now);
                }
            }
            now += 3 * SECOND;
        }
        found
    }

    #[test]
    fn queues_that_run_empty_before_a_rare_pause_are_not_measured() {
        let found = epochs(600, 20);
        assert!(found.len() >= 40, "{}", found.len());
        let whole = found.iter().filter(|rate| **rate == 1000).count();
        // The last whole epoch of a run may reach into its end.
        assert!(whole * 10 >= found.len() * 9, "{found:?}");
    }

    #[test]
    fn readers_who_pause_often_are_measured_over_their_pauses() {
        let found = epochs(100, 60);
        assert!(found.len() >= 20, "{}", found.len());
        // 36 of a run end at 1000 per second and 64 at 500, 610 together: measured to a quarter, wherever the epochs are cut.
        assert!(found.iter().all(|rate| (457..763).contains(rate)), "{found:?}");
    }
}
