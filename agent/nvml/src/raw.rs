//! The NVML symbols that nvml-wrapper 0.13 does not wrap, or wraps wrongly (its `possible_placements` always answers none), each
//! behind one safe function. The only unsafe code of the agent.
//!
//! A [`GpuInstance`] or [`ComputeInstance`] borrows the library, is made by these functions alone and is consumed by its
//! destruction. It must not be kept beyond one operation of the session: a reset by somebody else ends it,
//! after which NVML answers with an error code.

use crate::error::NvmlError;
use migshare_proto::Placement;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as sys;
use std::ffi::c_char;
use std::marker::PhantomData;
use std::path::Path;
use std::time::{Duration, Instant};

/// What an observer is told of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It begins. Some never return: a driver that hangs holds its caller for ever.
    Begins,
    /// It has returned.
    Ended {
        /// NVML's return code.
        code: u32,
        /// How long it took.
        took: Duration,
    },
}

/// Is told of every call by its name.
pub type Observer = Box<dyn Fn(&'static str, Progress) + Send>;

/// The loaded and initialised NVML.
pub(crate) struct Library {
    pub(crate) nvml: Nvml,
    pub(crate) observer: Option<Observer>,
}

/// A GPU instance's handle.
pub(crate) struct GpuInstance<'n>(sys::nvmlGpuInstance_t, PhantomData<&'n Library>);

/// A compute instance's handle.
pub(crate) struct ComputeInstance<'n>(sys::nvmlComputeInstance_t, PhantomData<&'n Library>);

/// What NVML says of a GPU instance.
pub(crate) struct GpuInstanceInfo {
    pub(crate) id: u32,
    pub(crate) profile: u32,
    pub(crate) placement: Placement,
}

/// What NVML says of a compute instance, with the handle of the MIG device that it is.
pub(crate) struct ComputeInstanceInfo<'n> {
    pub(crate) id: u32,
    pub(crate) device: Option<Device<'n>>,
}

/// A GPU instance profile without its placements.
pub(crate) struct ProfileInfo {
    pub(crate) id: u32,
    /// Empty where the driver has only the first version of the call.
    pub(crate) name: String,
    pub(crate) slices: u32,
    pub(crate) max: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) memory_mib: u64,
}

/// A compute instance profile within a GPU instance.
pub(crate) struct ComputeProfileInfo {
    pub(crate) id: u32,
    pub(crate) slices: u32,
    pub(crate) max: u32,
}

/// All compute instances of one GPU instance share its engines; NVML knows no other engine profile.
const SHARED_ENGINES: u32 = 0;

/// The version word that NVML wants in versioned structs (nvml.h, `NVML_STRUCT_VERSION`).
const fn version_word<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | (version << 24)
}

impl Library {
    /// Loads and initialises NVML; the system's own where no path is given.
    pub(crate) fn open(path: Option<&Path>) -> Result<Library, NvmlError> {
        let mut builder = Nvml::builder();
        if let Some(path) = path {
            builder.lib_path(path.as_os_str());
        }
        let nvml = builder.init().map_err(|e| NvmlError::wrapped("nvmlInit_v2", e))?;
        Ok(Library { nvml, observer: None })
    }

    /// Makes a call through nvml-wrapper.
    pub(crate) fn time<T>(
        &self,
        call: &'static str,
        ask: impl FnOnce() -> Result<T, nvml_wrapper::error::NvmlError>,
    ) -> Result<T, NvmlError> {
        let started = self.begin(call);
        let answer = ask().map_err(|e| NvmlError::wrapped(call, e));
        self.observe(call, answer.as_ref().map_or_else(|e| e.code, |_| 0), started);
        answer
    }

    /// Makes a call by its symbol.
    fn call<F, E>(
        &self,
        call: &'static str,
        symbol: &Result<F, E>,
        ask: impl FnOnce(&F) -> u32,
    ) -> Result<(), NvmlError> {
        let started = self.begin(call);
        let code = match symbol {
            Ok(f) => ask(f),
            Err(_) => sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
        };
        self.observe(call, code, started);
        if code == 0 { Ok(()) } else { Err(NvmlError::new(call, code)) }
    }

    fn begin(&self, call: &'static str) -> Instant {
        if let Some(observer) = &self.observer {
            observer(call, Progress::Begins);
        }
        Instant::now()
    }

    fn observe(&self, call: &'static str, code: u32, started: Instant) {
        if let Some(observer) = &self.observer {
            observer(call, Progress::Ended { code, took: started.elapsed() });
        }
    }

    /// A profile by its place in NVML's enumeration, with the driver's name for it where the driver can tell.
    pub(crate) fn profile(&self, device: &Device<'_>, place: u32) -> Result<ProfileInfo, NvmlError> {
        match self.profile_v2(device, place) {
            Err(e) if is_too_old(&e) => self.profile_v1(device, place),
            other => other,
        }
    }

    fn profile_v2(&self, device: &Device<'_>, place: u32) -> Result<ProfileInfo, NvmlError> {
        // SAFETY: the struct is made of integers and a character array: all zero is a valid value.
        let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
        info.version = version_word::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2);
        let symbol = &self.nvml.lib().nvmlDeviceGetGpuInstanceProfileInfoV;
        self.call("nvmlDeviceGetGpuInstanceProfileInfoV", symbol, |f| {
            // SAFETY: the device borrows the library; `info` is a struct of the size that its version word says.
            unsafe { f(device.handle(), place, &mut info) }
        })?;
        Ok(ProfileInfo {
            id: info.id,
            name: text(&info.name),
            slices: info.sliceCount,
            max: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            memory_mib: info.memorySizeMB,
        })
    }

    fn profile_v1(&self, device: &Device<'_>, place: u32) -> Result<ProfileInfo, NvmlError> {
        let info = self.time("nvmlDeviceGetGpuInstanceProfileInfo", || device.profile_info(place))?;
        Ok(ProfileInfo {
            id: info.id,
            name: String::new(),
            slices: info.slice_count,
            max: info.instance_count,
            multiprocessors: info.multiprocessor_count,
            memory_mib: info.memory_size_mb,
        })
    }

    /// Where instances of a profile can lie on an empty GPU.
    pub(crate) fn placements(&self, device: &Device<'_>, profile: u32) -> Result<Vec<Placement>, NvmlError> {
        let call = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
        let symbol = &self.nvml.lib().nvmlDeviceGetGpuInstancePossiblePlacements_v2;
        let mut count = 0;
        self.call(call, symbol, |f| {
            // SAFETY: the device borrows the library; a null array asks for the count alone (nvml.h).
            unsafe { f(device.handle(), profile, std::ptr::null_mut(), &mut count) }
        })?;
        let mut found = vec![sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 }; count as usize];
        self.call(call, symbol, |f| {
            // SAFETY: `found` holds the `count` places that NVML has just asked for.
            unsafe { f(device.handle(), profile, found.as_mut_ptr(), &mut count) }
        })?;
        found.truncate(count as usize);
        found.iter().map(|p| placement(call, p)).collect()
    }

    /// The GPU instances of one profile. `max` is the profile's instance count, which NVML takes as the buffer's size.
    pub(crate) fn gpu_instances(
        &self,
        device: &Device<'_>,
        profile: u32,
        max: u32,
    ) -> Result<Vec<GpuInstance<'_>>, NvmlError> {
        let mut handles = vec![std::ptr::null_mut(); max as usize];
        let mut count = max;
        self.call("nvmlDeviceGetGpuInstances", &self.nvml.lib().nvmlDeviceGetGpuInstances, |f| {
            // SAFETY: the buffer holds the profile's instance count, as nvml.h asks.
            unsafe { f(device.handle(), profile, handles.as_mut_ptr(), &mut count) }
        })?;
        handles.truncate(count as usize);
        Ok(handles.into_iter().map(|h| GpuInstance(h, PhantomData)).collect())
    }

    /// Makes a GPU instance at a placement.
    pub(crate) fn create_gpu_instance(
        &self,
        device: &Device<'_>,
        profile: u32,
        at: Placement,
    ) -> Result<GpuInstance<'_>, NvmlError> {
        let at = sys::nvmlGpuInstancePlacement_t { start: at.start.into(), size: at.size.into() };
        let mut made = std::ptr::null_mut();
        let symbol = &self.nvml.lib().nvmlDeviceCreateGpuInstanceWithPlacement;
        self.call("nvmlDeviceCreateGpuInstanceWithPlacement", symbol, |f| {
            // SAFETY: the device borrows the library; both pointers are to locals that outlive the call.
            unsafe { f(device.handle(), profile, &at, &mut made) }
        })?;
        Ok(GpuInstance(made, PhantomData))
    }

    /// What a GPU instance is and where it lies.
    pub(crate) fn gpu_instance_info(&self, gi: &GpuInstance<'_>) -> Result<GpuInstanceInfo, NvmlError> {
        const CALL: &str = "nvmlGpuInstanceGetInfo";
        let mut info = sys::nvmlGpuInstanceInfo_t {
            device: std::ptr::null_mut(),
            id: 0,
            profileId: 0,
            placement: sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 },
        };
        self.call(CALL, &self.nvml.lib().nvmlGpuInstanceGetInfo, |f| {
            // SAFETY: the handle came from this library and was not destroyed through it; `info` outlives the call.
            unsafe { f(gi.0, &mut info) }
        })?;
        Ok(GpuInstanceInfo {
            id: info.id,
            profile: info.profileId,
            placement: placement(CALL, &info.placement)?,
        })
    }

    /// Destroys a GPU instance.
    pub(crate) fn destroy_gpu_instance(&self, gi: GpuInstance<'_>) -> Result<(), NvmlError> {
        self.call("nvmlGpuInstanceDestroy", &self.nvml.lib().nvmlGpuInstanceDestroy, |f| {
            // SAFETY: the handle came from this library and is consumed here.
            unsafe { f(gi.0) }
        })
    }

    /// A compute profile of a GPU instance by its place in NVML's enumeration.
    pub(crate) fn compute_profile(
        &self,
        gi: &GpuInstance<'_>,
        place: u32,
    ) -> Result<ComputeProfileInfo, NvmlError> {
        // SAFETY: the struct is made of integers: all zero is a valid value.
        let mut info: sys::nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
        let symbol = &self.nvml.lib().nvmlGpuInstanceGetComputeInstanceProfileInfo;
        self.call("nvmlGpuInstanceGetComputeInstanceProfileInfo", symbol, |f| {
            // SAFETY: the handle came from this library and was not destroyed through it; `info` outlives the call.
            unsafe { f(gi.0, place, SHARED_ENGINES, &mut info) }
        })?;
        Ok(ComputeProfileInfo { id: info.id, slices: info.sliceCount, max: info.instanceCount })
    }

    /// The compute instances of one profile in a GPU instance.
    pub(crate) fn compute_instances(
        &self,
        gi: &GpuInstance<'_>,
        profile: u32,
        max: u32,
    ) -> Result<Vec<ComputeInstance<'_>>, NvmlError> {
        let mut handles = vec![std::ptr::null_mut(); max as usize];
        let mut count = max;
        let symbol = &self.nvml.lib().nvmlGpuInstanceGetComputeInstances;
        self.call("nvmlGpuInstanceGetComputeInstances", symbol, |f| {
            // SAFETY: the buffer holds the profile's instance count, as nvml.h asks.
            unsafe { f(gi.0, profile, handles.as_mut_ptr(), &mut count) }
        })?;
        handles.truncate(count as usize);
        Ok(handles.into_iter().map(|h| ComputeInstance(h, PhantomData)).collect())
    }

    /// Makes a compute instance.
    pub(crate) fn create_compute_instance(
        &self,
        gi: &GpuInstance<'_>,
        profile: u32,
    ) -> Result<ComputeInstance<'_>, NvmlError> {
        let mut made = std::ptr::null_mut();
        let symbol = &self.nvml.lib().nvmlGpuInstanceCreateComputeInstance;
        self.call("nvmlGpuInstanceCreateComputeInstance", symbol, |f| {
            // SAFETY: the handle came from this library and was not destroyed through it; `made` outlives the call.
            unsafe { f(gi.0, profile, &mut made) }
        })?;
        Ok(ComputeInstance(made, PhantomData))
    }

    /// What a compute instance is. Its `device` is the MIG device itself: the cheapest way to the UUID.
    pub(crate) fn compute_instance_info(
        &self,
        ci: &ComputeInstance<'_>,
    ) -> Result<ComputeInstanceInfo<'_>, NvmlError> {
        let mut info = sys::nvmlComputeInstanceInfo_t {
            device: std::ptr::null_mut(),
            gpuInstance: std::ptr::null_mut(),
            id: 0,
            profileId: 0,
            placement: sys::nvmlComputeInstancePlacement_t { start: 0, size: 0 },
        };
        self.call("nvmlComputeInstanceGetInfo_v2", &self.nvml.lib().nvmlComputeInstanceGetInfo_v2, |f| {
            // SAFETY: the handle came from this library and was not destroyed through it; `info` outlives the call.
            unsafe { f(ci.0, &mut info) }
        })?;
        let device = (!info.device.is_null()).then(|| {
            // SAFETY: NVML has just given this handle; it lives as long as the compute instance.
            unsafe { Device::new(info.device, &self.nvml) }
        });
        Ok(ComputeInstanceInfo { id: info.id, device })
    }

    /// Destroys a compute instance.
    pub(crate) fn destroy_compute_instance(&self, ci: ComputeInstance<'_>) -> Result<(), NvmlError> {
        self.call("nvmlComputeInstanceDestroy", &self.nvml.lib().nvmlComputeInstanceDestroy, |f| {
            // SAFETY: the handle came from this library and is consumed here.
            unsafe { f(ci.0) }
        })
    }
}

/// A driver that lacks the versioned call, or does not know this version of its struct.
fn is_too_old(e: &NvmlError) -> bool {
    [
        sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
        sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    ]
    .contains(&e.code)
}

/// Units fit in a byte on every GPU; anything else is not a placement.
fn placement(call: &'static str, p: &sys::nvmlGpuInstancePlacement_t) -> Result<Placement, NvmlError> {
    match (u8::try_from(p.start), u8::try_from(p.size)) {
        (Ok(start), Ok(size)) => Ok(Placement { start, size }),
        _ => Err(NvmlError::new(call, sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN)
            .because(format!("placement {}:{} is out of range", p.start, p.size))),
    }
}

/// The text in a C buffer, up to its end where no zero ends it.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiled from nvml.h of CUDA 13.3.
    #[test]
    fn version_words_are_those_of_the_header() {
        assert_eq!(version_word::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2), 0x0200_0098);
        assert_eq!(size_of::<sys::nvmlComputeInstanceProfileInfo_t>(), 36);
        assert_eq!(size_of::<sys::nvmlGpuInstanceInfo_t>(), 24);
        assert_eq!(size_of::<sys::nvmlComputeInstanceInfo_t>(), 32);
    }
}
