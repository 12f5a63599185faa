//! A leaf as a client sees it: everything a task needs to use it and a filter needs to guard it.

use crate::ids::{GpuUuid, Placement};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One MIG instance: a GPU instance with one full-size compute instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The GPU that the leaf is cut from.
    pub gpu_uuid: GpuUuid,
    /// NVML index of the GPU: what an admin calls "GPU 1". It may change with a reboot.
    pub gpu: u32,
    /// Minor number of the GPU's device file, `/dev/nvidia<minor>`.
    pub gpu_minor: u32,
    /// PCI bus id of the GPU, as NVML prints it.
    pub pci_bus_id: String,
    /// NUMA node of the GPU, where the system tells.
    pub numa: Option<u32>,
    /// Where on the GPU.
    pub placement: Placement,
    /// Counts how often an instance was made at this placement: a UUID repeats, this number does not.
    pub generation: u64,
    /// NVML's name of the instance's profile, for example `1g.10gb`.
    pub profile: String,
    /// Compute slices of the instance.
    pub slices: u8,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// GPU instance id.
    pub gi: u32,
    /// Compute instance id.
    pub ci: u32,
    /// MIG UUID (`MIG-…`), the value for `CUDA_VISIBLE_DEVICES`.
    pub uuid: String,
    /// Minor numbers of the capability device files that open this leaf: GPU instance, then compute instance.
    pub caps: Vec<u32>,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} on gpu {}", self.profile, self.placement, self.gpu)
    }
}
