//! Orders of an admin. None breaks a running job unless it is forced, and then it has said whose.

use super::refusal::refused;
use super::{Node, Proposal};
use crate::ask::Verdict;
use crate::layout::Layout;
use crate::order::Order;
use crate::record::{Cause, Ending, LeafId, Place, Record};
use migshare_proto::message::{Reason, Refused};
use migshare_proto::{GpuUuid, JobKey};

impl Node {
    /// What an order does. Like [`Node::answer`]: nothing happens until it is committed.
    pub fn order(&self, order: &Order, force: bool) -> Proposal {
        if !self.ready() {
            return Proposal::verdict(Verdict::Wait);
        }
        let records = match order {
            Order::Cordon { gpu, note, at } => self.cordon(gpu, note, *at),
            Order::Uncordon { gpu } => Ok(self.uncordon(gpu)),
            Order::Quarantine { place, note } => self.quarantine(place, note),
            Order::Unquarantine { place } => self.unquarantine(place),
            Order::Apply { layouts, now } => self.apply(layouts, *now),
            Order::Forget { gpu } => self.forget(gpu, force),
            Order::Evict { job } => self.evict(*job, force),
        };
        match records {
            Ok(records) => {
                let found = !records.is_empty();
                Proposal::recorded(records, Verdict::Done { found })
            }
            Err(refused) => refused.into(),
        }
    }

    fn known(&self, gpu: &GpuUuid) -> Result<(), Refused> {
        let known = self.books.gpus.contains_key(gpu);
        if known { Ok(()) } else { Err(self.no_gpu(gpu)) }
    }

    fn cordon(&self, gpu: &GpuUuid, note: &str, at: i64) -> Result<Vec<Record>, Refused> {
        self.known(gpu)?;
        Ok(vec![Record::Cordon { gpu: gpu.clone(), note: note.to_owned(), at }])
    }

    fn uncordon(&self, gpu: &GpuUuid) -> Vec<Record> {
        let cordoned = self.books.cordons.contains_key(gpu);
        cordoned.then(|| Record::Uncordon { gpu: gpu.clone() }).into_iter().collect()
    }

    /// A leased place is quarantined too: its job goes on, nobody gets it afterwards.
    fn quarantine(&self, place: &Place, note: &str) -> Result<Vec<Record>, Refused> {
        self.known(&place.gpu)?;
        let view = self.sight.gpus.get(&place.gpu);
        let exists =
            view.is_some_and(|v| v.gpu.profiles.iter().any(|p| p.placements.contains(&place.placement)));
        if !exists {
            let text = format!("{} has no place {}", self.gpu_name(&place.gpu), place.placement);
            return Err(refused(Reason::NoSuchPlace, text));
        }
        let (place, note) = (place.clone(), note.to_owned());
        Ok(vec![Record::Quarantine { place, cause: Cause::Admin, note }])
    }

    fn unquarantine(&self, place: &Place) -> Result<Vec<Record>, Refused> {
        if !self.books.quarantines.contains_key(place) {
            return Ok(Vec::new());
        }
        let mut records: Vec<Record> = self.take_over(place)?.into_iter().collect();
        records.push(Record::Unquarantine { place: place.clone() });
        Ok(records)
    }

    /// The reservation that makes a foreign or broken instance ours: it is then adopted, or else destroyed and made anew.
    fn take_over(&self, place: &Place) -> Result<Option<Record>, Refused> {
        let Some(instance) = self.sight.instance(place) else { return Ok(None) };
        if self.books.stands.contains_key(place) {
            return Ok(None);
        }
        if instance.compute.iter().any(|c| !c.processes.is_empty()) {
            let text = format!(
                "{} on {} is in use: end its processes first",
                place.placement,
                self.gpu_name(&place.gpu)
            );
            return Err(refused(Reason::InUse, text));
        }
        if self.books.stands_on(&place.gpu).any(|(other, _)| other.overlaps(place)) {
            let text =
                format!("an instance is being made at {} on {}", place.placement, self.gpu_name(&place.gpu));
            return Err(refused(Reason::InUse, text));
        }
        let leaf = LeafId { place: place.clone(), generation: self.books.next_generation(place) };
        Ok(Some(Record::Reserve { leaf, profile: instance.profile }))
    }

    /// `now` is judged here and not before: a lease that was asked for earlier has its leaves by then.
    fn apply(&self, layouts: &[(GpuUuid, Option<Layout>)], now: bool) -> Result<Vec<Record>, Refused> {
        let plan = self.plan(layouts)?;
        if now && !plan.deferred.is_empty() {
            let why: Vec<String> = plan.deferred.into_iter().map(|d| d.why).collect();
            let text = format!(
                "nothing was changed, because {} of it would have to wait: {}",
                why.len(),
                why.join("; ")
            );
            return Err(refused(Reason::WouldWait, text));
        }
        let changed = layouts.iter().filter(|(gpu, layout)| self.books.targets.get(gpu) != layout.as_ref());
        Ok(changed.map(|(gpu, layout)| Record::Target { gpu: gpu.clone(), layout: layout.clone() }).collect())
    }

    fn forget(&self, gpu: &GpuUuid, force: bool) -> Result<Vec<Record>, Refused> {
        self.known(gpu)?;
        if self.sight.healthy(gpu).is_some() {
            let text = format!("{} is here and works: cordon it instead", self.gpu_name(gpu));
            return Err(refused(Reason::BadRequest, text));
        }
        let on_gpu = |job: &JobKey| {
            self.books.leases.get(job).is_some_and(|l| l.leaves.iter().any(|p| p.leaf.place.gpu == *gpu))
        };
        let jobs: Vec<JobKey> = self.books.leases.keys().copied().filter(on_gpu).collect();
        let mut records = self.end(&jobs, force)?;
        records.push(Record::Forget { gpu: gpu.clone() });
        Ok(records)
    }

    fn evict(&self, job: u32, force: bool) -> Result<Vec<Record>, Refused> {
        let jobs: Vec<JobKey> = self.books.leases.keys().copied().filter(|key| key.job == job).collect();
        self.end(&jobs, force)
    }

    /// Ends leases of jobs that may still run, if that is forced.
    fn end(&self, jobs: &[JobKey], force: bool) -> Result<Vec<Record>, Refused> {
        if !force && !jobs.is_empty() {
            return Err(self.would_break(jobs));
        }
        Ok(jobs.iter().map(|&job| Record::Close { job, how: Ending::Admin }).collect())
    }

    fn would_break(&self, jobs: &[JobKey]) -> Refused {
        let whose: Vec<String> = jobs
            .iter()
            .filter_map(|job| {
                let lease = self.books.leases.get(job)?;
                let steps = lease.grants.len();
                Some(format!("job {job} of user {} ({} leaves, {steps} steps)", job.uid, lease.charged))
            })
            .collect();
        let text =
            format!("this takes away the leaves of {}; --force does it all the same", whose.join(" and "));
        refused(Reason::NeedsForce, text)
    }
}
