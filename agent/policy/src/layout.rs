//! How a GPU is cut while nobody asks for more. A layout is a wish; the cut is what it means on one GPU.
//!
//! Cuts are computed from what NVML says the GPU offers (slices, sizes, places), never from names or profile ids:
//! both change their meaning with GPU and driver.

mod fit;

pub use fit::{Misfit, fit};

use crate::topology::{Gpu, Profile};
use migshare_proto::Placement;
use std::fmt;

/// A layout of one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Layout {
    /// As many of the smallest plain instances as the part allows: all leaves are equal.
    #[default]
    Uniform,
    /// Like uniform, but the last leaf also takes the memory that the others leave over: six 1g and one 1g of double
    /// memory on a part of seven slices and eight memory units. The same as uniform where nothing is left over.
    FullMemory,
    /// Exactly these instances.
    Custom(Vec<Slot>),
}

/// An instance of a custom layout, by what it is and not by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Compute slices.
    pub slices: u8,
    /// Where.
    pub placement: Placement,
}

/// An instance that a layout puts on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// NVML profile id.
    pub profile: u32,
    /// Where.
    pub placement: Placement,
}

impl Layout {
    /// What the layout means on this GPU, by start. Slots that the GPU does not offer are left out.
    pub fn cut(&self, gpu: &Gpu) -> Vec<Cut> {
        match self {
            Layout::Uniform => leaves(gpu),
            Layout::FullMemory => full_memory(gpu),
            Layout::Custom(slots) => {
                let mut cuts: Vec<Cut> = slots.iter().filter_map(|s| slot(gpu, *s)).collect();
                cuts.sort_by_key(|c| c.placement);
                cuts
            }
        }
    }
}

impl Layout {
    /// Whether the layout can be cut on this GPU.
    pub fn check(&self, gpu: &Gpu) -> Result<(), Misfit> {
        match self {
            Layout::Uniform | Layout::FullMemory => Ok(()),
            Layout::Custom(slots) => fit::check(slots, gpu),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Uniform => f.write_str("uniform"),
            Layout::FullMemory => f.write_str("full-memory"),
            Layout::Custom(slots) => {
                let texts: Vec<String> =
                    slots.iter().map(|s| format!("{}g@{}", s.slices, s.placement)).collect();
                f.write_str(&texts.join("+"))
            }
        }
    }
}

/// The leaves of a GPU: the smallest plain profile at as many disjoint places as there are. Their number is what
/// Slurm counts, in every layout.
pub fn leaves(gpu: &Gpu) -> Vec<Cut> {
    let Some(profile) = leaf_profile(gpu) else { return Vec::new() };
    let mut places = profile.placements.clone();
    places.sort_unstable();
    let mut cuts: Vec<Cut> = Vec::new();
    for placement in places {
        if cuts.iter().all(|c| !c.placement.overlaps(placement)) {
            cuts.push(Cut { profile: profile.id, placement });
        }
    }
    cuts.truncate(usize::from(profile.max));
    cuts
}

/// The profile of a leaf: plain, fewest slices, then smallest place.
pub fn leaf_profile(gpu: &Gpu) -> Option<&Profile> {
    let plain = gpu.profiles.iter().filter(|p| p.plain && !p.placements.is_empty());
    plain.min_by_key(|p| (p.slices, p.placements[0].size, p.id))
}

fn full_memory(gpu: &Gpu) -> Vec<Cut> {
    let mut cuts = leaves(gpu);
    let Some(last) = cuts.last().copied() else { return cuts };
    let end = |p: Placement| p.start + p.size;
    if end(last.placement) < gpu.units
        && let Some(wide) = widened(gpu, last)
    {
        cuts.pop();
        cuts.push(wide);
    }
    cuts
}

/// The last leaf's place, taken by a profile of as many slices that reaches the GPU's last unit.
fn widened(gpu: &Gpu, last: Cut) -> Option<Cut> {
    let slices = gpu.profile(last.profile)?.slices;
    let start = last.placement.start;
    let reaches = |p: &&Placement| p.start == start && p.start + p.size == gpu.units;
    gpu.profiles.iter().filter(|p| p.plain && p.slices == slices).find_map(|p| {
        let placement = *p.placements.iter().find(reaches)?;
        Some(Cut { profile: p.id, placement })
    })
}

fn slot(gpu: &Gpu, slot: Slot) -> Option<Cut> {
    let fits = |p: &&Profile| p.plain && p.slices == slot.slices && p.placements.contains(&slot.placement);
    gpu.profiles.iter().find(fits).map(|p| Cut { profile: p.id, placement: slot.placement })
}

#[cfg(test)]
mod tests;
