//! What a change of layout would do: the same rules as the work that does it, without doing it.

use super::Node;
use super::refusal::refused;
use super::sight::View;
use crate::books::Stage;
use crate::layout::{Cut, Layout};
use crate::order::{Deferred, Move, Plan};
use crate::record::Place;
use migshare_proto::GpuUuid;
use migshare_proto::message::{Reason, Refused};

/// GPUs and the layouts that they are to have; `None` is the configured one.
pub type Target = [(GpuUuid, Option<Layout>)];

impl Node {
    /// What giving these GPUs these layouts would do, or why it makes no sense.
    pub fn plan(&self, target: &Target) -> Result<Plan, Refused> {
        self.check_target(target)?;
        let mut plan = Plan::default();
        for (gpu, layout) in target {
            self.plan_one(gpu, layout.as_ref().unwrap_or(&self.rules.layout), &mut plan);
        }
        Ok(plan)
    }

    /// Whether these layouts are the ones that were ordered last.
    pub fn is_ordered(&self, target: &Target) -> bool {
        target.iter().all(|(gpu, layout)| self.books.targets.get(gpu) == layout.as_ref())
    }

    /// What is left of the changes of layout that were ordered: empty when all is done.
    pub fn remaining(&self) -> Plan {
        let target: Vec<(GpuUuid, Option<Layout>)> =
            self.books.gpus.keys().map(|gpu| (gpu.clone(), self.books.targets.get(gpu).cloned())).collect();
        self.plan(&target).unwrap_or_default()
    }

    /// What is left to do on a GPU until it has the layout that it is to have.
    pub(super) fn left_on(&self, gpu: &GpuUuid) -> Plan {
        let mut plan = Plan::default();
        self.plan_one(gpu, self.layout_of(gpu), &mut plan);
        plan
    }

    fn plan_one(&self, gpu: &GpuUuid, layout: &Layout, plan: &mut Plan) {
        match self.sight.healthy(gpu) {
            Some(view) => self.plan_gpu(view, layout, plan),
            None => plan.deferred.push(Deferred {
                gpu: self.sight.gpus.get(gpu).map(|view| view.gpu.index),
                placement: None,
                why: format!("{} does not serve", self.gpu_name(gpu)),
            }),
        }
    }

    /// Every GPU is one of ours, named once, and can have its layout.
    pub(super) fn check_target(&self, target: &Target) -> Result<(), Refused> {
        for (at, (gpu, layout)) in target.iter().enumerate() {
            if !self.books.gpus.contains_key(gpu) {
                return Err(self.no_gpu(gpu));
            }
            // Checked from the front, so that no more are looked through than there are GPUs.
            if target[..at].iter().any(|(other, _)| other == gpu) {
                let text = format!("{} is named twice", self.gpu_name(gpu));
                return Err(refused(Reason::BadRequest, text));
            }
            let view = self.sight.gpus.get(gpu);
            if let (Some(view), Some(layout)) = (view, layout)
                && let Err(misfit) = layout.check(&view.gpu)
            {
                let text = format!("{}: {misfit}", self.gpu_name(gpu));
                return Err(refused(Reason::NoSuchPlace, text));
            }
        }
        Ok(())
    }

    pub(super) fn no_gpu(&self, gpu: &GpuUuid) -> Refused {
        refused(Reason::NoSuchPlace, format!("this node has no gpu {gpu} in MIG mode"))
    }

    fn plan_gpu(&self, view: &View, layout: &Layout, plan: &mut Plan) {
        let cuts = layout.cut(&view.gpu);
        let stays = |cut: &Cut| cuts.contains(cut);
        let standing =
            self.books.stands_on(&view.gpu.uuid).filter(|(_, stand)| stand.stage == Stage::Standing);
        let standing: Vec<Cut> = standing
            .map(|(place, stand)| Cut { profile: stand.profile, placement: place.placement })
            .collect();
        for cut in standing.iter().filter(|cut| !stays(cut)) {
            match self.blocker(&view.place(cut.placement)) {
                None => plan.moves.push(a_move(view, *cut, false)),
                Some(why) => plan.deferred.push(deferred(view, *cut, why)),
            }
        }
        for cut in cuts.iter().filter(|cut| !standing.contains(cut)) {
            match self.hindrance(view, &standing, *cut) {
                None => plan.moves.push(a_move(view, *cut, true)),
                Some(why) => plan.deferred.push(deferred(view, *cut, why)),
            }
        }
    }

    /// What keeps an instance from being made once all idle ones are out of the way.
    fn hindrance(&self, view: &View, standing: &[Cut], cut: Cut) -> Option<String> {
        let place = view.place(cut.placement);
        let below = standing.iter().filter(|other| other.placement.overlaps(cut.placement));
        let mut places = below.map(|other| view.place(other.placement)).chain([place]);
        places.find_map(|place: Place| self.blocker(&place))
    }
}

fn a_move(view: &View, cut: Cut, make: bool) -> Move {
    Move { gpu: view.gpu.index, placement: cut.placement, profile: name(view, cut), make }
}

fn deferred(view: &View, cut: Cut, why: String) -> Deferred {
    let why = format!("{}: {why}", name(view, cut));
    Deferred { gpu: Some(view.gpu.index), placement: Some(cut.placement), why }
}

fn name(view: &View, cut: Cut) -> String {
    view.gpu.profile(cut.profile).map_or_else(|| format!("profile {}", cut.profile), |p| p.name.clone())
}
