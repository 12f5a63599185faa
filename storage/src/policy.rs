//! Which copy serves a clean hit: the pure core of splitting.
//!
//! A [`Splitter`] is told what happens (a read was issued, a read completed) together with the time, and
//! answers where the next read goes. It does no IO, reads no clock and starts no thread, so that the daemon
//! and the emulator ([`crate::emulate`]) run the same code. It does not know about files, validity or dirty
//! data: only reads that both sides can serve are shown to it as a question; all others only as events.
//!
//! ```text
//!   route(now, ask) -> Route          "a clean hit of so many bytes: where?"
//!   issued(now, side, ask)            every read that really went to a side, also misses, fills, duplicates
//!   completed(now, completion)
//!   tick(now)                         at least every 100 ms
//! ```

mod hedge;
mod interleave;
mod liveness;
mod netcas;
mod orthus;
mod profile;
mod search;
mod target;
mod usual;
mod window;

pub use netcas::Netcas;
pub use orthus::Orthus;
pub use profile::{Profile, ProfileError};
pub use target::TargetId;
pub use window::{Window, WindowConfig};

use hedge::Hedges;
use liveness::Liveness;
use serde::{Deserialize, Serialize};
use target::PerTarget;
use usual::Usual;

/// Nanoseconds on a clock that only goes forward; the origin does not matter.
pub type Nanos = u64;

/// One millisecond in [`Nanos`].
pub const MILLIS: Nanos = 1_000_000;
/// One second in [`Nanos`].
pub const SECOND: Nanos = 1_000_000_000;

/// One of the two copies of a clean cached extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The local cache device.
    Cache,
    /// The remote file system.
    Backend,
}

impl Side {
    /// The one that has the other copy.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Cache => Self::Backend,
            Self::Backend => Self::Cache,
        }
    }
}

/// Who reads: requests with the same id belong to one reader that waits for them together. The daemon uses
/// the open file, the emulator the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Streams are told apart in this many buckets.
    pub(crate) const BUCKETS: usize = 64;

    pub(crate) fn bucket(self) -> usize {
        (self.0 % Self::BUCKETS as u64) as usize
    }
}

/// A clean hit that asks where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who reads.
    pub stream: StreamId,
    /// Which part of the backend has the bytes.
    pub target: TargetId,
    /// Bytes.
    pub len: u32,
}

/// Where a clean hit is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// All of it at one side.
    One(Side),
    /// At the cache, and once more at the backend only to learn how fast it is; the cache's bytes count.
    Probe,
    /// The first `cache` bytes at the cache and the rest at the backend, at the same time.
    Stripe {
        /// Length of the cache's part, in bytes; a multiple of 4096.
        cache: u32,
    },
}

/// Names of the policies, as the command line and the configuration spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PolicyName {
    /// Every hit at the cache: plain caching.
    CacheOnly,
    /// Every hit at the backend.
    BackendOnly,
    /// The ratio of a measured Perf Profile, corrected by a network monitor (arXiv 2510.02323).
    Netcas,
    /// Non-hierarchical caching: random admission at a ratio found by slope following (FAST'21).
    Orthus,
    /// A fixed share of the hits at the cache, in percent, evenly interleaved: `fixed-70`.
    Fixed(u8),
    /// Bytes in flight per side, learned online.
    #[default]
    Window,
}

impl std::str::FromStr for PolicyName {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Self::CacheOnly, Self::BackendOnly, Self::Netcas, Self::Orthus, Self::Window];
        let percent = || name.strip_prefix("fixed-")?.parse().ok().filter(|p| *p <= 100).map(Self::Fixed);
        known.into_iter().find(|p| p.to_string() == name).or_else(percent).ok_or_else(|| {
            format!("{name} is no policy: window, cache-only, backend-only, netcas, orthus or fixed-PERCENT")
        })
    }
}

impl TryFrom<String> for PolicyName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.to_string()
    }
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed(percent) => return write!(f, "fixed-{percent}"),
            Self::CacheOnly => "cache-only",
            Self::BackendOnly => "backend-only",
            Self::Netcas => "netcas",
            Self::Orthus => "orthus",
            Self::Window => "window",
        })
    }
}

/// A policy with its state.
#[derive(Debug)]
pub enum Policy {
    /// See [`PolicyName::CacheOnly`].
    CacheOnly,
    /// See [`PolicyName::BackendOnly`].
    BackendOnly,
    /// A fixed share of requests at the cache, in percent, evenly interleaved.
    Static(interleave::Interleave),
    /// See [`PolicyName::Netcas`].
    Netcas(Box<Netcas>),
    /// See [`PolicyName::Orthus`].
    Orthus(Box<Orthus>),
    /// See [`PolicyName::Window`].
    Window(Box<Window>),
}

impl Policy {
    /// A fixed split: `percent` of the requests at the cache, evenly interleaved.
    pub fn fixed(percent: u8) -> Self {
        Self::Static(interleave::Interleave::new(percent))
    }
}

/// What is in flight at one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// Reads not yet completed.
    pub reads: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl InFlight {
    fn add(&mut self, len: u32) {
        self.reads += 1;
        self.bytes += u64::from(len);
    }

    fn remove(&mut self, len: u32) {
        self.reads = self.reads.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(len));
    }
}

/// In-flight accounting of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outstanding {
    /// At the cache.
    pub cache: InFlight,
    /// At the backend.
    pub backend: InFlight,
}

impl Outstanding {
    fn reads(&self) -> u32 {
        self.cache.reads + self.backend.reads
    }

    fn bytes(&self) -> u64 {
        self.cache.bytes + self.backend.bytes
    }

    fn side(&mut self, side: Side) -> &mut InFlight {
        match side {
            Side::Cache => &mut self.cache,
            Side::Backend => &mut self.backend,
        }
    }
}

/// One completed read.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Who read.
    pub stream: StreamId,
    /// Which part of the backend has the bytes.
    pub target: TargetId,
    /// Where it was served.
    pub side: Side,
    /// Its length in bytes.
    pub len: u32,
    /// From issue to completion.
    pub latency: Nanos,
    /// Whether the side delivered the bytes.
    pub ok: bool,
    /// What it was for.
    pub role: Role,
}

/// What a read was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A reader got these bytes.
    Whole,
    /// The same, and there was no other copy.
    Miss,
    /// A reader got them as one part of a striped read.
    Striped,
    /// The side was asked too because the other one was late, or was late itself: the other one's bytes counted.
    Outrun,
    /// Nobody waited for it: it tells how fast a side is, or whether it answers.
    Duplicate,
}

impl Role {
    /// Whether a reader got the bytes.
    pub(crate) fn is_useful(self) -> bool {
        matches!(self, Self::Whole | Self::Miss | Self::Striped)
    }
}

/// What signals from outside say of the backend (states of controllers and imports, counters of links; see
/// [`crate::feedback`]). The splitter's own timing comes on top: it is never overruled by a signal that says "live".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Nothing is known against it.
    #[default]
    Live,
    /// A path is lost or the network to it is congested: polite mounts send no hits there.
    Degraded,
    /// It cannot answer: no policy sends hits there.
    Gone,
}

/// The splitter of one backend: in-flight accounting, which of its targets are live, and a policy.
#[derive(Debug)]
pub struct Splitter {
    out: Outstanding,
    policy: Policy,
    liveness: PerTarget<Liveness>,
    cache: Liveness,
    /// What signals say of all targets.
    reported: BackendState,
    hedges: Hedges,
    usual: Usual,
    /// The latest time told. Callers on several threads look at the clock before they take their turn here, so the times
    /// that they tell are not in order; in here time never goes back.
    now: Nanos,
}

impl Splitter {
    /// A splitter with nothing in flight.
    pub fn new(policy: Policy) -> Self {
        let (out, liveness, cache, reported, usual) = Default::default();
        Self { out, policy, liveness, cache, reported, hedges: Hedges::new(0), usual, now: 0 }
    }

    /// The same, with at most `percent` of the hits hedged.
    #[must_use]
    pub fn hedging(self, percent: u8) -> Self {
        Self { hedges: Hedges::new(percent), ..self }
    }

    /// Decides one clean hit. The caller then reports each part with [`Self::issued`].
    pub fn route(&mut self, now: Nanos, ask: Ask) -> Route {
        let now = self.forward(now);
        self.hedges.arrived();
        let target = self.target(ask.target);
        if !target.is_live() {
            return self.route_around(now, ask);
        }
        let (room, load) = (target.has_room(), load(&self.cache, &self.liveness));
        let route = match &mut self.policy {
            Policy::CacheOnly => Route::One(Side::Cache),
            Policy::BackendOnly => Route::One(Side::Backend),
            Policy::Static(interleave) => Route::One(interleave.next_side()),
            Policy::Netcas(netcas) => Route::One(netcas.route(now)),
            Policy::Orthus(orthus) => Route::One(orthus.route(now)),
            Policy::Window(window) => return window.route(now, ask, &load, room),
        };
        if room { route } else { Route::One(Side::Cache) }
    }

    /// A target that is down is left by every policy: the others would park all readers there. Duplicates ask it whether it
    /// is back, except for a policy that never reads there.
    fn route_around(&mut self, now: Nanos, ask: Ask) -> Route {
        let load = load(&self.cache, &self.liveness);
        if let Policy::Window(window) = &mut self.policy {
            window.backend_is_down(now, ask, &load);
        }
        let ask_it = !matches!(self.policy, Policy::CacheOnly) && self.target(ask.target).wants_question(now);
        if ask_it { Route::Probe } else { Route::One(Side::Cache) }
    }

    /// A read was handed to `side`.
    pub fn issued(&mut self, now: Nanos, side: Side, ask: Ask) {
        let now = self.forward(now);
        if let Policy::Window(window) = &mut self.policy {
            window.issued(now, side, ask, &load(&self.cache, &self.liveness));
        }
        self.out.side(side).add(ask.len);
        if side == Side::Backend {
            self.target(ask.target).issued(now, ask.len);
        } else {
            self.cache.issued(now, ask.len);
        }
    }

    /// A read ended, well or badly.
    pub fn completed(&mut self, now: Nanos, done: Completion) {
        let now = self.forward(now);
        let Completion { side, target, len, latency, ok, .. } = done;
        self.out.side(side).remove(len);
        if side == Side::Cache {
            // An error comes fast and the other copy is asked at once; only silence costs time.
            self.cache.completed(now, len, latency, true);
        }
        let liveness = self.target(target);
        let straggler = side == Side::Backend && liveness.completed(now, len, latency, ok);
        let live = liveness.is_live();
        self.notice_falls();
        if !straggler {
            self.hedges.completed(&done);
            self.usual.completed(&done);
        }
        match &mut self.policy {
            Policy::CacheOnly | Policy::BackendOnly | Policy::Static(_) => {}
            Policy::Netcas(netcas) => netcas.completed(now, &done),
            Policy::Orthus(orthus) => orthus.completed(&done),
            Policy::Window(_) if straggler => {}
            Policy::Window(window) => {
                window.completed(now, &done, &load(&self.cache, &self.liveness), live);
            }
        }
    }

    /// From which age on a hit's read of `len` at `side` is late; `None` without hedging, or too little was seen.
    pub fn deadline(&self, side: Side, len: u32) -> Option<Nanos> {
        self.hedges.deadline(side, len)
    }

    /// A part of a striped read, `len` bytes at `side`, was not answered for `age`, and the other side is asked for it.
    pub fn part_is_late(&mut self, side: Side, len: u32, age: Nanos) {
        if let Policy::Window(window) = &mut self.policy {
            window.part_is_late(side, len, age);
        }
    }

    /// From which age on a hit's read of `len` at `side` is no longer taken to be queueing there: 0 where the side is silent.
    pub fn patience(&mut self, side: Side, target: TargetId, len: u32) -> Nanos {
        let live = match side {
            Side::Cache => self.cache.is_live(),
            Side::Backend => self.target(target).is_live(),
        };
        if live { self.usual.patience(side, len) } else { 0 }
    }

    /// Whether a hit that is late at `late` may be read at the other side too; if so, it is out of the budget.
    pub fn hedge(&mut self, late: Side, target: TargetId) -> bool {
        let possible = late == Side::Backend || self.target(target).has_room();
        possible && self.hedges.spend()
    }

    /// Lets time pass: notices a backend that went silent. Returns whether the backend counts as live.
    pub fn tick(&mut self, now: Nanos) -> bool {
        let now = self.forward(now);
        self.liveness.iter_mut().for_each(|target| target.tick(now));
        self.cache.tick(now);
        self.notice_falls();
        self.backend_live()
    }

    /// A signal from outside changed. A backend that comes back is believed as far as one read goes.
    pub fn backend_reported(&mut self, now: Nanos, state: BackendState) {
        let now = self.forward(now);
        self.reported = state;
        self.liveness.iter_mut().for_each(|target| target.reported(now, state));
        self.notice_falls();
        self.tell_policy();
    }

    fn notice_falls(&mut self) {
        for (place, target) in self.liveness.iter_mut().enumerate() {
            if let (true, Policy::Window(window)) = (target.fell(), &mut self.policy) {
                window.target_fell(TargetId(place as u32), !target.answers());
            }
        }
    }

    fn target(&mut self, target: TargetId) -> &mut Liveness {
        let reported = self.reported;
        self.liveness.at(target, || Liveness::with(reported))
    }

    /// Another policy from now on; what is in flight stays counted.
    pub fn replace(&mut self, policy: Policy) {
        self.policy = policy;
        self.tell_policy();
    }

    fn forward(&mut self, now: Nanos) -> Nanos {
        self.now = self.now.max(now);
        self.now
    }

    fn tell_policy(&mut self) {
        if let Policy::Window(window) = &mut self.policy {
            window.backend_degraded(self.reported == BackendState::Degraded);
        }
    }

    /// What is in flight now.
    pub fn outstanding(&self) -> Outstanding {
        self.out
    }

    /// Whether hits may be read at the backend, at one target at least: it answered its last read in time, and no signal says
    /// that it is gone.
    pub fn backend_live(&self) -> bool {
        self.liveness.iter().any(Liveness::is_live)
    }

    /// Whether our own timing finds nothing against one target of the backend at least.
    pub fn backend_answers(&self) -> bool {
        self.liveness.iter().any(Liveness::answers)
    }

    /// Whether the cache answers its reads.
    pub fn cache_live(&self) -> bool {
        self.cache.is_live()
    }

    /// Whether a duplicate is to ask a cache that is silent. The caller sends it if so.
    pub fn cache_wants_question(&mut self, now: Nanos) -> bool {
        let now = self.forward(now);
        self.cache.wants_question(now)
    }

    /// The policy's state, for `explain` and metrics.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// What is in flight and counts: reads that a lost side never answered are no load on it.
fn load(cache: &Liveness, targets: &PerTarget<Liveness>) -> Outstanding {
    let mut backend = InFlight::default();
    for InFlight { reads, bytes } in targets.iter().map(Liveness::fresh) {
        backend.reads += reads;
        backend.bytes += bytes;
    }
    Outstanding { cache: cache.fresh(), backend }
}

#[cfg(test)]
mod tests;
