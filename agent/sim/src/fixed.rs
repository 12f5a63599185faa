//! Static MIG: every GPU keeps one layout for ever, and a job runs on one instance.

use crate::fleet::{Fleet, Started};
use crate::speed::on_instance;
use crate::trace::Job;
use std::collections::BTreeMap;

/// GPUs with fixed layouts. Jobs of several GPUs take whole ones of one node.
pub struct Fixed {
    /// The instances: node, slices, who has it.
    instances: Vec<Slot>,
    nodes: u32,
    running: BTreeMap<u32, Vec<usize>>,
}

struct Slot {
    node: u32,
    slices: u32,
    held: bool,
}

impl Fixed {
    /// So many nodes; each has GPUs with these layouts, given as slices of their instances.
    pub fn new(nodes: u32, layouts: &[&[u32]]) -> Fixed {
        let slots = |node| layouts.concat().into_iter().map(move |slices| Slot { node, slices, held: false });
        Fixed { instances: (0..nodes).flat_map(slots).collect(), nodes, running: BTreeMap::new() }
    }

    /// The smallest free instance that is large enough.
    fn one(&self, slices: u32) -> Option<Vec<usize>> {
        let free = self.instances.iter().enumerate().filter(|(_, i)| !i.held && i.slices >= slices);
        free.min_by_key(|(_, i)| i.slices).map(|(at, _)| vec![at])
    }

    /// So many whole GPUs of one node.
    fn whole(&self, count: usize) -> Option<Vec<usize>> {
        (0..self.nodes).find_map(|node| {
            let free = self.instances.iter().enumerate();
            let free = free.filter(|(_, i)| i.node == node && !i.held && i.slices == 7);
            let at: Vec<usize> = free.map(|(at, _)| at).take(count).collect();
            (at.len() == count).then_some(at)
        })
    }

    fn largest(&self) -> u32 {
        self.instances.iter().map(|i| i.slices).max().unwrap_or(0)
    }
}

impl Fleet for Fixed {
    fn start(&mut self, _now: f64, number: u32, job: &Job) -> Option<Started> {
        let several = job.slices > 7;
        let at = if several { self.whole(job.slices.div_ceil(7) as usize)? } else { self.one(job.slices)? };
        let given: u32 = at.iter().map(|&i| self.instances[i].slices).sum();
        at.iter().for_each(|&i| self.instances[i].held = true);
        self.running.insert(number, at);
        let seconds = if several { job.seconds } else { on_instance(job.seconds, job.slices, given) };
        Some(Started { seconds, slices: given })
    }

    fn end(&mut self, _now: f64, number: u32) {
        for at in self.running.remove(&number).into_iter().flatten() {
            self.instances[at].held = false;
        }
    }

    fn can_ever(&self, job: &Job) -> bool {
        let whole = |node| self.instances.iter().filter(|i| i.node == node && i.slices == 7).count() as u32;
        match job.slices {
            0..=7 => job.slices <= self.largest(),
            more => (0..self.nodes).any(|node| whole(node) * 7 >= more),
        }
    }

    fn ready_at(&self, _now: f64) -> Option<f64> {
        None
    }
}
