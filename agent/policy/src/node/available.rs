//! What a new lease can have: the free places of every GPU that serves.

use super::Node;
use super::sight::View;
use crate::books::{Stage, Stand};
use crate::charge::{Need, price};
use crate::geometry::{Units, units_of};
use crate::layout::{Cut, Layout};
use crate::placement::{Candidate, Direction, Free, Offers, choose_from, offers};
use crate::record::{LeafId, Pick, Place};
use crate::topology::{Gpu, Instance};
use migshare_proto::{GpuUuid, JobKey};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Seconds in which Slurm learns that a node is to be drained: `scontrol` and a look of the keeper. Jobs that it starts until then were on
/// their way.
const NOTICE: i64 = 30;

/// One GPU that serves, with the instances that a lease can have on it, and the best choices among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offering {
    gpu: GpuUuid,
    cuts: Vec<Cut>,
    offers: Offers,
}

/// The instances of ours on one GPU.
struct Ours<'a> {
    view: &'a View,
    stands: Vec<(&'a Place, &'a Stand)>,
}

impl Ours<'_> {
    fn standing(&self) -> impl Iterator<Item = Cut> {
        let standing = self.stands.iter().filter(|(_, stand)| stand.stage == Stage::Standing);
        standing.map(|(place, stand)| Cut { profile: stand.profile, placement: place.placement })
    }

    fn has(&self, cut: Cut) -> bool {
        self.standing().any(|other| other == cut)
    }
}

impl Node {
    /// The best `count` instances for a lease, or `None` where fewer can be had.
    pub(super) fn pick(&self, count: u32, need: Option<Need>, direction: Direction) -> Option<Vec<Pick>> {
        self.pick_from(&self.offerings(need), count, direction)
    }

    fn pick_from(&self, offerings: &[Offering], count: u32, direction: Direction) -> Option<Vec<Pick>> {
        let offers: Vec<&Offers> = offerings.iter().map(|offering| &offering.offers).collect();
        let chosen = choose_from(&offers, count, direction)?;
        let pick = |(gpu, at): (usize, usize)| self.leaf_to_be(&offerings[gpu].gpu, offerings[gpu].cuts[at]);
        Some(chosen.into_iter().map(pick).collect())
    }

    /// The best instances for a job that Slurm sent here before it knew of a cordon. They may lie on the cordoned GPU, where only what
    /// stands can be had: nothing is made there.
    pub(super) fn pick_late(&self, job: JobKey, count: u32, direction: Direction) -> Option<Vec<Pick>> {
        let late = |gpu: &GpuUuid| self.books.cordons.get(gpu).is_some_and(|c| job.start <= c.at + NOTICE);
        if !self.books.cordons.keys().any(late) {
            return None;
        }
        self.pick_from(&self.work_out(None, &late), count, direction)
    }

    /// Number of leaves that a lease can have now.
    pub(super) fn free(&self) -> u32 {
        self.offerings(None).iter().map(|o| o.cuts.len() as u32).sum()
    }

    /// Works out what the next request for leaves needs to know, so that its client does not wait for that. Meant for a time
    /// when nobody waits; holds until the next change.
    pub fn prepare(&mut self) {
        if self.prepared.is_none() {
            self.prepared = Some(self.work_out(None, &|_| false));
        }
    }

    /// The GPUs that serve, NUMA node by NUMA node.
    fn offerings(&self, need: Option<Need>) -> Cow<'_, [Offering]> {
        match &self.prepared {
            Some(prepared) if need.is_none() => {
                debug_assert_eq!(
                    *prepared,
                    self.work_out(None, &|_| false),
                    "a change did not undo what was prepared"
                );
                Cow::Borrowed(prepared)
            }
            _ => Cow::Owned(self.work_out(need, &|_| false)),
        }
    }

    /// `also` says which cordoned GPUs are there, too.
    fn work_out(&self, need: Option<Need>, also: &dyn Fn(&GpuUuid) -> bool) -> Vec<Offering> {
        let leased = self.leased_units();
        let serves = |view: &&View| {
            let gpu = &view.gpu.uuid;
            self.sight.healthy(gpu).is_some() && (!self.books.cordons.contains_key(gpu) || also(gpu))
        };
        let mut views: Vec<&View> = self.sight.gpus.values().filter(serves).collect();
        views.sort_by_key(|view| (view.gpu.numa, view.gpu.index));
        let leased = |view: &View| leased.get(&view.gpu.uuid).copied().unwrap_or(0);
        let (cuts, candidates): (Vec<_>, Vec<_>) =
            views.iter().map(|view| self.free_on(view, leased(view), need)).unzip();
        let offerings = views.iter().zip(cuts).zip(offers(&candidates));
        let offering = |((view, cuts), offers): ((&&View, _), _)| {
            let gpu = view.gpu.uuid.clone();
            Offering { gpu, cuts, offers }
        };
        offerings.map(offering).collect()
    }

    /// The instances that a lease can have on one GPU.
    fn free_on<'a>(&self, view: &'a View, leased: Units, need: Option<Need>) -> (Vec<Cut>, Candidate<'a>) {
        let ours = Ours { view, stands: self.books.stands_on(&view.gpu.uuid).collect() };
        let used = leased | self.blocked(&ours);
        let cordoned = self.books.cordons.contains_key(&view.gpu.uuid);
        let free = |cut: &Cut| cut.placement.mask() & used == 0 && (!cordoned || ours.has(*cut));
        let cuts = need.map_or_else(|| self.leaf_cuts(&ours), |need| places_for(&view.gpu, need));
        let cuts: Vec<Cut> = cuts.into_iter().filter(free).collect();
        let free = cuts.iter().map(|&cut| Free { placement: cut.placement, stands: ours.has(cut) });
        let View { gpu, geometry, .. } = view;
        let candidate = Candidate { geometry, numa: gpu.numa, used, free: free.collect() };
        (cuts, candidate)
    }

    /// The leaves of a GPU: those of its layout, but where an idle leaf of another size stands, that one.
    fn leaf_cuts(&self, ours: &Ours<'_>) -> Vec<Cut> {
        let gpu = &ours.view.gpu;
        let mut cuts = match self.layout_of(&gpu.uuid) {
            Layout::Uniform | Layout::Custom(_) => ours.view.geometry.leaves().to_vec(),
            Layout::FullMemory => Layout::FullMemory.cut(gpu),
        };
        let slices = |profile: u32| gpu.profile(profile).map(|p| p.slices);
        for cut in &mut cuts {
            let same_kind = |other: &Cut| {
                other.placement.start == cut.placement.start && slices(other.profile) == slices(cut.profile)
            };
            *cut = ours.standing().find(same_kind).unwrap_or(*cut);
        }
        cuts
    }

    /// The leaf that stands, is being made or would be made for this cut.
    fn leaf_to_be(&self, gpu: &GpuUuid, cut: Cut) -> Pick {
        let place = Place { gpu: gpu.clone(), placement: cut.placement };
        let here = self.books.stands.get(&place);
        let same = here.filter(|s| s.profile == cut.profile && s.stage != Stage::Unmaking);
        let generation = same.map_or_else(|| self.books.next_generation(&place), |s| s.generation);
        Pick { leaf: LeafId { place, generation }, profile: cut.profile }
    }

    /// The layout that a GPU is to have while idle.
    pub(super) fn layout_of(&self, gpu: &GpuUuid) -> &Layout {
        self.books.targets.get(gpu).unwrap_or(&self.rules.layout)
    }

    fn leased_units(&self) -> BTreeMap<&GpuUuid, Units> {
        let mut units: BTreeMap<&GpuUuid, Units> = BTreeMap::new();
        for pick in self.books.leases.values().flat_map(|lease| &lease.leaves) {
            *units.entry(&pick.leaf.place.gpu).or_default() |= pick.leaf.place.placement.mask();
        }
        units
    }

    /// Units of a GPU that no lease can have although none holds them: quarantined, used without a lease, or of a state
    /// that books and hardware do not agree on.
    fn blocked(&self, ours: &Ours<'_>) -> Units {
        let view = ours.view;
        let quarantined = self.books.quarantines_on(&view.gpu.uuid).map(|(place, _)| place.placement);
        let unexplained =
            view.instances.iter().filter(|i| self.unexplained(ours, i) || self.intruded(view, i));
        let seen = |cut: &Cut| view.instances.iter().any(|i| i.placement == cut.placement);
        let vanished = ours.standing().filter(|cut| !seen(cut)).map(|cut| cut.placement);
        units_of(quarantined.chain(unexplained.map(|i| i.placement)).chain(vanished))
    }

    /// An instance that is not what the books say of its place.
    fn unexplained(&self, ours: &Ours<'_>, instance: &Instance) -> bool {
        let mut here = ours.stands.iter().filter(|(place, _)| place.placement == instance.placement);
        let known = here.any(|(_, stand)| stand.profile == instance.profile);
        !known && !self.sight.running.contains(&ours.view.place(instance.placement))
    }

    /// An instance on which a process computes although no job holds it.
    pub(super) fn intruded(&self, view: &View, instance: &Instance) -> bool {
        instance.compute.iter().any(|c| !c.processes.is_empty())
            && self.books.lessee(&view.place(instance.placement)).is_none()
    }
}

/// All places of the cheapest profile that is large enough.
fn places_for(gpu: &Gpu, need: Need) -> Vec<Cut> {
    let profile = price(gpu, need).and_then(|price| gpu.profile(price.profile));
    let places = profile.into_iter().flat_map(|p| p.placements.iter().map(|&at| (p.id, at)));
    places.map(|(profile, placement)| Cut { profile, placement }).collect()
}
