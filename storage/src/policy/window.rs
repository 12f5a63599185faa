//! The `window` policy: bytes in flight at each side, learned online.
//!
//! A reader that waits for the backend is a reader that does not load the cache, so what matters is how many
//! bytes wait where, not which share of the requests went where. The policy keeps a window of bytes at the
//! backend per size class, finds it by measuring delivered bytes (`search`), and spills a hit only while
//!
//! ```text
//!   the backend is live  and  backend in flight + len <= window  and  cache in flight >= what it needs
//!   and the backend's expected delay is bearable  and  (polite) it is not slower than 1.7 x its minimum
//! ```
//! Targets of the backend have windows of their own: shares of the whole one, smaller for those that are slower than the
//! fastest, so that a slow or lost target takes nothing from its neighbours. A stream has a share too, for the same reason.
//! Large reads that come nearly alone may be striped over both sides. While a class uses no backend, reads
//! that cost no latency (duplicates) tell whether the backend changed. It does no hedging: the daemon does,
//! because only it can answer a reader twice.

mod epoch;
mod minimum;
mod probe;
mod stripe;

use super::liveness::SILENCE;
use super::search::Search;
use super::target::PerTarget;
use super::{Ask, Completion, InFlight, MILLIS, Nanos, Outstanding, Role, Route, Side, StreamId, TargetId};
use epoch::Meter;
use minimum::ExpiringMin;
use probe::Probe;
use serde::Serialize;
use stripe::{Large, Stripes};

/// What an administrator may set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowConfig {
    /// Spill only while the backend's latency is below 1.7 times its recent minimum and no signal calls it degraded.
    pub polite: bool,
    /// Most bytes in flight at the backend by spilled hits; `None`: no cap.
    pub max_backend_bytes: Option<u64>,
}

/// Upper bounds of the size classes in bytes; the last class has none.
const CLASS_BOUNDS: [u32; 2] = [16 << 10, 192 << 10];
pub(super) const CLASSES: usize = CLASS_BOUNDS.len() + 1;
/// A backend this many times slower than its minimum is congested, for the polite mode.
const POLITE_FACTOR: u64 = 17;
/// A backend read may take this much longer than a cache read, and never less than `BEARABLE_FLOOR`.
const BEARABLE_FACTOR: u64 = 64;
const BEARABLE_FLOOR: Nanos = 50 * MILLIS;

#[derive(Debug, Default)]
struct SideTiming {
    mean: Nanos,
    min: ExpiringMin,
}

impl SideTiming {
    fn add(&mut self, now: Nanos, latency: Nanos) {
        // After a silence the mean holds the stall; a good answer must not wait for it to decay.
        let anew = self.mean == 0 || (self.mean > BEARABLE_FLOOR && latency * 4 < self.mean);
        self.mean = if anew { latency } else { (self.mean * 7 + latency) / 8 };
        self.min.add(now, latency);
    }
}

/// Why the last question was answered as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The class's window is zero: the backend was measured to cost more than it gives.
    #[default]
    WindowZero,
    /// The backend's window is full.
    WindowFull,
    /// The reader's own stream holds its share of the window.
    StreamShare,
    /// The target that has the bytes holds its share of the window.
    TargetShare,
    /// The cache would starve.
    CacheNotBusy,
    /// The backend is silent, failed its last read, or a signal calls it gone.
    BackendDown,
    /// The backend was down a moment ago and gets a few reads at first.
    BackendReturning,
    /// The backend's expected delay is too long.
    BackendSlow,
    /// Polite mode: the backend is congested.
    BackendCongested,
    /// Spilled.
    Spilled,
    /// Striped.
    Striped,
    /// Whole at the cache, to see whether striping pays.
    Compared,
}

/// State of the policy.
#[derive(Debug)]
pub struct Window {
    config: WindowConfig,
    searches: [Search; CLASSES],
    meter: Meter,
    targets: PerTarget<Target>,
    cache: SideTiming,
    backend: SideTiming,
    stripes: Stripes,
    probe: Probe,
    degraded: bool,
    reason: Reason,
}

/// What is known of one target.
#[derive(Debug)]
struct Target {
    /// Bytes that each stream holds there, by [`StreamId::bucket`].
    held: [u64; StreamId::BUCKETS],
    timing: SideTiming,
    /// Duplicates under way, for which no reader waits.
    duplicates: InFlight,
    /// Whether it is silent.
    down: bool,
    /// When it last answered or was asked by a duplicate.
    heard: Nanos,
}

impl Default for Target {
    fn default() -> Self {
        let (timing, duplicates) = Default::default();
        Self { held: [0; StreamId::BUCKETS], timing, duplicates, down: false, heard: 0 }
    }
}

impl Target {
    fn bytes(&self) -> u64 {
        self.held.iter().sum()
    }

    /// How large its window is beside that of the fastest target, 1.0 for that one; a new one is believed to be fast.
    fn weight(&self, fastest: Nanos) -> f64 {
        let slower = self.timing.mean.max(1) as f64 / fastest.max(1) as f64;
        (1.0 / slower).min(1.0)
    }
}

impl Window {
    /// A policy that knows nothing yet and therefore reads at the cache.
    pub fn new(config: WindowConfig) -> Self {
        Self {
            config,
            searches: Default::default(),
            meter: Meter::default(),
            targets: PerTarget::default(),
            cache: SideTiming::default(),
            backend: SideTiming::default(),
            stripes: Stripes::default(),
            probe: Probe::default(),
            degraded: false,
            reason: Reason::default(),
        }
    }

    /// Whether a signal from outside calls the backend degraded.
    pub(super) fn backend_degraded(&mut self, degraded: bool) {
        self.degraded = degraded;
    }

    /// A read is handed to a side, whoever chose it; `out` is under way already.
    pub(super) fn issued(&mut self, now: Nanos, side: Side, ask: Ask, out: &Outstanding) {
        if self.waited_for(out).reads() == 0 {
            self.meter.woken(now);
        }
        if side == Side::Backend {
            self.target(ask.target).held[ask.stream.bucket()] += u64::from(ask.len);
        }
    }

    /// A target went down, or came back: what was under way there will not be told of again.
    pub(super) fn target_fell(&mut self, target: TargetId, down: bool) {
        let target = self.target(target);
        let hits = target.bytes() > 0;
        target.held = [0; StreamId::BUCKETS];
        target.duplicates = InFlight::default();
        let was_down = std::mem::replace(&mut target.down, down);
        if down && !was_down && hits {
            self.searches.iter_mut().for_each(Search::fell);
            self.stripes.backend_fell(SILENCE);
        }
    }

    /// What readers wait for: a duplicate makes nobody's queue longer.
    fn waited_for(&self, out: &Outstanding) -> Outstanding {
        let mut out = *out;
        for InFlight { reads, bytes } in self.targets.iter().map(|t| t.duplicates) {
            out.backend.reads = out.backend.reads.saturating_sub(reads);
            out.backend.bytes = out.backend.bytes.saturating_sub(bytes);
        }
        out
    }

    fn target(&mut self, target: TargetId) -> &mut Target {
        self.targets.at(target, Target::default)
    }

    /// A part of a striped read was not answered for `age`.
    pub(super) fn part_is_late(&mut self, side: Side, len: u32, age: Nanos) {
        self.stripes.part_is_late(side, len, age);
    }

    /// A hit goes to the cache because the backend is down.
    pub(super) fn backend_is_down(&mut self, now: Nanos, ask: Ask, out: &Outstanding) {
        self.reason = Reason::BackendDown;
        self.meter.arrived(now, ask, out, false);
    }

    /// `room`: the backend may get one more read.
    pub(super) fn route(&mut self, now: Nanos, ask: Ask, out: &Outstanding, room: bool) -> Route {
        let len = ask.len;
        let out = &self.waited_for(out);
        if !room {
            // Neither does what is measured while it gets less than its window.
            self.meter.restart(now);
            self.reason = Reason::BackendReturning;
            return Route::One(Side::Cache);
        }
        self.stripes.arrived(out);
        let reason = self.decide(now, ask, out);
        self.reason = reason;
        self.meter.arrived(now, ask, out, reason == Reason::Spilled);
        match reason {
            Reason::Spilled => {
                self.probe.spilled(now);
                Route::One(Side::Backend)
            }
            Reason::Striped => Route::Stripe { cache: self.stripes.cut(len) },
            // A duplicate would keep the next striped read waiting.
            Reason::Compared => Route::One(Side::Cache),
            _ if self.probe_is_due(now, ask, out) => {
                self.target(ask.target).duplicates.add(len);
                Route::Probe
            }
            _ => Route::One(Side::Cache),
        }
    }

    fn decide(&mut self, now: Nanos, ask: Ask, out: &Outstanding) -> Reason {
        let Ask { stream, target, len } = ask;
        let timing = &mut self.target(target).timing;
        let (mean, congested) = (timing.mean, timing.mean * 10 > timing.min.get(now) * POLITE_FACTOR);
        if self.config.polite && (self.degraded || (mean > 0 && congested)) {
            return Reason::BackendCongested;
        }
        if mean > BEARABLE_FLOOR.max(self.cache.mean * BEARABLE_FACTOR) {
            return Reason::BackendSlow;
        }
        match self.stripes.decide(len, out) {
            Large::Striped => return Reason::Striped,
            Large::AtCache => return Reason::Compared,
            Large::Free => {}
        }
        let search = &self.searches[class_of(len)];
        let (level, keep) = (search.level(), search.keep());
        let window = level.min(self.config.max_backend_bytes.unwrap_or(u64::MAX));
        if window == 0 {
            Reason::WindowZero
        } else if out.backend.bytes + u64::from(len) > window {
            Reason::WindowFull
        } else if self.held_by(stream) + u64::from(len) > self.share_of(window, len) {
            Reason::StreamShare
        } else if self.target(target).bytes() + u64::from(len) > self.window_of(target, window, len) {
            Reason::TargetShare
        } else if out.cache.bytes < keep {
            Reason::CacheNotBusy
        } else {
            Reason::Spilled
        }
    }

    /// The most one stream may hold at the backend: an even share, rounded up to whole reads. A stream with
    /// all its reads parked there would stop asking the cache for anything.
    fn share_of(&self, window: u64, len: u32) -> u64 {
        let even = window / u64::from(self.meter.active_streams());
        even.next_multiple_of(u64::from(len.max(1)))
    }

    fn held_by(&self, stream: StreamId) -> u64 {
        self.targets.iter().map(|t| t.held[stream.bucket()]).sum()
    }

    /// The target's part of a window of all: by weight among those that are in use, rounded up to whole reads.
    fn window_of(&self, target: TargetId, window: u64, len: u32) -> u64 {
        let active = |place: &usize| self.meter.is_active(*place) || *place == target.bucket();
        let used = || self.targets.iter().enumerate().filter(|(place, _)| active(place)).map(|(_, t)| t);
        let fastest = used().map(|t| t.timing.mean).filter(|m| *m > 0).min().unwrap_or(0);
        let all: f64 = used().map(|t| t.weight(fastest)).sum();
        let own = self.targets.iter().nth(target.bucket()).map_or(1.0, |t| t.weight(fastest));
        ((window as f64 * own / all) as u64).next_multiple_of(u64::from(len.max(1)))
    }

    fn probe_is_due(&mut self, now: Nanos, ask: Ask, out: &Outstanding) -> bool {
        let alone = out.cache.reads + out.backend.reads == 0;
        let compare = alone && self.searches[class_of(ask.len)].wants_duplicates();
        let target = self.targets.at(ask.target, Target::default);
        let due = target.bytes() == 0 && self.probe.is_due(now, target.heard, compare);
        if due {
            target.heard = now;
        }
        due
    }

    /// `out`: what is still under way. What is measured while the backend is not live says nothing of later.
    pub(super) fn completed(&mut self, now: Nanos, done: &Completion, out: &Outstanding, live: bool) {
        if done.side == Side::Backend {
            let target = self.target(done.target);
            let held = &mut target.held[done.stream.bucket()];
            *held = held.saturating_sub(u64::from(done.len));
            if done.role == Role::Duplicate {
                target.duplicates.remove(done.len);
            }
        }
        if !done.ok {
            return;
        }
        match done.side {
            Side::Cache => self.cache.add(now, done.latency),
            Side::Backend => self.backend_answered(now, done),
        }
        let out = &self.waited_for(out);
        self.stripes.completed(done, out);
        if !live {
            return self.meter.restart(now);
        }
        if let Some((class, epoch)) = self.meter.completed(now, done, out, self.backend.mean, &self.searches)
        {
            if !self.meter.is_striped() {
                self.searches[class].epoch(epoch);
            }
            let search = &self.searches[class];
            self.probe.next_epoch(search.level() > 0 && !search.exploring());
            self.meter.restart(now);
        }
    }

    fn backend_answered(&mut self, now: Nanos, done: &Completion) {
        self.backend.add(now, done.latency);
        let target = self.target(done.target);
        target.heard = now;
        target.timing.add(now, done.latency);
        let single = done.role == Role::Duplicate && !self.searches[class_of(done.len)].wants_duplicates();
        if single && self.probe.answered(done.latency) {
            self.searches.iter_mut().filter(|s| s.level() == 0).for_each(Search::restart);
        }
    }

    /// The windows and what moved the split last.
    pub fn snapshot(&self) -> WindowSnapshot {
        WindowSnapshot {
            backend_window_bytes: std::array::from_fn(|i| self.searches[i].level()),
            best_rate_bytes_per_s: std::array::from_fn(|i| self.searches[i].best_rate()),
            class_bounds: CLASS_BOUNDS,
            exploring: std::array::from_fn(|i| self.searches[i].exploring()),
            cache_latency_us: self.cache.mean / 1000,
            backend_latency_us: self.backend.mean / 1000,
            reason: self.reason,
        }
    }
}

/// What `explain`, `stats` and the metrics show of the policy.
#[derive(Clone, Debug, Serialize)]
pub struct WindowSnapshot {
    /// Bytes to keep in flight at the backend, per size class (16 KiB, 192 KiB, larger).
    pub backend_window_bytes: [u64; CLASSES],
    /// Best delivered rate seen, per size class.
    pub best_rate_bytes_per_s: [f64; CLASSES],
    /// Largest read of each size class but the last, in bytes.
    pub class_bounds: [u32; CLASSES - 1],
    /// Whether a class still tries other windows.
    pub exploring: [bool; CLASSES],
    /// Mean latency of the cache in microseconds.
    pub cache_latency_us: u64,
    /// Mean latency of the backend in microseconds.
    pub backend_latency_us: u64,
    /// Why the last hit went where it went.
    pub reason: Reason,
}

impl WindowSnapshot {
    /// The windows with the names of their size classes.
    pub fn windows(&self) -> [(&'static str, u64); CLASSES] {
        let [small, medium, large] = self.backend_window_bytes;
        [("up to 16 KiB", small), ("up to 192 KiB", medium), ("larger", large)]
    }
}

/// The size class of a read.
pub(super) fn class_of(len: u32) -> usize {
    CLASS_BOUNDS.iter().position(|bound| len <= *bound).unwrap_or(CLASS_BOUNDS.len())
}
