//! Answers to what clients ask about leases. Each is a function of what is; asking again gives the same answer.

use super::grant::Wish;
use super::{Node, Proposal};
use crate::ask::{Ask, Verdict};
use crate::books::{Lease, Stage};
use crate::charge::Need;
use crate::placement::Direction;
use crate::record::{Ending, Pick, Record};
use migshare_proto::message::Refused;
use migshare_proto::{JobKey, Leaf, StepId};

impl Proposal {
    pub(super) fn verdict(verdict: Verdict) -> Proposal {
        Proposal { verdict: Some(verdict), ..Proposal::default() }
    }

    pub(super) fn recorded(records: Vec<Record>, verdict: Verdict) -> Proposal {
        Proposal { records, verdict: Some(verdict), ..Proposal::default() }
    }
}

/// What a job asks for.
pub(super) struct Bid {
    pub(super) job: JobKey,
    pub(super) leaves: u32,
    pub(super) direction: Direction,
    pub(super) need: Option<Need>,
}

impl From<Refused> for Proposal {
    fn from(refused: Refused) -> Proposal {
        Proposal::verdict(Verdict::Refused(refused))
    }
}

impl Node {
    /// What to answer. Changes nothing until the proposal is committed; the verdict is always there.
    pub fn answer(&self, now: i64, ask: &Ask) -> Proposal {
        match *ask {
            Ask::Release { job, step } => self.release(job, step),
            Ask::Close { job, uid, start, how } => self.close(job, uid, start, how),
            _ if !self.ready() && self.sight.dead.is_none() => Proposal::verdict(Verdict::Wait),
            Ask::Open { job, leaves, direction, need } => {
                let direction = direction.unwrap_or(self.rules.direction);
                let bid = Bid { job, leaves, direction, need };
                self.open(now, &bid).unwrap_or_else(Proposal::from)
            }
            Ask::Grant { job, step, leaves, tasks, direction, holder } => {
                let direction = direction.unwrap_or(self.rules.direction);
                self.grant(&Wish { job, step, leaves, tasks, direction, holder })
            }
            Ask::JobLeaves { job } => self.job_leaves(job),
        }
    }

    fn open(&self, now: i64, bid: &Bid) -> Result<Proposal, Refused> {
        let Bid { job, leaves, .. } = *bid;
        if leaves == 0 {
            return Err(self.zero_leaves(job));
        }
        if let Some(lease) = self.books.leases.get(&job) {
            return Ok(self.open_again(job, lease, leaves));
        }
        if let Some((&other, _)) = self.books.leases_of(job.job).next() {
            return Ok(self.other_run(job, other));
        }
        if let Some(why) = &self.sight.dead {
            return Err(self.not_serving(why));
        }
        let picks = match bid.need {
            None => {
                let picks = self.pick(leaves, None, bid.direction);
                let late = || self.pick_late(job, leaves, bid.direction);
                picks.or_else(late).ok_or_else(|| self.no_leaves(leaves))?
            }
            Some(need) => self.pick_large(now, bid, need)?,
        };
        let told: Option<Vec<Leaf>> = picks.iter().map(|pick| self.leaf(pick)).collect();
        let reshape = self.reshape(now, bid, &picks);
        let open = Record::Open { job, leaves: picks, charged: leaves, at: now };
        let records = reshape.into_iter().chain([open]).collect();
        Ok(Proposal::recorded(records, told.map_or(Verdict::Wait, Verdict::Lease)))
    }

    fn open_again(&self, job: JobKey, lease: &Lease, count: u32) -> Proposal {
        if lease.charged != count {
            return self.lease_differs(job, lease, count).into();
        }
        self.job_leaves(job)
    }

    /// A job runs once at a time: a later start proves that the earlier run is over.
    fn other_run(&self, job: JobKey, other: JobKey) -> Proposal {
        if other.start > job.start || (other.start == job.start && other.uid != job.uid) {
            return self.earlier_run(job, other).into();
        }
        // Asked again after the commit, when the leaves of the earlier run are free.
        Proposal::recorded(vec![Record::Close { job: other, how: Ending::Reconcile }], Verdict::Wait)
    }

    fn job_leaves(&self, job: JobKey) -> Proposal {
        let Some(lease) = self.books.leases.get(&job) else { return self.no_lease(job).into() };
        if lease.leaves.iter().any(|pick| self.pending(pick)) {
            return Proposal::verdict(Verdict::Wait);
        }
        let leaves: Vec<Leaf> = lease.leaves.iter().filter_map(|pick| self.leaf(pick)).collect();
        if leaves.is_empty() {
            return self.all_lost(job, lease).into();
        }
        Proposal::verdict(Verdict::Lease(leaves))
    }

    fn release(&self, job: JobKey, step: StepId) -> Proposal {
        let found = self.books.leases.get(&job).is_some_and(|lease| lease.grants.contains_key(&step));
        let records = if found { vec![Record::Release { job, step }] } else { Vec::new() };
        Proposal::recorded(records, Verdict::Done { found })
    }

    fn close(&self, job: u32, uid: u32, start: Option<i64>, how: Ending) -> Proposal {
        let meant = |key: &&JobKey| key.uid == uid && start.is_none_or(|start| start == key.start);
        let runs = self.books.leases_of(job).map(|(key, _)| key).filter(meant);
        let records: Vec<Record> = runs.map(|&job| Record::Close { job, how }).collect();
        let found = !records.is_empty();
        Proposal::recorded(records, Verdict::Done { found })
    }

    /// Whether an instance of a lease is still to be made.
    pub(super) fn pending(&self, pick: &Pick) -> bool {
        let begun = self.books.generations.get(&pick.leaf.place).is_some_and(|&g| g >= pick.leaf.generation);
        let here = self.books.stands.get(&pick.leaf.place);
        !begun || here.is_some_and(|s| s.generation == pick.leaf.generation && s.stage == Stage::Making)
    }

    /// The leaf as a client sees it; `None` while it does not stand or its GPU does not serve.
    pub(super) fn leaf(&self, pick: &Pick) -> Option<Leaf> {
        let place = &pick.leaf.place;
        if !self.books.stands(&pick.leaf) {
            return None;
        }
        let gpu = &self.sight.healthy(&place.gpu)?.gpu;
        let profile = gpu.profile(pick.profile)?;
        let instance = self.sight.instance(place).filter(|i| i.profile == pick.profile)?;
        let compute = instance.full_compute()?;
        Some(Leaf {
            gpu_uuid: place.gpu.clone(),
            gpu: gpu.index,
            gpu_minor: gpu.minor,
            pci_bus_id: gpu.pci_bus_id.clone(),
            numa: gpu.numa,
            placement: place.placement,
            generation: pick.leaf.generation,
            profile: profile.name.clone(),
            slices: profile.slices,
            memory_mib: profile.memory_mib,
            gi: instance.gi,
            ci: compute.ci,
            uuid: compute.uuid.clone(),
            caps: [instance.cap, compute.cap].into_iter().flatten().collect(),
        })
    }
}
