//! One GPU's names and numbers. What it offers is in `profiles`, what stands on it in `instances`.

use crate::error::NvmlError;
use crate::raw::Library;
use migshare_policy::topology::Health;
use migshare_proto::GpuUuid;
use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings as sys;
use std::path::Path;

/// What a GPU is called.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) uuid: GpuUuid,
    pub(crate) minor: u32,
    pub(crate) model: String,
    pub(crate) pci_bus_id: String,
    pub(crate) pci_device: u32,
    pub(crate) numa: Option<u32>,
}

/// Asks a GPU for its names. `sys_root` is the /sys beside the /proc that the session uses.
pub(crate) fn read(library: &Library, device: &Device<'_>, sys_root: &Path) -> Result<Identity, NvmlError> {
    let uuid = GpuUuid::new(&library.time("nvmlDeviceGetUUID", || device.uuid())?);
    let minor = library.time("nvmlDeviceGetMinorNumber", || device.minor_number())?;
    let model = library.time("nvmlDeviceGetName", || device.name())?;
    let pci = library.time("nvmlDeviceGetPciInfo_v3", || device.pci_info())?;
    let (pci_bus_id, pci_device) = (pci.bus_id, pci.pci_device_id);
    let numa = numa_of_bus(sys_root, &pci_bus_id).or_else(|| numa_of_memory(library, device));
    Ok(Identity { uuid, minor, model, pci_bus_id, pci_device, numa })
}

/// What state the GPU is in. A code that says nothing of the state is an error.
pub(crate) fn health(library: &Library, device: &Device<'_>) -> Result<Health, NvmlError> {
    match library.time("nvmlDeviceGetMigMode", || device.mig_mode()) {
        Ok(mode) if mode.current != mode.pending => Ok(Health::ResetRequired),
        Ok(mode) if mode.current == sys::NVML_DEVICE_MIG_ENABLE => Ok(Health::Mig),
        Ok(_) => Ok(Health::MigOff),
        Err(e) if e.unsupported() => Ok(Health::MigOff),
        Err(e) if e.is_gone() => Ok(Health::Lost),
        Err(e) if e.reset_required() => Ok(Health::ResetRequired),
        Err(e) => Err(e),
    }
}

/// The kernel's word: -1 where the machine has no NUMA nodes.
fn numa_of_bus(sys_root: &Path, pci_bus_id: &str) -> Option<u32> {
    // NVML prints an eight-digit domain, sysfs a four-digit one, in lower case.
    let (domain, rest) = pci_bus_id.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let name = format!("{domain:04x}:{}", rest.to_lowercase());
    std::fs::read_to_string(sys_root.join("bus/pci/devices").join(name).join("numa_node"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// NVML's word, where it names exactly one node.
fn numa_of_memory(library: &Library, device: &Device<'_>) -> Option<u32> {
    const WORDS: usize = 4;
    let scope = sys::NVML_AFFINITY_SCOPE_NODE;
    let set = library.time("nvmlDeviceGetMemoryAffinity", || device.memory_affinity(WORDS, scope)).ok()?;
    let mut nodes = set.iter().enumerate().filter(|(_, word)| **word != 0);
    match (nodes.next(), nodes.next()) {
        (Some((at, word)), None) if word.is_power_of_two() => {
            Some(u32::try_from(at).ok()? * u64::BITS + word.trailing_zeros())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numa_node_is_found_by_the_bus_id_as_nvml_prints_it() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("bus/pci/devices/0000:4e:00.0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("numa_node"), "1\n").unwrap();
        assert_eq!(numa_of_bus(dir.path(), "00000000:4E:00.0"), Some(1));
        std::fs::write(device.join("numa_node"), "-1\n").unwrap();
        assert_eq!(numa_of_bus(dir.path(), "00000000:4E:00.0"), None);
    }
}
