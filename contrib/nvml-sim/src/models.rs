//! GPU models: what published listings say about their MIG profiles, and what was inferred where they are silent.
//!
//! The facts are `data/models.toml`, built into the library. This module never invents one silently: a value that
//! no listing gives is filled in by `fill` and named in [`Model::inferred`].

mod fill;

use std::sync::OnceLock;

use serde::Deserialize;

const DATA: &str = include_str!("../data/models.toml");

/// GPU architecture, as far as MIG differs by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// GA100: a mode change resets the GPU; the mode survives a reboot.
    Ampere,
    /// GH100: a mode change needs no reset; the mode does not survive a reboot.
    Hopper,
    /// GB100 and later: as Hopper.
    Blackwell,
}

impl Architecture {
    /// `nvmlDeviceArchitecture_t`.
    pub fn number(self) -> u32 {
        match self {
            Architecture::Ampere => 7,
            Architecture::Hopper => 9,
            Architecture::Blackwell => 10,
        }
    }

    /// Whether a MIG mode change works without a GPU reset.
    pub fn resetless(self) -> bool {
        self != Architecture::Ampere
    }
}

/// Engine counts of a profile or of a whole GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Engines {
    /// Copy engines.
    pub ce: u32,
    /// Video decoders.
    pub dec: u32,
    /// Video encoders.
    pub enc: u32,
    /// JPEG engines.
    pub jpeg: u32,
    /// Optical flow accelerators.
    pub ofa: u32,
}

/// A GPU instance profile of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// NVML's profile id.
    pub id: u32,
    /// `NVML_GPU_INSTANCE_PROFILE_*`.
    pub number: u32,
    /// NVML's name without the prefix `MIG `.
    pub name: String,
    /// Compute slices.
    pub slices: u32,
    /// Placement units an instance takes.
    pub units: u32,
    /// Instances of this profile alone that fit.
    pub max: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Multiprocessors.
    pub sm: u32,
    /// Engines.
    pub engines: Engines,
    /// Where an instance can lie.
    pub starts: Vec<u32>,
    /// Its one-slice compute instance profile is enum 7 (1_SLICE_REV1) instead of 0.
    pub rev1_compute: bool,
}

/// Confidence in each kind of fact, in the words of the data file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// Profile names.
    pub names: String,
    /// Profile ids.
    pub ids: String,
    /// Memory sizes.
    pub memory: String,
    /// Multiprocessor counts.
    pub sm: String,
    /// Engine counts.
    pub engines: String,
    /// Placements.
    pub placements: String,
    /// Profile enum numbers, where they are in doubt.
    #[serde(default)]
    pub nvml_enum: Option<String>,
}

/// A GPU model.
#[derive(Debug, Clone)]
pub struct Model {
    /// Short name for configuration files.
    pub alias: String,
    /// Name that NVML reports.
    pub product: String,
    /// Title of the listing it was transcribed from.
    pub listing: String,
    /// Architecture.
    pub architecture: Architecture,
    /// CUDA compute capability.
    pub compute_capability: (u32, u32),
    /// PCI device id (the first of those known).
    pub pci_device_id: u32,
    /// Oldest driver branch that knows MIG on it.
    pub min_driver: String,
    /// Memory of the whole GPU in MiB, MIG off.
    pub memory_mib: u64,
    /// Compute slices.
    pub slices: u32,
    /// Placement units.
    pub units: u32,
    /// MIG devices at most.
    pub max_instances: u32,
    /// Profiles, in the order of the data file.
    pub profiles: Vec<Profile>,
    /// Where the facts are from.
    pub source: String,
    /// What else the source says.
    pub notes: Vec<String>,
    /// Confidence by kind of fact.
    pub confidence: Confidence,
    /// What the simulator filled in or takes from a sibling, one line each; empty = all of it is published.
    pub inferred: Vec<String>,
}

impl Model {
    /// The profile with this NVML id.
    pub fn profile(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.id == id)
    }

    /// The profile with this enum number.
    pub fn profile_by_number(&self, number: u32) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.number == number)
    }

    /// The profile of the whole GPU.
    pub fn whole(&self) -> &Profile {
        let widest = self.profiles.iter().max_by_key(|p| (p.units, std::cmp::Reverse(p.number)));
        widest.expect("the data file gives every model profiles; a test reads all of it")
    }
}

/// All models, in the order of the data file.
pub fn all() -> &'static [Model] {
    static MODELS: OnceLock<Vec<Model>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let file: File = toml::from_str(DATA).expect("the built-in data file parses; a test reads it");
        file.model.into_iter().map(fill::complete).collect()
    })
}

/// Finds a model by alias, product name or listing title; letter case does not matter.
pub fn find(name: &str) -> Option<&'static Model> {
    all().iter().find(|m| [&m.alias, &m.product, &m.listing].iter().any(|n| n.eq_ignore_ascii_case(name)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<RawModel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    alias: String,
    product: String,
    listing: String,
    architecture: Architecture,
    compute_capability: (u32, u32),
    pci_device_ids: Vec<u32>,
    min_driver: String,
    memory_mib: Option<u64>,
    compute_slices: u32,
    placement_units: u32,
    max_instances: u32,
    #[serde(default)]
    rev1_compute: Vec<u32>,
    source: String,
    notes: Vec<String>,
    profiles: Vec<RawProfile>,
    confidence: Confidence,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    id: u32,
    #[serde(rename = "enum")]
    number: u32,
    name: String,
    slices: u32,
    units: u32,
    max: u32,
    mem: Option<u64>,
    sm: Option<u32>,
    ce: Option<u32>,
    dec: Option<u32>,
    enc: Option<u32>,
    jpeg: Option<u32>,
    ofa: Option<u32>,
    starts: Vec<u32>,
}

#[cfg(test)]
mod tests;
