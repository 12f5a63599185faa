//! Dynamic MIG: a job runs on one instance; a GPU on which nothing runs is cut anew for a job that waits, serves nobody
//! while that takes place, and is kept for that job until it starts. Instances of a GPU in use stay as they are: the GPU
//! has to be drained first.

use crate::fleet::{Fleet, Started};
use crate::speed::on_instance;
use crate::trace::Job;
use std::collections::BTreeMap;

/// The layouts that a GPU is cut to for a job that needs at least the first instance's slices: the one it needs, and the
/// rest as useful as possible to others.
const LAYOUTS: [&[u32]; 5] = [&[1, 1, 1, 1, 1, 1, 1], &[2, 2, 2, 1], &[3, 2, 2], &[4, 2, 1], &[7]];

/// GPUs that are cut on demand.
pub struct Dynamic {
    gpus: Vec<Cut>,
    /// Seconds that cutting an empty GPU takes.
    pause: f64,
    running: BTreeMap<u32, Vec<(usize, usize)>>,
}

struct Cut {
    node: u32,
    /// Slices of each instance, and whether it is held.
    instances: Vec<(u32, bool)>,
    /// When the last cutting ends.
    ready: f64,
    /// The job that it was cut for and that has not started yet.
    kept_for: Option<u32>,
}

impl Cut {
    fn idle(&self) -> bool {
        self.kept_for.is_none() && self.instances.iter().all(|(_, held)| !held)
    }

    fn serves(&self, now: f64, number: u32) -> bool {
        self.ready <= now && self.kept_for.is_none_or(|job| job == number)
    }
}

impl Dynamic {
    /// So many nodes of so many GPUs, whole at first.
    pub fn new(nodes: u32, gpus: u32, pause: f64) -> Dynamic {
        let cut = |node| Cut { node, instances: vec![(7, false)], ready: 0.0, kept_for: None };
        let gpus = (0..nodes).flat_map(|node| (0..gpus).map(move |_| cut(node)));
        Dynamic { gpus: gpus.collect(), pause, running: BTreeMap::new() }
    }

    /// The smallest instance that the layouts have for so many slices.
    fn profile(slices: u32) -> &'static [u32] {
        LAYOUTS.into_iter().find(|layout| layout[0] >= slices).unwrap_or(LAYOUTS[4])
    }

    /// A free instance of exactly the job's profile: a larger one would be wasted as long as others can be cut.
    fn free(&self, now: f64, number: u32, slices: u32) -> Option<(usize, usize)> {
        let serving = self.gpus.iter().enumerate().filter(|(_, gpu)| gpu.serves(now, number));
        let mut instances =
            serving.flat_map(|(g, gpu)| gpu.instances.iter().enumerate().map(move |(i, x)| (g, i, *x)));
        let fits =
            |&(_, _, (size, held)): &(usize, usize, (u32, bool))| !held && size == Self::profile(slices)[0];
        instances.find(fits).map(|(g, i, _)| (g, i))
    }

    /// So many GPUs of one node for which `fits` holds.
    fn of_one_node(&self, count: usize, fits: impl Fn(&Cut) -> bool) -> Option<Vec<usize>> {
        let last = self.gpus.iter().map(|gpu| gpu.node).max()?;
        (0..=last).find_map(|node| {
            let mine = self.gpus.iter().enumerate().filter(|(_, gpu)| gpu.node == node && fits(gpu));
            let at: Vec<usize> = mine.map(|(g, _)| g).take(count).collect();
            (at.len() == count).then_some(at)
        })
    }

    fn whole(&self, now: f64, number: u32, count: usize) -> Option<Vec<(usize, usize)>> {
        let whole = |gpu: &Cut| gpu.serves(now, number) && gpu.instances == [(7, false)];
        Some(self.of_one_node(count, whole)?.into_iter().map(|g| (g, 0)).collect())
    }

    /// Begins to cut empty GPUs of one node for this job, unless some are being cut for it already.
    fn cut_for(&mut self, now: f64, number: u32, slices: u32, count: usize) {
        if self.gpus.iter().any(|gpu| gpu.kept_for == Some(number)) {
            return;
        }
        let layout = Self::profile(slices);
        for g in self.of_one_node(count, |gpu| gpu.ready <= now && gpu.idle()).into_iter().flatten() {
            let gpu = &mut self.gpus[g];
            gpu.instances = layout.iter().map(|&size| (size, false)).collect();
            gpu.ready = now + self.pause;
            gpu.kept_for = Some(number);
        }
    }
}

impl Fleet for Dynamic {
    fn start(&mut self, now: f64, number: u32, job: &Job) -> Option<Started> {
        let several = job.slices > 7;
        let count = job.slices.div_ceil(7) as usize;
        let found = match several {
            true => self.whole(now, number, count),
            false => self.free(now, number, job.slices).map(|at| vec![at]),
        };
        let Some(at) = found else {
            self.cut_for(now, number, job.slices, count);
            return None;
        };
        let kept = self.gpus.iter_mut().filter(|gpu| gpu.kept_for == Some(number));
        kept.for_each(|gpu| gpu.kept_for = None);
        let mut given = 0;
        for &(g, i) in &at {
            self.gpus[g].instances[i].1 = true;
            given += self.gpus[g].instances[i].0;
        }
        self.running.insert(number, at);
        let seconds = if several { job.seconds } else { on_instance(job.seconds, job.slices, given) };
        Some(Started { seconds, slices: given })
    }

    fn end(&mut self, _now: f64, number: u32) {
        for (g, i) in self.running.remove(&number).into_iter().flatten() {
            self.gpus[g].instances[i].1 = false;
        }
    }

    fn can_ever(&self, job: &Job) -> bool {
        let nodes = self.gpus.iter().map(|gpu| gpu.node).max().map_or(1, |last| last + 1);
        job.slices.div_ceil(7) * nodes <= self.gpus.len() as u32
    }

    fn ready_at(&self, now: f64) -> Option<f64> {
        self.gpus.iter().map(|gpu| gpu.ready).filter(|ready| *ready > now).min_by(f64::total_cmp)
    }
}
