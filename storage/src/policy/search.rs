//! Finds how many bytes to keep in flight at the backend, by measuring delivered bytes.
//!
//! The level (bytes in flight at the backend) fixes the split of a closed loop completely: what is not at
//! the backend is at the cache. The rate over the level has plateaus (a saturated side) and, where a cache
//! slows down under concurrency, a peak close to the far end, so climbing alone is not enough:
//!
//! ```text
//!   Base (0) [-> Recall] -> Grow (1, 2, 4 … requests) -> Near (n-1, n-2, n-4 … of n in flight) -> Refine (+-step)
//!     ^                       (a level that loses 15 % ends it)                                   |        ^
//!     |                                                                                           v        |
//!     +-- the cache or the number in flight changed, or it gives no more than the cache alone -- Hold -----+
//!                                                                            (+- trials, ever rarer)   the backend changed
//! ```
//! A change of the backend alone is no reason to leave it: what readers get is still more than the cache gives, and the best
//! level is looked for from where it was. One read at a time is the case where a level cannot be tried without a loss: there
//! duplicates, which cost nobody time, are compared with the cache first ([`Search::wants_duplicates`]). Where they took
//! longer a trial is only a glance ([`Search::is_lost`]): a reader whom the cache makes wait looks as if it came alone, too, and
//! is known by its second read while the first is at the backend. A lone reader whom the backend soon gives less than the
//! cache goes straight to Hold at level 0, for longer each time.
//!
//! Rates of more or fewer readers are not compared: where they come during a search it begins anew. A backend that falls silent
//! lets nothing be measured, so that is an answer, too ([`Search::fell`]).
//! It knows no clock: the caller ends epochs and hands in their rates.

/// What one epoch showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Epoch {
    /// Bytes per second that readers got.
    pub(crate) rate: f64,
    /// Largest number of bytes in flight at both sides together.
    pub(crate) in_flight: u64,
    /// Length of a typical read in bytes.
    pub(crate) unit: u64,
    /// Mean bytes in flight at the cache when a read was sent to the backend.
    pub(crate) cache_when_spilled: u64,
    /// Mean latency of the cache for reads of this class, in nanoseconds; 0 when it was not asked.
    pub(crate) cache_latency: u64,
    /// The same of the backend, duplicates included.
    pub(crate) backend_latency: u64,
}

impl Epoch {
    /// Whether one read at a time was under way and duplicates showed the backend to be slower: then all of it at the
    /// backend would be a loss, and nothing in between is possible.
    fn is_hopeless(&self) -> bool {
        self.is_alone() && self.backend_latency > self.cache_latency
    }

    /// Whether one read at a time was under way.
    fn is_alone(&self) -> bool {
        self.in_flight < 2 * self.unit
    }

    /// The level at which reads wait as long at either side, as far as both have enough to do: there a hiccup of one of them finds
    /// most of its work still queued. 0 where only one is used, or one read at a time is under way.
    fn balanced(&self, level: u64) -> u64 {
        if self.is_alone() || self.cache_latency == 0 || self.backend_latency == 0 {
            return 0;
        }
        let backend = level as f64 / self.backend_latency as f64;
        let cache = self.in_flight.saturating_sub(level) as f64 / self.cache_latency as f64;
        (self.in_flight as f64 * backend / (backend + cache).max(f64::MIN_POSITIVE)) as u64
    }

    /// What must be in flight at the cache before a read is sent to the backend: a good part of what usually was; nothing
    /// where the backend takes all, but for stragglers.
    fn needed_at_the_cache(&self) -> u64 {
        if self.cache_when_spilled < self.unit / 2 { 0 } else { self.cache_when_spilled * 3 / 4 }
    }

    /// The highest level that leaves the cache something to do.
    fn ceiling(&self) -> u64 {
        self.in_flight.saturating_sub(self.unit)
    }
}

/// A level that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    level: u64,
    rate: f64,
    keep: u64,
    /// [`Epoch::balanced`].
    balanced: u64,
    /// [`Epoch::in_flight`].
    in_flight: u64,
}

impl Measured {
    /// Whether more was in flight than the difference of the levels explains: a reader whom the cache makes wait has more in
    /// flight when the backend gets some of it.
    fn has_more_readers(&self, than: &Self) -> bool {
        let explained = than.in_flight + self.level.saturating_sub(than.level);
        self.in_flight > explained && !is_same(self.in_flight, explained)
    }

    /// The same for less.
    fn has_fewer_readers(&self, than: &Self) -> bool {
        let explained = than.in_flight.saturating_sub(than.level.saturating_sub(self.level));
        self.in_flight < explained && !is_same(self.in_flight, explained)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Base,
    Recall,
    Grow,
    Near {
        gap: u64,
        grown: u64,
    },
    Refine {
        step: u64,
        up: bool,
    },
    Hold {
        left: u32,
    },
    /// At level 0, with duplicates: is a trial worth its loss?
    Ask,
    Trial {
        up: bool,
    },
}

/// A gain below this is noise, and then the level wins that is nearer to the one at which reads wait as long at either side.
const WORTH: f64 = 1.01;
/// A level this much below the best ends a stage.
const LOSING: f64 = 0.85;
/// The held rate moved this far: what was learned may be wrong. A device whose rate moves although the same level is found
/// again is noisy: there it must move further, up to the second figure.
const MOVED: f64 = 0.12;
const MOVED_NOISY: f64 = 0.4;
/// A level that has held for so many epochs was right when it was found.
const KEPT: u32 = 64;
/// Reads of a glance, and the share of the best rate that makes it a full trial; one read is enough below the other share.
const GLANCE: u64 = 4;
const PROMISING: f64 = 0.9;
const HOPELESS: f64 = 0.4;
/// Signs of a change that make one: an epoch is one, and two where its rate moved by more than this factor.
const SIGNS: u32 = 3;
const FAR: f64 = 2.0;
/// A level that gives less than this of what the cache alone gave is not held on to when things change.
const WORTHWHILE: f64 = 1.05;
/// Hold epochs before the first trial, and the most between two; fewer where the backend is used: the best of many noisy
/// levels may be the luckiest one.
const FIRST_HOLD: u32 = 16;
const FIRST_HOLD_SPLIT: u32 = 4;
const LAST_HOLD: u32 = 2048;
/// How often a search is begun anew, at most, because readers became more or fewer.
const MOST_ANEW: u32 = 3;
/// The backend fell silent so often while a level was held, and no epoch could be measured: the level is to blame.
const MOST_FALLS: u32 = 4;

/// The search of one size class.
#[derive(Debug)]
pub(crate) struct Search {
    stage: Stage,
    level: u64,
    best: Measured,
    /// Best rate seen at any level; `best` may be a lower level that gives almost as much.
    peak: f64,
    /// What the cache alone gave when it was measured last.
    base: f64,
    hold_epochs: u32,
    moved: u32,
    held: Option<Epoch>,
    fruitless: u32,
    /// The level that paid before things changed: tried first when they change back.
    recalled: Option<Measured>,
    /// How often this search was begun anew because more or less was in flight.
    anew: u32,
    /// How often the backend fell silent since an epoch ended, and the length of a typical read.
    falls: u32,
    unit: u64,
    /// Whether duplicates showed a reader that came alone a slower backend.
    slower: bool,
    /// How often in a row a reader that came alone was soon given less by the backend than by the cache, and for how many
    /// epochs the best level has held.
    fooled: u32,
    kept: u32,
    /// How far the rate must move, and the level that the last search found, while one that began anew is under way.
    moves: f64,
    before: Option<u64>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            stage: Stage::Base,
            level: 0,
            best: Measured { level: 0, rate: 0.0, keep: 0, balanced: 0, in_flight: 0 },
            peak: 0.0,
            base: 0.0,
            hold_epochs: FIRST_HOLD,
            moved: 0,
            held: None,
            fruitless: 0,
            recalled: None,
            anew: 0,
            falls: 0,
            unit: 0,
            slower: false,
            fooled: 0,
            kept: 0,
            moves: MOVED,
            before: None,
        }
    }
}

impl Search {
    /// Bytes to keep in flight at the backend now.
    pub(crate) fn level(&self) -> u64 {
        self.level
    }

    /// Bytes that must be in flight at the cache before the backend gets any: protects a reader that comes
    /// alone after a busy phase.
    pub(crate) fn keep(&self) -> u64 {
        if self.exploring() { 0 } else { self.best.keep }
    }

    /// Whether the level now in use is a trial and not the best known.
    pub(crate) fn exploring(&self) -> bool {
        !matches!(self.stage, Stage::Hold { .. })
    }

    /// Whether duplicates of reads that come alone are wanted, to compare the backend with the cache.
    pub(crate) fn wants_duplicates(&self) -> bool {
        matches!(self.stage, Stage::Base | Stage::Ask)
    }

    /// Rate of the best level, in bytes per second; 0 before the first epoch.
    pub(crate) fn best_rate(&self) -> f64 {
        self.best.rate
    }

    /// Whether an epoch that delivered `bytes` in `seconds` can be ended early: it is lost. Judged only once
    /// the best level would have delivered a fair number of reads of `unit`; where all reads came `alone` and duplicates have
    /// shown the backend to be slower, after a few.
    pub(crate) fn is_lost(&self, bytes: u64, seconds: f64, unit: u64, alone: bool) -> bool {
        let expected = self.best.rate * seconds;
        let share = bytes as f64 / expected.max(1.0);
        let reads = expected / unit.max(1) as f64;
        let trying = self.exploring() && !self.wants_duplicates();
        let enough = if share < HOPELESS { unit } else { GLANCE * unit };
        let glanced = alone && self.slower && bytes >= enough;
        trying
            && (glanced && share < PROMISING
                || reads > 24.0 && share < HOPELESS
                || reads > 96.0 && share < 0.7)
    }

    /// Begins anew, from plain caching.
    pub(crate) fn restart(&mut self) {
        let before = Some(self.best.level);
        let Self { recalled, moves, fooled, .. } = *self;
        *self = Self { recalled, moves, fooled, before, ..Self::default() };
    }

    /// Ends an epoch at [`Self::level`]; sets the next level.
    pub(crate) fn epoch(&mut self, epoch: Epoch) {
        let here = Measured {
            // All that was in flight was at the backend, whatever more the level allows.
            level: self.level.min(epoch.in_flight),
            rate: epoch.rate,
            keep: epoch.needed_at_the_cache(),
            balanced: epoch.balanced(self.level),
            in_flight: epoch.in_flight,
        };
        (self.falls, self.unit) = (0, epoch.unit);
        if self.level == 0 && self.exploring() {
            self.base = here.rate;
        }
        match self.stage {
            Stage::Base => self.based(here, &epoch),
            Stage::Hold { left } => self.hold(here, left, &epoch),
            Stage::Ask if epoch.is_hopeless() => self.start_hold(self.longer(2)),
            // Others came, maybe in the middle of it.
            Stage::Ask if !epoch.is_alone() => self.restart(),
            Stage::Ask => {
                self.slower = false;
                self.start_trial(true, &epoch);
            }
            // What more or fewer readers get says nothing of the level. A few times: some have more in flight whenever they get
            // more.
            _ if self.anew < MOST_ANEW && self.rate_is_of_others(here) => {
                let anew = self.anew + 1;
                self.restart();
                self.anew = anew;
            }
            Stage::Recall => {
                if self.take_if_better(here) {
                    self.start_refine(4, &epoch);
                } else {
                    self.recalled = None;
                    self.to(Stage::Grow, epoch.unit);
                }
            }
            Stage::Grow => self.grow(here, &epoch),
            Stage::Near { gap, grown } => self.near(here, gap, grown, &epoch),
            Stage::Refine { step, up } => self.refine(here, step, up, &epoch),
            Stage::Trial { up } => self.trial(here, up),
        }
    }

    /// The backend fell silent with reads at it, so that nothing can be measured. A trial has failed by that; where it comes again
    /// and again, what is asked of the backend takes it longer than silence may last.
    pub(crate) fn fell(&mut self) {
        self.falls += 1;
        if self.level > 0 && self.exploring() {
            self.epoch(Epoch {
                rate: 0.0,
                in_flight: self.best.in_flight,
                unit: self.unit.max(1),
                cache_when_spilled: 0,
                cache_latency: 0,
                backend_latency: 0,
            });
        } else if self.level > 0 && self.falls >= MOST_FALLS {
            self.restart();
        }
    }

    /// Whether a rate that is not that of the best level comes of more or fewer readers than there were when that was measured.
    fn rate_is_of_others(&self, here: Measured) -> bool {
        here.rate > self.best.rate && here.has_more_readers(&self.best)
            || here.rate < self.best.rate * LOSING && here.has_fewer_readers(&self.best)
    }

    /// Plain caching was measured.
    fn based(&mut self, here: Measured, epoch: &Epoch) {
        self.slower = epoch.is_hopeless();
        self.best = Measured { keep: 0, ..here };
        self.peak = here.rate;
        self.base = here.rate;
        match self.recalled {
            Some(good) if is_same(good.in_flight, epoch.in_flight) => self.to(Stage::Recall, good.level),
            _ => self.to(Stage::Grow, epoch.unit),
        }
    }

    fn to(&mut self, stage: Stage, level: u64) {
        self.stage = stage;
        self.level = level;
    }

    fn take_if_better(&mut self, here: Measured) -> bool {
        let off = |level: u64| level.abs_diff(here.balanced);
        let better = if off(here.level) < off(self.best.level) {
            here.rate * WORTH > self.peak
        } else {
            here.rate > self.best.rate * WORTH
        };
        self.peak = self.peak.max(here.rate);
        if better {
            if self.best.level == 0 {
                self.base = self.best.rate;
            }
            self.best = here;
            self.kept = 0;
        }
        better
    }

    fn grow(&mut self, here: Measured, epoch: &Epoch) {
        self.take_if_better(here);
        if here.rate < self.best.rate * LOSING || here.level >= epoch.in_flight {
            self.near_from(1, here.level, epoch);
        } else {
            self.to(Stage::Grow, here.level * 2);
        }
    }

    /// `grown`: the highest level that growing tried.
    fn near_from(&mut self, gap: u64, grown: u64, epoch: &Epoch) {
        let below_all = if grown >= epoch.in_flight { grown / 2 } else { grown };
        let tried = below_all.max(self.best.level / 2);
        match epoch.in_flight.checked_sub(gap * epoch.unit) {
            Some(level) if level > tried => self.to(Stage::Near { gap, grown }, level),
            _ => self.start_refine(4, epoch),
        }
    }

    fn near(&mut self, here: Measured, gap: u64, grown: u64, epoch: &Epoch) {
        self.take_if_better(here);
        self.near_from(gap * 2, grown, epoch);
    }

    /// Looks for the best level around the one that is best now, by a `part` of it at first.
    fn start_refine(&mut self, part: u64, epoch: &Epoch) {
        // Growing began with one read: there is nothing between that and none.
        if self.best.level == 0 {
            return self.start_first_hold(epoch);
        }
        let step = (self.best.level / part / epoch.unit).max(1) * epoch.unit;
        self.try_around(step, true, epoch);
    }

    fn refine(&mut self, here: Measured, step: u64, up: bool, epoch: &Epoch) {
        let better = self.take_if_better(here);
        let (step, up) = match (better, up) {
            (true, up) => (step, up),
            (false, true) => (step, false),
            (false, false) => (step / 2 / epoch.unit * epoch.unit, true),
        };
        self.try_around(step, up, epoch);
    }

    fn try_around(&mut self, step: u64, up: bool, epoch: &Epoch) {
        if step == 0 || (self.best.level == 0 && !up) {
            return self.start_first_hold(epoch);
        }
        for up in [up, false] {
            if let Some(level) = self.beside(step, up, epoch) {
                return self.to(Stage::Refine { step, up }, level);
            }
        }
        self.try_around(step / 2 / epoch.unit * epoch.unit, true, epoch);
    }

    /// The level a step beside the best one; `None` where there is none because the cache would get nothing, or the backend, and
    /// that is known to be a loss.
    fn beside(&self, step: u64, up: bool, epoch: &Epoch) -> Option<u64> {
        if !up {
            let level = self.best.level.saturating_sub(step);
            // What the cache gave is not measured again while a reader that comes alone is at the backend.
            let unknown = epoch.is_alone() || self.base > self.best.rate * LOSING;
            return (level > 0 || unknown).then_some(level);
        }
        let level = self.best.level + step;
        let level = if epoch.is_alone() { level } else { level.min(epoch.ceiling()) };
        (level > self.best.level).then_some(level)
    }

    fn start_first_hold(&mut self, epoch: &Epoch) {
        let split = self.best.level > 0 && !epoch.is_alone();
        self.start_hold(if split { FIRST_HOLD_SPLIT } else { FIRST_HOLD });
    }

    fn start_hold(&mut self, epochs: u32) {
        let others = |good: Measured| {
            !is_same(good.in_flight, self.best.in_flight) || self.best.rate > good.rate * 0.95
        };
        if self.best.level > 0 && self.recalled.is_none_or(others) {
            self.recalled = Some(self.best);
        }
        if let Some(before) = self.before.take() {
            let same = self.best.level.abs_diff(before) <= before / 4;
            self.moves = if same { (self.moves * 1.5).min(MOVED_NOISY) } else { MOVED };
        }
        self.hold_epochs = epochs;
        self.anew = 0;
        self.moved = 0;
        self.held = None;
        self.to(Stage::Hold { left: epochs }, self.best.level);
    }

    fn hold(&mut self, here: Measured, left: u32, epoch: &Epoch) {
        let held = *self.held.get_or_insert(*epoch);
        self.kept += 1;
        let ratio = here.rate / self.best.rate.max(1.0);
        let readers_moved = !is_same(epoch.in_flight, self.best.in_flight);
        let backend_moved = self.best.level > 0 && !is_same(epoch.backend_latency, held.backend_latency);
        let moved = (ratio - 1.0).abs() > self.moves || readers_moved || backend_moved;
        let sign = if (1.0 / FAR..FAR).contains(&ratio) { 1 } else { 2 };
        self.moved = if moved { self.moved + sign } else { 0 };
        if self.moved >= SIGNS {
            let cache_moved = readers_moved || !is_same(epoch.cache_latency, held.cache_latency);
            return self.changed(here, cache_moved, readers_moved, epoch);
        }
        if !moved {
            let drift = (here.rate - self.best.rate) / 8.0;
            self.best.rate += drift;
            self.peak += drift;
            self.best.keep = if self.best.level == 0 { 0 } else { (self.best.keep * 7 + here.keep) / 8 };
        }
        if left > 0 {
            self.stage = Stage::Hold { left: left - 1 };
        } else if self.best.level == 0 && epoch.is_alone() {
            self.to(Stage::Ask, 0);
        } else {
            self.start_trial(self.fruitless.is_multiple_of(2), epoch);
        }
    }

    /// Something is not what it was when the level was found.
    fn changed(&mut self, here: Measured, cache_moved: bool, readers_moved: bool, epoch: &Epoch) {
        if self.best.level > 0 && epoch.is_alone() && !readers_moved && here.rate < self.base {
            return self.back_to_the_cache();
        }
        if cache_moved || self.best.level == 0 || here.rate < self.base * WORTHWHILE {
            self.restart();
            // What the cache alone gives has just been seen.
            if here.level == 0 && !epoch.is_alone() {
                self.based(here, epoch);
            }
            return;
        }
        self.before = Some(self.best.level);
        self.best = here;
        self.peak = here.rate;
        self.start_refine(2, epoch);
    }

    /// A link that has rested carries the first reads faster than those that follow: whoever was fooled by that is in less of a
    /// hurry to try it again.
    fn back_to_the_cache(&mut self) {
        self.fooled = if self.kept < KEPT { self.fooled + 1 } else { 0 };
        (self.recalled, self.before) = (None, None);
        self.best = Measured { level: 0, rate: self.base, keep: 0, balanced: 0, ..self.best };
        self.peak = self.base;
        self.start_hold((FIRST_HOLD << self.fooled.min(8)).min(LAST_HOLD));
    }

    fn start_trial(&mut self, up: bool, epoch: &Epoch) {
        let step = (self.best.level / 8 / epoch.unit).max(1) * epoch.unit;
        for up in [up, false] {
            if let Some(level) = self.beside(step, up, epoch) {
                return self.to(Stage::Trial { up }, level);
            }
        }
        self.fruitless += 1;
        self.start_hold(self.longer(2));
    }

    fn trial(&mut self, here: Measured, up: bool) {
        if self.take_if_better(here) {
            self.fruitless = u32::from(!up);
            self.start_hold(2);
        } else {
            self.fruitless += 1;
            // One that cost much is not repeated soon.
            let lost = here.rate < self.best.rate * LOSING;
            self.start_hold(self.longer(if lost { 4 } else { 2 }));
        }
    }

    fn longer(&self, times: u32) -> u32 {
        (self.hold_epochs * times).min(LAST_HOLD)
    }
}

/// Whether two figures are alike, as far as bursts and a few readers more or less go; 0 is no figure.
fn is_same(one: u64, other: u64) -> bool {
    let ratio = one as f64 / other.max(1) as f64;
    one == 0 || other == 0 || (0.6..=1.7).contains(&ratio)
}

#[cfg(test)]
mod tests;
