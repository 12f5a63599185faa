//! The picture that `migshare status` shows, without what only the daemon knows (names and versions).

use super::Node;
use super::sight::View;
use crate::books::{Lease, Quarantine};
use crate::charge::{Price, table};
use crate::record::Place;
use crate::topology::{Health, Instance};
use migshare_proto::status::{
    GpuState, GpuStatus, GrantStatus, LeafState, LeafStatus, LeaseStatus, OrderStatus, PriceStatus,
};
use migshare_proto::{GpuUuid, JobKey};

/// What a node looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Name of the layout.
    pub layout: String,
    /// Leaves that Slurm is told the node has.
    pub counted: u32,
    /// Leaves that can serve.
    pub usable: u32,
    /// The GPUs, by index.
    pub gpus: Vec<GpuStatus>,
    /// The open leases, by job.
    pub leases: Vec<LeaseStatus>,
    /// What is wrong.
    pub problems: Vec<String>,
}

impl Node {
    /// The picture of this node.
    pub fn status(&self) -> Picture {
        let mut gpus: Vec<GpuStatus> = self.sight.gpus.values().map(|view| self.gpu_status(view)).collect();
        gpus.extend(self.missing().map(|(gpu, index)| self.missing_status(gpu, index)));
        gpus.sort_by_key(|gpu| gpu.index);
        Picture {
            layout: self.rules.layout.to_string(),
            counted: self.counted(),
            usable: self.usable(),
            gpus,
            leases: self.books.leases.iter().map(|(job, lease)| lease_status(*job, lease)).collect(),
            problems: self.problems(),
        }
    }

    fn gpu_status(&self, view: &View) -> GpuStatus {
        let gpu = &view.gpu;
        let mut leaves: Vec<LeafStatus> = view.instances.iter().map(|i| self.leaf_status(view, i)).collect();
        leaves.sort_by_key(|leaf| leaf.placement);
        GpuStatus {
            index: gpu.index,
            uuid: gpu.uuid.clone(),
            model: gpu.model.clone(),
            pci_bus_id: gpu.pci_bus_id.clone(),
            pci_device: (gpu.pci_device != 0).then_some(gpu.pci_device),
            numa: gpu.numa,
            units: gpu.units,
            cordon: self.cordon_note(&gpu.uuid),
            state: match view.health {
                Health::Mig if self.books.cordons.contains_key(&gpu.uuid) => GpuState::Cordoned,
                Health::Mig => GpuState::Serving,
                Health::MigOff => GpuState::MigOff,
                Health::Lost => GpuState::Lost,
                Health::ResetRequired => GpuState::ResetRequired,
            },
            order: self.order_status(view),
            leaves,
            prices: table(gpu).into_iter().map(price_status).collect(),
        }
    }

    fn cordon_note(&self, gpu: &GpuUuid) -> Option<String> {
        self.books.cordons.get(gpu).map(|cordon| cordon.note.clone())
    }

    /// The GPUs that are counted and not seen, with the index that they had.
    fn missing(&self) -> impl Iterator<Item = (&GpuUuid, u32)> {
        let counted = self.books.gpus.iter().filter(|_| self.sight.scanned);
        let missing = counted.filter(|(gpu, _)| !self.sight.gpus.contains_key(*gpu));
        missing.map(|(gpu, enrolled)| (gpu, enrolled.index))
    }

    fn missing_status(&self, gpu: &GpuUuid, index: u32) -> GpuStatus {
        GpuStatus {
            index,
            uuid: gpu.clone(),
            model: String::new(),
            pci_bus_id: String::new(),
            pci_device: None,
            numa: None,
            units: 0,
            state: GpuState::Missing,
            cordon: self.cordon_note(gpu),
            order: None,
            leaves: Vec::new(),
            prices: Vec::new(),
        }
    }

    /// What is left of an ordered layout; none where the GPU has the configured one.
    fn order_status(&self, view: &View) -> Option<OrderStatus> {
        let uuid = &view.gpu.uuid;
        self.books.is_ordered(uuid).then(|| {
            let plan = self.left_on(uuid);
            OrderStatus {
                layout: self.layout_of(uuid).to_string(),
                now: plan.moves.len() as u32,
                waits: plan.deferred.into_iter().map(|d| d.why).collect(),
            }
        })
    }

    fn leaf_status(&self, view: &View, instance: &Instance) -> LeafStatus {
        let place = view.place(instance.placement);
        let profile = view.gpu.profile(instance.profile);
        let job = self.books.lessee(&place);
        let note = self.leaf_note(view, instance, &place);
        LeafStatus {
            placement: instance.placement,
            profile: profile.map_or_else(|| format!("profile {}", instance.profile), |p| p.name.clone()),
            memory_mib: profile.map_or(0, |p| p.memory_mib),
            gi: instance.gi,
            uuid: instance.compute.first().map_or_else(String::new, |c| c.uuid.clone()),
            generation: self.books.stands.get(&place).map_or(0, |s| s.generation),
            state: match (&note, job) {
                (Some(_), _) => LeafState::Quarantined,
                (None, Some(_)) => LeafState::Leased,
                (None, None) => LeafState::Free,
            },
            note,
            job,
            steps: job.map_or_else(Vec::new, |job| self.steps_on(job, &place)),
        }
    }

    fn leaf_note(&self, view: &View, instance: &Instance, place: &Place) -> Option<String> {
        let quarantined = self.books.quarantines.iter().find(|(q, _)| q.overlaps(place));
        let note = quarantined.map(|(_, Quarantine { note, .. })| note.clone());
        note.or_else(|| self.intruded(view, instance).then(|| "used by a process of no job".to_owned()))
    }

    fn steps_on(&self, job: JobKey, place: &Place) -> Vec<migshare_proto::StepId> {
        let grants = self.books.leases.get(&job).into_iter().flat_map(|lease| &lease.grants);
        let uses = grants.filter(|(_, grant)| grant.leaves.iter().any(|leaf| leaf.place == *place));
        uses.map(|(step, _)| *step).collect()
    }
}

fn price_status(price: Price) -> PriceStatus {
    let Price { name, slices, memory_mib, leaves, .. } = price;
    PriceStatus { profile: name, slices, memory_mib, leaves }
}

fn lease_status(job: JobKey, lease: &Lease) -> LeaseStatus {
    let grants = lease.grants.iter().map(|(step, grant)| GrantStatus {
        step: *step,
        leaves: grant.leaves.len() as u32,
        holder: grant.holder.pid,
    });
    LeaseStatus { job, opened: lease.opened, leaves: lease.charged, grants: grants.collect() }
}
