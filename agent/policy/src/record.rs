//! What changes a node's durable truth: one closed list of records. The books are the fold of all records, so replaying
//! a journal and running live are the same code.
//!
//! Every prefix of the records of one proposal is a consistent state: a journal may be torn between any two of them.
//! The form on disk is the daemon's; these are domain values.

use crate::layout::Layout;
use migshare_proto::{GpuUuid, JobKey, Placement, StepId};
use std::fmt;

/// A place on one GPU of the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The GPU.
    pub gpu: GpuUuid,
    /// Where on it.
    pub placement: Placement,
}

impl Place {
    /// Whether the two places have a unit of one GPU in common.
    pub fn overlaps(&self, other: &Place) -> bool {
        self.gpu == other.gpu && self.placement.overlaps(other.placement)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.placement, self.gpu)
    }
}

/// One making of an instance at a place. UUIDs repeat when an instance is made again at its place; this does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId {
    /// Where.
    pub place: Place,
    /// Counts the instances made or adopted at this place, from 1.
    pub generation: u64,
}

impl fmt::Display for LeafId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (generation {})", self.place, self.generation)
    }
}

/// The process that holds a grant. A pid alone repeats; with the start time it is unique until the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Process id of the slurmstepd.
    pub pid: u32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc(5)); 0 where unknown.
    pub born: u64,
}

/// How a lease ended: four independent ways, so that no single failure leaks a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// The job's epilog said so.
    Epilog,
    /// Slurm no longer runs the job on this node.
    Reaper,
    /// An admin said so.
    Admin,
    /// The agent found that it cannot be true: the node was booted, the job started again, an instance could not be made.
    Reconcile,
}

/// Why a place is kept out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Something stands there that the agent did not make and that is no leaf of the layout.
    Foreign,
    /// What stands there has no compute instance of full size.
    Partial,
    /// Hardware refused several times to make or destroy an instance there.
    Failed,
    /// An admin said so.
    Admin,
}

/// A change of the durable truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The node was booted: no instance, intent, lease or grant of before exists any more.
    Boot {
        /// The kernel's boot id.
        boot: String,
    },
    /// A GPU belongs to this node and is counted to Slurm.
    Enrol {
        /// The GPU.
        gpu: GpuUuid,
        /// Its NVML index at that time.
        index: u32,
        /// Leaves it counts for.
        leaves: u32,
    },
    /// A GPU no longer belongs to this node.
    Forget {
        /// The GPU.
        gpu: GpuUuid,
    },
    /// An instance is about to be made. Durable before NVML is called.
    Reserve {
        /// The instance to be.
        leaf: LeafId,
        /// NVML profile id.
        profile: u32,
    },
    /// An instance is about to be destroyed. Durable before NVML is called.
    Remove {
        /// The instance.
        leaf: LeafId,
    },
    /// An instance stands, made by us or adopted. Ends the reservation of the place.
    Stand {
        /// The instance.
        leaf: LeafId,
        /// NVML profile id.
        profile: u32,
    },
    /// Nothing of ours stands at the place any more. Ends any intent there.
    Gone {
        /// The instance that stood or was to stand.
        leaf: LeafId,
    },
    /// The last generation at a place where nothing stands: only in a compacted journal.
    Generation {
        /// Place and number.
        leaf: LeafId,
    },
    /// A job holds leaves.
    Open {
        /// The job.
        job: JobKey,
        /// The leaves.
        leaves: Vec<Pick>,
        /// Leaves as Slurm counts them; more than `leaves.len()` where instances are larger than a leaf.
        charged: u32,
        /// When, seconds since the epoch.
        at: i64,
    },
    /// A user's job makes the node change the shape of instances.
    Reshape {
        /// The user.
        uid: u32,
        /// When, seconds since the epoch.
        at: i64,
        /// Until when it counts against the user's limit, seconds since the epoch.
        until: i64,
    },
    /// A job no longer holds leaves; its grants end with it.
    Close {
        /// The job.
        job: JobKey,
        /// How it ended.
        how: Ending,
    },
    /// A step uses leaves of its job's lease. Replaces an earlier grant of the step.
    Grant {
        /// The job.
        job: JobKey,
        /// The step.
        step: StepId,
        /// The grant.
        grant: Grant,
    },
    /// A step no longer uses leaves.
    Release {
        /// The job.
        job: JobKey,
        /// The step.
        step: StepId,
    },
    /// A place is kept out of use.
    Quarantine {
        /// The place.
        place: Place,
        /// Why, for programs.
        cause: Cause,
        /// Why, for people.
        note: String,
    },
    /// A place may be used again.
    Unquarantine {
        /// The place.
        place: Place,
    },
    /// A GPU takes no new leases.
    Cordon {
        /// The GPU.
        gpu: GpuUuid,
        /// Why, for people.
        note: String,
        /// When, seconds since the epoch; 0 where an older journal does not say.
        at: i64,
    },
    /// A GPU takes leases again.
    Uncordon {
        /// The GPU.
        gpu: GpuUuid,
    },
    /// A GPU is to have this layout while idle, instead of the configured one (`None`: the configured one again). The one that was
    /// ordered last once more: it has been cut, and the one before is not gone back to any more.
    Target {
        /// The GPU.
        gpu: GpuUuid,
        /// The layout.
        layout: Option<Layout>,
    },
}

/// A leaf of a lease with the profile that it has or is to have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// The leaf.
    pub leaf: LeafId,
    /// NVML profile id.
    pub profile: u32,
}

/// The part of a lease that a step uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The leaves, in the order in which tasks take them.
    pub leaves: Vec<LeafId>,
    /// For each local task, the positions of its leaves in `leaves`.
    pub tasks: Vec<Vec<u32>>,
    /// How many of the leaves other steps of the job used when the grant was made.
    pub shared: u32,
    /// The slurmstepd that holds it.
    pub holder: Holder,
}
