//! Instances to make and to destroy: for leases that wait for theirs, and to bring idle places to the layout.
//!
//! Each intent is journalled before NVML is called. Only places that no job holds are touched, and of those only what the
//! books know: what is quarantined or used by a process stays, and so does everything on a GPU that is cordoned.

use super::sight::View;
use super::{Node, Proposal};
use crate::books::{Stage, Stand};
use crate::layout::Cut;
use crate::record::{LeafId, Pick, Place, Record};
use crate::seen::Effect;
use migshare_proto::GpuUuid;

impl Proposal {
    fn create(&mut self, leaf: LeafId, profile: u32) {
        self.records.push(Record::Reserve { leaf: leaf.clone(), profile });
        self.effects.push(Effect::Create { leaf, profile });
    }

    fn destroy(&mut self, leaf: LeafId, gi: u32) {
        self.records.push(Record::Remove { leaf: leaf.clone() });
        self.effects.push(Effect::Destroy { leaf, gi });
    }
}

impl Node {
    /// Intents of before that are not under way: tried again when their time has come. Needs no record, they have one.
    pub(super) fn settle_intents(&self, now: i64) -> Proposal {
        let mut proposal = Proposal::default();
        for (place, stand) in &self.books.stands {
            let waits = self.sight.troubles.get(place).is_some_and(|t| t.next > now);
            let quiet = !waits && !self.sight.running.contains(place) && !self.sight.scan_running;
            if stand.stage != Stage::Standing && quiet && self.in_service(&place.gpu).is_some() {
                proposal.effects.extend(self.settle(place, *stand));
            }
        }
        proposal
    }

    fn settle(&self, place: &Place, stand: Stand) -> Option<Effect> {
        let leaf = LeafId { place: place.clone(), generation: stand.generation };
        match (stand.stage, self.sight.instance(place)) {
            // The rest of a making that failed half-way: the reservation proves that it is ours.
            (_, Some(left)) => Some(Effect::Destroy { leaf, gi: left.gi }),
            (Stage::Making, None) => Some(Effect::Create { leaf, profile: stand.profile }),
            (Stage::Unmaking | Stage::Standing, None) => None,
        }
    }

    /// Waiting leases first; then one GPU's layout at a time, so that a lease never waits for a long queue, and not while a look is
    /// under way that may show something else.
    pub(super) fn cut_gpus(&self, _now: i64) -> Proposal {
        let mut proposal = Proposal::default();
        for pick in self.books.leases.values().flat_map(|lease| &lease.leaves) {
            self.make_pick(pick, &mut proposal);
        }
        if !proposal.is_empty() || !self.sight.running.is_empty() || self.sight.scan_running {
            return proposal;
        }
        let enrolled = |view: &&View| self.books.gpus.contains_key(&view.gpu.uuid);
        let views = self.sight.gpus.values().filter(enrolled);
        let views = views.filter(|view| self.in_service(&view.gpu.uuid).is_some());
        views.map(|view| self.cut_gpu(view)).find(|p| !p.is_empty()).unwrap_or_default()
    }

    /// One step towards an instance that a lease waits for: first what is in its way goes, then it is made.
    fn make_pick(&self, pick: &Pick, proposal: &mut Proposal) {
        let place = &pick.leaf.place;
        let begun = self.books.stands.get(place).is_some_and(|s| s.generation == pick.leaf.generation);
        if begun || !self.pending(pick) || self.in_service(&place.gpu).is_none() {
            return;
        }
        let mut clear = true;
        for (other, stand) in self.books.stands_on(&place.gpu).filter(|(other, _)| other.overlaps(place)) {
            clear = false;
            self.remove(other, *stand, proposal);
        }
        if clear {
            proposal.create(pick.leaf.clone(), pick.profile);
        }
    }

    fn cut_gpu(&self, view: &View) -> Proposal {
        let mut proposal = Proposal::default();
        let uuid: &GpuUuid = &view.gpu.uuid;
        let eager = self.books.is_ordered(uuid) || !self.rules.reshaping.lazy;
        for (place, stand) in self.books.stands_on(uuid) {
            if eager && !self.wanted(view, place, stand.profile) {
                self.remove(place, *stand, &mut proposal);
            }
        }
        for cut in self.layout_of(uuid).cut(&view.gpu) {
            if self.vacant(view, cut) {
                let place = view.place(cut.placement);
                let generation = self.books.next_generation(&place);
                proposal.create(LeafId { place, generation }, cut.profile);
            }
        }
        proposal
    }

    /// Whether a GPU has exactly the layout that it is to have.
    pub(super) fn is_cut(&self, gpu: &GpuUuid) -> bool {
        let Some(view) = self.sight.healthy(gpu) else { return false };
        let standing = self.books.stands_on(gpu).filter(|(_, stand)| stand.stage == Stage::Standing);
        let mut standing: Vec<Cut> = standing
            .map(|(place, stand)| Cut { profile: stand.profile, placement: place.placement })
            .collect();
        standing.sort_by_key(|cut| cut.placement);
        standing == self.layout_of(gpu).cut(&view.gpu)
    }

    /// Destroys an idle instance, unless something is under way there or forbids it.
    fn remove(&self, place: &Place, stand: Stand, proposal: &mut Proposal) {
        let quarantined = self.books.quarantines_on(&place.gpu).any(|(q, _)| q.overlaps(place));
        let Some(view) = self.sight.healthy(&place.gpu) else { return };
        let Some(instance) = self.sight.instance(place) else { return };
        let listed =
            proposal.records.iter().any(|r| matches!(r, Record::Remove { leaf } if leaf.place == *place));
        let idle = stand.stage == Stage::Standing && !quarantined && !self.intruded(view, instance);
        if idle && !listed && !self.sight.running.contains(place) {
            proposal.destroy(LeafId { place: place.clone(), generation: stand.generation }, instance.gi);
        }
    }

    /// Whether nothing at all is in the way of this instance.
    fn vacant(&self, view: &View, cut: Cut) -> bool {
        let place = view.place(cut.placement);
        let seen = view.instances.iter().any(|i| i.placement.overlaps(cut.placement));
        !seen
            && self.books.lessee(&place).is_none()
            && !self.books.stands_on(&place.gpu).any(|(other, _)| other.overlaps(&place))
            && !self.books.quarantines_on(&place.gpu).any(|(other, _)| other.overlaps(&place))
    }
}
