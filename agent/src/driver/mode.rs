//! MIG mode of GPUs that are counted to Slurm. From Hopper on the mode does not survive a reboot or a reset, so the agent
//! switches it on again; on a GPU that was never counted, or is cordoned, the mode is the admin's and is left alone.
//!
//! Safe to try: NVML refuses while anybody uses the GPU, and a GPU without MIG mode holds no leaf of any job.

use migshare_policy::Books;
use migshare_policy::topology::{GpuReport, Health};
use migshare_proto::GpuUuid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pause between two tries on one GPU. A switch may reset the GPU, which takes seconds.
const PAUSE: Duration = Duration::from_secs(30);

/// When the mode of a GPU was last switched.
#[derive(Debug, Default)]
pub(super) struct Switches(BTreeMap<GpuUuid, Instant>);

impl Switches {
    /// The GPUs to switch now.
    pub(super) fn due(&mut self, reports: &[GpuReport], books: &Books, now: Instant) -> Vec<GpuUuid> {
        let ours = |gpu: &GpuUuid| books.gpus.contains_key(gpu) && !books.cordons.contains_key(gpu);
        let off = reports.iter().filter(|r| r.health == Health::MigOff && ours(&r.gpu.uuid));
        let mut due = Vec::new();
        for report in off {
            let gpu = &report.gpu.uuid;
            if self.0.get(gpu).is_none_or(|last| now.duration_since(*last) >= PAUSE) {
                self.0.insert(gpu.clone(), now);
                due.push(gpu.clone());
            }
        }
        due
    }
}
