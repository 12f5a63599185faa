//! What lies around a GPU: PCI, NUMA, CPUs, topology, and settings that never change here.

use super::border::Out;
use super::exports;
use super::layout::{FieldValue, PciInfo, padded};
use crate::code::{Code, Result, SUCCESS};
use crate::session::{Call, Handle};

/// `NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED`.
const FIELD_RESETLESS_MIG: u32 = 184;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const VALUE_UNSIGNED_INT: u32 = 1;
/// `NVML_TOPOLOGY_NODE` and `NVML_TOPOLOGY_SYSTEM`.
const SAME_NODE: u32 = 40;
const SAME_SYSTEM: u32 = 50;
/// `NVML_FEATURE_ENABLED`; `NVML_COMPUTEMODE_DEFAULT`.
const ENABLED: u32 = 1;
const COMPUTE_MODE_DEFAULT: u32 = 0;

exports! {
    /// `nvmlDeviceGetPciInfo_v3`.
    fn nvmlDeviceGetPciInfo_v3(device: Handle, pci: Out<PciInfo>) on device |call| { pci_info(call, device, pci) }

    /// `nvmlDeviceGetPciInfo_v2`.
    fn nvmlDeviceGetPciInfo_v2(device: Handle, pci: Out<PciInfo>) on device |call| { pci_info(call, device, pci) }

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

    /// `nvmlDeviceGetTopologyCommonAncestor`: GPUs are near by NUMA node; no PCIe switches are simulated.
    fn nvmlDeviceGetTopologyCommonAncestor(one: Handle, other: Handle, level: Out<u32>) on one |call| {
        let (one, other) = (call.parent(one)?.1, call.parent(other)?.1);
        level.put(if one.numa_node == other.numa_node { SAME_NODE } else { SAME_SYSTEM })
    }

    /// `nvmlDeviceGetPersistenceMode`: always on.
    fn nvmlDeviceGetPersistenceMode(device: Handle, mode: Out<u32>) on device |call| {
        call.parent(device)?;
        mode.put(ENABLED)
    }

    /// `nvmlDeviceGetComputeMode`: always the default.
    fn nvmlDeviceGetComputeMode(device: Handle, mode: Out<u32>) on device |call| {
        call.parent(device)?;
        mode.put(COMPUTE_MODE_DEFAULT)
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
