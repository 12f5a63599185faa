//! Names of things: jobs, steps, GPUs and places on a GPU.

mod gpu;

pub use gpu::GpuUuid;

use serde::{Deserialize, Serialize};
use std::fmt;

/// One run of one job on a node.
///
/// The id alone is not enough: a requeued job keeps its id, and the epilog of the first run may be seen after
/// the second run was queued. Start time and user complete the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// Slurm's job id (the component's own id for a heterogeneous job, the task's own id for an array).
    pub job: u32,
    /// When this run of the job started, seconds since the epoch, as slurmctld reports it.
    pub start: i64,
    /// The user that owns the job.
    pub uid: u32,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.job)
    }
}

/// A step id within a job, with Slurm's special values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

impl StepId {
    /// The extern step (`SLURM_EXTERN_CONT` in slurm.h).
    pub const EXTERN: StepId = StepId(0xffff_fffc);
    /// The batch script (`SLURM_BATCH_SCRIPT`).
    pub const BATCH: StepId = StepId(0xffff_fffb);
    /// The interactive step (`SLURM_INTERACTIVE_STEP`).
    pub const INTERACTIVE: StepId = StepId(0xffff_fffa);

    /// Whether the step holds no gres of its own and so sees all leaves of its job without a grant.
    pub fn is_special(self) -> bool {
        self.0 >= Self::INTERACTIVE.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::EXTERN => f.write_str("extern"),
            Self::BATCH => f.write_str("batch"),
            Self::INTERACTIVE => f.write_str("interactive"),
            StepId(n) => write!(f, "{n}"),
        }
    }
}

/// A place on one GPU, in NVML placement units (8 on seven-slice parts, 4 on A30, 12 on RTX PRO 6000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// First unit.
    pub start: u8,
    /// Number of units.
    pub size: u8,
}

impl Placement {
    /// The units covered, one bit each (bit 0 is unit 0). Units from 64 on do not exist on any GPU and are left out.
    pub fn mask(self) -> u64 {
        let ones = if self.size >= 64 { u64::MAX } else { (1u64 << self.size) - 1 };
        ones.checked_shl(u32::from(self.start)).unwrap_or(0)
    }

    /// Whether the two places have a unit in common.
    pub fn overlaps(self, other: Placement) -> bool {
        self.mask() & other.mask() != 0
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.start, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_overlap_exactly_when_they_share_a_unit() {
        let p = |start, size| Placement { start, size };
        assert!(p(0, 4).overlaps(p(3, 1)));
        assert!(!p(0, 4).overlaps(p(4, 4)));
        assert!(p(0, 12).overlaps(p(9, 3)));
        assert_eq!(p(255, 255).mask(), 0);
    }

    #[test]
    fn special_steps_have_names() {
        assert_eq!(StepId::BATCH.to_string(), "batch");
        assert!(StepId::INTERACTIVE.is_special() && !StepId(0).is_special());
        assert_eq!(StepId(7).to_string(), "7");
    }
}
