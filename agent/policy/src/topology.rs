//! What hardware there is: GPUs, the profiles each offers, and the instances that stand on it.
//!
//! These are plain values as NVML reports them. Nothing here is computed from a GPU instance id: the id says
//! nothing about the place (both a direct and a half-swapped order occur on real GPUs).

use migshare_proto::{GpuUuid, Placement};

/// A GPU instance profile that a GPU offers. Profile ids and names change their meaning with GPU and driver:
/// decisions go by slices, memory and places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// NVML's profile id, as instance creation wants it.
    pub id: u32,
    /// NVML's name, for example `1g.10gb`; for people only.
    pub name: String,
    /// Compute slices.
    pub slices: u8,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// How many instances of this profile alone fit on an empty GPU.
    pub max: u8,
    /// A plain profile: no media-engine (`+me`, `-me`) or graphics (`+gfx`) variant.
    pub plain: bool,
    /// Where an instance can lie, by start.
    pub placements: Vec<Placement>,
}

/// What state a GPU's hardware is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// MIG mode is on and the GPU answers.
    Mig,
    /// MIG mode is off, or the GPU cannot do MIG.
    MigOff,
    /// A MIG mode change is pending until a reset, or NVML asks for a reset.
    ResetRequired,
    /// NVML says that the GPU is lost.
    Lost,
}

/// One GPU and what it offers. This part does not change while the driver is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's UUID: the identity of the GPU.
    pub uuid: GpuUuid,
    /// NVML index.
    pub index: u32,
    /// Minor number of `/dev/nvidia<minor>`; may change with a reset.
    pub minor: u32,
    /// Product name.
    pub model: String,
    /// PCI bus id.
    pub pci_bus_id: String,
    /// PCI device id above the vendor id, as NVML has it: 0x233010DE.
    pub pci_device: u32,
    /// NUMA node, where the system tells.
    pub numa: Option<u32>,
    /// Placement units: the largest end of any placement.
    pub units: u8,
    /// Compute slices: those of the largest profile.
    pub slices: u8,
    /// The profiles, by NVML's enumeration.
    pub profiles: Vec<Profile>,
}

impl Gpu {
    /// The profile with this NVML id.
    pub fn profile(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.id == id)
    }
}

/// A GPU instance that stands, as NVML reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// GPU instance id.
    pub gi: u32,
    /// NVML's profile id.
    pub profile: u32,
    /// Where it lies.
    pub placement: Placement,
    /// Its compute instances.
    pub compute: Vec<Compute>,
    /// Capability minor of the GPU instance, where the system tells.
    pub cap: Option<u32>,
}

impl Instance {
    /// The one compute instance, where there is exactly one and it has the full size.
    pub fn full_compute(&self) -> Option<&Compute> {
        match self.compute.as_slice() {
            [only] if only.full => Some(only),
            _ => None,
        }
    }
}

/// A compute instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// Compute instance id within its GPU instance.
    pub ci: u32,
    /// MIG UUID.
    pub uuid: String,
    /// Whether it has all compute slices of its GPU instance.
    pub full: bool,
    /// Capability minor, where the system tells.
    pub cap: Option<u32>,
    /// Process ids that compute on it now.
    pub processes: Vec<u32>,
}

/// One GPU as it was found by a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReport {
    /// The GPU.
    pub gpu: Gpu,
    /// What state it is in.
    pub health: Health,
    /// What stands on it, by GPU instance id.
    pub instances: Vec<Instance>,
}
