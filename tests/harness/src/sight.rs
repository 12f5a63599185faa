//! What a task's witness (`contrib/demo/leaf-witness`) saw with its own eyes: NVML, device files, environment.

use crate::{Result, Trouble, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What one task saw.
#[derive(Debug, Clone, Deserialize)]
pub struct Sight {
    /// Name of the node that it ran on.
    pub node: String,
    /// Number of the step; none outside of a step.
    pub step: Option<u32>,
    /// Number of the task in its step; none outside of a step.
    pub task: Option<u32>,
    /// User id.
    pub uid: u32,
    /// The MIG devices that NVML showed.
    pub leaves: Vec<SeenLeaf>,
    /// Minor numbers of the capability device files that could be opened.
    pub caps: Vec<u32>,
    /// Minor numbers of the capability device files that could not.
    pub denied: Vec<u32>,
    /// `CUDA_VISIBLE_DEVICES`, `NVIDIA_VISIBLE_DEVICES` and `MIGSHARE_*`.
    pub env: BTreeMap<String, String>,
}

/// A MIG device as NVML shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SeenLeaf {
    /// `MIG-…`.
    pub uuid: String,
    /// UUID of the GPU that it is part of.
    pub gpu: String,
    /// GPU instance id.
    pub gi: u32,
    /// Compute instance id.
    pub ci: u32,
    /// NVML's name, `NVIDIA H100 80GB HBM3 MIG 1g.10gb` for example.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Sight {
    /// The sights in a text, one JSON object a line, ordered by node, step and task. Other lines are not ours.
    pub fn read_all(text: &str) -> Result<Vec<Sight>> {
        let lines = text.lines().filter(|line| line.starts_with("{\"node\""));
        let mut sights = lines
            .map(|line| serde_json::from_str(line).map_err(|e| Trouble::Unexpected(format!("{e}: {line}"))))
            .collect::<Result<Vec<Sight>>>()?;
        sights.sort_by(|a, b| (&a.node, a.step, a.task).cmp(&(&b.node, b.step, b.task)));
        Ok(sights)
    }

    /// A variable of the environment; empty where it is not set.
    pub fn env(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// UUIDs of the leaves that NVML showed, sorted.
    pub fn uuids(&self) -> Vec<&str> {
        let mut uuids: Vec<&str> = self.leaves.iter().map(|l| l.uuid.as_str()).collect();
        uuids.sort_unstable();
        uuids
    }

    /// Fails unless NVML, device files and environment agree on this number of leaves.
    pub fn has_leaves(&self, count: usize) -> Result {
        let mut told: Vec<&str> =
            self.env("CUDA_VISIBLE_DEVICES").split(',').filter(|u| !u.is_empty()).collect();
        told.sort_unstable();
        ensure(self.leaves.len() == count, || format!("wanted {count} leaves: {self:?}"))?;
        ensure(told == self.uuids(), || format!("CUDA_VISIBLE_DEVICES is not what NVML shows: {self:?}"))?;
        // A leaf is opened by two files: one of the GPU instance, one of the compute instance.
        ensure(self.caps.len() == 2 * count, || format!("opened {} files: {self:?}", self.caps.len()))
    }

    /// Fails unless the task has nothing: no leaf, no open device file, no variable.
    pub fn has_nothing(&self) -> Result {
        self.has_leaves(0)?;
        ensure(!self.denied.is_empty(), || format!("there was no device file to try: {self:?}"))?;
        ensure(self.env.is_empty(), || format!("variables were left: {self:?}"))
    }
}

/// Fails unless there are this many tasks with this many leaves each, and no two of them share one.
pub fn each_has_own(sights: &[Sight], tasks: usize, leaves: usize) -> Result {
    ensure(sights.len() == tasks, || format!("wanted {tasks} tasks: {sights:?}"))?;
    sights.iter().try_for_each(|sight| sight.has_leaves(leaves))?;
    none_shared(sights)
}

/// Fails when two of the tasks on a node see the same leaf.
pub fn none_shared(sights: &[Sight]) -> Result {
    let mut seen = BTreeMap::new();
    for sight in sights {
        for leaf in &sight.leaves {
            let other = seen.insert((&sight.node, &leaf.gpu, leaf.gi), sight.task);
            ensure(other.is_none(), || format!("tasks {:?} and {other:?} share {leaf:?}", sight.task))?;
        }
    }
    Ok(())
}

/// How many GPUs the leaves of these tasks lie on.
pub fn gpus(sights: &[Sight]) -> usize {
    let mut gpus: Vec<(&str, &str)> =
        sights.iter().flat_map(|s| s.leaves.iter().map(|l| (s.node.as_str(), l.gpu.as_str()))).collect();
    gpus.sort_unstable();
    gpus.dedup();
    gpus.len()
}
