//! The GPU of the simulation: a seven-slice part with the places of NVIDIA's MIG user guide (A100, H100, H200).

use migshare_policy::topology::{Gpu, Profile};
use migshare_proto::{GpuUuid, Placement};

/// NVML id, name, slices, placement units, starts.
const PROFILES: [(u32, &str, u8, u8, &[u8]); 6] = [
    (19, "1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (15, "1g.20gb", 1, 2, &[0, 2, 4, 6]),
    (14, "2g.20gb", 2, 2, &[0, 2, 4]),
    (9, "3g.40gb", 3, 4, &[0, 4]),
    (5, "4g.40gb", 4, 4, &[0]),
    (0, "7g.80gb", 7, 8, &[0]),
];

/// The `index`-th GPU of a node. Half of a node's GPUs are on each of two NUMA nodes.
pub fn gpu(index: u32, of: u32) -> Gpu {
    let profile = |&(id, name, slices, size, starts): &(u32, &str, u8, u8, &[u8])| Profile {
        id,
        name: name.to_owned(),
        slices,
        memory_mib: 10 * 1024 * u64::from(size),
        multiprocessors: 16 * u32::from(slices),
        max: starts.len() as u8,
        plain: true,
        placements: starts.iter().map(|&start| Placement { start, size }).collect(),
    };
    Gpu {
        uuid: GpuUuid::new(&format!("GPU-{index:08}")),
        index,
        minor: index,
        model: "seven slices".to_owned(),
        pci_bus_id: format!("00000000:{:02X}:00.0", index + 1),
        pci_device: 0x2330_10DE,
        numa: Some(2 * index / of.max(1)),
        units: 8,
        slices: 7,
        profiles: PROFILES.iter().map(profile).collect(),
    }
}
