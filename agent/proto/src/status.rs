//! The picture of a node that `migshare status` shows.

use crate::ids::{GpuUuid, JobKey, Placement, StepId};
use serde::{Deserialize, Serialize};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Slurm's name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// NVML's driver version.
    pub driver: String,
    /// CUDA driver version, `major.minor`.
    pub cuda: String,
    /// Name of the layout that idle GPUs are cut to.
    pub layout: String,
    /// Number of leaves that Slurm is told the node has.
    pub counted: u32,
    /// Number of leaves that can be leased or are leased now.
    pub usable: u32,
    /// The GPUs, by index.
    pub gpus: Vec<GpuStatus>,
    /// The open leases, by job.
    pub leases: Vec<LeaseStatus>,
    /// What is wrong on this node; empty where all is well.
    pub problems: Vec<String>,
    /// How tasks are kept from the leaves of others.
    #[serde(default)]
    pub isolation: IsolationStatus,
    /// Memory that the ranks of steps share. Agents before this field do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<SegmentsStatus>,
}

/// Memory that the ranks of steps share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsStatus {
    /// Number of steps that have some.
    pub steps: u32,
    /// Bytes that are promised to them; pages are taken when a rank first writes to them.
    pub promised: u64,
    /// Most bytes that may be promised.
    pub limit: u64,
}

/// How tasks are kept from the device files of leaves that are not theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationStatus {
    /// What filters.
    pub filter: Filter,
    /// Why tasks cannot be filtered and are not started; also among the node's problems.
    pub problems: Vec<String>,
    /// What may stand in the way, and what is not filtered.
    pub notes: Vec<String>,
}

/// What filters the device files of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A BPF program on cgroup v2.
    Bpf,
    /// The devices controller of cgroup v1.
    Devices,
    /// Nothing can, or an agent before this field does not say.
    #[default]
    None,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuStatus {
    /// NVML index.
    pub index: u32,
    /// UUID.
    pub uuid: GpuUuid,
    /// Product name.
    pub model: String,
    /// PCI bus id.
    pub pci_bus_id: String,
    /// PCI device id above the vendor id, as NVML and mig-parted have it: 0x233010DE is an H100 SXM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_device: Option<u32>,
    /// NUMA node, where the system tells.
    pub numa: Option<u32>,
    /// Placement units.
    pub units: u8,
    /// What state the GPU is in.
    pub state: GpuState,
    /// Why an admin took it out of service, whatever else its state is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<String>,
    /// The layout that an admin ordered for it, and what is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderStatus>,
    /// The instances on it, by start.
    pub leaves: Vec<LeafStatus>,
    /// What instances of each profile cost in leaves, the cheapest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<PriceStatus>,
}

/// What became of an ordered layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// The layout.
    pub layout: String,
    /// Changes that are under way or about to be made, as nothing is in their way.
    pub now: u32,
    /// What each of the others waits for.
    pub waits: Vec<String>,
}

/// What an instance costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceStatus {
    /// Profile name.
    pub profile: String,
    /// Compute slices.
    pub slices: u8,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Leaves that Slurm has to count for it: as many as it takes at its worst place.
    pub leaves: u32,
}

/// What state a GPU is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuState {
    /// It serves leases.
    Serving,
    /// It works, and an admin took it out of service; its jobs go on.
    Cordoned,
    /// MIG mode is off; it is none of ours.
    MigOff,
    /// NVML says that it is lost.
    Lost,
    /// It has to be reset before it can serve.
    ResetRequired,
    /// It is counted to Slurm, and NVML does not see it. Model, bus id and units are not known then; the index is the one that it had.
    Missing,
}

impl GpuStatus {
    /// Whether it is here and in MIG mode, in service or not.
    pub fn is_in_mig_mode(&self) -> bool {
        !matches!(self.state, GpuState::MigOff | GpuState::Missing)
    }
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafStatus {
    /// Where.
    pub placement: Placement,
    /// Profile name.
    pub profile: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// GPU instance id.
    pub gi: u32,
    /// MIG UUID; empty where no compute instance stands.
    pub uuid: String,
    /// How often an instance was made here.
    pub generation: u64,
    /// What state it is in.
    pub state: LeafState,
    /// Why it is quarantined or foreign.
    pub note: Option<String>,
    /// Who holds it.
    pub job: Option<JobKey>,
    /// The steps that use it now.
    pub steps: Vec<StepId>,
}

/// What state an instance is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafState {
    /// It can be leased.
    Free,
    /// A job holds it.
    Leased,
    /// It is kept out of use until somebody looks at it.
    Quarantined,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The job.
    pub job: JobKey,
    /// When the lease was opened, seconds since the epoch.
    pub opened: i64,
    /// Number of leaves.
    pub leaves: u32,
    /// The steps with a grant and their number of leaves.
    pub grants: Vec<GrantStatus>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// The step.
    pub step: StepId,
    /// Number of leaves.
    pub leaves: u32,
    /// Process id of the slurmstepd that holds the grant.
    pub holder: u32,
}
