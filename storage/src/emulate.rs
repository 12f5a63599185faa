//! Device pairs in virtual time, driven by the same [`crate::policy::Splitter`] as the daemon.
//!
//! A station serves in order at a rate that depends on how many requests it holds. A closed loop of jobs,
//! each with a number of slots, keeps it loaded:
//!
//! ```text
//!   job slot -> Splitter::route -> cache station   (a synchronous cache blocks the job meanwhile)
//!                               -> backend station -> slot free again
//! ```
//! It is a model: it has no misses, no network and no file system, and says nothing about CPU cost.

mod pair;
mod station;

pub use pair::{CacheKind, Pair};
pub use station::{Curve, Station};

use crate::policy::{
    Ask, Completion, Nanos, Policy, Role, Route, SECOND, Side, Splitter, StreamId, TargetId,
};

/// Length of every emulated read: the block size of the published Perf Profile.
pub const READ_BYTES: u32 = 64 << 10;

/// What a run is to look like.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Jobs.
    pub jobs: u32,
    /// Slots of each job, until a [`Change::Depth`].
    pub depth: u32,
    /// Time before counting starts.
    pub warm_up: Nanos,
    /// Time that is counted.
    pub measure: Nanos,
}

/// What is different from a point in time on.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// When.
    pub at: Nanos,
    /// What.
    pub change: Change,
}

/// What can change in a run.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A factor on the backend's rate; above 0.
    Backend(f64),
    /// Slots of each job; 0: it pauses.
    Depth(u32),
}

#[derive(Clone, Copy, Debug)]
struct Request {
    job: u32,
    issued: Nanos,
    useful: bool,
}

struct Run<'a> {
    pair: &'a Pair,
    splitter: Splitter,
    cache: Station<Request>,
    backend: Station<Request>,
    now: Nanos,
    depth: u32,
    under_way: Vec<u32>,
    blocked: Vec<bool>,
    delivered: Vec<u64>,
    bucket: Nanos,
}

/// Runs a closed loop and returns the delivered reads per second.
pub fn rate(pair: &Pair, policy: Policy, load: Load) -> f64 {
    let buckets = series(pair, policy, load, &[], load.warm_up + load.measure, load.warm_up.max(1));
    // With a bucket as long as the warm-up, the first one is the warm-up; the rest is the measurement.
    let done: u64 = buckets.iter().skip(1).sum();
    done as f64 * SECOND as f64 / load.measure as f64
}

/// Runs a closed loop under backend steps and returns the delivered reads per `bucket`.
pub fn series(
    pair: &Pair,
    policy: Policy,
    load: Load,
    steps: &[Step],
    until: Nanos,
    bucket: Nanos,
) -> Vec<u64> {
    let jobs = load.jobs as usize;
    let mut run = Run {
        pair,
        splitter: Splitter::new(policy),
        cache: Station::new(pair.cache.clone()).uneven(pair.jitter, 1),
        backend: Station::new(pair.backend.clone()).uneven(pair.jitter, 2),
        now: 0,
        depth: load.depth,
        under_way: vec![0; jobs],
        blocked: vec![false; jobs],
        delivered: vec![0; usize::try_from(until.div_ceil(bucket)).unwrap_or(0)],
        bucket,
    };
    let mut steps = steps.iter().peekable();
    for job in 0..jobs {
        run.feed(job);
    }
    while run.now < until {
        while let Some(step) = steps.next_if(|s| s.at <= run.now) {
            match step.change {
                Change::Backend(factor) => run.backend.scale(run.now, factor),
                Change::Depth(depth) => run.depth = depth,
            }
            (0..jobs).for_each(|job| run.feed(job));
        }
        run.advance(steps.peek().map_or(until, |s| s.at));
    }
    run.delivered
}

fn ask(job: usize) -> Ask {
    Ask { stream: StreamId(job as u64), target: TargetId(0), len: READ_BYTES }
}

impl Run<'_> {
    /// Lets a job that is not blocked use its free slots.
    fn feed(&mut self, job: usize) {
        while !self.blocked[job] && self.under_way[job] < self.depth {
            self.under_way[job] += 1;
            let (side, probe) = match self.splitter.route(self.now, ask(job)) {
                Route::One(side) => (side, false),
                Route::Probe => (Side::Cache, true),
                // Reads of the profile's size are below the striping threshold.
                Route::Stripe { .. } => (Side::Cache, false),
            };
            self.issue(job, side, true);
            if probe {
                self.issue(job, Side::Backend, false);
            }
            self.blocked[job] = side == Side::Cache && self.pair.kind == CacheKind::Synchronous;
        }
    }

    fn issue(&mut self, job: usize, side: Side, useful: bool) {
        self.splitter.issued(self.now, side, ask(job));
        let request = Request { job: job as u32, issued: self.now, useful };
        match side {
            Side::Cache => self.cache.push(self.now, request),
            Side::Backend => self.backend.push(self.now, request),
        }
    }

    /// To the next answer, or to `stop`.
    fn advance(&mut self, stop: Nanos) {
        let next = |at: Option<Nanos>| at.unwrap_or(Nanos::MAX);
        let (cache, backend) = (next(self.cache.next_at()), next(self.backend.next_at()));
        if stop < cache.min(backend) {
            self.now = stop;
            return;
        }
        let side = if cache <= backend { Side::Cache } else { Side::Backend };
        self.now = cache.min(backend);
        let ended = match side {
            Side::Cache => self.cache.pop(self.now),
            Side::Backend => self.backend.pop(self.now),
        };
        let Some(request) = ended else { return };
        self.splitter.completed(
            self.now,
            Completion {
                stream: StreamId(u64::from(request.job)),
                target: TargetId(0),
                side,
                len: READ_BYTES,
                latency: self.now - request.issued,
                ok: true,
                role: if request.useful { Role::Whole } else { Role::Duplicate },
            },
        );
        if request.useful {
            let job = request.job as usize;
            let bucket = (self.now / self.bucket) as usize;
            if let Some(count) = self.delivered.get_mut(bucket) {
                *count += 1;
            }
            self.under_way[job] -= 1;
            if side == Side::Cache {
                self.blocked[job] = false;
            }
            self.feed(job);
        }
    }
}

#[cfg(test)]
mod tests;
