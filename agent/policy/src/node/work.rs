//! What should happen next without anybody asking. Level-triggered: it follows from what is, so it is proposed again
//! until it has happened.
//!
//! Each rule proposes for itself, in this order, and the first that has something to propose wins: later rules may rely
//! on what earlier ones have settled.

use super::sight::{RESCAN, Sight};
use super::{Node, Proposal};
use crate::books::{Quarantine, Stage};
use crate::layout::Cut;
use crate::order::RolledBack;
use crate::record::{Cause, Ending, Place, Record};
use crate::seen::Effect;
use migshare_proto::GpuUuid;

impl Proposal {
    fn records(records: Vec<Record>) -> Proposal {
        Proposal { records, ..Proposal::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.effects.is_empty()
    }
}

impl Node {
    /// The next step, or `None` when all is as it should be, or waits for effects under way, or for [`Node::wake`].
    pub fn work(&self, now: i64) -> Option<Proposal> {
        let always: [fn(&Node, i64) -> Proposal; 4] =
            [Node::note_boot, Node::end_grants, Node::end_leases, Node::look];
        let on_hardware: [fn(&Node, i64) -> Proposal; 7] = [
            Node::enrol,
            Node::explain,
            Node::settle_layouts,
            Node::give_up,
            Node::roll_back,
            Node::settle_intents,
            Node::cut_gpus,
        ];
        let sees = self.ready() && self.sight.dead.is_none();
        let rules = always.into_iter().chain(on_hardware.into_iter().filter(|_| sees));
        rules.map(|rule| rule(self, now)).find(|proposal| !proposal.is_empty())
    }

    /// When after `now` [`Node::work`] may have something to propose although nothing happened, seconds since the epoch.
    pub fn wake(&self, now: i64) -> Option<i64> {
        let Sight { troubles, running, scan_running, .. } = &self.sight;
        let retries = troubles.iter().filter(|(place, _)| !running.contains(place)).map(|(_, t)| t.next);
        retries.chain(self.next_look().filter(|_| !scan_running)).filter(|at| *at > now).min()
    }

    fn note_boot(&self, _now: i64) -> Proposal {
        let changed = self.books.boot != self.boot;
        Proposal::records(changed.then(|| Record::Boot { boot: self.boot.clone() }).into_iter().collect())
    }

    fn end_grants(&self, _now: i64) -> Proposal {
        let leases = self.books.leases.iter();
        let grants =
            leases.flat_map(|(job, lease)| lease.grants.iter().map(|(step, grant)| (*job, *step, grant)));
        let ended = grants.filter(|(.., grant)| self.sight.gone.contains(&grant.holder));
        Proposal::records(ended.map(|(job, step, _)| Record::Release { job, step }).collect())
    }

    /// Slurm's word alone takes no leaf from a process that uses it.
    fn end_leases(&self, _now: i64) -> Proposal {
        let over = self.sight.stale.iter().filter(|job| self.users_of(job).is_empty());
        let close = |&job| Record::Close { job, how: Ending::Reaper };
        Proposal::records(over.map(close).collect())
    }

    fn look(&self, now: i64) -> Proposal {
        let first = !self.sight.scanned && self.sight.dead.is_none();
        let due = !self.sight.scan_running && (first || self.next_look().is_some_and(|at| at <= now));
        Proposal { effects: due.then_some(Effect::Scan).into_iter().collect(), ..Proposal::default() }
    }

    /// When to look at the hardware again: when a failed call asks for it, and from time to time while something is
    /// wrong that may be put right behind our back. Otherwise never: a healthy node is left in peace.
    fn next_look(&self) -> Option<i64> {
        let outside = self.sight.dead.is_some() || (self.ready() && self.waits_for_hardware());
        let regular = outside.then_some(self.sight.looked + RESCAN);
        self.sight.rescan.into_iter().chain(regular).min()
    }

    fn waits_for_hardware(&self) -> bool {
        let external = |q: &Quarantine| matches!(q.cause, Cause::Foreign | Cause::Partial);
        self.books.gpus.keys().any(|gpu| self.sight.healthy(gpu).is_none())
            || self.books.quarantines.values().any(external)
            || self.sight.gpus.values().any(|view| view.instances.iter().any(|i| self.intruded(view, i)))
    }

    /// Leases whose missing instances cannot be made end: the client that waits then asks anew, and gets other leaves
    /// or the reason why not.
    fn give_up(&self, _now: i64) -> Proposal {
        let hopeless = |pick: &crate::record::Pick| {
            let place = &pick.leaf.place;
            self.pending(pick)
                && (self.in_service(&place.gpu).is_none()
                    || self.books.quarantines.keys().any(|q| q.overlaps(place)))
        };
        let leases = self.books.leases.iter().filter(|(_, lease)| lease.leaves.iter().any(hopeless));
        let close = |(&job, _)| Record::Close { job, how: Ending::Reconcile };
        Proposal::records(leases.map(close).collect())
    }

    /// A layout that was ordered and has been cut is settled: hardware that fails later is no reason to go back to the one before.
    fn settle_layouts(&self, _now: i64) -> Proposal {
        let cut = self.books.formers.keys().filter(|gpu| self.is_cut(gpu));
        let layout = |gpu: &GpuUuid| self.books.targets.get(gpu).cloned();
        Proposal::records(cut.map(|gpu| Record::Target { gpu: gpu.clone(), layout: layout(gpu) }).collect())
    }

    /// An ordered layout that hardware refuses gives way to the one before it.
    fn roll_back(&self, _now: i64) -> Proposal {
        let mut proposal = Proposal::default();
        for (gpu, former) in self.books.formers.iter().filter(|(gpu, _)| self.books.gpus.contains_key(*gpu)) {
            if let Some(why) = self.refused_cut(gpu) {
                let layout = self.books.targets.get(gpu).cloned();
                proposal.rolled_back.push(RolledBack { gpu: gpu.clone(), layout, why });
                proposal.records.push(Record::Target { gpu: gpu.clone(), layout: former.clone() });
            }
        }
        proposal
    }

    /// The instance of a GPU's layout that hardware refused to make, and what it said.
    fn refused_cut(&self, gpu: &GpuUuid) -> Option<String> {
        let mut failed = self.books.quarantines_on(gpu).filter(|(_, q)| q.cause == Cause::Failed);
        let (place, quarantine) = failed.find(|(place, _)| self.is_cut_of_layout(place))?;
        Some(format!("{}: {}", place.placement, quarantine.note))
    }

    /// Whether an instance is being made at this place because the layout says so.
    fn is_cut_of_layout(&self, place: &Place) -> bool {
        let making = self.books.stands.get(place).filter(|stand| stand.stage == Stage::Making);
        let cuts = self.sight.healthy(&place.gpu).map(|view| self.layout_of(&place.gpu).cut(&view.gpu));
        making.zip(cuts).is_some_and(|(stand, cuts)| {
            cuts.contains(&Cut { profile: stand.profile, placement: place.placement })
        })
    }
}
