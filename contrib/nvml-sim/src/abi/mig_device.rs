//! MIG devices: a compute instance seen as a device.

use super::border::Out;
use super::exports;
use super::layout::DeviceAttributes;
use crate::code::{Code, Result};
use crate::machine::compute_profile;
use crate::session::{Call, Handle, Kind};

impl Call {
    /// The profile name of a MIG device, for example `1g.10gb` or `1c.3g.40gb`.
    pub(super) fn mig_profile_name(&self, device: Handle) -> Result<String> {
        let place = self.mig_device(device)?;
        let host = place.gpu.spec()?.profile(place.instance.profile).ok_or(Code::UNKNOWN)?;
        compute_profile(host, place.compute.profile).map(|p| p.name).ok_or(Code::UNKNOWN)
    }
}

fn attributes(call: &Call, device: Handle, out: Out<DeviceAttributes>) -> Result<()> {
    if !call.is_mig_device(device)? {
        return Err(Code::NOT_SUPPORTED);
    }
    let place = call.mig_device(device)?;
    let host = place.gpu.spec()?.profile(place.instance.profile).ok_or(Code::UNKNOWN)?;
    let compute = compute_profile(host, place.compute.profile).ok_or(Code::UNKNOWN)?;
    out.put(DeviceAttributes {
        multiprocessor_count: compute.sm,
        shared_copy_engine_count: host.engines.ce,
        shared_decoder_count: host.engines.dec,
        shared_encoder_count: host.engines.enc,
        shared_jpeg_count: host.engines.jpeg,
        shared_ofa_count: host.engines.ofa,
        gpu_instance_slice_count: host.slices,
        compute_instance_slice_count: compute.slices,
        memory_size_mb: host.memory_mib,
    })
}

exports! {
    /// `nvmlDeviceIsMigDeviceHandle`.
    fn nvmlDeviceIsMigDeviceHandle(device: Handle, is: Out<u32>) on device |call| {
        is.put(u32::from(call.is_mig_device(device)?))
    }

    /// `nvmlDeviceGetGpuInstanceId`.
    fn nvmlDeviceGetGpuInstanceId(device: Handle, id: Out<u32>) on device |call| {
        id.put(call.mig_device(device)?.instance.id)
    }

    /// `nvmlDeviceGetComputeInstanceId`.
    fn nvmlDeviceGetComputeInstanceId(device: Handle, id: Out<u32>) on device |call| {
        id.put(call.mig_device(device)?.compute.id)
    }

    /// `nvmlDeviceGetMaxMigDeviceCount`: 0 with MIG off.
    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: Out<u32>) on device |call| {
        let (_, gpu) = call.gpu(device)?;
        count.put(if gpu.mig.current { gpu.spec()?.max_instances } else { 0 })
    }

    /// `nvmlDeviceGetMigDeviceHandleByIndex`: contiguous, by GPU instance id; a GPU instance without a compute instance is
    /// not among them.
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: u32, mig: Out<Handle>) on device |call| {
        let (parent, gpu) = call.gpu(device)?;
        if index >= gpu.in_mig_mode()?.spec()?.max_instances {
            return Err(Code::INVALID_ARGUMENT);
        }
        let seen = call.visible(gpu);
        let (_, ci) = seen.get(index as usize).ok_or(Code::NOT_FOUND)?;
        mig.put(call.handle(Kind::MigDevice, parent, ci.serial))
    }

    /// `nvmlDeviceGetDeviceHandleFromMigDeviceHandle`.
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig: Handle, device: Out<Handle>) on mig |call| {
        let place = call.mig_device(mig)?;
        device.put(call.handle(Kind::Gpu, place.index, place.gpu.serial))
    }

    /// `nvmlDeviceGetAttributes_v2`: MIG devices only.
    fn nvmlDeviceGetAttributes_v2(device: Handle, out: Out<DeviceAttributes>) on device |call| {
        attributes(call, device, out)
    }

    /// `nvmlDeviceGetAttributes`.
    fn nvmlDeviceGetAttributes(device: Handle, out: Out<DeviceAttributes>) on device |call| {
        attributes(call, device, out)
    }
}
