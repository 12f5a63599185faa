//! What the hardware shows against what the books say: adopt what is a leaf of the layout, note what has gone, and
//! quarantine by name what fits neither. Nothing is destroyed here and nothing guessed away.

use super::sight::{TRIES, View};
use super::{Node, Proposal};
use crate::books::{Quarantine, Stage, Stand};
use crate::layout::{Cut, leaves};
use crate::record::{Cause, LeafId, Pick, Place, Record};
use crate::topology::{Health, Instance};
use migshare_proto::GpuUuid;

impl Node {
    /// GPUs in MIG mode are counted from the first time they are seen. A GPU that was exchanged takes the count of one
    /// that is missing, as long as no job holds a part of that one.
    pub(super) fn enrol(&self, _now: i64) -> Proposal {
        let known = &self.books.gpus;
        let new =
            self.sight.gpus.values().filter(|v| v.health == Health::Mig && !known.contains_key(&v.gpu.uuid));
        let leased = |gpu: &GpuUuid| {
            self.books.leases.values().flat_map(|l| &l.leaves).any(|pick| pick.leaf.place.gpu == *gpu)
        };
        let mut missing = known.keys().filter(|gpu| !self.sight.gpus.contains_key(*gpu) && !leased(gpu));
        let mut records = Vec::new();
        for view in new {
            records.extend(missing.next().map(|gpu| Record::Forget { gpu: gpu.clone() }));
            let (gpu, index) = (view.gpu.uuid.clone(), view.gpu.index);
            records.push(Record::Enrol { gpu, index, leaves: leaves(&view.gpu).len() as u32 });
        }
        Proposal { records, ..Proposal::default() }
    }

    /// Brings books and sight together, GPU by GPU.
    pub(super) fn explain(&self, _now: i64) -> Proposal {
        let sound = |v: &&View| matches!(v.health, Health::Mig | Health::MigOff);
        let enrolled = |v: &&View| self.books.gpus.contains_key(&v.gpu.uuid);
        let views = self.sight.gpus.values().filter(sound).filter(enrolled);
        let records = views.flat_map(|view| {
            let mut records = self.explain_stands(view);
            records.extend(self.explain_instances(view));
            records.extend(self.explain_quarantines(view));
            records
        });
        Proposal { records: records.collect(), ..Proposal::default() }
    }

    /// What the books say stands, is being made or destroyed.
    fn explain_stands(&self, view: &View) -> Vec<Record> {
        let quiet =
            self.books.stands_on(&view.gpu.uuid).filter(|(place, _)| !self.sight.running.contains(place));
        quiet.flat_map(|(place, stand)| self.explain_stand(view, place, *stand)).collect()
    }

    fn explain_stand(&self, view: &View, place: &Place, stand: Stand) -> Vec<Record> {
        let leaf = LeafId { place: place.clone(), generation: stand.generation };
        let found = self.sight.instance(place);
        let right = found.is_some_and(|i| i.profile == stand.profile && i.full_compute().is_some());
        match (stand.stage, found) {
            (Stage::Standing, Some(_)) if right => Vec::new(),
            (Stage::Standing, Some(other)) => vec![Record::Gone { leaf }, quarantine(view, other)],
            (Stage::Making, Some(_)) if right => vec![Record::Stand { leaf, profile: stand.profile }],
            (Stage::Making, None)
                if view.health == Health::Mig && self.wanted(view, place, stand.profile) =>
            {
                self.despair(place)
            }
            (Stage::Making | Stage::Unmaking, Some(_)) => self.despair(place),
            (_, None) => vec![Record::Gone { leaf }],
        }
    }

    /// A place where hardware refused several times is quarantined; it is tried on, slowly.
    fn despair(&self, place: &Place) -> Vec<Record> {
        let trouble = self.sight.troubles.get(place).filter(|t| t.tries >= TRIES);
        let fresh = trouble.filter(|_| !self.books.quarantines.contains_key(place));
        let note = |error: &str| format!("NVML refused {TRIES} times: {error}");
        let record = fresh.map(|t| Record::Quarantine {
            place: place.clone(),
            cause: Cause::Failed,
            note: note(&t.error),
        });
        record.into_iter().collect()
    }

    /// What stands and the books do not know.
    fn explain_instances(&self, view: &View) -> Vec<Record> {
        let unknown = |i: &&Instance| {
            let place = view.place(i.placement);
            !self.books.stands.contains_key(&place)
                && !self.sight.running.contains(&place)
                && !self.books.quarantines.contains_key(&place)
        };
        view.instances.iter().filter(unknown).map(|i| self.adopt(view, i)).collect()
    }

    fn adopt(&self, view: &View, instance: &Instance) -> Record {
        let place = view.place(instance.placement);
        let cut = Cut { profile: instance.profile, placement: instance.placement };
        let held = |p: &Pick| p.leaf.place != place && p.leaf.place.overlaps(&place);
        let free = !self.books.stands_on(&place.gpu).any(|(p, _)| p.overlaps(&place))
            && !self.books.leases.values().any(|lease| lease.leaves.iter().any(held));
        let of_layout = self.layout_of(&view.gpu.uuid).cut(&view.gpu).contains(&cut);
        if !(free && of_layout && instance.full_compute().is_some()) {
            return quarantine(view, instance);
        }
        let generation = self.books.next_generation(&place);
        Record::Stand { leaf: LeafId { place, generation }, profile: instance.profile }
    }

    /// Quarantines whose reason is gone. What an admin quarantined only an admin releases.
    fn explain_quarantines(&self, view: &View) -> Vec<Record> {
        let over = self
            .books
            .quarantines_on(&view.gpu.uuid)
            .filter(|(place, q)| !self.sight.running.contains(place) && self.is_over(place, q));
        over.map(|(place, _)| Record::Unquarantine { place: place.clone() }).collect()
    }

    fn is_over(&self, place: &Place, quarantine: &Quarantine) -> bool {
        let nothing_stands = self.sight.instance(place).is_none();
        let stage = self.books.stands.get(place).map(|s| s.stage);
        match quarantine.cause {
            Cause::Admin => false,
            Cause::Foreign | Cause::Partial => nothing_stands,
            Cause::Failed => stage == Some(Stage::Standing) || (stage.is_none() && nothing_stands),
        }
    }

    /// Whether the layout or a lease wants exactly this instance at this place.
    pub(super) fn wanted(&self, view: &View, place: &Place, profile: u32) -> bool {
        let cut = Cut { profile, placement: place.placement };
        match self.books.lessee(place) {
            Some(job) => {
                let lease = self.books.leases.get(&job);
                lease.is_some_and(|l| l.leaves.iter().any(|p| p.leaf.place == *place && p.profile == profile))
            }
            None => self.layout_of(&view.gpu.uuid).cut(&view.gpu).contains(&cut),
        }
    }
}

fn quarantine(view: &View, instance: &Instance) -> Record {
    let name =
        view.gpu.profile(instance.profile).map_or("instance of an unknown profile", |p| p.name.as_str());
    let (cause, what) = match instance.full_compute() {
        Some(_) => (Cause::Foreign, "was not made by migshare"),
        None => (Cause::Partial, "has no compute instance of full size"),
    };
    let note = format!("{name} (gpu instance {}) {what}", instance.gi);
    Record::Quarantine { place: view.place(instance.placement), cause, note }
}
