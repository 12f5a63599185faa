//! What is seen of the hardware and what is under way on it. Lost with the process, found again by a scan.

use crate::geometry::Geometry;
use crate::record::{Holder, LeafId, Place};
use crate::seen::{Effect, Seen};
use crate::topology::{Gpu, GpuReport, Health, Instance};
use migshare_proto::{GpuUuid, JobKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One GPU as last seen.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) gpu: Gpu,
    pub(super) health: Health,
    pub(super) instances: Vec<Instance>,
    pub(super) geometry: Arc<Geometry>,
}

impl View {
    pub(super) fn place(&self, at: migshare_proto::Placement) -> Place {
        Place { gpu: self.gpu.uuid.clone(), placement: at }
    }
}

/// Failures at one place in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) tries: u32,
    /// What NVML said last.
    pub(super) error: String,
    /// When to try again, seconds since the epoch.
    pub(super) next: i64,
}

/// What is seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    pub(super) gpus: BTreeMap<GpuUuid, View>,
    /// Whether there was a scan since the start.
    pub(super) scanned: bool,
    /// Why NVML as a whole does not answer.
    pub(super) dead: Option<String>,
    /// Places with an effect under way.
    pub(super) running: BTreeSet<Place>,
    pub(super) troubles: BTreeMap<Place, Trouble>,
    /// When the last look ended, seconds since the epoch.
    pub(super) looked: i64,
    /// When to look again, seconds since the epoch, where there is a reason to.
    pub(super) rescan: Option<i64>,
    /// A scan is under way.
    pub(super) scan_running: bool,
    /// Holders of grants that are gone.
    pub(super) gone: BTreeSet<Holder>,
    /// Leases of jobs that Slurm no longer runs.
    pub(super) stale: BTreeSet<JobKey>,
}

/// Failures in a row after which a place is quarantined; it is tried on from time to time.
pub(super) const TRIES: u32 = 3;

/// Pause before the next look while something is wrong that only hardware can put right, seconds.
pub(super) const RESCAN: i64 = 60;

/// Pause after the n-th failure in a row, seconds: quick at first (a monitoring client may hold the device for a
/// moment), slow after the quarantine.
fn pause(tries: u32) -> i64 {
    match tries {
        0..=2 => 1 << tries,
        n => (30i64 << (n - TRIES).min(5)).min(600),
    }
}

impl Sight {
    /// Takes in what the hardware said.
    pub(super) fn observe(&mut self, now: i64, seen: Seen) {
        match seen {
            Seen::Scan(reports) => {
                self.looked = now;
                self.scan(reports);
            }
            Seen::NvmlDead(why) => {
                self.dead = Some(why);
                self.looked = now;
                self.scan_running = false;
            }
            Seen::GpuLost(gpu) => {
                if let Some(view) = self.gpus.get_mut(&gpu) {
                    view.health = Health::Lost;
                }
            }
            Seen::Made { leaf, instance } => {
                self.done(&leaf);
                self.put(&leaf.place, Some(instance));
            }
            Seen::Removed { leaf } => {
                self.done(&leaf);
                self.put(&leaf.place, None);
            }
            Seen::MakeFailed { leaf, error } | Seen::RemoveFailed { leaf, error } => {
                self.failed(now, &leaf, error);
            }
            Seen::HolderGone(_) | Seen::Running { .. } => {}
        }
    }

    /// What stands at a place.
    pub(super) fn instance(&self, place: &Place) -> Option<&Instance> {
        let view = self.gpus.get(&place.gpu)?;
        view.instances.iter().find(|i| i.placement == place.placement)
    }

    /// The GPU of a place, where its MIG mode is on and it answers.
    pub(super) fn healthy(&self, gpu: &GpuUuid) -> Option<&View> {
        self.gpus.get(gpu).filter(|view| view.health == Health::Mig)
    }

    /// An effect begins.
    pub(super) fn start(&mut self, effect: &Effect) {
        match effect {
            Effect::Create { leaf, .. } | Effect::Destroy { leaf, .. } => {
                self.running.insert(leaf.place.clone());
            }
            Effect::Scan => {
                self.scan_running = true;
                self.rescan = None;
            }
        }
    }

    /// Forgets which processes were seen on an instance.
    pub(super) fn forget_processes(&mut self, place: &Place) {
        let view = self.gpus.get_mut(&place.gpu);
        let here = view.and_then(|v| v.instances.iter_mut().find(|i| i.placement == place.placement));
        for compute in here.into_iter().flat_map(|i| &mut i.compute) {
            compute.processes.clear();
        }
    }

    fn scan(&mut self, reports: Vec<GpuReport>) {
        let old = std::mem::take(&mut self.gpus);
        let mut known: Vec<(Gpu, Arc<Geometry>)> =
            old.into_values().map(|view| (view.gpu, view.geometry)).collect();
        for GpuReport { gpu, health, instances } in reports {
            let same = known.iter().find(|(k, _)| k.profiles == gpu.profiles && k.units == gpu.units);
            let geometry = same.map_or_else(|| Arc::new(Geometry::of(&gpu)), |(_, g)| g.clone());
            known.push((gpu.clone(), geometry.clone()));
            self.gpus.insert(gpu.uuid.clone(), View { gpu, health, instances, geometry });
        }
        self.scanned = true;
        self.scan_running = false;
        self.dead = None;
    }

    fn done(&mut self, leaf: &LeafId) {
        self.running.remove(&leaf.place);
        self.troubles.remove(&leaf.place);
    }

    fn failed(&mut self, now: i64, leaf: &LeafId, error: String) {
        self.running.remove(&leaf.place);
        let tries = self.troubles.get(&leaf.place).map_or(0, |t| t.tries);
        let trouble = Trouble { tries: tries + 1, error, next: now + pause(tries) };
        self.troubles.insert(leaf.place.clone(), trouble);
        // What the failed call left behind only a look can tell.
        self.rescan = Some(now);
    }

    fn put(&mut self, place: &Place, instance: Option<Instance>) {
        if let Some(view) = self.gpus.get_mut(&place.gpu) {
            view.instances.retain(|i| i.placement != place.placement);
            view.instances.extend(instance);
        }
    }
}
