//! Names and numbers of a GPU that are not what they were at the last look: minor numbers change with a reset, profile names with the
//! driver. Nothing depends on them (places and sizes are what counts), so it is told and counted, and that is all.

use crate::metrics::Meters;
use migshare_policy::Node;
use migshare_policy::topology::{Gpu, GpuReport, Profile};

/// Tells what changed since the last look. To be called before the node has seen the reports.
pub(super) fn tell(node: &Node, reports: &[GpuReport], meters: &Meters) {
    for now in reports.iter().map(|report| &report.gpu) {
        let Some(before) = node.gpu(&now.uuid) else { continue };
        if before.minor != now.minor {
            meters.renamed("minor");
            tracing::warn!(gpu = %now.uuid, before = before.minor, now = now.minor, "minor number of the gpu changed");
        }
        for (before, now_named) in renamed_profiles(before, now) {
            meters.renamed("profile");
            tracing::warn!(gpu = %now.uuid, before, now = now_named, "a profile of the gpu has another name");
        }
    }
}

/// Old and new names of profiles that have the same size and places.
fn renamed_profiles<'a>(before: &'a Gpu, now: &'a Gpu) -> Vec<(&'a str, &'a str)> {
    let pairs = now.profiles.iter().filter_map(|new| {
        // Memory is rounded anew by drivers: slices and places tell profiles apart.
        let same = |old: &&Profile| {
            (old.slices, old.plain, &old.placements) == (new.slices, new.plain, &new.placements)
        };
        let old = before.profiles.iter().find(same)?;
        (old.name != new.name).then_some((old.name.as_str(), new.name.as_str()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use migshare_proto::{GpuUuid, Placement};

    fn profile(id: u32, name: &str, memory_mib: u64, places: &[(u8, u8)]) -> Profile {
        let placements = places.iter().map(|&(start, size)| Placement { start, size }).collect();
        let name = name.to_owned();
        Profile { id, name, slices: 1, memory_mib, multiprocessors: 16, max: 7, plain: true, placements }
    }

    fn gpu(profiles: Vec<Profile>) -> Gpu {
        let (uuid, model, pci_bus_id) = (GpuUuid::new("GPU-1"), "H100".to_owned(), String::new());
        let (pci_device, numa) = (0x2330_10DE, None);
        Gpu { uuid, index: 0, minor: 0, model, pci_bus_id, pci_device, numa, units: 8, slices: 7, profiles }
    }

    #[test]
    fn a_profile_is_known_by_slices_and_places_whatever_it_is_called() {
        let wide = || profile(15, "1g.20gb", 20096, &[(0, 2), (2, 2)]);
        let before = gpu(vec![profile(19, "1g.10gb", 9984, &[(0, 1), (1, 1)]), wide()]);
        assert_eq!(renamed_profiles(&before, &before), []);
        let now = gpu(vec![wide(), profile(20, "1g.11gb", 10496, &[(0, 1), (1, 1)])]);
        assert_eq!(renamed_profiles(&before, &now), [("1g.10gb", "1g.11gb")]);
    }
}
