//! What still fits on a partly used GPU: the holes that larger profiles could take.
//!
//! Everything is derived from the places that NVML reports for the GPU's profiles. At most twelve placement units exist
//! on any GPU so far, so the answer for every set of used units is computed once per kind of GPU and looked up.

use crate::layout::{Cut, leaf_profile, leaves};
use crate::topology::{Gpu, Profile};
use migshare_proto::Placement;

/// How many instances of each larger profile still fit, one byte per profile, the largest in the highest byte: holes of
/// a whole node add up, and comparing two sums compares the largest profile first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Holes(pub u64);

/// A set of placement units of one GPU, one bit each.
pub type Units = u64;

/// Profiles counted in [`Holes`].
const FIELDS: usize = 8;
/// Above this number of units holes are computed when asked for.
const TABLE_UNITS: u8 = 12;

/// The geometry of one kind of GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    units: u8,
    larger: Vec<Vec<Units>>,
    table: Vec<Holes>,
    leaves: Vec<Cut>,
}

impl Geometry {
    /// The geometry of this GPU.
    pub fn of(gpu: &Gpu) -> Geometry {
        let (larger, leaves) = (larger(gpu), leaves(gpu));
        let mut geometry = Geometry { units: gpu.units, larger, table: Vec::new(), leaves };
        if gpu.units <= TABLE_UNITS {
            geometry.table = (0..1u64 << gpu.units).map(|used| geometry.compute(used)).collect();
        }
        geometry
    }

    /// What fits beside these used units. Never grows when more units are used.
    pub fn holes(&self, used: Units) -> Holes {
        let known = usize::try_from(used).ok().and_then(|i| self.table.get(i));
        known.copied().unwrap_or_else(|| self.compute(used))
    }

    /// The leaves of the uniform layout, by start.
    pub fn leaves(&self) -> &[Cut] {
        &self.leaves
    }

    fn compute(&self, used: Units) -> Holes {
        let fit = |places: &Vec<Units>| u64::from(most_disjoint(places, used));
        let fields = self.larger.iter().take(FIELDS);
        Holes(fields.zip((0..FIELDS).rev()).map(|(places, byte)| fit(places) << (8 * byte)).sum())
    }
}

/// The places of each distinct plain profile larger than a leaf, the largest first.
fn larger(gpu: &Gpu) -> Vec<Vec<Units>> {
    let Some(leaf) = leaf_profile(gpu) else { return Vec::new() };
    let size = |p: &Profile| p.placements.first().map_or(0, |at| at.size);
    let kind = |p: &&Profile| std::cmp::Reverse((size(p), p.slices));
    let leaf_kind = (size(leaf), leaf.slices);
    let mut kinds: Vec<&Profile> = gpu.profiles.iter().filter(|p| p.plain).collect();
    kinds.retain(|p| (size(p), p.slices) > leaf_kind);
    kinds.sort_by_key(kind);
    kinds.dedup_by_key(|p| (size(p), p.slices));
    kinds.iter().map(|p| p.placements.iter().map(|at| at.mask()).collect()).collect()
}

/// The largest number of places that are free and disjoint. Exact: all choices are tried.
fn most_disjoint(places: &[Units], used: Units) -> u8 {
    let Some((first, rest)) = places.split_first() else { return 0 };
    let without = most_disjoint(rest, used);
    if first & used != 0 { without } else { without.max(1 + most_disjoint(rest, used | first)) }
}

/// The units of several places.
pub fn units_of(places: impl IntoIterator<Item = Placement>) -> Units {
    places.into_iter().fold(0, |units, p| units | p.mask())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn an_empty_seven_slice_gpu_has_room_for_each_larger_profile() {
        let geometry = Geometry::of(&fixture::h100(0));
        // 7g, 4g, 3g, 2g, 1g of double memory.
        assert_eq!(geometry.holes(0).0.to_be_bytes(), [1, 1, 2, 3, 4, 0, 0, 0]);
        assert_eq!(geometry.holes(0b0100_0000).0.to_be_bytes(), [0, 1, 1, 3, 3, 0, 0, 0]);
        assert_eq!(geometry.holes(0xff), Holes(0));
    }

    #[test]
    fn a30_and_rtx_pro_6000_have_their_own_holes() {
        assert_eq!(Geometry::of(&fixture::a30(0)).holes(0b0001).0.to_be_bytes(), [0, 1, 0, 0, 0, 0, 0, 0]);
        let rtx = Geometry::of(&fixture::rtx_pro_6000(0));
        assert_eq!(rtx.holes(0).0.to_be_bytes(), [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(rtx.holes(0b111).0.to_be_bytes(), [0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn using_more_units_never_makes_a_hole() {
        for gpu in [fixture::h100(0), fixture::a30(0), fixture::rtx_pro_6000(0)] {
            let geometry = Geometry::of(&gpu);
            for used in 0..1u64 << gpu.units {
                for unit in 0..gpu.units {
                    let (before, after) = (geometry.holes(used), geometry.holes(used | 1 << unit));
                    let bytes = before.0.to_be_bytes().into_iter().zip(after.0.to_be_bytes());
                    assert!(bytes.into_iter().all(|(b, a)| a <= b), "{used:b} and {unit}");
                }
            }
        }
    }
}
