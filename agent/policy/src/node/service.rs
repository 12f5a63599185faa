//! Whether Slurm may send jobs here, and what is wrong.

use super::sight::View;
use super::{Node, Service};
use crate::geometry::units_of;
use crate::layout::leaves;
use crate::topology::Health;
use migshare_proto::{GpuUuid, JobKey};
use std::collections::BTreeSet;

impl Node {
    /// Number of leaves that Slurm is told this node has. Never changes with the layout.
    pub fn counted(&self) -> u32 {
        self.books.gpus.values().map(|gpu| gpu.leaves).sum()
    }

    /// Number of counted leaves that can serve: those that are leased, free or being made.
    pub fn usable(&self) -> u32 {
        self.books.gpus.iter().map(|(gpu, enrolled)| self.usable_of(gpu).min(enrolled.leaves)).sum()
    }

    /// A GPU that works and is not cordoned. On others nothing is made or destroyed: somebody may have his hands on them.
    pub(super) fn in_service(&self, gpu: &GpuUuid) -> Option<&View> {
        self.sight.healthy(gpu).filter(|_| !self.books.cordons.contains_key(gpu))
    }

    fn usable_of(&self, gpu: &GpuUuid) -> u32 {
        self.in_service(gpu).map_or(0, |view| {
            let out = self.out_of_use(view);
            leaves(&view.gpu).iter().filter(|cut| cut.placement.mask() & out == 0).count() as u32
        })
    }

    /// Units that are quarantined or used by processes of no job.
    fn out_of_use(&self, view: &View) -> u64 {
        let quarantined = self.books.quarantines_on(&view.gpu.uuid);
        let intruded = view.instances.iter().filter(|i| self.intruded(view, i)).map(|i| i.placement);
        units_of(quarantined.map(|(place, _)| place.placement).chain(intruded))
    }

    /// Whether Slurm may send jobs.
    pub fn service(&self) -> Service {
        if self.sight.dead.is_none() && (!self.ready() || self.unknown_gpus()) {
            return Service::Starting;
        }
        let (usable, counted) = (self.usable(), self.counted());
        if self.sight.dead.is_none() && self.defect.is_none() && usable == counted {
            return Service::Serving;
        }
        let problem = self.problems().into_iter().next().unwrap_or_default();
        Service::Unfit { reason: format!("migshare: {usable} of {counted} leaves usable: {problem}") }
    }

    fn unknown_gpus(&self) -> bool {
        let mut in_mig_mode = self.sight.gpus.values().filter(|view| view.health == Health::Mig);
        in_mig_mode.any(|view| !self.books.gpus.contains_key(&view.gpu.uuid))
    }

    /// What is wrong, in words; the gravest first.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.defect.clone().into_iter().collect();
        problems.extend(self.sight.dead.iter().map(|why| format!("NVML does not answer: {why}")));
        if self.sight.scanned {
            problems.extend(self.books.gpus.keys().filter_map(|gpu| self.gpu_problem(gpu)));
        }
        problems.extend(self.books.quarantines.iter().map(|(place, q)| {
            format!("{} on {} is quarantined: {}", place.placement, self.gpu_name(&place.gpu), q.note)
        }));
        problems.extend(self.intrusions());
        problems.extend(self.lost_leaves());
        problems.extend(self.sight.stale.iter().filter_map(|job| self.forgotten_by_slurm(job)));
        if self.sight.scanned && self.books.gpus.is_empty() && !self.unknown_gpus() {
            problems.push("no gpu of this node is in MIG mode".to_owned());
        }
        problems
    }

    fn gpu_problem(&self, gpu: &GpuUuid) -> Option<String> {
        let name = self.gpu_name(gpu);
        let cordoned =
            self.books.cordons.get(gpu).map(|cordon| format!("{name} is cordoned: {}", cordon.note));
        let Some(view) = self.sight.gpus.get(gpu) else {
            return Some(format!("{name} ({gpu}) is missing"));
        };
        match view.health {
            Health::Mig => cordoned,
            Health::MigOff => Some(format!("{name} is not in MIG mode")),
            Health::ResetRequired => Some(format!("{name} needs a reset")),
            Health::Lost => Some(format!("{name} is lost")),
        }
    }

    /// `gpu 1`, by the index that it has or had.
    pub(super) fn gpu_name(&self, gpu: &GpuUuid) -> String {
        let seen = self.sight.gpus.get(gpu).map(|view| view.gpu.index);
        let index = seen.or_else(|| self.books.gpus.get(gpu).map(|enrolled| enrolled.index));
        index.map_or_else(|| gpu.to_string(), |index| format!("gpu {index}"))
    }

    fn intrusions(&self) -> Vec<String> {
        let views = self.sight.gpus.values();
        let all = views.flat_map(|view| view.instances.iter().map(move |i| (view, i)));
        let intruded = all.filter(|(view, i)| self.intruded(view, i));
        let text = |(view, i): (&View, &crate::topology::Instance)| {
            let pids: Vec<String> =
                i.compute.iter().flat_map(|c| &c.processes).map(ToString::to_string).collect();
            format!(
                "{} on gpu {} is used by process {} of no job",
                i.placement,
                view.gpu.index,
                pids.join(", ")
            )
        };
        intruded.map(text).collect()
    }

    /// A job that Slurm does not know and that runs.
    fn forgotten_by_slurm(&self, job: &JobKey) -> Option<String> {
        let users = self.users_of(job);
        let text = format!(
            "Slurm does not know job {job}, and it still runs: {}; it keeps its leaves until that ends, or until \
             `migshare evict {} --force`",
            users.join(", "),
            job.job
        );
        (!users.is_empty()).then_some(text)
    }

    /// Who uses the leaves of a job: its steps, by the slurmstepd whose end was not seen, and processes that the last look saw on
    /// its leaves, as those of a batch script, which takes no grant.
    pub(super) fn users_of(&self, job: &JobKey) -> Vec<String> {
        let Some(lease) = self.books.leases.get(job) else { return Vec::new() };
        let steps =
            lease.grants.iter().map(|(step, grant)| format!("step {step} (pid {})", grant.holder.pid));
        let instances = lease.leaves.iter().filter_map(|pick| self.sight.instance(&pick.leaf.place));
        let seen: BTreeSet<u32> =
            instances.flat_map(|i| &i.compute).flat_map(|c| &c.processes).copied().collect();
        steps.chain(seen.into_iter().map(|pid| format!("process {pid}"))).collect()
    }

    fn lost_leaves(&self) -> Vec<String> {
        let leases = self.books.leases.iter();
        let picks = leases.flat_map(|(job, lease)| lease.leaves.iter().map(move |pick| (job, pick)));
        let lost = picks.filter(|(_, pick)| {
            let settled = self.sight.healthy(&pick.leaf.place.gpu).is_some();
            settled && !self.pending(pick) && !self.books.stands(&pick.leaf)
        });
        let text = |(job, pick): (&migshare_proto::JobKey, &crate::record::Pick)| {
            let place = &pick.leaf.place;
            format!("job {job} lost its leaf {} on {}", place.placement, self.gpu_name(&place.gpu))
        };
        lost.map(text).collect()
    }
}
