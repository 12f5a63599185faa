//! Where GPU instances can lie, and what creating and destroying them needs.
//!
//! The rules are the published placements, plus engines as a budget of the whole GPU: one optical flow accelerator
//! is why there is one `+me` instance, four decoders are why `+me.all` leaves only `-me` neighbours.

use super::{Gpu, GpuInstance, Machine};
use crate::code::{Code, Result};
use crate::models::{Engines, Model, Profile};

impl Gpu {
    /// Whether an instance of `profile` could be made at `start` now.
    pub fn fits(&self, model: &Model, profile: &Profile, start: u32) -> bool {
        let end = start + profile.units;
        let apart = |gi: &GpuInstance| gi.start >= end || start >= gi.start + gi.size;
        self.instances.iter().all(apart)
            && self.count_of(profile) < profile.max
            && within(self.engines_left(model), profile.engines)
    }

    /// How many more instances of `profile` fit, counting what fragmentation costs.
    pub fn remaining(&self, model: &Model, profile: &Profile) -> u32 {
        let mut trial = self.clone();
        let mut more = 0;
        // Placements of one profile are aligned to its size, so they never overlap in part: taking each free one
        // is exact.
        for &start in &profile.starts {
            if trial.fits(model, profile, start) {
                trial.instances.push(GpuInstance {
                    serial: 0,
                    id: 0,
                    profile: profile.id,
                    start,
                    size: profile.units,
                    compute: Vec::new(),
                });
                more += 1;
            }
        }
        more
    }

    /// The driver's own choice: the highest free start. This agrees with the MIG user guide, where
    /// `-cgi 19,19,14,9` fails, `-cgi 9,19,14,19` works, and a first 1g lies at 6.
    pub fn driver_choice(&self, model: &Model, profile: &Profile) -> Option<u32> {
        profile.starts.iter().copied().filter(|&start| self.fits(model, profile, start)).max()
    }

    fn count_of(&self, profile: &Profile) -> u32 {
        self.instances.iter().filter(|gi| gi.profile == profile.id).count() as u32
    }

    fn engines_left(&self, model: &Model) -> Engines {
        let mut left = model.whole().engines;
        for p in self.instances.iter().filter_map(|gi| model.profile(gi.profile)) {
            left.ce = left.ce.saturating_sub(p.engines.ce);
            left.dec = left.dec.saturating_sub(p.engines.dec);
            left.enc = left.enc.saturating_sub(p.engines.enc);
            left.jpeg = left.jpeg.saturating_sub(p.engines.jpeg);
            left.ofa = left.ofa.saturating_sub(p.engines.ofa);
        }
        left
    }

    /// An error where a change of instances cannot go on now.
    fn changeable(&self) -> Result<()> {
        self.answers()?.in_mig_mode()?;
        if self.holders.is_empty() { Ok(()) } else { Err(Code::IN_USE) }
    }
}

fn within(left: Engines, need: Engines) -> bool {
    need.ce <= left.ce
        && need.dec <= left.dec
        && need.enc <= left.enc
        && need.jpeg <= left.jpeg
        && need.ofa <= left.ofa
}

impl Machine {
    /// Makes a GPU instance and returns its serial number. Without `at` the driver chooses.
    ///
    /// Errors: NOT_SUPPORTED (MIG off), INVALID_ARGUMENT (no such profile or placement), IN_USE (somebody holds the
    /// device), INSUFFICIENT_RESOURCES (full, and also: that placement is taken).
    pub fn create_gpu_instance(&mut self, index: usize, profile: u32, at: Option<(u32, u32)>) -> Result<u32> {
        let gpu = self.gpu(index)?;
        let model = gpu.spec()?;
        gpu.answers()?.in_mig_mode()?;
        let profile = model.profile(profile).ok_or(Code::INVALID_ARGUMENT)?;
        if let Some((start, size)) = at
            && (size != profile.units || !profile.starts.contains(&start))
        {
            return Err(Code::INVALID_ARGUMENT);
        }
        gpu.changeable()?;
        let start = match at {
            Some((start, _)) => Some(start).filter(|&start| gpu.fits(model, profile, start)),
            None => gpu.driver_choice(model, profile),
        };
        let start = start.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let id = gpu.gi_order.instance_id(model.units, start, profile.units);
        let instance = GpuInstance {
            serial: self.serial(),
            id,
            profile: profile.id,
            start,
            size: profile.units,
            compute: Vec::new(),
        };
        let serial = instance.serial;
        self.gpu_mut(index)?.instances.push(instance);
        Ok(serial)
    }

    /// Destroys a GPU instance.
    ///
    /// Errors: IN_USE (it has compute instances, or somebody holds the device).
    pub fn destroy_gpu_instance(&mut self, index: usize, serial: u32) -> Result<()> {
        let gpu = self.gpu_mut(index)?;
        gpu.changeable()?;
        let at = gpu.instances.iter().position(|gi| gi.serial == serial).ok_or(Code::INVALID_ARGUMENT)?;
        if !gpu.instances[at].compute.is_empty() {
            return Err(Code::IN_USE);
        }
        gpu.instances.remove(at);
        Ok(())
    }

    /// Makes a compute instance and returns its serial number. Without `at` the lowest free slices are taken.
    ///
    /// Errors: INVALID_ARGUMENT (no such profile or placement), IN_USE, INSUFFICIENT_RESOURCES.
    pub fn create_compute_instance(
        &mut self,
        index: usize,
        gi: u32,
        profile: u32,
        at: Option<(u32, u32)>,
    ) -> Result<u32> {
        let gpu = self.gpu(index)?;
        gpu.changeable()?;
        let model = gpu.spec()?;
        let instance = gpu.instances.iter().find(|i| i.serial == gi).ok_or(Code::INVALID_ARGUMENT)?;
        let host = model.profile(instance.profile).ok_or(Code::UNKNOWN)?;
        let profile = super::compute_profile(host, profile).ok_or(Code::INVALID_ARGUMENT)?;
        if let Some((start, size)) = at
            && (size != profile.slices || !profile.starts().any(|s| s == start))
        {
            return Err(Code::INVALID_ARGUMENT);
        }
        let mut starts = profile.starts().filter(|&s| at.is_none_or(|(start, _)| s == start));
        let start = starts.find(|&s| instance.slices_free(s, profile.slices));
        let start = start.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let id = (0..).find(|id| instance.compute.iter().all(|ci| ci.id != *id));
        let id = id.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let uuid = super::mig_uuid(&gpu.model, &gpu.uuid, instance.id, start);
        let serial = self.serial();
        let made = super::ComputeInstance {
            serial,
            id,
            profile: profile.id,
            start,
            slices: profile.slices,
            uuid,
            processes: Vec::new(),
        };
        let gpu = self.gpu_mut(index)?;
        let instance = gpu.instances.iter_mut().find(|i| i.serial == gi).ok_or(Code::INVALID_ARGUMENT)?;
        instance.compute.push(made);
        instance.compute.sort_by_key(|ci| ci.id);
        Ok(serial)
    }

    /// Destroys a compute instance.
    ///
    /// Errors: IN_USE (processes run on it, or somebody holds the device).
    pub fn destroy_compute_instance(&mut self, index: usize, serial: u32) -> Result<()> {
        let gpu = self.gpu_mut(index)?;
        gpu.changeable()?;
        let host = gpu.instances.iter_mut().find(|gi| gi.compute.iter().any(|ci| ci.serial == serial));
        let host = host.ok_or(Code::INVALID_ARGUMENT)?;
        if host.compute.iter().any(|ci| ci.serial == serial && !ci.processes.is_empty()) {
            return Err(Code::IN_USE);
        }
        host.compute.retain(|ci| ci.serial != serial);
        Ok(())
    }
}
