//! GPUs: enumeration, identity, memory, MIG mode.

use super::border::{CText, Out, Text};
use super::exports;
use super::layout::{Memory, MemoryV2, version_word};
use crate::code::{Code, Result, SUCCESS};
use crate::machine::{Activation, Gpu};
use crate::session::{Call, Handle, Kind};

const MIB: u64 = 1 << 20;

impl Call {
    fn device_handle(&self, found: impl Fn(&Gpu) -> bool) -> Result<Handle> {
        let index = self.machine.gpus.iter().position(found).ok_or(Code::NOT_FOUND)?;
        let gpu = self.machine.gpu(index)?;
        gpu.answers()?;
        Ok(self.handle(Kind::Gpu, index, gpu.serial))
    }

    /// A GPU or MIG device by its UUID; a MIG device that the process may not see is not found.
    fn by_uuid(&self, uuid: &str) -> Result<Handle> {
        if !uuid.starts_with("MIG-") {
            return self.device_handle(|gpu| gpu.uuid == uuid);
        }
        for (index, gpu) in self.machine.gpus.iter().enumerate().filter(|(_, gpu)| gpu.answers().is_ok()) {
            let seen = self.visible(gpu);
            if let Some((_, ci)) = seen.iter().find(|(_, ci)| ci.uuid == uuid) {
                return Ok(self.handle(Kind::MigDevice, index, ci.serial));
            }
        }
        Err(Code::NOT_FOUND)
    }

    /// Total and used memory of a GPU or MIG device, in MiB.
    fn memory_mib(&self, device: Handle) -> Result<(u64, u64)> {
        if self.is_mig_device(device)? {
            let place = self.mig_device(device)?;
            let profile = place.gpu.spec()?.profile(place.instance.profile).ok_or(Code::UNKNOWN)?;
            return Ok((profile.memory_mib, place.instance.used_mib()));
        }
        let (_, gpu) = self.gpu(device)?;
        Ok((gpu.spec()?.memory_mib, gpu.all_processes().iter().map(|(p, _)| p.memory_mib).sum()))
    }
}

fn by_index(call: &Call, index: u32, device: Out<Handle>) -> Result<()> {
    let gpu = call.machine.gpu(index as usize)?;
    gpu.answers()?;
    device.put(call.handle(Kind::Gpu, index as usize, gpu.serial))
}

fn by_bus_id(call: &Call, bus_id: &str, device: Out<Handle>) -> Result<()> {
    let short = |id: &str| id.to_ascii_uppercase().trim_start_matches('0').to_owned();
    device.put(call.device_handle(|gpu| short(&gpu.bus_id()) == short(bus_id))?)
}

exports! {
    /// `nvmlDeviceGetCount_v2`.
    fn nvmlDeviceGetCount_v2(count: Out<u32>) |call| { count.put(call.machine.gpus.len() as u32) }

    /// `nvmlDeviceGetCount`.
    fn nvmlDeviceGetCount(count: Out<u32>) |call| { count.put(call.machine.gpus.len() as u32) }

    /// `nvmlDeviceGetHandleByIndex_v2`.
    fn nvmlDeviceGetHandleByIndex_v2(index: u32, device: Out<Handle>) |call| { by_index(call, index, device) }

    /// `nvmlDeviceGetHandleByIndex`.
    fn nvmlDeviceGetHandleByIndex(index: u32, device: Out<Handle>) |call| { by_index(call, index, device) }

    /// `nvmlDeviceGetHandleByUUID`.
    fn nvmlDeviceGetHandleByUUID(uuid: CText, device: Out<Handle>) |call| { device.put(call.by_uuid(uuid.get()?)?) }

    /// `nvmlDeviceGetHandleBySerial`.
    fn nvmlDeviceGetHandleBySerial(serial: CText, device: Out<Handle>) |call| {
        let serial = serial.get()?;
        device.put(call.device_handle(|gpu| gpu.board == serial)?)
    }

    /// `nvmlDeviceGetHandleByPciBusId_v2`.
    fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: CText, device: Out<Handle>) |call| {
        by_bus_id(call, bus_id.get()?, device)
    }

    /// `nvmlDeviceGetHandleByPciBusId`.
    fn nvmlDeviceGetHandleByPciBusId(bus_id: CText, device: Out<Handle>) |call| {
        by_bus_id(call, bus_id.get()?, device)
    }

    /// `nvmlDeviceGetIndex`: of a MIG device, its index on its GPU.
    fn nvmlDeviceGetIndex(device: Handle, index: Out<u32>) on device |call| {
        if !call.is_mig_device(device)? {
            return index.put(call.gpu(device)?.0 as u32);
        }
        let place = call.mig_device(device)?;
        let seen = call.visible(place.gpu);
        let at = seen.iter().position(|(_, ci)| ci.serial == place.compute.serial);
        index.put(at.ok_or(Code::NOT_FOUND)? as u32)
    }

    /// `nvmlDeviceGetUUID`.
    fn nvmlDeviceGetUUID(device: Handle, uuid: Text, length: u32) on device |call| {
        if call.is_mig_device(device)? {
            return uuid.put(length, &call.mig_device(device)?.compute.uuid);
        }
        uuid.put(length, &call.gpu(device)?.1.uuid)
    }

    /// `nvmlDeviceGetName`.
    fn nvmlDeviceGetName(device: Handle, name: Text, length: u32) on device |call| {
        let product = &call.parent(device)?.1.spec()?.product;
        if call.is_mig_device(device)? {
            return name.put(length, &format!("{product} MIG {}", call.mig_profile_name(device)?));
        }
        name.put(length, product)
    }

    /// `nvmlDeviceGetSerial`.
    fn nvmlDeviceGetSerial(device: Handle, serial: Text, length: u32) on device |call| {
        serial.put(length, &call.gpu(device)?.1.board)
    }

    /// `nvmlDeviceGetMinorNumber`.
    fn nvmlDeviceGetMinorNumber(device: Handle, minor: Out<u32>) on device |call| {
        minor.put(call.gpu(device)?.1.minor)
    }

    /// `nvmlDeviceGetMemoryInfo`.
    fn nvmlDeviceGetMemoryInfo(device: Handle, memory: Out<Memory>) on device |call| {
        let (total, used) = call.memory_mib(device)?;
        memory.put(Memory { total: total * MIB, free: total.saturating_sub(used) * MIB, used: used * MIB })
    }

    /// `nvmlDeviceGetMemoryInfo_v2`.
    fn nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: Out<MemoryV2>) on device |call| {
        let version = version_word(size_of::<MemoryV2>(), 2);
        if memory.cast::<u32>().get()? != version {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let (total, used) = call.memory_mib(device)?;
        let free = total.saturating_sub(used) * MIB;
        memory.put(MemoryV2 { version, total: total * MIB, reserved: 0, free, used: used * MIB })
    }

    /// `nvmlDeviceGetBAR1MemoryInfo`: a window as large as the next power of two above the memory, as boards show;
    /// a MIG device has its share of it. Nothing is mapped.
    fn nvmlDeviceGetBAR1MemoryInfo(device: Handle, memory: Out<Memory>) on device |call| {
        let spec = call.parent(device)?.1.spec()?;
        let window = spec.memory_mib.next_power_of_two() * MIB;
        let total = if call.is_mig_device(device)? {
            window / u64::from(spec.units) * u64::from(call.mig_device(device)?.instance.size)
        } else {
            window
        };
        memory.put(Memory { total, free: total, used: 0 })
    }

    /// `nvmlDeviceGetArchitecture`.
    fn nvmlDeviceGetArchitecture(device: Handle, architecture: Out<u32>) on device |call| {
        architecture.put(call.parent(device)?.1.spec()?.architecture.number())
    }

    /// `nvmlDeviceGetCudaComputeCapability`.
    fn nvmlDeviceGetCudaComputeCapability(device: Handle, major: Out<u32>, minor: Out<u32>) on device |call| {
        let capability = call.parent(device)?.1.spec()?.compute_capability;
        major.required()?;
        minor.put(capability.1)?;
        major.put(capability.0)
    }

    /// `nvmlDeviceGetMigMode`.
    fn nvmlDeviceGetMigMode(device: Handle, current: Out<u32>, pending: Out<u32>) on device |call| {
        let mig = call.gpu(device)?.1.mig;
        current.required()?;
        pending.put(u32::from(mig.pending))?;
        current.put(u32::from(mig.current))
    }

    /// `nvmlDeviceSetMigMode`: may succeed and yet leave the mode pending; the status says so.
    fn nvmlDeviceSetMigMode(device: Handle, mode: u32, status: Out<u32>) on device |call| {
        let (index, _) = call.gpu(device)?;
        status.required()?;
        if mode > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        call.privileged()?;
        let done = call.update(|machine| machine.set_mig(index, mode == 1, call.activation))?;
        status.put(match done {
            Activation::Done => SUCCESS,
            Activation::Pending(code) => code.0,
        })
    }
}
