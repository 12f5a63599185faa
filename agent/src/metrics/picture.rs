//! Figures that the status shows: built anew at each scrape, so that what is gone leaves no series behind.

use super::table;
use migshare_proto::status::{Filter, GpuState, GpuStatus, LeafState, LeafStatus, SegmentsStatus, Status};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The families of one picture.
pub(super) fn families(status: &Status) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let mut out = Gauges::default();
    let Status { version, driver, cuda, layout, .. } = status;
    out.set("migshare_build_info", &[version, driver, cuda, layout], 1.0)?;
    let filter = match status.isolation.filter {
        Filter::Bpf => "bpf",
        Filter::Devices => "devices",
        Filter::None => "none",
    };
    out.set("migshare_isolation_info", &[filter], 1.0)?;
    let grants: usize = status.leases.iter().map(|l| l.grants.len()).sum();
    for (name, value) in [
        ("migshare_leaves_cordoned", status.gpus.iter().map(cordoned).sum()),
        ("migshare_leaves_counted", f64::from(status.counted)),
        ("migshare_leaves_usable", f64::from(status.usable)),
        ("migshare_leases", status.leases.len() as f64),
        ("migshare_grants", grants as f64),
        ("migshare_problems", status.problems.len() as f64),
    ] {
        out.set(name, &[], value)?;
    }
    if let Some(SegmentsStatus { steps, promised, limit }) = status.segments {
        out.set("migshare_segments", &[], f64::from(steps))?;
        out.set("migshare_segments_promised_bytes", &[], promised as f64)?;
        out.set("migshare_segments_limit_bytes", &[], limit as f64)?;
    }
    for gpu in &status.gpus {
        let is_here = |other: &GpuStatus| other.index == gpu.index && other.state != GpuState::Missing;
        // Indices move up where a GPU is gone: series of this one would be written over those of the one that has its index now.
        if gpu.state != GpuState::Missing || !status.gpus.iter().any(is_here) {
            gpu_gauges(&mut out, gpu)?;
        }
    }
    Ok(out.0.into_values().flat_map(|gauge| gauge.collect()).collect())
}

/// The states of a GPU by their names on the wire.
const STATES: &[(GpuState, &str)] = &[
    (GpuState::Serving, "serving"),
    (GpuState::Cordoned, "cordoned"),
    (GpuState::MigOff, "mig_off"),
    (GpuState::Lost, "lost"),
    (GpuState::ResetRequired, "reset_required"),
    (GpuState::Missing, "missing"),
];

fn gpu_gauges(out: &mut Gauges, gpu: &GpuStatus) -> Result<(), prometheus::Error> {
    let index = gpu.index.to_string();
    let at = index.as_str();
    out.set("migshare_gpu_info", &[at, &gpu.uuid.to_string(), &gpu.pci_bus_id, &gpu.model], 1.0)?;
    out.set("migshare_gpu_serving", &[at], f64::from(u8::from(gpu.state == GpuState::Serving)))?;
    for (state, name) in STATES {
        out.set("migshare_gpu_state", &[at, name], f64::from(u8::from(gpu.state == *state)))?;
    }
    out.set("migshare_gpu_stranded_compute_slices", &[at], f64::from(stranded(gpu)))?;
    out.set("migshare_fragmentation_ratio", &[at], fragmentation(gpu))?;
    let (now, waits) = gpu.order.as_ref().map_or((0, 0), |order| (order.now, order.waits.len()));
    out.set("migshare_changes_pending", &[at], f64::from(now))?;
    out.set("migshare_changes_deferred", &[at], waits as f64)?;
    for (state, name) in
        [(LeafState::Free, "free"), (LeafState::Leased, "leased"), (LeafState::Quarantined, "quarantined")]
    {
        let n = gpu.leaves.iter().filter(|l| l.state == state).count();
        out.set("migshare_leaves", &[at, name], n as f64)?;
    }
    gpu.leaves.iter().try_for_each(|leaf| leaf_gauges(out, at, leaf))
}

fn leaf_gauges(out: &mut Gauges, gpu: &str, leaf: &LeafStatus) -> Result<(), prometheus::Error> {
    let (name, gi) = (format!("{gpu}/{}", leaf.placement), leaf.gi.to_string());
    let (start, size) = (leaf.placement.start.to_string(), leaf.placement.size.to_string());
    out.set("migshare_leaf_info", &[gpu, &name, &gi, &leaf.profile, &leaf.uuid, &start, &size], 1.0)?;
    match leaf.job {
        Some(job) => out.set("migshare_lease_job_info", &[gpu, &name, &gi, &job.job.to_string()], 1.0),
        None => Ok(()),
    }
}

/// Leaves that Slurm counts on a cordoned GPU: what an instance of the whole GPU costs.
fn cordoned(gpu: &GpuStatus) -> f64 {
    let whole = gpu.prices.iter().map(|p| p.leaves).max().unwrap_or(0);
    if gpu.state == GpuState::Cordoned { f64::from(whole) } else { 0.0 }
}

/// Compute slices that no instance covers. Sizes are looked up in the GPU's price list, which has every plain profile.
fn stranded(gpu: &GpuStatus) -> u8 {
    let slices = |profile: &str| gpu.prices.iter().find(|p| p.profile == profile).map_or(0, |p| p.slices);
    let all = gpu.prices.iter().map(|p| p.slices).max().unwrap_or(0);
    all.saturating_sub(gpu.leaves.iter().map(|l| slices(&l.profile)).sum())
}

/// Share of the units of free leaves that lie outside the largest run of them; 0 where none is free.
fn fragmentation(gpu: &GpuStatus) -> f64 {
    let free =
        gpu.leaves.iter().filter(|l| l.state == LeafState::Free).fold(0, |m, l| m | l.placement.mask());
    let (mut largest, mut run) = (0, 0);
    for unit in 0..u64::BITS {
        run = if free >> unit & 1 == 1 { run + 1 } else { 0 };
        largest = largest.max(run);
    }
    if free == 0 { 0.0 } else { 1.0 - f64::from(largest) / f64::from(free.count_ones()) }
}

/// Gauges by name, made when first set.
#[derive(Default)]
struct Gauges(BTreeMap<&'static str, GaugeVec>);

impl Gauges {
    fn set(&mut self, name: &str, labels: &[&str], value: f64) -> Result<(), prometheus::Error> {
        let row = table::row(name)?;
        let gauge = match self.0.entry(row.name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(GaugeVec::new(Opts::new(row.name, row.help), row.labels)?),
        };
        gauge.get_metric_with_label_values(labels)?.set(value);
        Ok(())
    }
}
