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
//!              then carry out the effects; then send the verdict
//! ```
//!
//! `answer` and `work` only read. A proposal changes nothing until it is committed, so a journal that cannot be
//! written leaves no trace. A proposal must be committed or dropped before the next one is asked for.
//!
//! `work` is level-triggered: it compares what is with what should be and proposes the next steps, so whatever was
//! interrupted (a crash between any two records, a failed effect, a full disk) is simply proposed again.
//!
//! This module does no IO, has no clock (`now` is seconds since the epoch) and starts no thread.

use crate::books::Books;
use crate::layout::Layout;
use crate::placement::Direction;
use crate::record::{Holder, LeafId, Record};
use crate::topology::{GpuReport, Instance};
use migshare_proto::message::Refused;
use migshare_proto::{GpuUuid, JobKey, Leaf, StepId};

/// What the site has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How idle GPUs are cut.
    pub layout: Layout,
    /// How leaves lie when the request does not say.
    pub direction: Direction,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Hold leaves for a job. Asking again for the same job and count gives the same lease.
    Open {
        /// The job.
        job: JobKey,
        /// Leaves, as slurmctld counts them.
        leaves: u32,
        /// How they should lie; `None` is the site's default.
        direction: Option<Direction>,
    },
    /// Give a step leaves of its job's lease. Asking again for the same step gives the same grant.
    Grant {
        /// The job.
        job: JobKey,
        /// The step.
        step: StepId,
        /// Leaves of the step on this node.
        leaves: u32,
        /// Tasks of the step on this node.
        tasks: u32,
        /// How the leaves should lie; `None` is the site's default.
        direction: Option<Direction>,
        /// Who holds the grant.
        holder: Holder,
    },
    /// All leaves of a job.
    JobLeaves {
        /// The job.
        job: JobKey,
    },
    /// End a step's grant.
    Release {
        /// The job.
        job: JobKey,
        /// The step.
        step: StepId,
    },
    /// End a job's leases.
    Close {
        /// Slurm's job id.
        job: u32,
        /// Its user.
        uid: u32,
        /// The run's start; `None` ends the leases of all runs.
        start: Option<i64>,
        /// Who says so.
        how: crate::record::Ending,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The job's leaves, in the order in which tasks should take them.
    Lease(Vec<Leaf>),
    /// The step's leaves.
    Granted {
        /// In the order in which tasks take them.
        leaves: Vec<Leaf>,
        /// For each local task, the positions of its leaves in `leaves`.
        tasks: Vec<Vec<u32>>,
        /// How many of them other steps of the job use too.
        shared: u32,
    },
    /// Ended; whether there was anything to end.
    Done {
        /// Whether there was.
        found: bool,
    },
    /// No, and why.
    Refused(Refused),
    /// Not yet: instances are being made. Commit, then ask the same again after each later commit.
    Wait,
}

/// What hardware and Slurm say. Given to [`Node::observe`] in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A look at all GPUs. The first one after the start ends the start.
    Scan(Vec<GpuReport>),
    /// NVML as a whole does not answer; the next scan says that it does again.
    NvmlDead(String),
    /// A GPU was reported lost by an event or by a failed call.
    GpuLost(GpuUuid),
    /// [`Effect::Create`] succeeded.
    Made {
        /// The leaf of the effect.
        leaf: LeafId,
        /// What stands now.
        instance: Instance,
    },
    /// [`Effect::Create`] failed.
    MakeFailed {
        /// The leaf of the effect.
        leaf: LeafId,
        /// NVML's words.
        error: String,
    },
    /// [`Effect::Destroy`] succeeded.
    Removed {
        /// The leaf of the effect.
        leaf: LeafId,
    },
    /// [`Effect::Destroy`] failed.
    RemoveFailed {
        /// The leaf of the effect.
        leaf: LeafId,
        /// NVML's words.
        error: String,
    },
    /// A process that held a grant is gone.
    HolderGone(Holder),
    /// The jobs that Slurm runs on this node, completing ones included. Never sent when the controller did not answer.
    Running {
        /// The jobs.
        jobs: Vec<Run>,
        /// When they were asked for, seconds since the epoch: leases opened later say nothing about themselves.
        asked: i64,
    },
}

/// A job that Slurm runs on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Slurm's job id.
    pub job: u32,
    /// When this run started, seconds since the epoch, where known.
    pub start: Option<i64>,
}

/// What the owner of the hardware must do after a commit. Results come back as [`Seen`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make an instance with a full-size compute instance, exactly there.
    Create {
        /// The leaf to be.
        leaf: LeafId,
        /// NVML profile id.
        profile: u32,
    },
    /// Destroy an instance.
    Destroy {
        /// The leaf.
        leaf: LeafId,
        /// GPU instance id.
        gi: u32,
    },
    /// Look at all GPUs again.
    Scan,
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
}
