//! The durable truth of a node: the fold of all records. No hardware view, no decision.
//!
//! ```text
//!   place:    nothing --Reserve--> making --Stand--> standing --Remove--> unmaking --Gone--> nothing
//!                                     \---Gone---> nothing       \--------Gone (vanished)---> nothing
//!   lease:    none --Open--> open --Close--> none         grant:  none --Grant--> held --Release | Close--> none
//! ```

use crate::layout::Layout;
use crate::record::{Cause, Grant, LeafId, Pick, Place, Record};
use migshare_proto::{GpuUuid, JobKey, Placement, StepId};
use std::collections::BTreeMap;

/// A record that cannot follow the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// A grant or release for a job that holds nothing.
    #[error("job {0} has no lease")]
    NoLease(JobKey),
    /// A lease was opened twice.
    #[error("job {0} has a lease already")]
    LeaseExists(JobKey),
    /// A place was leased twice.
    #[error("{place} is leased to job {held} and job {job}")]
    LeasedTwice {
        /// The place.
        place: Place,
        /// Who holds it.
        held: JobKey,
        /// Who was given it too.
        job: JobKey,
    },
    /// A grant uses a leaf that its lease does not have.
    #[error("{leaf} is not part of the lease of job {job}")]
    BeyondLease {
        /// The job.
        job: JobKey,
        /// The leaf.
        leaf: LeafId,
    },
    /// Two instances would stand on one unit.
    #[error("{0} overlaps an instance that stands or is being made")]
    Overlap(Place),
    /// A generation went back.
    #[error("{0} is not newer than the last at its place")]
    Generation(LeafId),
}

/// What is under way at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// About to be made.
    Making,
    /// Stands.
    Standing,
    /// About to be destroyed.
    Unmaking,
}

/// An instance of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// Its generation.
    pub generation: u64,
    /// NVML profile id.
    pub profile: u32,
    /// What is under way.
    pub stage: Stage,
}

/// A job's hold on leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The leaves, in the order in which tasks should take them.
    pub leaves: Vec<Pick>,
    /// Leaves as Slurm counts them.
    pub charged: u32,
    /// When it was opened, seconds since the epoch.
    pub opened: i64,
    /// Its steps' grants.
    pub grants: BTreeMap<StepId, Grant>,
}

/// A GPU that an admin took out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cordon {
    /// Why, for people.
    pub note: String,
    /// Since when, seconds since the epoch.
    pub at: i64,
}

/// A place that is kept out of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Why, for programs.
    pub cause: Cause,
    /// Why, for people.
    pub note: String,
}

/// A GPU that is counted to Slurm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolled {
    /// NVML index when it was enrolled.
    pub index: u32,
    /// Leaves it counts for.
    pub leaves: u32,
}

/// The durable truth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// The kernel's boot id that all of this belongs to; empty before the first start.
    pub boot: String,
    /// GPUs that are counted.
    pub gpus: BTreeMap<GpuUuid, Enrolled>,
    /// Instances of ours.
    pub stands: BTreeMap<Place, Stand>,
    /// The last generation of every place ever used.
    pub generations: BTreeMap<Place, u64>,
    /// Open leases.
    pub leases: BTreeMap<JobKey, Lease>,
    /// Places kept out of use.
    pub quarantines: BTreeMap<Place, Quarantine>,
    /// GPUs that take no new lease.
    pub cordons: BTreeMap<GpuUuid, Cordon>,
    /// GPUs whose idle layout is not the configured one.
    pub targets: BTreeMap<GpuUuid, Layout>,
    /// For each GPU that has not been cut to its layout since that was ordered: the layout before, to go back to if hardware refuses.
    pub formers: BTreeMap<GpuUuid, Option<Layout>>,
    /// For each user, until when each change of shape by the user's jobs counts, seconds since the epoch.
    pub reshapes: BTreeMap<u32, Vec<i64>>,
}

impl Books {
    /// Takes in one record. On an error nothing is changed.
    pub fn fold(&mut self, record: &Record) -> Result<(), Contradiction> {
        match record {
            Record::Boot { boot } => self.boot(boot),
            Record::Enrol { gpu, index, leaves } => {
                self.gpus.insert(gpu.clone(), Enrolled { index: *index, leaves: *leaves });
            }
            Record::Forget { gpu } => self.forget(gpu),
            Record::Reserve { leaf, profile } => return self.stand(leaf, *profile, Stage::Making),
            Record::Stand { leaf, profile } => return self.stand(leaf, *profile, Stage::Standing),
            Record::Remove { leaf } => self.unmake(leaf),
            Record::Gone { leaf } => self.gone(leaf),
            Record::Generation { leaf } => self.count(leaf),
            Record::Open { job, leaves, charged, at } => return self.open(*job, leaves, *charged, *at),
            Record::Reshape { uid, at, until } => self.reshape(*uid, *at, *until),
            Record::Close { job, .. } => {
                self.leases.remove(job);
            }
            Record::Grant { job, step, grant } => return self.grant(*job, *step, grant),
            Record::Release { job, step } => {
                if let Some(lease) = self.leases.get_mut(job) {
                    lease.grants.remove(step);
                }
            }
            Record::Quarantine { place, cause, note } => {
                self.quarantines.insert(place.clone(), Quarantine { cause: *cause, note: note.clone() });
            }
            Record::Unquarantine { place } => {
                self.quarantines.remove(place);
            }
            Record::Cordon { gpu, note, at } => {
                self.cordons.insert(gpu.clone(), Cordon { note: note.clone(), at: *at });
            }
            Record::Uncordon { gpu } => {
                self.cordons.remove(gpu);
            }
            Record::Target { gpu, layout } => self.target(gpu, layout.as_ref()),
        }
        Ok(())
    }

    /// The fewest records that fold to these books: what a compacted journal holds.
    pub fn records(&self) -> Vec<Record> {
        let mut out = vec![Record::Boot { boot: self.boot.clone() }];
        out.extend(self.gpu_records());
        out.extend(self.place_records());
        let reshapes = self.reshapes.iter().flat_map(|(uid, ends)| ends.iter().map(|until| (*uid, *until)));
        // No change counts before it was made, so the time of its making can be any before all ends.
        out.extend(reshapes.map(|(uid, until)| Record::Reshape { uid, at: i64::MIN, until }));
        for (job, lease) in &self.leases {
            let Lease { leaves, charged, opened, grants } = lease.clone();
            out.push(Record::Open { job: *job, leaves, charged, at: opened });
            out.extend(grants.into_iter().map(|(step, grant)| Record::Grant { job: *job, step, grant }));
        }
        out
    }

    /// The instances of ours on one GPU, by start.
    pub fn stands_on(&self, gpu: &GpuUuid) -> impl Iterator<Item = (&Place, &Stand)> {
        self.stands.range(whole(gpu))
    }

    /// The quarantined places of one GPU, by start.
    pub fn quarantines_on(&self, gpu: &GpuUuid) -> impl Iterator<Item = (&Place, &Quarantine)> {
        self.quarantines.range(whole(gpu))
    }

    /// Who holds a place, or a part of it.
    pub fn lessee(&self, place: &Place) -> Option<JobKey> {
        let holds = |lease: &Lease| lease.leaves.iter().any(|p| p.leaf.place.overlaps(place));
        self.leases.iter().find(|(_, lease)| holds(lease)).map(|(job, _)| *job)
    }

    /// The open leases of a job, whatever its run.
    pub fn leases_of(&self, job: u32) -> impl Iterator<Item = (&JobKey, &Lease)> {
        let key = |start, uid| JobKey { job, start, uid };
        self.leases.range(key(i64::MIN, 0)..=key(i64::MAX, u32::MAX))
    }

    /// The generation that the next instance at this place has.
    pub fn next_generation(&self, place: &Place) -> u64 {
        self.generations.get(place).copied().unwrap_or(0) + 1
    }

    /// Whether exactly this leaf stands.
    pub fn stands(&self, leaf: &LeafId) -> bool {
        let stand = self.stands.get(&leaf.place);
        stand.is_some_and(|s| s.generation == leaf.generation && s.stage == Stage::Standing)
    }

    /// Whether an admin ordered a layout for a GPU, or its return from one is under way.
    pub fn is_ordered(&self, gpu: &GpuUuid) -> bool {
        self.targets.contains_key(gpu) || self.formers.contains_key(gpu)
    }

    fn gpu_records(&self) -> impl Iterator<Item = Record> {
        let enrolled = self.gpus.iter().map(|(gpu, e)| Record::Enrol {
            gpu: gpu.clone(),
            index: e.index,
            leaves: e.leaves,
        });
        let cordons = self.cordons.iter().map(|(gpu, cordon)| Record::Cordon {
            gpu: gpu.clone(),
            note: cordon.note.clone(),
            at: cordon.at,
        });
        enrolled.chain(cordons).chain(self.target_records())
    }

    /// The layouts, as [`Self::target`] takes them in: the one before, if there is one, and the one that is ordered; each again where
    /// it is settled.
    fn target_records(&self) -> Vec<Record> {
        let set = |gpu: &GpuUuid, layout: Option<&Layout>| Record::Target {
            gpu: gpu.clone(),
            layout: layout.cloned(),
        };
        let mut out = Vec::new();
        for gpu in
            self.targets.keys().chain(self.formers.keys().filter(|gpu| !self.targets.contains_key(gpu)))
        {
            let (former, now) = (self.formers.get(gpu), self.targets.get(gpu));
            if let Some(Some(former)) = former {
                out.extend([set(gpu, Some(former)), set(gpu, Some(former))]);
            }
            out.push(set(gpu, now));
            out.extend(former.is_none().then(|| set(gpu, now)));
        }
        out
    }

    fn place_records(&self) -> Vec<Record> {
        let mut out = Vec::new();
        for (place, &generation) in &self.generations {
            let leaf = LeafId { place: place.clone(), generation };
            match self.stands.get(place) {
                Some(s) if s.stage == Stage::Making => out.push(Record::Reserve { leaf, profile: s.profile }),
                Some(s) => out.push(Record::Stand { leaf, profile: s.profile }),
                None => out.push(Record::Generation { leaf }),
            }
        }
        for (place, s) in self.stands.iter().filter(|(_, s)| s.stage == Stage::Unmaking) {
            out.push(Record::Remove { leaf: LeafId { place: place.clone(), generation: s.generation } });
        }
        out.extend(self.quarantines.iter().map(|(place, q)| Record::Quarantine {
            place: place.clone(),
            cause: q.cause,
            note: q.note.clone(),
        }));
        out
    }

    /// Changes that no longer count go when a new one comes, so what is kept is bounded by what the limit lets happen.
    fn reshape(&mut self, uid: u32, at: i64, until: i64) {
        self.reshapes.retain(|_, ends| {
            ends.retain(|end| *end > at);
            !ends.is_empty()
        });
        self.reshapes.entry(uid).or_default().push(until);
    }

    /// A layout is ordered; or, where it is the one that was ordered last, it is settled. Going back is remembered no more.
    fn target(&mut self, gpu: &GpuUuid, layout: Option<&Layout>) {
        let before = self.targets.get(gpu).cloned();
        let goes_back = self.formers.remove(gpu).is_some_and(|former| former.as_ref() == layout);
        if !goes_back && before.as_ref() != layout {
            self.formers.insert(gpu.clone(), before);
        }
        match layout {
            Some(layout) => self.targets.insert(gpu.clone(), layout.clone()),
            None => self.targets.remove(gpu),
        };
    }

    fn boot(&mut self, boot: &str) {
        boot.clone_into(&mut self.boot);
        self.stands.clear();
        self.leases.clear();
        self.quarantines.retain(|_, q| matches!(q.cause, Cause::Admin | Cause::Failed));
    }

    fn forget(&mut self, gpu: &GpuUuid) {
        self.gpus.remove(gpu);
        self.cordons.remove(gpu);
        self.targets.remove(gpu);
        self.formers.remove(gpu);
        self.stands.retain(|place, _| place.gpu != *gpu);
        self.quarantines.retain(|place, _| place.gpu != *gpu);
    }

    fn count(&mut self, leaf: &LeafId) {
        let last = self.generations.entry(leaf.place.clone()).or_insert(0);
        *last = leaf.generation.max(*last);
    }

    fn stand(&mut self, leaf: &LeafId, profile: u32, stage: Stage) -> Result<(), Contradiction> {
        let here = self.stands.get(&leaf.place);
        let continues = here.is_some_and(|s| s.generation == leaf.generation && s.stage == Stage::Making);
        if !continues && self.generations.get(&leaf.place).is_some_and(|&last| leaf.generation <= last) {
            return Err(Contradiction::Generation(leaf.clone()));
        }
        if !continues && self.stands.keys().any(|other| other.overlaps(&leaf.place)) {
            return Err(Contradiction::Overlap(leaf.place.clone()));
        }
        self.count(leaf);
        self.stands.insert(leaf.place.clone(), Stand { generation: leaf.generation, profile, stage });
        Ok(())
    }

    fn unmake(&mut self, leaf: &LeafId) {
        if let Some(s) = self.stands.get_mut(&leaf.place).filter(|s| s.generation == leaf.generation) {
            s.stage = Stage::Unmaking;
        }
    }

    fn gone(&mut self, leaf: &LeafId) {
        if self.stands.get(&leaf.place).is_some_and(|s| s.generation == leaf.generation) {
            self.stands.remove(&leaf.place);
        }
    }

    fn open(&mut self, job: JobKey, leaves: &[Pick], charged: u32, at: i64) -> Result<(), Contradiction> {
        if self.leases.contains_key(&job) {
            return Err(Contradiction::LeaseExists(job));
        }
        for (i, pick) in leaves.iter().enumerate() {
            let place = &pick.leaf.place;
            let twice = leaves[..i].iter().any(|p| p.leaf.place.overlaps(place));
            if let Some(held) = self.lessee(place).or(twice.then_some(job)) {
                return Err(Contradiction::LeasedTwice { place: place.clone(), held, job });
            }
        }
        let lease = Lease { leaves: leaves.to_vec(), charged, opened: at, grants: BTreeMap::new() };
        self.leases.insert(job, lease);
        Ok(())
    }

    fn grant(&mut self, job: JobKey, step: StepId, grant: &Grant) -> Result<(), Contradiction> {
        let lease = self.leases.get_mut(&job).ok_or(Contradiction::NoLease(job))?;
        let held = |leaf: &LeafId| lease.leaves.iter().any(|p| p.leaf == *leaf);
        if let Some(leaf) = grant.leaves.iter().find(|leaf| !held(leaf)) {
            return Err(Contradiction::BeyondLease { job, leaf: leaf.clone() });
        }
        lease.grants.insert(step, grant.clone());
        Ok(())
    }
}

/// All places of a GPU.
fn whole(gpu: &GpuUuid) -> std::ops::RangeInclusive<Place> {
    let place = |n| Place { gpu: gpu.clone(), placement: Placement { start: n, size: n } };
    place(0)..=place(u8::MAX)
}

#[cfg(test)]
mod tests;
