//! The library as C programs use it: loaded by path, called through nvml-wrapper-sys, whose structures were made
//! from NVIDIA's header by others.

use std::ffi::{CStr, CString, c_char, c_uint};
use std::mem::zeroed;
use std::path::Path;
use std::ptr::null_mut;

use nvml_wrapper_sys::bindings::*;

pub(crate) const IN_USE: u32 = 19;
pub(crate) const INVALID_ARGUMENT: u32 = 2;
pub(crate) const NOT_SUPPORTED: u32 = 3;
pub(crate) const NO_PERMISSION: u32 = 4;
pub(crate) const NOT_FOUND: u32 = 6;
pub(crate) const INSUFFICIENT_SIZE: u32 = 7;
pub(crate) const GPU_IS_LOST: u32 = 15;
pub(crate) const RESET_REQUIRED: u32 = 16;
pub(crate) const INSUFFICIENT_RESOURCES: u32 = 23;
pub(crate) const VERSION_MISMATCH: u32 = 25;

pub(crate) type Result<T> = std::result::Result<T, u32>;
pub(crate) type Device = nvmlDevice_t;
pub(crate) type Gi = nvmlGpuInstance_t;
pub(crate) type Ci = nvmlComputeInstance_t;
pub(crate) type Span = (u32, u32);

/// The loaded and initialised library.
pub(crate) struct Nvml {
    pub(crate) raw: NvmlLib,
}

fn check(code: u32) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// Calls a function with an out parameter behind its arguments and returns what came out.
macro_rules! out {
    ($nvml:expr, $function:ident($($arg:expr),*)) => {{
        // SAFETY: plain C data of the type that the function writes.
        let mut value = unsafe { zeroed() };
        // SAFETY: the arguments are what nvml.h asks for; the out pointer is the local above.
        check(unsafe { $nvml.raw.$function($($arg,)* &mut value) }).map(|()| value)
    }};
}

impl Nvml {
    /// Loads and initialises.
    pub(crate) fn load(path: &Path) -> Nvml {
        let nvml = Nvml::load_only(path);
        nvml.init().unwrap();
        nvml
    }

    pub(crate) fn load_only(path: &Path) -> Nvml {
        // SAFETY: the library under test; loading it runs no code of its own.
        Nvml { raw: unsafe { NvmlLib::new(path) }.unwrap() }
    }

    pub(crate) fn init(&self) -> Result<()> {
        // SAFETY: takes no arguments.
        check(unsafe { self.raw.nvmlInit_v2() })
    }

    pub(crate) fn shutdown(&self) -> Result<()> {
        // SAFETY: takes no arguments.
        check(unsafe { self.raw.nvmlShutdown() })
    }

    pub(crate) fn count(&self) -> Result<u32> {
        out!(self, nvmlDeviceGetCount_v2())
    }

    pub(crate) fn gpu(&self, index: u32) -> Result<Device> {
        out!(self, nvmlDeviceGetHandleByIndex_v2(index))
    }

    pub(crate) fn by_uuid(&self, uuid: &str) -> Result<Device> {
        let uuid = CString::new(uuid).unwrap();
        out!(self, nvmlDeviceGetHandleByUUID(uuid.as_ptr()))
    }

    pub(crate) fn uuid(&self, device: Device) -> Result<String> {
        let mut text = [0 as c_char; 96];
        // SAFETY: the buffer has the length given.
        check(unsafe { self.raw.nvmlDeviceGetUUID(device, text.as_mut_ptr(), 96) })?;
        // SAFETY: on success the buffer holds a NUL-terminated text.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_owned())
    }

    pub(crate) fn name(&self, device: Device) -> Result<String> {
        let mut text = [0 as c_char; 96];
        // SAFETY: the buffer has the length given.
        check(unsafe { self.raw.nvmlDeviceGetName(device, text.as_mut_ptr(), 96) })?;
        // SAFETY: on success the buffer holds a NUL-terminated text.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_owned())
    }

    pub(crate) fn minor(&self, device: Device) -> Result<u32> {
        out!(self, nvmlDeviceGetMinorNumber(device))
    }

    /// Current and pending mode.
    pub(crate) fn mig(&self, device: Device) -> Result<(u32, u32)> {
        let mut pending = 0;
        // SAFETY: both out pointers are locals.
        let current = unsafe {
            let mut current = 0;
            check(self.raw.nvmlDeviceGetMigMode(device, &mut current, &mut pending))?;
            current
        };
        Ok((current, pending))
    }

    /// Returns the activation status.
    pub(crate) fn set_mig(&self, device: Device, on: bool) -> Result<u32> {
        out!(self, nvmlDeviceSetMigMode(device, u32::from(on)))
    }

    pub(crate) fn profile(&self, device: Device, number: u32) -> Result<nvmlGpuInstanceProfileInfo_t> {
        out!(self, nvmlDeviceGetGpuInstanceProfileInfo(device, number))
    }

    /// All profiles, found as a careful caller does: from 0 up to INVALID_ARGUMENT.
    pub(crate) fn profiles(&self, device: Device) -> Vec<nvmlGpuInstanceProfileInfo_t> {
        let asked = (0..).map(|number| self.profile(device, number));
        let ends = |found: &Result<_>| !matches!(found, Err(INVALID_ARGUMENT));
        asked.take_while(ends).filter_map(Result::ok).collect()
    }

    pub(crate) fn placements(&self, device: Device, profile: u32) -> Result<Vec<Span>> {
        let mut count: c_uint = 0;
        // SAFETY: null asks for the count.
        check(unsafe {
            self.raw.nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, profile, null_mut(), &mut count)
        })?;
        let mut list = vec![nvmlGpuInstancePlacement_t { start: 0, size: 0 }; count as usize];
        // SAFETY: the list holds as many as the library said.
        check(unsafe {
            self.raw.nvmlDeviceGetGpuInstancePossiblePlacements_v2(
                device,
                profile,
                list.as_mut_ptr(),
                &mut count,
            )
        })?;
        Ok(list.iter().map(|p| (p.start, p.size)).collect())
    }

    pub(crate) fn remaining(&self, device: Device, profile: u32) -> Result<u32> {
        out!(self, nvmlDeviceGetGpuInstanceRemainingCapacity(device, profile))
    }

    pub(crate) fn create(&self, device: Device, profile: u32) -> Result<Gi> {
        out!(self, nvmlDeviceCreateGpuInstance(device, profile))
    }

    pub(crate) fn create_at(&self, device: Device, profile: u32, (start, size): Span) -> Result<Gi> {
        let at = nvmlGpuInstancePlacement_t { start, size };
        out!(self, nvmlDeviceCreateGpuInstanceWithPlacement(device, profile, &at))
    }

    pub(crate) fn destroy(&self, gi: Gi) -> Result<()> {
        // SAFETY: takes a handle.
        check(unsafe { self.raw.nvmlGpuInstanceDestroy(gi) })
    }

    pub(crate) fn gi_info(&self, gi: Gi) -> Result<nvmlGpuInstanceInfo_t> {
        out!(self, nvmlGpuInstanceGetInfo(gi))
    }

    /// All GPU instances of a device: by profile, as NVML lists them.
    pub(crate) fn instances(&self, device: Device) -> Result<Vec<Gi>> {
        let mut all = Vec::new();
        for profile in self.profiles(device) {
            let mut list: Vec<Gi> = vec![null_mut(); profile.instanceCount as usize];
            let mut count = 0;
            // SAFETY: the list holds the profile's instance count, as nvml.h asks.
            check(unsafe {
                self.raw.nvmlDeviceGetGpuInstances(device, profile.id, list.as_mut_ptr(), &mut count)
            })?;
            all.extend_from_slice(&list[..count as usize]);
        }
        Ok(all)
    }

    pub(crate) fn gi_by_id(&self, device: Device, id: u32) -> Result<Gi> {
        out!(self, nvmlDeviceGetGpuInstanceById(device, id))
    }

    pub(crate) fn ci_profile(&self, gi: Gi, number: u32) -> Result<nvmlComputeInstanceProfileInfo_t> {
        out!(self, nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, number, 0))
    }

    pub(crate) fn ci_remaining(&self, gi: Gi, profile: u32) -> Result<u32> {
        out!(self, nvmlGpuInstanceGetComputeInstanceRemainingCapacity(gi, profile))
    }

    pub(crate) fn create_ci(&self, gi: Gi, profile: u32) -> Result<Ci> {
        out!(self, nvmlGpuInstanceCreateComputeInstance(gi, profile))
    }

    pub(crate) fn create_ci_at(&self, gi: Gi, profile: u32, (start, size): Span) -> Result<Ci> {
        let at = nvmlComputeInstancePlacement_t { start, size };
        out!(self, nvmlGpuInstanceCreateComputeInstanceWithPlacement(gi, profile, &at))
    }

    /// Creates the compute instance that has all slices of its GPU instance.
    pub(crate) fn create_full_ci(&self, gi: Gi) -> Result<Ci> {
        let all = (0..8).filter_map(|number| self.ci_profile(gi, number).ok());
        let full = all.max_by_key(|p| p.sliceCount).ok_or(INVALID_ARGUMENT)?;
        self.create_ci(gi, full.id)
    }

    pub(crate) fn destroy_ci(&self, ci: Ci) -> Result<()> {
        // SAFETY: takes a handle.
        check(unsafe { self.raw.nvmlComputeInstanceDestroy(ci) })
    }

    pub(crate) fn ci_info(&self, ci: Ci) -> Result<nvmlComputeInstanceInfo_t> {
        out!(self, nvmlComputeInstanceGetInfo_v2(ci))
    }

    pub(crate) fn ci_by_id(&self, gi: Gi, id: u32) -> Result<Ci> {
        out!(self, nvmlGpuInstanceGetComputeInstanceById(gi, id))
    }

    pub(crate) fn mig_device(&self, device: Device, index: u32) -> Result<Device> {
        out!(self, nvmlDeviceGetMigDeviceHandleByIndex(device, index))
    }

    /// MIG UUIDs by NVML index, up to the first that is not found.
    pub(crate) fn mig_uuids(&self, device: Device) -> Vec<String> {
        (0..).map_while(|n| self.mig_device(device, n).ok()).map(|d| self.uuid(d).unwrap()).collect()
    }

    /// Processes: pid, GPU instance, compute instance.
    pub(crate) fn processes(&self, device: Device) -> Result<Vec<(u32, u32, u32)>> {
        let mut count = 64;
        let mut list =
            [nvmlProcessInfo_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 }; 64];
        // SAFETY: the list holds as many as `count` says.
        check(unsafe {
            self.raw.nvmlDeviceGetComputeRunningProcesses_v3(device, &mut count, list.as_mut_ptr())
        })?;
        Ok(list[..count as usize].iter().map(|p| (p.pid, p.gpuInstanceId, p.computeInstanceId)).collect())
    }
}
