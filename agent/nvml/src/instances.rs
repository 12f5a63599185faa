//! What stands on a GPU, and how it is made and destroyed: a GPU instance with one compute instance that fills it.

use crate::capabilities::Capabilities;
use crate::error::NvmlError;
use crate::profiles;
use crate::raw::{ComputeInstance, ComputeProfileInfo, GpuInstance, Library};
use migshare_policy::topology::{Compute, Gpu, Instance, Profile};
use migshare_proto::Placement;
use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;

/// One GPU, as the functions here need it.
pub(crate) struct Site<'a> {
    pub(crate) library: &'a Library,
    pub(crate) caps: &'a Capabilities,
    pub(crate) device: &'a Device<'a>,
    pub(crate) gpu: &'a Gpu,
}

impl<'a> Site<'a> {
    /// All instances, by GPU instance id. They are listed profile by profile: a GPU instance without a compute
    /// instance is invisible among the MIG devices.
    pub(crate) fn list(&self) -> Result<Vec<Instance>, NvmlError> {
        let mut found = Vec::new();
        for profile in &self.gpu.profiles {
            for gi in self.library.gpu_instances(self.device, profile.id, profile.max.into())? {
                found.push(self.describe(&gi)?);
            }
        }
        found.sort_by_key(|i| i.gi);
        Ok(found)
    }

    /// Makes a GPU instance at `at` with a compute instance of its full size. What could not be finished is undone.
    pub(crate) fn create(&self, profile: &Profile, at: Placement) -> Result<Instance, NvmlError> {
        let gi = self.library.create_gpu_instance(self.device, profile.id, at)?;
        match self.fill(&gi, profile, at) {
            Ok(made) => Ok(made),
            Err(e) => Err(self.undo(gi, e)),
        }
    }

    /// Destroys the compute instances of a GPU instance, then itself.
    pub(crate) fn destroy(&self, id: u32) -> Result<(), NvmlError> {
        let gi = self.find(id)?;
        self.clear(&gi)?;
        self.library.destroy_gpu_instance(gi).map_err(|e| e.leaving(id))
    }

    fn fill(&self, gi: &GpuInstance<'_>, profile: &Profile, at: Placement) -> Result<Instance, NvmlError> {
        let info = self.library.gpu_instance_info(gi)?;
        if info.placement != at {
            let detail = format!("asked for {at}, the driver made {}", info.placement);
            let unknown = sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
            return Err(NvmlError::new("nvmlDeviceCreateGpuInstanceWithPlacement", unknown).because(detail));
        }
        // By slices, not by id 0: on GH200 the full compute profile of 1g.24gb has id 7.
        let full = profiles::compute(self.library, gi)?.into_iter().find(|c| fills(c, profile)).ok_or_else(
            || {
                NvmlError::new(
                    "nvmlGpuInstanceGetComputeInstanceProfileInfo",
                    sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND,
                )
                .because(format!("no compute profile has the {} slices of {}", profile.slices, profile.name))
            },
        )?;
        self.library.create_compute_instance(gi, full.id)?;
        self.describe(gi)
    }

    /// Destroys what a failed creation has made; the error says so where even that fails.
    fn undo(&self, gi: GpuInstance<'_>, e: NvmlError) -> NvmlError {
        let id = self.library.gpu_instance_info(&gi).map(|i| i.id);
        match self.clear(&gi).and_then(|()| self.library.destroy_gpu_instance(gi)) {
            Ok(()) => e,
            Err(also) => {
                let detail = format!("{}undoing failed too, {also}", separated(&e.detail));
                let e = e.because(detail);
                id.map_or(e.clone(), |id| e.leaving(id))
            }
        }
    }

    fn clear(&self, gi: &GpuInstance<'_>) -> Result<(), NvmlError> {
        for (_, ci) in self.computes(gi)? {
            self.library.destroy_compute_instance(ci)?;
        }
        Ok(())
    }

    fn find(&self, id: u32) -> Result<GpuInstance<'a>, NvmlError> {
        for profile in &self.gpu.profiles {
            for gi in self.library.gpu_instances(self.device, profile.id, profile.max.into())? {
                if self.library.gpu_instance_info(&gi)?.id == id {
                    return Ok(gi);
                }
            }
        }
        let detail = format!("no gpu instance {id} on gpu {}", self.gpu.index);
        Err(NvmlError::new("nvmlDeviceGetGpuInstances", sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND)
            .because(detail))
    }

    fn describe(&self, gi: &GpuInstance<'_>) -> Result<Instance, NvmlError> {
        let info = self.library.gpu_instance_info(gi)?;
        let profile = self.gpu.profile(info.profile);
        let mut compute = Vec::new();
        for (kind, ci) in self.computes(gi)? {
            compute.push(self.describe_compute(info.id, &ci, profile.is_some_and(|p| fills(&kind, p)))?);
        }
        compute.sort_by_key(|c| c.ci);
        let cap = self.caps.gpu_instance(self.gpu.minor, info.id);
        Ok(Instance { gi: info.id, profile: info.profile, placement: info.placement, compute, cap })
    }

    fn describe_compute(&self, gi: u32, ci: &ComputeInstance<'_>, full: bool) -> Result<Compute, NvmlError> {
        let info = self.library.compute_instance_info(ci)?;
        let (uuid, processes) = match &info.device {
            Some(device) => {
                (self.library.time("nvmlDeviceGetUUID", || device.uuid())?, self.processes(device)?)
            }
            None => (String::new(), Vec::new()),
        };
        let cap = self.caps.compute_instance(self.gpu.minor, gi, info.id);
        Ok(Compute { ci: info.id, uuid, full, cap, processes })
    }

    fn processes(&self, device: &Device<'_>) -> Result<Vec<u32>, NvmlError> {
        let call = "nvmlDeviceGetComputeRunningProcesses_v3";
        match self.library.time(call, || device.running_compute_processes()) {
            Ok(all) => Ok(all.into_iter().map(|p| p.pid).collect()),
            Err(e) if e.unsupported() => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn computes(
        &self,
        gi: &GpuInstance<'_>,
    ) -> Result<Vec<(ComputeProfileInfo, ComputeInstance<'a>)>, NvmlError> {
        let mut found = Vec::new();
        for kind in profiles::compute(self.library, gi)? {
            for ci in self.library.compute_instances(gi, kind.id, kind.max)? {
                found.push((ComputeProfileInfo { ..kind }, ci));
            }
        }
        Ok(found)
    }
}

fn fills(compute: &ComputeProfileInfo, profile: &Profile) -> bool {
    compute.slices == u32::from(profile.slices)
}

fn separated(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!("{detail}; ") }
}
