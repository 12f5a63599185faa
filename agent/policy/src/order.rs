//! What an admin orders, and what a change of layout would do.

use crate::layout::Layout;
use crate::record::Place;
use migshare_proto::{GpuUuid, Placement};

/// An order of an admin. Nothing here breaks a running job unless it is forced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Take a GPU out of service; its jobs go on.
    Cordon {
        /// The GPU.
        gpu: GpuUuid,
        /// Why.
        note: String,
        /// Now, seconds since the epoch.
        at: i64,
    },
    /// Put a GPU back into service.
    Uncordon {
        /// The GPU.
        gpu: GpuUuid,
    },
    /// Keep a place out of use once its job has ended.
    Quarantine {
        /// The place.
        place: Place,
        /// Why.
        note: String,
    },
    /// Use a place again. What stands there and is not ours becomes ours.
    Unquarantine {
        /// The place.
        place: Place,
    },
    /// Give GPUs another layout (`None`: the configured one). Idle places follow at once, the others as jobs end.
    Apply {
        /// The layouts.
        layouts: Vec<(GpuUuid, Option<Layout>)>,
        /// Refuse, and change nothing, if any part has to wait.
        now: bool,
    },
    /// No longer count a GPU that is gone for good.
    Forget {
        /// The GPU.
        gpu: GpuUuid,
    },
    /// End a job's leases although Slurm has not said so.
    Evict {
        /// Slurm's job id.
        job: u32,
    },
}

/// An ordered layout that hardware refused: its GPU goes back to the layout before. The other GPUs of the order keep theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The GPU.
    pub gpu: GpuUuid,
    /// The layout that was refused.
    pub layout: Option<Layout>,
    /// Where, and what NVML said.
    pub why: String,
}

/// What a change of layout would do now, and what it would leave for later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Steps that touch idle places only, in order.
    pub moves: Vec<Move>,
    /// What has to wait, and for what.
    pub deferred: Vec<Deferred>,
}

/// One step of a plan. Each takes about one second (measured for destroying in NVIDIA's DRA driver, nvlib.go).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// NVML index of the GPU.
    pub gpu: u32,
    /// Where.
    pub placement: Placement,
    /// Name of the profile.
    pub profile: String,
    /// Whether the instance is made; otherwise it is destroyed.
    pub make: bool,
}

/// An instance of the target that cannot be made yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// NVML index of the GPU, where it is seen.
    pub gpu: Option<u32>,
    /// Where.
    pub placement: Option<Placement>,
    /// What it waits for, in words.
    pub why: String,
}
