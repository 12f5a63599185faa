//! GPU instances: profiles, placements, capacity, creation, listing.

use super::border::Out;
use super::exports;
use super::layout::{
    GpuInstanceInfo, GpuInstanceProfileInfo, GpuInstanceProfileInfoV2, GpuInstanceProfileInfoV3, Placement,
    padded, version_word,
};
use crate::code::{Code, Result};
use crate::machine::{Gpu, GpuInstance};
use crate::models::Profile;
use crate::session::{Call, Handle, Kind};

/// `NVML_GPU_INSTANCE_PROFILE_CAPS_GFX`.
const CAPABILITY_GFX: u32 = 2;
/// `NVML_GPU_INSTANCE_PROFILE_COUNT` by oldest driver branch that has it (nvml.h of CUDA 12.4, 12.8 and 13).
const PROFILE_COUNTS: [(u32, u32); 3] = [(580, 0x12), (570, 0x11), (0, 0x0a)];

/// The profile with this enum number: INVALID_ARGUMENT beyond the last, NOT_SUPPORTED where the GPU has none.
fn by_number(call: &Call, device: Handle, number: u32) -> Result<&'static Profile> {
    let (_, gpu) = call.gpu(device)?;
    let branch = call.machine.driver_branch();
    let count = PROFILE_COUNTS.iter().find(|(oldest, _)| branch >= *oldest).map_or(0, |(_, count)| *count);
    if number >= count {
        return Err(Code::INVALID_ARGUMENT);
    }
    gpu.spec()?.profile_by_number(number).ok_or(Code::NOT_SUPPORTED)
}

/// The profile with this id.
fn by_id(gpu: &Gpu, id: u32) -> Result<&'static Profile> {
    gpu.spec()?.profile(id).ok_or(Code::INVALID_ARGUMENT)
}

fn info_v1(p: &Profile) -> GpuInstanceProfileInfo {
    GpuInstanceProfileInfo {
        id: p.id,
        is_p2p_supported: 0,
        slice_count: p.slices,
        instance_count: p.max,
        multiprocessor_count: p.sm,
        copy_engine_count: p.engines.ce,
        decoder_count: p.engines.dec,
        encoder_count: p.engines.enc,
        jpeg_count: p.engines.jpeg,
        ofa_count: p.engines.ofa,
        memory_size_mb: p.memory_mib,
    }
}

fn info_v2(version: u32, p: &Profile) -> GpuInstanceProfileInfoV2 {
    GpuInstanceProfileInfoV2 {
        version,
        id: p.id,
        is_p2p_supported: 0,
        slice_count: p.slices,
        instance_count: p.max,
        multiprocessor_count: p.sm,
        copy_engine_count: p.engines.ce,
        decoder_count: p.engines.dec,
        encoder_count: p.engines.enc,
        jpeg_count: p.engines.jpeg,
        ofa_count: p.engines.ofa,
        memory_size_mb: p.memory_mib,
        name: padded(&format!("MIG {}", p.name)),
    }
}

fn info_v3(version: u32, p: &Profile) -> GpuInstanceProfileInfoV3 {
    GpuInstanceProfileInfoV3 {
        version,
        id: p.id,
        slice_count: p.slices,
        instance_count: p.max,
        multiprocessor_count: p.sm,
        copy_engine_count: p.engines.ce,
        decoder_count: p.engines.dec,
        encoder_count: p.engines.enc,
        jpeg_count: p.engines.jpeg,
        ofa_count: p.engines.ofa,
        memory_size_mb: p.memory_mib,
        name: padded(&format!("MIG {}", p.name)),
        capabilities: if p.name.ends_with("+gfx") { CAPABILITY_GFX } else { 0 },
    }
}

fn placements(call: &Call, device: Handle, id: u32, list: Out<Placement>, count: Out<u32>) -> Result<()> {
    call.privileged()?;
    let profile = by_id(call.gpu(device)?.1, id)?;
    if !list.is_null() {
        let all: Vec<_> =
            profile.starts.iter().map(|&start| Placement { start, size: profile.units }).collect();
        list.put_all(&all)?;
    }
    count.put(profile.starts.len() as u32)
}

fn create(call: &Call, device: Handle, profile: u32, at: Option<Placement>, made: Out<Handle>) -> Result<()> {
    let (index, _) = call.gpu(device)?;
    made.required()?;
    call.privileged()?;
    let at = at.map(|p| (p.start, p.size));
    let serial = call.update(|machine| machine.create_gpu_instance(index, profile, at))?;
    made.put(call.handle(Kind::GpuInstance, index, serial))
}

exports! {
    /// `nvmlDeviceGetGpuInstanceProfileInfo`: takes the enum number; everything else takes the id.
    fn nvmlDeviceGetGpuInstanceProfileInfo(device: Handle, profile: u32, info: Out<GpuInstanceProfileInfo>)
    on device |call| {
        info.put(info_v1(by_number(call, device, profile)?))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoV`: versions 2 and 3.
    fn nvmlDeviceGetGpuInstanceProfileInfoV(device: Handle, profile: u32, info: Out<GpuInstanceProfileInfoV2>)
    on device |call| {
        const V2: u32 = version_word(size_of::<GpuInstanceProfileInfoV2>(), 2);
        const V3: u32 = version_word(size_of::<GpuInstanceProfileInfoV3>(), 3);
        let version = info.cast::<u32>().get()?;
        let profile = || by_number(call, device, profile);
        match version {
            V2 => info.put(info_v2(version, profile()?)),
            V3 => info.cast().put(info_v3(version, profile()?)),
            _ => Err(Code::ARGUMENT_VERSION_MISMATCH),
        }
    }

    /// `nvmlDeviceGetGpuInstancePossiblePlacements_v2`: the profile's places, whether free or not; MIG may be off.
    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: Handle, profile: u32, list: Out<Placement>, count: Out<u32>,
    ) on device |call| {
        placements(call, device, profile, list, count)
    }

    /// `nvmlDeviceGetGpuInstancePossiblePlacements`: the first version, which wants the list.
    fn nvmlDeviceGetGpuInstancePossiblePlacements(
        device: Handle, profile: u32, list: Out<Placement>, count: Out<u32>,
    ) on device |call| {
        placements(call, device, profile, list.required()?, count)
    }

    /// `nvmlDeviceGetGpuInstanceRemainingCapacity`.
    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: Handle, profile: u32, count: Out<u32>) on device |call| {
        call.privileged()?;
        let gpu = call.gpu(device)?.1.in_mig_mode()?;
        count.put(gpu.remaining(gpu.spec()?, by_id(gpu, profile)?))
    }

    /// `nvmlDeviceCreateGpuInstance`: the driver chooses the place, and not well.
    fn nvmlDeviceCreateGpuInstance(device: Handle, profile: u32, made: Out<Handle>) on device |call| {
        create(call, device, profile, None, made)
    }

    /// `nvmlDeviceCreateGpuInstanceWithPlacement`.
    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: Handle, profile: u32, placement: Out<Placement>, made: Out<Handle>,
    ) on device |call| {
        create(call, device, profile, Some(placement.get()?), made)
    }

    /// `nvmlGpuInstanceDestroy`.
    fn nvmlGpuInstanceDestroy(instance: Handle) on instance |call| {
        let (index, _, gi) = call.gpu_instance(instance)?;
        call.privileged()?;
        call.update(|machine| machine.destroy_gpu_instance(index, gi.serial))
    }

    /// `nvmlDeviceGetGpuInstances`: those of one profile; the list must hold the profile's instance count.
    fn nvmlDeviceGetGpuInstances(device: Handle, profile: u32, list: Out<Handle>, count: Out<u32>) on device |call| {
        call.privileged()?;
        let (index, gpu) = call.gpu(device)?;
        let profile = by_id(gpu.in_mig_mode()?, profile)?;
        let mut found: Vec<&GpuInstance> = gpu.instances.iter().filter(|gi| gi.profile == profile.id).collect();
        found.sort_by_key(|gi| gi.id);
        let handles: Vec<_> = found.iter().map(|gi| call.handle(Kind::GpuInstance, index, gi.serial)).collect();
        count.required()?;
        list.put_all(&handles)?;
        count.put(handles.len() as u32)
    }

    /// `nvmlDeviceGetGpuInstanceById`.
    fn nvmlDeviceGetGpuInstanceById(device: Handle, id: u32, instance: Out<Handle>) on device |call| {
        call.privileged()?;
        let (index, gpu) = call.gpu(device)?;
        let found = gpu.in_mig_mode()?.instances.iter().find(|gi| gi.id == id).ok_or(Code::NOT_FOUND)?;
        instance.put(call.handle(Kind::GpuInstance, index, found.serial))
    }

    /// `nvmlGpuInstanceGetInfo`: says where the instance really lies.
    fn nvmlGpuInstanceGetInfo(instance: Handle, info: Out<GpuInstanceInfo>) on instance |call| {
        let (index, gpu, gi) = call.gpu_instance(instance)?;
        info.put(GpuInstanceInfo {
            device: call.handle(Kind::Gpu, index, gpu.serial),
            id: gi.id,
            profile_id: gi.profile,
            placement: Placement { start: gi.start, size: gi.size },
        })
    }
}
