//! From "so many of these instances" to places: what admins write in mig-parted files says counts, not places.

use super::{Layout, Slot};
use crate::topology::{Gpu, Profile};
use migshare_proto::Placement;

/// Why a wish fits no layout of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The GPU has no such profile.
    #[error("{model} has no plain profile {name}; it has {has}")]
    NoProfile {
        /// The GPU's model.
        model: String,
        /// The name that was asked for.
        name: String,
        /// The names that it has.
        has: String,
    },
    /// The instances do not fit beside each other.
    #[error("these instances do not fit on {model} together, wherever they lie")]
    TooMany {
        /// The GPU's model.
        model: String,
    },
    /// No profile of so many slices has this place.
    #[error("{model} has no {}g at {}", slot.slices, slot.placement)]
    NoPlace {
        /// The GPU's model.
        model: String,
        /// The instance.
        slot: Slot,
    },
    /// Two instances would overlap.
    #[error("{0} and {1} overlap")]
    Overlap(Placement, Placement),
}

/// The layout with so many instances of each named profile. Exact: it is found if there is one.
///
/// Names change with the driver (a GB200's 1g.24gb became 1g.23gb), so a name that the GPU does not have means the
/// profile of as many slices whose memory differs by at most two in its last number.
pub fn fit(gpu: &Gpu, counts: &[(&str, u32)]) -> Result<Layout, Misfit> {
    let too_many = || Misfit::TooMany { model: gpu.model.clone() };
    let mut wanted: Vec<&Profile> = Vec::new();
    for (name, count) in counts {
        let profile = named(gpu, name).ok_or_else(|| no_profile(gpu, name))?;
        // Any user may send any count: the sum is refused before it is a list.
        let room = usize::from(gpu.units) - wanted.len();
        let count = usize::try_from(*count).ok().filter(|count| *count <= room).ok_or_else(too_many)?;
        wanted.extend(std::iter::repeat_n(profile, count));
    }
    wanted.sort_by_key(|p| std::cmp::Reverse(p.placements.first().map_or(0, |at| at.size)));
    let mut slots = Vec::new();
    if !place(&wanted, 0, &mut slots) {
        return Err(too_many());
    }
    slots.sort_by_key(|slot| slot.placement);
    Ok(Layout::Custom(slots))
}

/// Whether a layout can be cut on a GPU.
pub(super) fn check(slots: &[Slot], gpu: &Gpu) -> Result<(), Misfit> {
    if slots.len() > usize::from(gpu.units) {
        return Err(Misfit::TooMany { model: gpu.model.clone() });
    }
    for (i, slot) in slots.iter().enumerate() {
        if super::slot(gpu, *slot).is_none() {
            return Err(Misfit::NoPlace { model: gpu.model.clone(), slot: *slot });
        }
        if let Some(other) = slots[..i].iter().find(|other| other.placement.overlaps(slot.placement)) {
            return Err(Misfit::Overlap(other.placement, slot.placement));
        }
    }
    Ok(())
}

/// Places all of `wanted`, which are sorted so that equal ones are side by side.
fn place(wanted: &[&Profile], used: u64, slots: &mut Vec<Slot>) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    // Equal instances in ascending order only: other orders are the same layout.
    let from = slots.last().filter(|last| is_same(first, last)).map_or(0, |last| last.placement.start);
    for at in first.placements.iter().filter(|at| at.start >= from && at.mask() & used == 0) {
        slots.push(Slot { slices: first.slices, placement: *at });
        if place(rest, used | at.mask(), slots) {
            return true;
        }
        slots.pop();
    }
    false
}

fn is_same(profile: &Profile, slot: &Slot) -> bool {
    profile.slices == slot.slices && profile.placements.contains(&slot.placement)
}

fn named<'a>(gpu: &'a Gpu, name: &str) -> Option<&'a Profile> {
    let plain = || gpu.profiles.iter().filter(|p| p.plain);
    let close = |p: &&Profile| match (numbers(&p.name), numbers(name)) {
        (Some((slices, memory)), Some((s, m))) => slices == s && memory.abs_diff(m) <= 2,
        _ => false,
    };
    plain().find(|p| p.name == name).or_else(|| {
        let mut near = plain().filter(close);
        near.next().filter(|_| near.next().is_none())
    })
}

/// Slices and gigabytes of a name like `1g.10gb`.
fn numbers(name: &str) -> Option<(u32, u32)> {
    let (slices, memory) = name.split_once("g.")?;
    Some((slices.parse().ok()?, memory.strip_suffix("gb")?.parse().ok()?))
}

fn no_profile(gpu: &Gpu, name: &str) -> Misfit {
    let has: Vec<&str> = gpu.profiles.iter().filter(|p| p.plain).map(|p| p.name.as_str()).collect();
    Misfit::NoProfile { model: gpu.model.clone(), name: name.to_owned(), has: has.join(", ") }
}
