//! Grants: the part of a job's lease that a step uses.
//!
//! Free leaves of the lease come first. Slurm lets a step have more than is free only with `--overlap`; such a step then
//! shares the leaves that the fewest steps use. Beyond the lease nothing is ever granted.

use super::{Node, Proposal};
use crate::ask::Verdict;
use crate::books::Lease;
use crate::geometry::units_of;
use crate::placement::{Candidate, Direction, Free, choose};
use crate::record::{Grant, Holder, LeafId, Pick, Record};
use crate::tasks::assign;
use migshare_proto::message::Refused;
use migshare_proto::{GpuUuid, JobKey, Leaf, StepId};
use std::collections::BTreeMap;

/// What a step asks for.
pub(super) struct Wish {
    pub(super) job: JobKey,
    pub(super) step: StepId,
    pub(super) leaves: u32,
    pub(super) tasks: u32,
    pub(super) direction: Direction,
    pub(super) holder: Holder,
}

impl Node {
    /// The answer to a step's wish.
    pub(super) fn grant(&self, wish: &Wish) -> Proposal {
        match self.books.leases.get(&wish.job) {
            None => self.no_lease(wish.job).into(),
            Some(lease) if lease.leaves.iter().any(|pick| self.pending(pick)) => {
                Proposal::verdict(Verdict::Wait)
            }
            Some(lease) => self.grant_of(lease, wish).unwrap_or_else(Proposal::from),
        }
    }

    fn grant_of(&self, lease: &Lease, wish: &Wish) -> Result<Proposal, Refused> {
        let instances = self.instances(lease, wish)?;
        if let Some(grant) = lease.grants.get(&wish.step) {
            return self.grant_again(grant, lease, wish, instances);
        }
        let usable: Vec<&Pick> = lease.leaves.iter().filter(|pick| self.leaf(pick).is_some()).collect();
        if (usable.len() as u32) < instances {
            return Err(self.some_lost(wish.job, instances, usable.len() as u32));
        }
        let (leaves, shared) = self.choose_leaves(lease, &usable, instances as usize, wish.direction);
        let gpus: Vec<&GpuUuid> = leaves.iter().map(|leaf| &leaf.place.gpu).collect();
        let tasks = assign(&gpus, wish.tasks as usize)
            .ok_or_else(|| self.fewer_than_tasks(wish.job, wish.step, instances, wish.tasks))?;
        let grant = Grant { leaves, tasks, shared, holder: wish.holder };
        let verdict = self.granted(lease, &grant);
        Ok(Proposal::recorded(vec![Record::Grant { job: wish.job, step: wish.step, grant }], verdict))
    }

    /// How many instances a step gets for the leaves that Slurm counts for it.
    fn instances(&self, lease: &Lease, wish: &Wish) -> Result<u32, Refused> {
        let Wish { job, step, leaves, tasks, .. } = *wish;
        if step.is_special() {
            return Err(self.special_step(job, step));
        }
        if leaves == 0 || tasks == 0 {
            return Err(self.no_tasks(job, step));
        }
        if leaves > lease.charged {
            return Err(self.beyond_lease(job, step, leaves, lease.charged));
        }
        let each = lease.charged / (lease.leaves.len() as u32).max(1);
        let instances = leaves / each.max(1);
        if instances < tasks {
            return Err(self.fewer_than_tasks(job, step, instances, tasks));
        }
        Ok(instances)
    }

    fn grant_again(
        &self,
        grant: &Grant,
        lease: &Lease,
        wish: &Wish,
        asked: u32,
    ) -> Result<Proposal, Refused> {
        let held = grant.leaves.len() as u32;
        if held != asked || grant.tasks.len() as u32 != wish.tasks {
            return Err(self.grant_differs(wish.job, wish.step, held, asked));
        }
        let verdict = self.granted(lease, grant);
        if grant.holder == wish.holder {
            return Ok(Proposal::verdict(verdict));
        }
        let grant = Grant { holder: wish.holder, ..grant.clone() };
        Ok(Proposal::recorded(vec![Record::Grant { job: wish.job, step: wish.step, grant }], verdict))
    }

    fn granted(&self, lease: &Lease, grant: &Grant) -> Verdict {
        let pick = |leaf: &LeafId| lease.leaves.iter().find(|pick| pick.leaf == *leaf);
        let leaves: Option<Vec<Leaf>> = grant.leaves.iter().map(|leaf| self.leaf(pick(leaf)?)).collect();
        match leaves {
            Some(leaves) => Verdict::Granted { leaves, tasks: grant.tasks.clone(), shared: grant.shared },
            None => Verdict::Refused(self.leaf_lost(grant)),
        }
    }

    /// `count` of the usable leaves, by GPU, and how many of them other steps use.
    fn choose_leaves(
        &self,
        lease: &Lease,
        usable: &[&Pick],
        count: usize,
        direction: Direction,
    ) -> (Vec<LeafId>, u32) {
        let users = |pick: &Pick| lease.grants.values().filter(|g| g.leaves.contains(&pick.leaf)).count();
        let (free, mut busy): (Vec<&Pick>, Vec<&Pick>) = usable.iter().partition(|pick| users(pick) == 0);
        let mut chosen = match count < free.len() {
            true => self.choose_free(&free, count, direction),
            false => free,
        };
        let shared = count - chosen.len();
        busy.sort_by_key(|pick| users(pick));
        chosen.extend(busy.into_iter().take(shared));
        let position = |pick: &&Pick| lease.leaves.iter().position(|p| p.leaf == pick.leaf);
        chosen.sort_by_key(position);
        (chosen.into_iter().map(|pick| pick.leaf.clone()).collect(), shared as u32)
    }

    /// `count` of more than `count` free leaves, so that those left over are as useful to the next step as possible.
    fn choose_free<'a>(&self, free: &[&'a Pick], count: usize, direction: Direction) -> Vec<&'a Pick> {
        let mut gpus: BTreeMap<&GpuUuid, Vec<&'a Pick>> = BTreeMap::new();
        for pick in free {
            gpus.entry(&pick.leaf.place.gpu).or_default().push(pick);
        }
        let candidates: Vec<Candidate<'_>> =
            gpus.iter().filter_map(|(gpu, picks)| self.lease_candidate(gpu, picks)).collect();
        let lists: Vec<&Vec<&Pick>> = gpus.values().collect();
        let chosen = choose(&candidates, count as u32, direction).unwrap_or_default();
        chosen.into_iter().map(|(gpu, at)| lists[gpu][at]).collect()
    }

    fn lease_candidate(&self, gpu: &GpuUuid, picks: &[&Pick]) -> Option<Candidate<'_>> {
        let view = self.sight.healthy(gpu)?;
        let places = || picks.iter().map(|pick| pick.leaf.place.placement);
        let free = places().map(|placement| Free { placement, stands: true }).collect();
        let all = (1u64 << view.gpu.units.min(63)) - 1;
        let used = all & !units_of(places());
        Some(Candidate { geometry: &view.geometry, numa: view.gpu.numa, used, free })
    }
}
