//! The simulated node: its GPUs and what stands on them. Plain values and pure transitions, no IO.
//!
//! ```text
//!                 create (MIG on, place free, nobody holds)      create
//!   GPU ────────────────────────────────> GPU instance ───────────────> compute instance (= MIG device)
//!    ^  <──────────────────────────────────            <───────────────      │ processes
//!    │    destroy (no compute instance)                 destroy (no process) │
//!    └───────────── GPU reset, reboot: all of it is gone <────────────────────┘
//! ```
//! Every object has a serial number that is never used twice in the life of a state directory: handles carry it, so
//! a handle to something destroyed can be told from one to its successor at the same place.

mod compute;
mod identity;
mod layout;
mod mode;

use serde::{Deserialize, Serialize};

pub use compute::{ComputeProfile, compute_profile, compute_profiles};
pub use identity::{capability_minors, mig_uuid, name_uuid};
pub use mode::Activation;

use crate::code::{Code, Result};
use crate::fault::Fault;
use crate::models::{self, Model};
use crate::process::Pid;

/// Layout version of the state file.
pub const FORMAT: u32 = 1;

/// Everything there is on the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// [`FORMAT`].
    pub format: u32,
    /// Counts changes; capability files name the generation they show.
    pub generation: u64,
    /// The host's boot id when this was written: instances do not survive a reboot of the host either.
    pub boot_id: String,
    /// Next serial number.
    pub next_serial: u32,
    /// Driver version, for example `550.54.15`.
    pub driver: String,
    /// CUDA version, major and minor.
    pub cuda: (u32, u32),
    /// Major number of the capability device nodes.
    pub caps_major: u32,
    /// GPUs by NVML index.
    pub gpus: Vec<Gpu>,
    /// Armed faults.
    pub faults: Vec<Fault>,
}

/// Which of the two published orders GPU instance ids follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GiOrder {
    /// GPU instance 1 lies at the start of the GPU.
    #[default]
    Direct,
    /// GPU instance 1 lies in the second half.
    HalfSwapped,
}

/// MIG mode, now and after the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigMode {
    /// In force.
    pub current: bool,
    /// In force after the next reset.
    pub pending: bool,
}

/// Whether the GPU answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It does.
    Healthy,
    /// It wants a reset first.
    ResetRequired,
    /// It fell off the bus.
    Lost,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Changes with every reset: handles to the device die with it.
    pub serial: u32,
    /// Alias of the model.
    pub model: String,
    /// `GPU-…`.
    pub uuid: String,
    /// Board serial number.
    pub board: String,
    /// PCI bus number; domain 0, device 0.
    pub bus: u32,
    /// Minor number of `/dev/nvidia<minor>`.
    pub minor: u32,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// CPUs near the GPU.
    pub cpus: Vec<u32>,
    /// Order of GPU instance ids.
    pub gi_order: GiOrder,
    /// MIG mode.
    pub mig: MigMode,
    /// Whether it answers.
    pub condition: Condition,
    /// Others that hold the device open, such as a monitoring agent.
    pub holders: Vec<Holder>,
    /// Processes that compute on the whole GPU.
    pub processes: Vec<Process>,
    /// GPU instances, in the order they were made.
    pub instances: Vec<GpuInstance>,
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuInstance {
    /// Serial number.
    pub serial: u32,
    /// GPU instance id.
    pub id: u32,
    /// NVML profile id.
    pub profile: u32,
    /// First placement unit.
    pub start: u32,
    /// Placement units.
    pub size: u32,
    /// Compute instances, by id.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance; with its GPU instance it is a MIG device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeInstance {
    /// Serial number.
    pub serial: u32,
    /// Compute instance id within the GPU instance.
    pub id: u32,
    /// Compute profile id.
    pub profile: u32,
    /// First compute slice within the GPU instance.
    pub start: u32,
    /// Compute slices.
    pub slices: u32,
    /// `MIG-…`.
    pub uuid: String,
    /// Processes that compute on it.
    pub processes: Vec<Process>,
}

/// A process that computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Which.
    pub pid: Pid,
    /// Device memory it uses, in MiB.
    pub memory_mib: u64,
}

/// Somebody that holds the device open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Holds for as long as this process lives; none: until released.
    pub pid: Option<Pid>,
    /// What it is, for people.
    pub note: String,
}

impl Machine {
    /// Takes the next serial number.
    pub fn serial(&mut self) -> u32 {
        self.next_serial += 1;
        self.next_serial
    }

    /// The GPU at this NVML index.
    pub fn gpu(&self, index: usize) -> Result<&Gpu> {
        self.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)
    }

    /// The GPU at this NVML index, for a change.
    pub fn gpu_mut(&mut self, index: usize) -> Result<&mut Gpu> {
        self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)
    }

    /// Driver branch, for what differs by it.
    pub fn driver_branch(&self) -> u32 {
        self.driver.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// Forgets holders and processes that have ended; `alive` says whether one still lives.
    pub fn forget_dead(&mut self, alive: impl Fn(&Pid) -> bool) {
        for gpu in &mut self.gpus {
            gpu.holders.retain(|h| h.pid.as_ref().is_none_or(&alive));
            gpu.processes.retain(|p| alive(&p.pid));
            let compute = gpu.instances.iter_mut().flat_map(|gi| &mut gi.compute);
            compute.for_each(|ci| ci.processes.retain(|p| alive(&p.pid)));
        }
    }
}

impl Gpu {
    /// What published listings say about it.
    pub fn spec(&self) -> Result<&'static Model> {
        models::find(&self.model).ok_or(Code::UNKNOWN)
    }

    /// PCI bus id as NVML prints it.
    pub fn bus_id(&self) -> String {
        format!("{:08X}:{:02X}:00.0", 0, self.bus)
    }

    /// An error where the device does not answer.
    pub fn answers(&self) -> Result<&Gpu> {
        match self.condition {
            Condition::Healthy => Ok(self),
            Condition::ResetRequired => Err(Code::RESET_REQUIRED),
            Condition::Lost => Err(Code::GPU_IS_LOST),
        }
    }

    /// An error where MIG mode is off.
    pub fn in_mig_mode(&self) -> Result<&Gpu> {
        if self.mig.current { Ok(self) } else { Err(Code::NOT_SUPPORTED) }
    }

    /// Its MIG devices in the order of NVML's index: by GPU instance id, then compute instance id.
    pub fn mig_devices(&self) -> Vec<(&GpuInstance, &ComputeInstance)> {
        let mut devices: Vec<_> =
            self.instances.iter().flat_map(|gi| gi.compute.iter().map(move |ci| (gi, ci))).collect();
        devices.sort_by_key(|(gi, ci)| (gi.id, ci.id));
        devices
    }

    /// Every process on it, with the ids of the instances it runs on.
    pub fn all_processes(&self) -> Vec<(&Process, Option<(u32, u32)>)> {
        let on_mig = self.mig_devices();
        let on_mig = on_mig
            .into_iter()
            .flat_map(|(gi, ci)| ci.processes.iter().map(move |p| (p, Some((gi.id, ci.id)))));
        self.processes.iter().map(|p| (p, None)).chain(on_mig).collect()
    }
}

impl GpuInstance {
    /// Device memory in use by its processes, in MiB.
    pub fn used_mib(&self) -> u64 {
        self.compute.iter().flat_map(|ci| &ci.processes).map(|p| p.memory_mib).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests;
