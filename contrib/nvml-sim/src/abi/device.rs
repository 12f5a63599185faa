//! GPUs: enumeration, identity, memory, MIG mode.

use super::border::{CText, Out, Text};
use super::exports;
use super::layout::{FieldValue, Memory, MemoryV2, PciInfo, padded, version_word};
use crate::code::{Code, Result, SUCCESS};
use crate::machine::{Activation, Gpu};
use crate::session::{Call, Handle, Kind};

/// `NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED`.
const FIELD_RESETLESS_MIG: u32 = 184;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const VALUE_UNSIGNED_INT: u32 = 1;
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

    /// `nvmlDeviceGetPciInfo_v3`.
    fn nvmlDeviceGetPciInfo_v3(device: Handle, pci: Out<PciInfo>) on device |call| { pci_info(call, device, pci) }

    /// `nvmlDeviceGetPciInfo_v2`.
    fn nvmlDeviceGetPciInfo_v2(device: Handle, pci: Out<PciInfo>) on device |call| { pci_info(call, device, pci) }

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

    /// `nvmlDeviceGetNumaNodeId`.
    fn nvmlDeviceGetNumaNodeId(device: Handle, node: Out<u32>) on device |call| {
        node.put(call.gpu(device)?.1.numa_node.ok_or(Code::NOT_SUPPORTED)?)
    }

    /// `nvmlDeviceGetCpuAffinity`.
    fn nvmlDeviceGetCpuAffinity(device: Handle, size: u32, set: Out<u64>) on device |call| {
        let cpus = &call.parent(device)?.1.cpus;
        if cpus.is_empty() { Err(Code::NOT_SUPPORTED) } else { put_set(cpus, size, set) }
    }

    /// `nvmlDeviceGetCpuAffinityWithinScope`.
    fn nvmlDeviceGetCpuAffinityWithinScope(device: Handle, size: u32, set: Out<u64>, _scope: u32) on device |call| {
        let cpus = &call.parent(device)?.1.cpus;
        if cpus.is_empty() { Err(Code::NOT_SUPPORTED) } else { put_set(cpus, size, set) }
    }

    /// `nvmlDeviceGetMemoryAffinity`.
    fn nvmlDeviceGetMemoryAffinity(device: Handle, size: u32, set: Out<u64>, _scope: u32) on device |call| {
        put_set(&[call.parent(device)?.1.numa_node.ok_or(Code::NOT_SUPPORTED)?], size, set)
    }

    /// `nvmlDeviceGetFieldValues`: the one field that is about MIG; each other says NOT_SUPPORTED for itself.
    fn nvmlDeviceGetFieldValues(device: Handle, count: i32, values: Out<FieldValue>) on device |call| {
        let resetless = call.parent(device)?.1.spec()?.architecture.resetless();
        for n in 0..count.max(0) as usize {
            let at = values.nth(n)?;
            let asked = at.get()?;
            let known = asked.field_id == FIELD_RESETLESS_MIG;
            at.put(FieldValue {
                timestamp: 0,
                latency_usec: 0,
                value_type: VALUE_UNSIGNED_INT,
                nvml_return: if known { SUCCESS } else { Code::NOT_SUPPORTED.0 },
                value: u64::from(known && resetless),
                ..asked
            })?;
        }
        Ok(())
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

fn pci_info(call: &Call, device: Handle, pci: Out<PciInfo>) -> Result<()> {
    let gpu = call.parent(device)?.1;
    pci.put(PciInfo {
        bus_id_legacy: padded(&gpu.bus_id()[4..]),
        domain: 0,
        bus: gpu.bus,
        device: 0,
        // NVML has the device id in the upper half and NVIDIA's vendor id in the lower.
        pci_device_id: gpu.spec()?.pci_device_id << 16 | 0x10de,
        pci_subsystem_id: 0,
        bus_id: padded(&gpu.bus_id()),
    })
}

/// Writes a bit set of `size` words.
fn put_set(members: &[u32], size: u32, set: Out<u64>) -> Result<()> {
    const WORDS: usize = 64;
    let mut words = [0u64; WORDS];
    for member in members {
        if let Some(word) = words.get_mut(*member as usize / 64) {
            *word |= 1 << (member % 64);
        }
    }
    let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    let size = size as usize;
    if size < used {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    for n in 0..size {
        set.nth(n)?.put(words.get(n).copied().unwrap_or(0))?;
    }
    Ok(())
}
