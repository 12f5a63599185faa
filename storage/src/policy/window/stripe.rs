//! Striping: one large read that comes nearly alone is cut in two, read at both sides at once.
//!
//! The cut follows what each side takes per byte, so that both parts end together. Whether striping pays is decided by
//! comparing that with whole reads. What is not done is tried now and then: the more it costs, the more seldom.
//!
//! ```text
//!   whole -- 4 reads, later as many as a trial is worth --> two striped --(pay)--> striped -- the same --> two whole ones at the cache
//!     ^                                                                               |
//!     +---------------------------------(no longer pays)------------------------------+
//! ```

use crate::policy::{Completion, Nanos, Outstanding, Role, Side};

/// Shorter reads cost more in overhead than a second device can give back.
const SHORTEST: u32 = 512 << 10;
/// Reads in flight below which the caller counts as alone.
const ALONE: u32 = 2;
/// Reads of a trial.
const TRIAL: u32 = 2;
/// Reads before the first trial, and the fewest and most between two.
const FIRST: u32 = 4;
const SOON: f64 = 32.0;
const SELDOM: f64 = 1024.0;
/// Reads between two trials for each that a trial costs: trials take a hundredth of the time, unless one costs ten reads and more.
const SPARING: f64 = 100.0;
/// Striping must be faster than whole reads by this factor.
const WORTH: f64 = 1.05;
/// The least that a side reads of a striped read, as a share of it; and the cache's share while nothing is known.
const LEAST: f64 = 1.0 / 64.0;
const UNKNOWN: f64 = 0.75;
const BLOCK: f64 = 4096.0;

/// How a large read is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Large {
    Striped,
    /// Whole at the cache, to compare.
    AtCache,
    /// Striping has no say.
    Free,
}

#[derive(Debug)]
pub(super) struct Stripes {
    /// Nanoseconds per byte of the parts of striped reads, by side.
    parts: [Pace; 2],
    /// The same of whole hits that came alone, at the cache: at the backend some are read to try it.
    whole: Pace,
    /// Bytes of the part that the backend has not answered yet.
    asked: u32,
    /// Whether a read came while another one was under way, since last there was none.
    crowded: bool,
    /// Reads since the last trial, and how many there are between two.
    since: u32,
    gap: u32,
    /// Whether a trial has ended, of which it is not yet known what it cost.
    tried: bool,
}

impl Default for Stripes {
    fn default() -> Self {
        let (parts, whole) = Default::default();
        Self { parts, whole, asked: 0, crowded: false, since: 0, gap: FIRST, tried: false }
    }
}

impl Stripes {
    /// A hit comes beside `out`, of whatever length.
    pub(super) fn arrived(&mut self, out: &Outstanding) {
        self.crowded |= out.reads() > 0;
    }

    /// How a read of `len` is to be read now.
    pub(super) fn decide(&mut self, len: u32, out: &Outstanding) -> Large {
        if len < SHORTEST || out.reads() >= ALONE {
            return Large::Free;
        }
        let pays = self.pays();
        if std::mem::take(&mut self.tried) {
            self.gap = self.gap_now(pays);
        }
        self.since += u32::from(self.whole.is_known());
        let trial = self.since > self.gap;
        if trial && self.since == self.gap + 1 && !pays {
            self.parts.iter_mut().for_each(Pace::doubt);
        }
        if trial && self.since >= self.gap + TRIAL {
            self.since = 0;
            self.tried = true;
        }
        match (pays, trial) {
            (true, false) | (false, true) => Large::Striped,
            (true, true) => Large::AtCache,
            (false, false) => Large::Free,
        }
    }

    /// Whether both sides together are faster than the cache. Than the backend they are hardly ever slower.
    fn pays(&self) -> bool {
        let known = self.whole.is_known() && self.parts.iter().all(|part| part.samples > 0);
        known && self.striped() * WORTH < self.whole.mean
    }

    /// Nanoseconds per byte of a striped read.
    fn striped(&self) -> f64 {
        let ([cache, backend], share) = (&self.parts, self.share());
        (cache.mean * share).max(backend.mean * (1.0 - share))
    }

    /// The cache's share of a striped read: both parts take equally long then.
    fn share(&self) -> f64 {
        let [cache, backend] = &self.parts;
        let known = cache.is_known() && backend.is_known();
        let share = if known { backend.mean / (cache.mean + backend.mean) } else { UNKNOWN };
        share.clamp(LEAST, 1.0 - LEAST)
    }

    /// Reads until the next trial of what is not done now.
    fn gap_now(&self, pays: bool) -> u32 {
        if self.parts.iter().any(|part| part.samples == 0) {
            // A part was not answered in time.
            return SELDOM as u32;
        }
        let (done, tried) = (self.whole.mean, self.striped());
        let costs = if pays { done / tried } else { tried / done } - 1.0;
        (SPARING * f64::from(TRIAL) * costs).clamp(SOON, SELDOM) as u32
    }

    /// Bytes of the cache's part of a read of `len` that is striped now.
    pub(super) fn cut(&mut self, len: u32) -> u32 {
        let cache = self.cache_part(len);
        self.asked = len.saturating_sub(cache);
        cache
    }

    /// Whole blocks, the odd one at the faster side.
    fn cache_part(&self, len: u32) -> u32 {
        let share = self.share();
        let blocks = f64::from(len) / BLOCK * share;
        let blocks = if share < 0.5 { blocks.floor() } else { blocks.ceil() };
        (blocks.max(1.0) * BLOCK) as u32
    }

    /// Learns from a completion: of the parts of striped reads, and of whole hits that came alone to the cache (`left` is what
    /// is still under way).
    pub(super) fn completed(&mut self, done: &Completion, left: &Outstanding) {
        let alone = left.reads() == 0 && !self.crowded;
        self.crowded &= left.reads() > 0;
        if done.role == Role::Striped {
            self.parts[done.side as usize].add(done.len, done.latency);
            self.asked = if done.side == Side::Backend { 0 } else { self.asked };
        } else if alone && done.side == Side::Cache && done.role == Role::Whole && done.len >= SHORTEST {
            self.whole.add(done.len, done.latency);
        }
    }

    /// The backend was silent for `age` and is taken to be down: nobody will tell of the part that it has.
    pub(super) fn backend_fell(&mut self, age: Nanos) {
        if self.asked > 0 {
            self.parts[Side::Backend as usize].add(self.asked, age);
            self.asked = 0;
        }
    }

    /// A part was not answered for `age`, and is no longer waited for.
    pub(super) fn part_is_late(&mut self, side: Side, len: u32, age: Nanos) {
        self.parts[side as usize].add(len, age);
    }
}

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    mean: f64,
    /// How many samples it stands on, up to three.
    samples: u8,
}

impl Pace {
    fn add(&mut self, len: u32, latency: Nanos) {
        let pace = latency.max(1) as f64 / f64::from(len.max(1));
        self.mean += (pace - self.mean) / f64::from(self.samples + 1);
        self.samples = (self.samples + 1).min(3);
    }

    fn is_known(&self) -> bool {
        self.mean > 0.0
    }

    /// The next sample counts alone.
    fn doubt(&mut self) {
        self.samples = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{StreamId, TargetId};

    const LEN: u32 = 1 << 20;

    fn done(side: Side, len: u32, latency: Nanos, role: Role) -> Completion {
        let (stream, target) = (StreamId(1), TargetId(0));
        Completion { stream, target, side, len, latency, ok: true, role }
    }

    /// How many of the next reads of one who comes alone are striped.
    fn striped_of(reads: u32, stripes: &mut Stripes) -> usize {
        let alone = Outstanding::default();
        stripes.arrived(&alone);
        (0..reads).filter(|_| stripes.decide(LEN, &alone) == Large::Striped).count()
    }

    /// A reader of large blocks who comes alone: `paces` of cache and backend in nanoseconds per byte, `fixed` nanoseconds at the
    /// backend besides. Whole reads that are free go to the cache. Returns the time of the reads from `skip` on, over that of plain caching.
    fn reader(stripes: &mut Stripes, reads: u32, skip: u32, paces: [f64; 2], fixed: f64) -> f64 {
        let alone = Outstanding::default();
        let mut took = 0.0;
        for read in 0..reads {
            let parts = match stripes.decide(LEN, &alone) {
                Large::Striped => {
                    let cache = stripes.cache_part(LEN);
                    vec![(Side::Cache, cache), (Side::Backend, LEN - cache)]
                }
                Large::AtCache | Large::Free => vec![(Side::Cache, LEN)],
            };
            let mut longest = 0.0;
            for (side, len) in &parts {
                let extra = if *side == Side::Backend { fixed } else { 0.0 };
                let latency = f64::from(*len) * paces[*side as usize] + extra;
                longest = latency.max(longest);
                let role = if parts.len() == 2 { Role::Striped } else { Role::Whole };
                stripes.completed(&done(*side, *len, latency as u64, role), &alone);
            }
            took += if read >= skip { longest } else { 0.0 };
        }
        took / (f64::from(reads - skip) * f64::from(LEN) * paces[0])
    }

    #[test]
    fn the_cut_is_found_within_a_few_reads_whatever_the_sides_are() {
        for (cache, backend) in [(16.0, 55.0), (16.0, 16.0), (16.0, 9.0), (16.0, 160.0), (50.0, 5.0)] {
            let got = reader(&mut Stripes::default(), 400, 40, [cache, backend], 0.0);
            let best = backend / (cache + backend);
            let most = best + (1.0 - best) * 2.5 / 64.0;
            assert!(
                got <= most * 1.02,
                "{cache}:{backend}: {got:.3} of plain caching, {best:.3} is the best"
            );
        }
    }

    #[test]
    fn a_backend_that_answers_late_is_asked_for_less_or_nothing() {
        let got = reader(&mut Stripes::default(), 400, 40, [16.0, 16.0], 4e6);
        assert!((0.6..0.68).contains(&got), "{got:.3}");
        let got = reader(&mut Stripes::default(), 2000, 500, [16.0, 16.0], 40e6);
        assert!((1.0..1.1).contains(&got), "{got:.3}");
    }

    #[test]
    fn a_backend_that_becomes_slow_is_left_and_found_again() {
        let mut stripes = Stripes::default();
        assert!(reader(&mut stripes, 200, 50, [16.0, 16.0], 0.0) < 0.55);
        assert!(reader(&mut stripes, 2000, 40, [16.0, 3000.0], 0.0) < 1.02);
        assert!(reader(&mut stripes, 2000, 1000, [16.0, 16.0], 0.0) < 0.6);
    }

    /// A queue that drains ends with a read that has waited for all others.
    #[test]
    fn whole_reads_that_queued_make_striping_no_better() {
        let (mut stripes, mut out) = (Stripes::default(), Outstanding::default());
        assert!(reader(&mut stripes, 200, 50, [16.0, 600.0], 2e7) < 1.05);
        for _ in 0..16 {
            stripes.arrived(&out);
            out.cache.add(LEN);
        }
        for read in 1..=16 {
            out.cache.remove(LEN);
            stripes.completed(&done(Side::Cache, LEN, read * 17_000_000, Role::Whole), &out);
        }
        let striped = striped_of(20, &mut stripes);
        assert!(striped <= TRIAL as usize, "{striped} of 20");
    }

    /// The search reads whole blocks there now and then.
    #[test]
    fn whole_reads_at_a_slow_backend_make_striping_no_better() {
        let mut stripes = Stripes::default();
        assert!(reader(&mut stripes, 200, 50, [16.0, 600.0], 2e7) < 1.05);
        let tried = done(Side::Backend, LEN, 600_000_000, Role::Whole);
        stripes.completed(&tried, &Outstanding::default());
        let striped = striped_of(20, &mut stripes);
        assert!(striped <= TRIAL as usize, "{striped} of 20");
    }

    /// Nothing else tells of a part that is always outrun by the other side.
    #[test]
    fn a_backend_that_is_always_late_is_left() {
        let (mut stripes, alone) = (Stripes::default(), Outstanding::default());
        assert!(reader(&mut stripes, 200, 50, [5.0, 5.0], 0.0) < 0.55);
        let mut late = 0;
        for _ in 0..1000 {
            if stripes.decide(LEN, &alone) == Large::Striped {
                late += 1;
                let part = LEN - stripes.cache_part(LEN);
                stripes.part_is_late(Side::Backend, part, 300_000_000);
            }
        }
        assert!(late <= 8, "{late} of 1000");
    }
}
