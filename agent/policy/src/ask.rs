//! What clients ask the node, and what it answers. Domain values: the wire's messages are the protocol crate's.

use crate::charge::Need;
use crate::placement::Direction;
use crate::record::{Ending, Holder};
use migshare_proto::message::Refused;
use migshare_proto::{JobKey, Leaf, StepId};

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
        /// How large each instance has to be; `None` is a leaf.
        need: Option<Need>,
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
        how: Ending,
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
