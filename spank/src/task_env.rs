//! The environment of a task: what is set for a task with leaves, what is cleared for one without.
//!
//! The names and their meaning are in `migshare_proto::env`. Pure: the caller applies the changes.

use migshare_proto::Leaf;
use migshare_proto::env::{self, Scope, VARIABLES};
use std::path::Path;

/// Variables by which Slurm itself says that it gave the job whole GPUs (`gres/gpu`).
const SLURM_GPUS: [&str; 2] = ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"];
/// What a MIG UUID starts with.
const MIG: &str = "MIG-";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set, whatever was there.
    Set(&'static str, String),
    /// Remove.
    Unset(&'static str),
}

/// One task with leaves.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Rank among the step's tasks on this node.
    pub rank: u32,
    /// Number of the step's tasks on this node.
    pub size: u32,
    /// All leaves of the step on this node.
    pub step: &'a [Leaf],
    /// Positions of the task's leaves in `step`.
    pub mine: &'a [u32],
    /// Where the step's ranks fetch the memory that they share, if they have any.
    pub segment: Option<&'a Path>,
}

impl<'a> Task<'a> {
    /// The task's own leaves.
    pub fn leaves(self) -> impl Iterator<Item = &'a Leaf> {
        self.mine.iter().filter_map(move |at| self.step.get(*at as usize))
    }
}

/// The changes for a task with leaves. `now` gives the present value of a variable.
pub fn granted(task: Task<'_>, now: impl Fn(&str) -> Option<String>) -> Vec<Change> {
    let own = |of: fn(&Leaf) -> String| task.leaves().map(of).collect::<Vec<_>>().join(",");
    let uuids = own(|l| l.uuid.clone());
    let all = task.step.iter().map(|l| l.uuid.as_str()).collect::<Vec<_>>().join(",");
    let least = task.leaves().map(|l| l.memory_mib).min().unwrap_or_default();
    let mut changes = vec![
        Change::Set(env::CUDA_VISIBLE_DEVICES, uuids.clone()),
        Change::Set(env::NVIDIA_VISIBLE_DEVICES, all.clone()),
        Change::Set(env::LEAVES, uuids),
        Change::Set(env::LEAF_COUNT, task.mine.len().to_string()),
        Change::Set(env::PLACEMENTS, own(|l| format!("{}/{}", l.gpu, l.placement))),
        Change::Set(env::PROFILES, own(|l| l.profile.clone())),
        Change::Set(env::MEMORY_MIB, least.to_string()),
        Change::Set(env::STEP_LEAVES, all),
        Change::Set(env::RANK, task.rank.to_string()),
        Change::Set(env::SIZE, task.size.to_string()),
    ];
    let numa = task.leaves().next().and_then(|leaf| leaf.numa);
    for (name, value) in [
        (env::SEGMENT_SOCKET, task.segment.map(|socket| socket.display().to_string())),
        (env::NUMA_NODE, numa.map(|node| node.to_string())),
    ] {
        match value {
            Some(value) => changes.push(Change::Set(name, value)),
            // The step of a batch script inherits what the script has.
            None if now(name).is_some() => changes.push(Change::Unset(name)),
            None => {}
        }
    }
    if now(env::NCCL_MULTI_RANK_GPU_ENABLE).is_none() {
        changes.push(Change::Set(env::NCCL_MULTI_RANK_GPU_ENABLE, "1".to_owned()));
    }
    changes
}

/// The changes for a task without leaves: a step inherits all that its batch script had.
pub fn cleared(now: impl Fn(&str) -> Option<String>) -> Vec<Change> {
    let names_leaves = |name: &str| now(name).is_some_and(|value| value.contains(MIG));
    let has_gpus = SLURM_GPUS.iter().any(|name| now(name).is_some());
    let stale = |name: &str| match name {
        // Indices of whole GPUs are right where Slurm gave them, and nowhere else on a node of leaves.
        env::CUDA_VISIBLE_DEVICES => names_leaves(name) || !has_gpus,
        // "all", "void" and indices are for the container runtime and do not name a leaf.
        env::NVIDIA_VISIBLE_DEVICES => names_leaves(name),
        _ => true,
    };
    let ours = VARIABLES.iter().filter(|v| matches!(v.scope, Scope::Task | Scope::Step)).map(|v| v.name);
    ours.filter(|name| now(name).is_some() && stale(name)).map(Change::Unset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use migshare_proto::{GpuUuid, Placement};
    use std::collections::HashMap;

    fn leaf(gpu: u32, start: u8, memory_mib: u64) -> Leaf {
        Leaf {
            gpu_uuid: GpuUuid::new(&format!("GPU-{gpu}")),
            gpu,
            gpu_minor: gpu,
            pci_bus_id: String::new(),
            numa: Some(gpu),
            placement: Placement { start, size: 1 },
            generation: 1,
            profile: "1g.10gb".to_owned(),
            slices: 1,
            memory_mib,
            gi: 7,
            ci: 0,
            uuid: format!("MIG-{gpu}-{start}"),
            caps: vec![1, 2],
        }
    }

    fn set(changes: &[Change]) -> HashMap<&str, &str> {
        let pairs = changes.iter().map(|c| match c {
            Change::Set(name, value) => (*name, value.as_str()),
            Change::Unset(name) => (*name, "unset"),
        });
        pairs.collect()
    }

    #[test]
    fn a_task_sees_its_leaves_and_a_container_the_steps() {
        let leaves = [leaf(0, 0, 10), leaf(0, 1, 9), leaf(1, 6, 20)];
        let task = Task {
            rank: 1,
            size: 2,
            step: &leaves,
            mine: &[1, 2],
            segment: Some(Path::new("/run/segment.sock")),
        };
        let changes = granted(task, |_| None);
        let env = set(&changes);
        assert_eq!(env["CUDA_VISIBLE_DEVICES"], "MIG-0-1,MIG-1-6");
        assert_eq!(env["NVIDIA_VISIBLE_DEVICES"], "MIG-0-0,MIG-0-1,MIG-1-6");
        assert_eq!(env["MIGSHARE_LEAVES"], "MIG-0-1,MIG-1-6");
        assert_eq!(env["MIGSHARE_LEAF_COUNT"], "2");
        assert_eq!(env["MIGSHARE_PLACEMENTS"], "0/1:1,1/6:1");
        assert_eq!(env["MIGSHARE_PROFILES"], "1g.10gb,1g.10gb");
        assert_eq!(env["MIGSHARE_MEMORY_MIB"], "9");
        assert_eq!(env["MIGSHARE_NUMA_NODE"], "0", "of the first");
        assert_eq!(env["MIGSHARE_STEP_LEAVES"], env["NVIDIA_VISIBLE_DEVICES"]);
        assert_eq!((env["MIGSHARE_RANK"], env["MIGSHARE_SIZE"]), ("1", "2"));
        assert_eq!(env["MIGSHARE_SEGMENT_SOCKET"], "/run/segment.sock");
        assert_eq!(env["NCCL_MULTI_RANK_GPU_ENABLE"], "1");
    }

    #[test]
    fn every_documented_output_is_set_for_a_task_with_leaves() {
        let leaves = [leaf(0, 0, 10)];
        let segment = Some(Path::new("/run/segment.sock"));
        let changes = granted(Task { rank: 0, size: 1, step: &leaves, mine: &[0], segment }, |_| None);
        let env = set(&changes);
        for v in VARIABLES.iter().filter(|v| matches!(v.scope, Scope::Task | Scope::Step)) {
            assert!(env.contains_key(v.name), "{}", v.name);
        }
    }

    #[test]
    fn the_users_word_on_nccl_stays() {
        let leaves = [leaf(0, 0, 10)];
        let task = Task { rank: 0, size: 1, step: &leaves, mine: &[0], segment: None };
        let changes = granted(task, |name| (name == env::NCCL_MULTI_RANK_GPU_ENABLE).then(|| "0".to_owned()));
        assert!(!set(&changes).contains_key(env::NCCL_MULTI_RANK_GPU_ENABLE));
    }

    #[test]
    fn a_step_without_a_segment_does_not_inherit_the_one_of_its_batch_script() {
        let leaves = [leaf(0, 0, 10)];
        let task = Task { rank: 0, size: 1, step: &leaves, mine: &[0], segment: None };
        let changes = granted(task, |name| (name == env::SEGMENT_SOCKET).then(|| "/run/x".to_owned()));
        assert_eq!(set(&changes)["MIGSHARE_SEGMENT_SOCKET"], "unset");
        assert!(!set(&granted(task, |_| None)).contains_key("MIGSHARE_SEGMENT_SOCKET"));
    }

    #[test]
    fn where_no_numa_node_is_known_none_is_inherited() {
        let leaves = [Leaf { numa: None, ..leaf(0, 0, 10) }];
        let task = Task { rank: 0, size: 1, step: &leaves, mine: &[0], segment: None };
        let changes = granted(task, |name| (name == env::NUMA_NODE).then(|| "1".to_owned()));
        assert_eq!(set(&changes)["MIGSHARE_NUMA_NODE"], "unset");
    }

    #[test]
    fn without_leaves_nothing_of_ours_is_inherited() {
        let had: HashMap<&str, &str> = VARIABLES.iter().map(|v| (v.name, "MIG-1,MIG-2")).collect();
        let changes = cleared(|name| had.get(name).map(|v| (*v).to_owned()));
        let env = set(&changes);
        for v in VARIABLES {
            let ours = matches!(v.scope, Scope::Task | Scope::Step);
            assert_eq!(env.contains_key(v.name), ours, "{}", v.name);
        }
        assert!(cleared(|_| None).is_empty());
    }

    #[test]
    fn whole_gpus_that_slurm_gave_stay_visible() {
        let gpus = |name: &str| match name {
            "CUDA_VISIBLE_DEVICES" | "SLURM_STEP_GPUS" => Some("0,1".to_owned()),
            "NVIDIA_VISIBLE_DEVICES" => Some("all".to_owned()),
            _ => None,
        };
        assert!(cleared(gpus).is_empty());
        let typed = |name: &str| (name == "CUDA_VISIBLE_DEVICES").then(|| "0".to_owned());
        assert_eq!(cleared(typed), [Change::Unset("CUDA_VISIBLE_DEVICES")]);
    }
}
