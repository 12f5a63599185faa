//! The one owner of a node's truth about leaves, leases, grants and quarantines.
//!
//! ```text
//!              observe(seen)  what hardware and Slurm say: kept in memory, never journalled
//!                  |
//!                  v
//!   +--------------------------------+   answer(ask) ---> Proposal {records, verdict}
//!   |  Books (durable)  Sight (seen) |
//!   +--------------------------------+   work()      ---> Proposal {records, effects}   until it has none left
//!                  ^                                         |
//!                  |                                         v
//!              commit(proposal) <--- records are durable --- journal   (on failure: drop the proposal,
//!                  |                                                    it never happened)
//!                  v
//!              then send the verdict; then carry out the effects
//! ```
//!
//! `answer` and `work` only read. A proposal changes nothing until it is committed, so a journal that cannot be
//! written leaves no trace. A proposal must be committed or dropped before the next one is asked for.
//!
//! `work` is level-triggered: it compares what is with what should be and proposes the next steps, so whatever was
//! interrupted (a crash between any two records, a failed effect, a full disk) is simply proposed again.
//!
//! This module does no IO, has no clock (`now` is seconds since the epoch) and starts no thread.

mod admin;
mod answer;
mod available;
mod cut;
mod grant;
mod invariants;
mod large;
mod plan;
mod reconcile;
mod refusal;
mod service;
mod sight;
mod status;
mod work;

use crate::books::Books;
use crate::layout::Layout;
use crate::order::RolledBack;
use crate::placement::Direction;
use crate::record::{Holder, Place, Record};
use crate::topology::Gpu;
use migshare_proto::{GpuUuid, JobKey};
use sight::Sight;
use std::collections::BTreeSet;

pub use crate::ask::{Ask, Verdict};
pub use crate::seen::{Effect, Run, Seen};
pub use plan::Target;
pub use status::Picture;

/// What the site has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How idle GPUs are cut.
    pub layout: Layout,
    /// How leaves lie when the request does not say.
    pub direction: Direction,
    /// How shapes may change.
    pub reshaping: Reshaping,
}

/// How the shapes of instances may change for requests larger than a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reshaping {
    /// Most changes of shape that one user's jobs may cause within `window`.
    pub per_user: u32,
    /// Seconds.
    pub window: i64,
    /// Whether instances that fit the layout no longer stay until their place is needed, instead of going back at once.
    pub lazy: bool,
    /// Whether a batch job for whose instances no place is free is to be queued again elsewhere, instead of failing.
    pub requeue: bool,
}

impl Default for Reshaping {
    /// Sixty changes per user and hour: making and destroying take about a second each.
    fn default() -> Reshaping {
        Reshaping { per_user: 60, window: 3600, lazy: false, requeue: false }
    }
}

/// A step that has not happened yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// What must be durable first, in this order. Empty: nothing to write.
    pub records: Vec<Record>,
    /// What to do after the commit, in this order.
    pub effects: Vec<Effect>,
    /// What to tell the client after the commit; only from [`Node::answer`].
    pub verdict: Option<Verdict>,
    /// Why layouts are gone back on, which no record tells.
    pub rolled_back: Vec<RolledBack>,
}

/// Whether Slurm may send jobs to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// The start has not ended: say nothing to Slurm yet.
    Starting,
    /// All counted leaves can serve.
    Serving,
    /// They cannot: the node must be drained with this reason (it starts with `migshare: `), running jobs going on.
    Unfit {
        /// The reason.
        reason: String,
    },
}

/// The node.
#[derive(Debug, Clone)]
pub struct Node {
    rules: Rules,
    books: Books,
    sight: Sight,
    /// The boot id that the kernel has now.
    boot: String,
    /// What a request for leaves can have, where it was worked out since the last change.
    prepared: Option<Vec<available::Offering>>,
    /// A defect: a committed record that contradicted the books. Shown as a problem, never hidden.
    defect: Option<String>,
}

impl Node {
    /// A node with these books, of which nothing has been seen yet. `boot` is the kernel's boot id.
    pub fn new(rules: Rules, books: Books, boot: String) -> Node {
        Node { rules, books, sight: Sight::default(), boot, prepared: None, defect: None }
    }

    /// Takes in what was seen. Nothing of it is durable; what follows from it comes from [`Node::work`].
    pub fn observe(&mut self, now: i64, seen: Seen) {
        self.prepared = None;
        match seen {
            Seen::HolderGone(holder) => {
                self.sight.gone.insert(holder);
            }
            Seen::Running { jobs, asked } => self.sight.stale = self.stale(&jobs, asked),
            hardware => self.sight.observe(now, hardware),
        }
        self.forget_settled();
    }

    /// Takes in a proposal whose records are durable. Its effects are under way from here on.
    pub fn commit(&mut self, proposal: &Proposal) {
        self.prepared = None;
        for record in &proposal.records {
            self.forget_processes(record);
            match record {
                Record::Unquarantine { place } => drop(self.sight.troubles.remove(place)),
                // Whoever had it out of service may have changed anything.
                Record::Uncordon { .. } => self.sight.rescan = Some(self.sight.looked),
                _ => {}
            }
            if let Err(contradiction) = self.books.fold(record) {
                debug_assert!(false, "{record:?}: {contradiction}");
                self.defect = Some(format!("defect in migshare: {contradiction}"));
            }
        }
        for effect in &proposal.effects {
            self.sight.start(effect);
        }
        self.forget_settled();
    }

    /// The durable truth.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// A GPU as it was last seen.
    pub fn gpu(&self, gpu: &GpuUuid) -> Option<&Gpu> {
        self.sight.gpus.get(gpu).map(|view| &view.gpu)
    }

    /// The processes that hold grants, each once.
    pub fn holders(&self) -> BTreeSet<Holder> {
        self.books.leases.values().flat_map(|l| l.grants.values()).map(|g| g.holder).collect()
    }

    /// Whether leases can be told from what stands: the boot is journalled and the hardware was seen.
    fn ready(&self) -> bool {
        self.sight.scanned && self.books.boot == self.boot
    }

    /// Leases that Slurm no longer runs, by a list asked for at `asked`.
    fn stale(&self, jobs: &[Run], asked: i64) -> BTreeSet<JobKey> {
        let runs = |key: &JobKey| {
            jobs.iter().any(|run| run.job == key.job && run.start.is_none_or(|start| start <= key.start))
        };
        let old = self.books.leases.iter().filter(|(_, lease)| lease.opened + REAPER_GRACE <= asked);
        old.map(|(key, _)| *key).filter(|key| !runs(key)).collect()
    }

    /// Processes seen on a leaf say nothing any more once the leaf changes hands.
    fn forget_processes(&mut self, record: &Record) {
        let picks = match record {
            Record::Open { leaves, .. } => leaves.as_slice(),
            Record::Close { job, .. } => self.books.leases.get(job).map_or(&[][..], |l| &l.leaves),
            _ => &[],
        };
        for pick in picks {
            self.sight.forget_processes(&pick.leaf.place);
        }
    }

    /// Drops what was seen of holders, leases and places that the books no longer know.
    fn forget_settled(&mut self) {
        let held = self.holders();
        self.sight.gone.retain(|holder| held.contains(holder));
        self.sight.stale.retain(|job| self.books.leases.contains_key(job));
        let known = |place: &Place| self.books.stands.contains_key(place);
        self.sight.troubles.retain(|place, _| known(place));
    }
}

/// A lease younger than this when the controller was asked may belong to a job that it had not listed yet, seconds.
const REAPER_GRACE: i64 = 60;

#[cfg(test)]
mod tests;
