//! Compute instance profiles: the ways in which a GPU instance's compute slices can be divided.
//!
//! Which parts exist is published for A100 (NVIDIA MIG user guide and go-nvml's tables) and taken for all others;
//! parts lie end to end. Multiprocessors of a part are its share by slices.

use super::GpuInstance;
use crate::models::Profile;

/// A compute instance profile of one GPU instance profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeProfile {
    /// Profile id, equal to the enum number.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// Instances of this profile alone that fit.
    pub max: u32,
    /// Multiprocessors.
    pub sm: u32,
    /// NVML's name without the prefix `MIG `.
    pub name: String,
}

impl ComputeProfile {
    /// First slices at which one can lie.
    pub fn starts(&self) -> impl Iterator<Item = u32> + use<> {
        let slices = self.slices;
        (0..self.max).map(move |n| n * slices)
    }
}

/// `NVML_COMPUTE_INSTANCE_PROFILE_*` by compute slices.
const NUMBERS: [(u32, u32); 5] = [(1, 0), (2, 1), (3, 2), (4, 3), (7, 4)];
/// `NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE_REV1`.
const ONE_SLICE_REV1: u32 = 7;
/// Parts of a GPU instance: its slices, then slices and count of each part.
const PARTS: [(u32, &[(u32, u32)]); 5] = [
    (1, &[(1, 1)]),
    (2, &[(1, 2), (2, 1)]),
    (3, &[(1, 3), (2, 1), (3, 1)]),
    (4, &[(1, 4), (2, 2), (4, 1)]),
    (7, &[(1, 7), (2, 3), (3, 2), (4, 1), (7, 1)]),
];

/// The compute instance profiles of a GPU instance profile.
pub fn compute_profiles(host: &Profile) -> Vec<ComputeProfile> {
    let parts = PARTS.iter().find(|(slices, _)| *slices == host.slices).map_or(&[][..], |(_, parts)| parts);
    let number = |slices| NUMBERS.iter().find(|(s, _)| *s == slices).map_or(0, |(_, number)| *number);
    let profile = |&(slices, max): &(u32, u32)| ComputeProfile {
        id: if host.rev1_compute && slices == 1 { ONE_SLICE_REV1 } else { number(slices) },
        slices,
        max,
        sm: host.sm * slices / host.slices,
        name: if slices == host.slices { host.name.clone() } else { format!("{slices}c.{}", host.name) },
    };
    parts.iter().map(profile).collect()
}

/// The compute instance profile with this id.
pub fn compute_profile(host: &Profile, id: u32) -> Option<ComputeProfile> {
    compute_profiles(host).into_iter().find(|p| p.id == id)
}

impl GpuInstance {
    /// Whether these compute slices belong to nobody.
    pub fn slices_free(&self, start: u32, slices: u32) -> bool {
        self.compute.iter().all(|ci| ci.start >= start + slices || start >= ci.start + ci.slices)
    }

    /// How many more compute instances of `profile` fit.
    pub fn compute_remaining(&self, profile: &ComputeProfile) -> u32 {
        profile.starts().filter(|&start| self.slices_free(start, profile.slices)).count() as u32
    }
}
