//! GPUs for tests, with the places and sizes of NVIDIA's MIG user guide (R580 listings).

use crate::topology::{Compute, Gpu, GpuReport, Health, Instance, Profile};
use migshare_proto::{GpuUuid, Placement};

/// `(id, name, slices, memory MiB, multiprocessors, plain, size, starts)`.
type Row = (u32, &'static str, u8, u64, u32, bool, u8, &'static [u8]);

const H100_80: &[Row] = &[
    (19, "1g.10gb", 1, 9984, 16, true, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (20, "1g.10gb+me", 1, 9984, 16, false, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (15, "1g.20gb", 1, 20096, 26, true, 2, &[0, 2, 4, 6]),
    (14, "2g.20gb", 2, 20096, 32, true, 2, &[0, 2, 4]),
    (9, "3g.40gb", 3, 40448, 60, true, 4, &[0, 4]),
    (5, "4g.40gb", 4, 40448, 64, true, 4, &[0]),
    (0, "7g.80gb", 7, 81152, 132, true, 8, &[0]),
];

const A100_40: &[Row] = &[
    (19, "1g.5gb", 1, 4864, 14, true, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (20, "1g.5gb+me", 1, 4864, 14, false, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (15, "1g.10gb", 1, 9856, 14, true, 2, &[0, 2, 4, 6]),
    (14, "2g.10gb", 2, 9856, 28, true, 2, &[0, 2, 4]),
    (9, "3g.20gb", 3, 19968, 42, true, 4, &[0, 4]),
    (5, "4g.20gb", 4, 19968, 56, true, 4, &[0]),
    (0, "7g.40gb", 7, 40192, 98, true, 8, &[0]),
];

const H200: &[Row] = &[
    (19, "1g.18gb", 1, 16384, 16, true, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (20, "1g.18gb+me", 1, 16384, 16, false, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (15, "1g.35gb", 1, 33024, 26, true, 2, &[0, 2, 4, 6]),
    (14, "2g.35gb", 2, 33024, 32, true, 2, &[0, 2, 4]),
    (9, "3g.71gb", 3, 71168, 60, true, 4, &[0, 4]),
    (5, "4g.71gb", 4, 71168, 64, true, 4, &[0]),
    (0, "7g.141gb", 7, 143104, 132, true, 8, &[0]),
];

const A30: &[Row] = &[
    (14, "1g.6gb", 1, 5952, 14, true, 1, &[0, 1, 2, 3]),
    (21, "1g.6gb+me", 1, 5952, 14, false, 1, &[0, 1, 2, 3]),
    (5, "2g.12gb", 2, 11968, 28, true, 2, &[0, 2]),
    (0, "4g.24gb", 4, 24000, 56, true, 4, &[0]),
];

const RTX_PRO_6000: &[Row] = &[
    (14, "1g.24gb", 1, 24192, 46, true, 3, &[0, 3, 6, 9]),
    (21, "1g.24gb+me", 1, 24192, 46, false, 3, &[0, 3, 6, 9]),
    (5, "2g.48gb", 2, 48512, 94, true, 6, &[0, 6]),
    (0, "4g.96gb", 4, 97408, 188, true, 12, &[0]),
];

fn gpu(index: u32, model: &str, rows: &[Row]) -> Gpu {
    let profiles: Vec<Profile> = rows.iter().map(profile).collect();
    let ends = profiles.iter().flat_map(|p| &p.placements).map(|p| p.start + p.size);
    Gpu {
        uuid: GpuUuid::new(&format!("GPU-{index:08}")),
        index,
        minor: index,
        model: model.to_owned(),
        pci_bus_id: format!("00000000:{:02X}:00.0", index + 1),
        pci_device: 0x2330_10DE,
        numa: Some(index / 4),
        units: ends.max().unwrap_or(0),
        slices: profiles.iter().map(|p| p.slices).max().unwrap_or(0),
        profiles,
    }
}

fn profile(&(id, name, slices, memory_mib, multiprocessors, plain, size, starts): &Row) -> Profile {
    let placements: Vec<Placement> = starts.iter().map(|&start| Placement { start, size }).collect();
    let max = if plain { disjoint(&placements) } else { 1 };
    Profile { id, name: name.to_owned(), slices, memory_mib, multiprocessors, max, plain, placements }
}

fn disjoint(places: &[Placement]) -> u8 {
    let mut end = 0;
    let mut count = 0;
    for p in places {
        if p.start >= end {
            end = p.start + p.size;
            count += 1;
        }
    }
    count
}

pub(crate) fn h100(index: u32) -> Gpu {
    gpu(index, "NVIDIA H100 80GB HBM3", H100_80)
}

pub(crate) fn a100_40(index: u32) -> Gpu {
    gpu(index, "NVIDIA A100-SXM4-40GB", A100_40)
}

pub(crate) fn h200(index: u32) -> Gpu {
    gpu(index, "NVIDIA H200", H200)
}

pub(crate) fn a30(index: u32) -> Gpu {
    gpu(index, "NVIDIA A30", A30)
}

pub(crate) fn rtx_pro_6000(index: u32) -> Gpu {
    gpu(index, "NVIDIA RTX PRO 6000 Blackwell Server Edition", RTX_PRO_6000)
}

/// A report of a GPU in MIG mode with these instances `(profile, start)` on it.
pub(crate) fn report(gpu: &Gpu, instances: &[(u32, u8)]) -> GpuReport {
    let instances = instances.iter().map(|&(profile, start)| instance(gpu, profile, start)).collect();
    GpuReport { gpu: gpu.clone(), health: Health::Mig, instances }
}

/// An instance of this profile with its full compute instance.
pub(crate) fn instance(gpu: &Gpu, profile: u32, start: u8) -> Instance {
    let places = &gpu.profile(profile).unwrap().placements;
    let placement = *places.iter().find(|p| p.start == start).unwrap();
    let gi = 1 + u32::from(placement.start) + 16 * u32::from(placement.size);
    let compute = Compute {
        ci: 0,
        uuid: format!("MIG-{}-{placement}", gpu.index),
        full: true,
        cap: Some(135 * gpu.minor + 9 * gi + 4),
        processes: Vec::new(),
    };
    Instance { gi, profile, placement, compute: vec![compute], cap: Some(135 * gpu.minor + 9 * gi + 3) }
}
