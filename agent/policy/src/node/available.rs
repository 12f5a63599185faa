//! What a new lease can have: the free places of every GPU that serves.

use super::Node;
use super::sight::View;
use crate::books::Stage;
use crate::geometry::{Units, units_of};
use crate::layout::{Cut, Layout, leaves};
use crate::placement::{Candidate, Direction, Free, choose};
use crate::record::{LeafId, Pick, Place};
use crate::topology::Instance;
use migshare_proto::GpuUuid;
use std::collections::BTreeMap;

/// One GPU that serves, with the leaves that a lease can have on it.
pub(super) struct Offering<'a> {
    view: &'a View,
    used: Units,
    cuts: Vec<(Cut, bool)>,
}

impl Offering<'_> {
    fn candidate(&self) -> Candidate<'_> {
        let free = self.cuts.iter().map(|(cut, stands)| Free { placement: cut.placement, stands: *stands });
        let View { gpu, geometry, .. } = self.view;
        Candidate { geometry, numa: gpu.numa, used: self.used, free: free.collect() }
    }
}

impl Node {
    /// The best `count` leaves for a lease, or `None` where fewer are free.
    pub(super) fn pick(&self, count: u32, direction: Direction) -> Option<Vec<Pick>> {
        let offerings = self.offerings();
        let candidates: Vec<Candidate<'_>> = offerings.iter().map(Offering::candidate).collect();
        let chosen = choose(&candidates, count, direction)?;
        let pick =
            |(gpu, at): (usize, usize)| self.leaf_to_be(offerings[gpu].view, offerings[gpu].cuts[at].0);
        Some(chosen.into_iter().map(pick).collect())
    }

    /// Number of leaves that a lease can have now.
    pub(super) fn free(&self) -> u32 {
        self.offerings().iter().map(|o| o.cuts.len() as u32).sum()
    }

    /// The GPUs that serve, NUMA node by NUMA node.
    fn offerings(&self) -> Vec<Offering<'_>> {
        let leased = self.leased_units();
        let serves = |view: &&View| {
            self.sight.healthy(&view.gpu.uuid).is_some() && !self.books.cordons.contains_key(&view.gpu.uuid)
        };
        let mut views: Vec<&View> = self.sight.gpus.values().filter(serves).collect();
        views.sort_by_key(|view| (view.gpu.numa, view.gpu.index));
        let leased = |view: &View| leased.get(&view.gpu.uuid).copied().unwrap_or(0);
        views.into_iter().map(|view| self.offering(view, leased(view))).collect()
    }

    fn offering<'a>(&'a self, view: &'a View, leased: Units) -> Offering<'a> {
        let used = leased | self.blocked(view);
        let free = |cut: &Cut| cut.placement.mask() & used == 0;
        let cuts = self.leaf_cuts(view).into_iter().filter(free);
        let cuts = cuts.map(|cut| (cut, self.stands_as(view, cut))).collect();
        Offering { view, used, cuts }
    }

    /// The leaves of a GPU: those of its layout, but where an idle leaf of another size stands, that one.
    fn leaf_cuts(&self, view: &View) -> Vec<Cut> {
        let layout = self.layout_of(&view.gpu.uuid);
        let wished = match layout {
            Layout::Uniform | Layout::FullMemory => layout.cut(&view.gpu),
            Layout::Custom(_) => leaves(&view.gpu),
        };
        let slices = |profile: u32| view.gpu.profile(profile).map(|p| p.slices);
        let instead = |cut: Cut| {
            let other = view.instances.iter().find(|i| {
                i.placement.start == cut.placement.start && slices(i.profile) == slices(cut.profile)
            });
            let other = other.map(|i| Cut { profile: i.profile, placement: i.placement });
            other.filter(|other| self.stands_as(view, *other)).unwrap_or(cut)
        };
        wished.into_iter().map(instead).collect()
    }

    /// Whether exactly this stands, by the books and to the eye.
    fn stands_as(&self, view: &View, cut: Cut) -> bool {
        let place = view.place(cut.placement);
        let stand = self.books.stands.get(&place);
        stand.is_some_and(|s| s.profile == cut.profile && s.stage == Stage::Standing)
    }

    /// The leaf that stands, is being made or would be made for this cut.
    fn leaf_to_be(&self, view: &View, cut: Cut) -> Pick {
        let place = view.place(cut.placement);
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
    pub(super) fn blocked(&self, view: &View) -> Units {
        let here = |place: &&Place| place.gpu == view.gpu.uuid;
        let quarantined = self.books.quarantines.keys().filter(here).map(|p| p.placement);
        let unexplained =
            view.instances.iter().filter(|i| self.unexplained(view, i) || self.intruded(view, i));
        let unexplained = unexplained.map(|i| i.placement);
        let vanished = self.books.stands.iter().filter(|(place, s)| {
            here(place) && s.stage == Stage::Standing && self.sight.instance(place).is_none()
        });
        let vanished = vanished.map(|(place, _)| place.placement);
        units_of(quarantined.chain(unexplained).chain(vanished))
    }

    /// An instance that is not what the books say of its place.
    fn unexplained(&self, view: &View, instance: &Instance) -> bool {
        let place = view.place(instance.placement);
        let running = self.sight.running.contains(&place);
        !running && self.books.stands.get(&place).is_none_or(|s| s.profile != instance.profile)
    }

    /// An instance on which a process computes although no job holds it.
    pub(super) fn intruded(&self, view: &View, instance: &Instance) -> bool {
        instance.compute.iter().any(|c| !c.processes.is_empty())
            && self.books.lessee(&view.place(instance.placement)).is_none()
    }
}
