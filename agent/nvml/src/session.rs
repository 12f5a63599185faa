//! The session: what the agent asks of the hardware. One library handle for its whole life; every operation looks its GPU up
//! anew, because handles die on reset.

use crate::capabilities::Capabilities;
use crate::error::NvmlError;
use crate::identity::{self, Identity};
use crate::instances::Site;
use crate::profiles;
use crate::raw::Library;
pub use crate::raw::{Observer, Progress};
use migshare_policy::topology::{Gpu, GpuReport, Health, Instance, Profile};
use migshare_proto::{GpuUuid, Placement};
use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// NVML, open.
pub struct Session {
    library: Library,
    caps: Capabilities,
    sys_root: PathBuf,
    /// What each GPU was when it last answered, by index: a lost GPU can no longer say who it is.
    known: RefCell<BTreeMap<u32, Gpu>>,
}

/// Versions of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Driver version, for example `550.54.15`.
    pub driver: String,
    /// CUDA driver version, major and minor.
    pub cuda: (u32, u32),
}

/// What a change of MIG mode came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigChange {
    /// The mode is on or off as asked.
    Active,
    /// Somebody uses the GPU; the mode changes with the next reset.
    InUse,
    /// The mode changes with the next reset.
    ResetRequired,
    /// The call succeeded, the activation failed with this code.
    Failed(u32),
}

impl Session {
    /// Loads and initialises NVML. `library`: a path, or the system's own; `proc_root`: `/proc`, or the simulated one. A `sys`
    /// directory beside it is asked for NUMA nodes.
    pub fn open(library: Option<&Path>, proc_root: &Path) -> Result<Session, NvmlError> {
        Ok(Session {
            library: Library::open(library)?,
            caps: Capabilities::new(proc_root),
            sys_root: proc_root.parent().unwrap_or(Path::new("/")).join("sys"),
            known: RefCell::default(),
        })
    }

    /// From now on tells `observer` of every call.
    pub fn observe(&mut self, observer: Observer) {
        self.library.observer = Some(observer);
    }

    /// Versions of the driver.
    pub fn versions(&self) -> Result<Versions, NvmlError> {
        let nvml = &self.library.nvml;
        let driver = self.library.time("nvmlSystemGetDriverVersion", || nvml.sys_driver_version())?;
        let cuda =
            self.library.time("nvmlSystemGetCudaDriverVersion_v2", || nvml.sys_cuda_driver_version())?;
        let part = |n: i32| u32::try_from(n).unwrap_or(0);
        Ok(Versions {
            driver,
            cuda: (
                part(nvml_wrapper::cuda_driver_version_major(cuda)),
                part(nvml_wrapper::cuda_driver_version_minor(cuda)),
            ),
        })
    }

    /// Major number of the capability device files, where the driver has them.
    pub fn caps_major(&self) -> Option<u32> {
        self.caps.major()
    }

    /// All GPUs and what stands on them, by index. A GPU that does not answer is reported as lost, with what was last known of it;
    /// only a library that does not answer is an error.
    pub fn scan(&self) -> Result<Vec<GpuReport>, NvmlError> {
        let nvml = &self.library.nvml;
        let count = self.library.time("nvmlDeviceGetCount_v2", || nvml.device_count())?;
        Ok((0..count).map(|index| self.report(index)).collect())
    }

    /// Makes an instance of `profile` at `at`: a GPU instance with one compute instance of its full size. On failure nothing of it
    /// stands, unless the error says what is left.
    pub fn create(&self, gpu: &GpuUuid, profile: u32, at: Placement) -> Result<Instance, NvmlError> {
        let (device, gpu) = self.find(gpu)?;
        let kind = gpu.profile(profile).ok_or_else(|| {
            NvmlError::new(
                "nvmlDeviceCreateGpuInstanceWithPlacement",
                sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
            )
            .because(format!("gpu {} has no profile {profile}", gpu.index))
        })?;
        self.site(&device, &gpu).create(kind, at)
    }

    /// Destroys a GPU instance and its compute instances. If the GPU instance stays after its compute instances are gone, the
    /// error names it as left.
    pub fn destroy(&self, gpu: &GpuUuid, gi: u32) -> Result<(), NvmlError> {
        let (device, gpu) = self.find(gpu)?;
        self.site(&device, &gpu).destroy(gi)
    }

    /// Switches MIG mode. Success of the call says little: the activation status counts.
    pub fn set_mig(&self, gpu: &GpuUuid, on: bool) -> Result<MigChange, NvmlError> {
        let (device, gpu) = self.find(gpu)?;
        let activation = self.library.time("nvmlDeviceSetMigMode", || device.set_mig_mode(on))?;
        // The switch may have reset the GPU: its minor number may differ now, and its profiles may appear.
        self.known.borrow_mut().remove(&gpu.index);
        Ok(match activation {
            sys::nvmlReturn_enum_NVML_SUCCESS => MigChange::Active,
            sys::nvmlReturn_enum_NVML_ERROR_IN_USE => MigChange::InUse,
            sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED => MigChange::ResetRequired,
            code => MigChange::Failed(code),
        })
    }

    fn site<'a>(&'a self, device: &'a Device<'a>, gpu: &'a Gpu) -> Site<'a> {
        Site { library: &self.library, caps: &self.caps, device, gpu }
    }

    fn report(&self, index: u32) -> GpuReport {
        self.read(index).unwrap_or_else(|e| {
            tracing::warn!(gpu = index, error = %e, "gpu does not answer");
            let gpu = self.known.borrow().get(&index).cloned().unwrap_or_else(|| nameless(index));
            let health = if e.reset_required() { Health::ResetRequired } else { Health::Lost };
            GpuReport { gpu, health, instances: Vec::new() }
        })
    }

    fn read(&self, index: u32) -> Result<GpuReport, NvmlError> {
        let device = self.device(index)?;
        let gpu = self.gpu(index, &device)?;
        let health = identity::health(&self.library, &device)?;
        let instances = if health == Health::Mig { self.site(&device, &gpu).list()? } else { Vec::new() };
        Ok(GpuReport { gpu, health, instances })
    }

    fn device(&self, index: u32) -> Result<Device<'_>, NvmlError> {
        self.library.time("nvmlDeviceGetHandleByIndex_v2", || self.library.nvml.device_by_index(index))
    }

    /// The GPU with this UUID. Searched by index: NVML's own search by UUID was seen to take ten seconds.
    fn find(&self, uuid: &GpuUuid) -> Result<(Device<'_>, Gpu), NvmlError> {
        let known = self.known.borrow().values().find(|g| g.uuid == *uuid).map(|g| g.index);
        let nvml = &self.library.nvml;
        let count = self.library.time("nvmlDeviceGetCount_v2", || nvml.device_count())?;
        let mut failure = None;
        for index in known.into_iter().chain(0..count) {
            match self.device(index).and_then(|d| Ok((self.gpu(index, &d)?, d))) {
                Ok((gpu, device)) if gpu.uuid == *uuid => return Ok((device, gpu)),
                Ok(_) => {}
                Err(e) if known == Some(index) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        Err(failure.unwrap_or_else(|| {
            NvmlError::new("nvmlDeviceGetHandleByIndex_v2", sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND)
                .because(format!("no gpu {uuid}"))
        }))
    }

    /// The GPU at an index. Its names are asked anew, since a reset may change them; its profiles are fixed while the driver is
    /// loaded and are kept.
    fn gpu(&self, index: u32, device: &Device<'_>) -> Result<Gpu, NvmlError> {
        let identity = identity::read(&self.library, device, &self.sys_root)?;
        let kept =
            self.known.borrow().get(&index).filter(|g| g.uuid == identity.uuid).map(|g| g.profiles.clone());
        let profiles = match kept {
            Some(profiles) if !profiles.is_empty() => profiles,
            _ => profiles::read(&self.library, device)?,
        };
        let gpu = assemble(index, identity, profiles);
        self.known.borrow_mut().insert(index, gpu.clone());
        Ok(gpu)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("caps", &self.caps).finish_non_exhaustive()
    }
}

fn assemble(index: u32, identity: Identity, profiles: Vec<Profile>) -> Gpu {
    let ends = profiles.iter().flat_map(|p| &p.placements).map(|p| p.start.saturating_add(p.size));
    Gpu {
        uuid: identity.uuid,
        index,
        minor: identity.minor,
        model: identity.model,
        pci_bus_id: identity.pci_bus_id,
        pci_device: identity.pci_device,
        numa: identity.numa,
        units: ends.max().unwrap_or(0),
        slices: profiles.iter().map(|p| p.slices).max().unwrap_or(0),
        profiles,
    }
}

/// A GPU that was lost before it ever said who it is.
fn nameless(index: u32) -> Gpu {
    Gpu {
        uuid: GpuUuid::new(&format!("GPU-unknown-{index}")),
        index,
        minor: index,
        model: "unknown".to_owned(),
        pci_bus_id: String::new(),
        pci_device: 0,
        numa: None,
        units: 0,
        slices: 0,
        profiles: Vec::new(),
    }
}
