//! What the node is told by hardware, kernel and Slurm, and what it wants from the hardware.

use crate::record::{Holder, LeafId};
use crate::topology::{GpuReport, Instance};
use migshare_proto::GpuUuid;

/// What hardware and Slurm say. Given to [`crate::Node::observe`] in the order in which it happened.
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
