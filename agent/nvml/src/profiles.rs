//! What a GPU offers: its GPU instance profiles with their placements, and the compute profile that fills an instance.

use crate::error::NvmlError;
use crate::raw::{ComputeProfileInfo, GpuInstance, Library, ProfileInfo};
use migshare_policy::topology::Profile;
use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;

/// NVML ends its enumerations with INVALID_ARGUMENT; this bounds a library that never does.
const ENUMERATION_BOUND: u32 = 64;

/// Places in NVML's enumeration of plain profiles: 1, 2, 3, 4, 7, 8 and 6 slices, and one slice with double memory
/// (`NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2`). All others are media-engine or graphics variants; what a later driver
/// adds is taken for a variant until this table knows it.
const PLAIN: &[u32] = &[0, 1, 2, 3, 4, 5, 6, 9];

/// All profiles of a GPU, by NVML's enumeration. Also works while MIG mode is off, on a GPU that has it.
pub(crate) fn read(library: &Library, device: &Device<'_>) -> Result<Vec<Profile>, NvmlError> {
    let mut found = Vec::new();
    for place in 0..ENUMERATION_BOUND {
        match library.profile(device, place) {
            Ok(info) => found.push(profile(library, device, place, info)?),
            Err(e) if e.unsupported() => {}
            Err(e) if is_end(&e) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn profile(
    library: &Library,
    device: &Device<'_>,
    place: u32,
    info: ProfileInfo,
) -> Result<Profile, NvmlError> {
    let mut placements = library.placements(device, info.id)?;
    placements.sort_unstable();
    Ok(Profile {
        id: info.id,
        name: name(&info),
        slices: narrow(info.slices),
        memory_mib: info.memory_mib,
        multiprocessors: info.multiprocessors,
        max: narrow(info.max),
        plain: PLAIN.contains(&place),
        placements,
    })
}

/// The driver's name without the "MIG " that it prints before it; made up in the same form where an old driver has none.
fn name(info: &ProfileInfo) -> String {
    if info.name.is_empty() {
        return format!("{}g.{}gb", info.slices, info.memory_mib.div_ceil(1024));
    }
    info.name.strip_prefix("MIG ").unwrap_or(&info.name).to_owned()
}

/// The compute profiles of a GPU instance.
pub(crate) fn compute(library: &Library, gi: &GpuInstance<'_>) -> Result<Vec<ComputeProfileInfo>, NvmlError> {
    let mut found = Vec::new();
    for place in 0..ENUMERATION_BOUND {
        match library.compute_profile(gi, place) {
            Ok(info) => found.push(info),
            Err(e) if e.unsupported() => {}
            Err(e) if is_end(&e) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn is_end(e: &NvmlError) -> bool {
    e.code == sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT
}

fn narrow(n: u32) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_called_as_the_driver_calls_it() {
        let info = |name: &str| ProfileInfo {
            id: 19,
            name: name.to_owned(),
            slices: 1,
            max: 7,
            multiprocessors: 16,
            memory_mib: 9984,
        };
        assert_eq!(name(&info("MIG 1g.10gb")), "1g.10gb");
        assert_eq!(name(&info("1g.12gb")), "1g.12gb");
        assert_eq!(name(&info("")), "1g.10gb");
    }
}
