//! Compute instances: profiles, placements, capacity, creation, listing.

use super::border::Out;
use super::exports;
use super::layout::{
    ComputeInstanceInfo, ComputeInstanceProfileInfo, ComputeInstanceProfileInfoV2,
    ComputeInstanceProfileInfoV3, Placement, padded, version_word,
};
use crate::code::{Code, Result};
use crate::machine::{ComputeProfile, compute_profile, compute_profiles};
use crate::models::{Engines, Profile};
use crate::session::{Call, Handle, Kind};

/// `NVML_COMPUTE_INSTANCE_PROFILE_COUNT` by oldest driver branch that has it (nvml.h of CUDA 12 and 13).
const PROFILE_COUNTS: [(u32, u32); 2] = [(580, 9), (0, 8)];
/// `NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`, the only one.
const ENGINES_SHARED: u32 = 0;

/// The profile of the GPU instance that a handle names.
fn host(call: &Call, instance: Handle) -> Result<&'static Profile> {
    let (_, gpu, gi) = call.gpu_instance(instance)?;
    gpu.spec()?.profile(gi.profile).ok_or(Code::UNKNOWN)
}

/// The compute profile with this enum number, and the engines that it shares.
fn by_number(call: &Call, instance: Handle, number: u32, engines: u32) -> Result<(ComputeProfile, Engines)> {
    let host = host(call, instance)?;
    let branch = call.machine.driver_branch();
    let count = PROFILE_COUNTS.iter().find(|(oldest, _)| branch >= *oldest).map_or(0, |(_, count)| *count);
    if number >= count || engines != ENGINES_SHARED {
        return Err(Code::INVALID_ARGUMENT);
    }
    let found = compute_profiles(host).into_iter().find(|p| p.id == number);
    Ok((found.ok_or(Code::NOT_SUPPORTED)?, host.engines))
}

fn by_id(call: &Call, instance: Handle, id: u32) -> Result<ComputeProfile> {
    compute_profile(host(call, instance)?, id).ok_or(Code::INVALID_ARGUMENT)
}

fn info_v3(version: u32, (p, engines): &(ComputeProfile, Engines)) -> ComputeInstanceProfileInfoV3 {
    ComputeInstanceProfileInfoV3 {
        version,
        id: p.id,
        slice_count: p.slices,
        instance_count: p.max,
        multiprocessor_count: p.sm,
        shared_copy_engine_count: engines.ce,
        shared_decoder_count: engines.dec,
        shared_encoder_count: engines.enc,
        shared_jpeg_count: engines.jpeg,
        shared_ofa_count: engines.ofa,
        name: padded(&format!("MIG {}", p.name)),
        capabilities: 0,
    }
}

/// Version 3 without its last field.
fn info_v2(version: u32, found: &(ComputeProfile, Engines)) -> ComputeInstanceProfileInfoV2 {
    let v3 = info_v3(version, found);
    ComputeInstanceProfileInfoV2 {
        version,
        id: v3.id,
        slice_count: v3.slice_count,
        instance_count: v3.instance_count,
        multiprocessor_count: v3.multiprocessor_count,
        shared_copy_engine_count: v3.shared_copy_engine_count,
        shared_decoder_count: v3.shared_decoder_count,
        shared_encoder_count: v3.shared_encoder_count,
        shared_jpeg_count: v3.shared_jpeg_count,
        shared_ofa_count: v3.shared_ofa_count,
        name: v3.name,
    }
}

fn info_v1(found: &(ComputeProfile, Engines)) -> ComputeInstanceProfileInfo {
    let v3 = info_v3(0, found);
    ComputeInstanceProfileInfo {
        id: v3.id,
        slice_count: v3.slice_count,
        instance_count: v3.instance_count,
        multiprocessor_count: v3.multiprocessor_count,
        shared_copy_engine_count: v3.shared_copy_engine_count,
        shared_decoder_count: v3.shared_decoder_count,
        shared_encoder_count: v3.shared_encoder_count,
        shared_jpeg_count: v3.shared_jpeg_count,
        shared_ofa_count: v3.shared_ofa_count,
    }
}

fn create(
    call: &Call,
    instance: Handle,
    profile: u32,
    at: Option<Placement>,
    made: Out<Handle>,
) -> Result<()> {
    let (index, _, gi) = call.gpu_instance(instance)?;
    made.required()?;
    call.privileged()?;
    let at = at.map(|p| (p.start, p.size));
    let serial = call.update(|machine| machine.create_compute_instance(index, gi.serial, profile, at))?;
    made.put(call.handle(Kind::ComputeInstance, index, serial))
}

fn info(call: &Call, compute: Handle, info: Out<ComputeInstanceInfo>) -> Result<()> {
    let place = call.compute_instance(compute)?;
    info.put(ComputeInstanceInfo {
        // This is the handle of the MIG device, not of the GPU.
        device: call.handle(Kind::MigDevice, place.index, place.compute.serial),
        gpu_instance: call.handle(Kind::GpuInstance, place.index, place.instance.serial),
        id: place.compute.id,
        profile_id: place.compute.profile,
        placement: Placement { start: place.compute.start, size: place.compute.slices },
    })
}

exports! {
    /// `nvmlGpuInstanceGetComputeInstanceProfileInfo`.
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        instance: Handle, profile: u32, engines: u32, info: Out<ComputeInstanceProfileInfo>,
    ) on instance |call| {
        info.put(info_v1(&by_number(call, instance, profile, engines)?))
    }

    /// `nvmlGpuInstanceGetComputeInstanceProfileInfoV`: versions 2 and 3.
    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        instance: Handle, profile: u32, engines: u32, info: Out<ComputeInstanceProfileInfoV2>,
    ) on instance |call| {
        const V2: u32 = version_word(size_of::<ComputeInstanceProfileInfoV2>(), 2);
        const V3: u32 = version_word(size_of::<ComputeInstanceProfileInfoV3>(), 3);
        let version = info.cast::<u32>().get()?;
        let found = || by_number(call, instance, profile, engines);
        match version {
            V2 => info.put(info_v2(version, &found()?)),
            V3 => info.cast().put(info_v3(version, &found()?)),
            _ => Err(Code::ARGUMENT_VERSION_MISMATCH),
        }
    }

    /// `nvmlGpuInstanceGetComputeInstanceRemainingCapacity`.
    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance: Handle, profile: u32, count: Out<u32>)
    on instance |call| {
        call.privileged()?;
        let profile = by_id(call, instance, profile)?;
        count.put(call.gpu_instance(instance)?.2.compute_remaining(&profile))
    }

    /// `nvmlGpuInstanceGetComputeInstancePossiblePlacements`.
    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        instance: Handle, profile: u32, list: Out<Placement>, count: Out<u32>,
    ) on instance |call| {
        call.privileged()?;
        let profile = by_id(call, instance, profile)?;
        let all: Vec<_> = profile.starts().map(|start| Placement { start, size: profile.slices }).collect();
        if !list.is_null() {
            list.put_all(&all)?;
        }
        count.put(all.len() as u32)
    }

    /// `nvmlGpuInstanceCreateComputeInstance`.
    fn nvmlGpuInstanceCreateComputeInstance(instance: Handle, profile: u32, made: Out<Handle>) on instance |call| {
        create(call, instance, profile, None, made)
    }

    /// `nvmlGpuInstanceCreateComputeInstanceWithPlacement`.
    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        instance: Handle, profile: u32, placement: Out<Placement>, made: Out<Handle>,
    ) on instance |call| {
        create(call, instance, profile, Some(placement.get()?), made)
    }

    /// `nvmlComputeInstanceDestroy`.
    fn nvmlComputeInstanceDestroy(compute: Handle) on compute |call| {
        let place = call.compute_instance(compute)?;
        call.privileged()?;
        call.update(|machine| machine.destroy_compute_instance(place.index, place.compute.serial))
    }

    /// `nvmlGpuInstanceGetComputeInstances`: those of one profile; the list must hold its instance count.
    fn nvmlGpuInstanceGetComputeInstances(instance: Handle, profile: u32, list: Out<Handle>, count: Out<u32>)
    on instance |call| {
        call.privileged()?;
        let profile = by_id(call, instance, profile)?;
        let (index, _, gi) = call.gpu_instance(instance)?;
        let found = gi.compute.iter().filter(|ci| ci.profile == profile.id);
        let handles: Vec<_> = found.map(|ci| call.handle(Kind::ComputeInstance, index, ci.serial)).collect();
        count.required()?;
        list.put_all(&handles)?;
        count.put(handles.len() as u32)
    }

    /// `nvmlGpuInstanceGetComputeInstanceById`.
    fn nvmlGpuInstanceGetComputeInstanceById(instance: Handle, id: u32, compute: Out<Handle>) on instance |call| {
        call.privileged()?;
        let (index, _, gi) = call.gpu_instance(instance)?;
        let found = gi.compute.iter().find(|ci| ci.id == id).ok_or(Code::NOT_FOUND)?;
        compute.put(call.handle(Kind::ComputeInstance, index, found.serial))
    }

    /// `nvmlComputeInstanceGetInfo_v2`.
    fn nvmlComputeInstanceGetInfo_v2(compute: Handle, out: Out<ComputeInstanceInfo>) on compute |call| {
        info(call, compute, out)
    }

    /// `nvmlComputeInstanceGetInfo`.
    fn nvmlComputeInstanceGetInfo(compute: Handle, out: Out<ComputeInstanceInfo>) on compute |call| {
        info(call, compute, out)
    }
}
