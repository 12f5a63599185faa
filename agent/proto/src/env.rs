//! Every environment variable that migshare reads or sets, in one place.
//!
//! The table is data so that documentation and tests can walk it.

/// Who gives a variable its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Set for one task of a step.
    Task,
    /// Set alike for all tasks of a step on a node.
    Step,
    /// Set alike for all tasks of a step on a node, unless the user has set it.
    Default,
    /// Read by the programs of migshare from the environment of whoever starts them.
    Input,
}

/// One documented variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The name in the environment.
    pub name: &'static str,
    /// Who gives it its value.
    pub scope: Scope,
    /// What it holds.
    pub meaning: &'static str,
}

/// MIG UUIDs of this task's leaves, comma separated; what CUDA enumerates.
pub const CUDA_VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";
/// MIG UUIDs of all leaves of the step on this node: a container is started once for all its tasks.
pub const NVIDIA_VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";
/// MIG UUIDs of this task's leaves, comma separated.
pub const LEAVES: &str = "MIGSHARE_LEAVES";
/// Number of this task's leaves.
pub const LEAF_COUNT: &str = "MIGSHARE_LEAF_COUNT";
/// Where this task's leaves are: `gpu/start:size` with the GPU's index, comma separated.
pub const PLACEMENTS: &str = "MIGSHARE_PLACEMENTS";
/// Profile names of this task's leaves, comma separated.
pub const PROFILES: &str = "MIGSHARE_PROFILES";
/// Memory of this task's smallest leaf in MiB.
pub const MEMORY_MIB: &str = "MIGSHARE_MEMORY_MIB";
/// NUMA node of the GPU of this task's first leaf, where the node tells.
pub const NUMA_NODE: &str = "MIGSHARE_NUMA_NODE";
/// MIG UUIDs of all leaves of the step on this node, comma separated.
pub const STEP_LEAVES: &str = "MIGSHARE_STEP_LEAVES";
/// Rank of this task among the tasks of the step on this node, from 0.
pub const RANK: &str = "MIGSHARE_RANK";
/// Number of tasks of the step on this node.
pub const SIZE: &str = "MIGSHARE_SIZE";
/// Lets several ranks of one communicator use one GPU, which is what leaves of one GPU look like to NCCL. Read by NCCL
/// 2.30 and newer (NCCL's documentation of environment variables); older versions ignore it.
pub const NCCL_MULTI_RANK_GPU_ENABLE: &str = "NCCL_MULTI_RANK_GPU_ENABLE";
/// Path of the socket where the ranks of the step get the memory that they share.
pub const SEGMENT_SOCKET: &str = "MIGSHARE_SEGMENT_SOCKET";
/// Path of the agent's socket, for the command line.
pub const SOCKET: &str = "MIGSHARE_SOCKET";
/// What the programs log, in the syntax of tracing's `EnvFilter`: `debug`, `warn,migshare_agent=trace`.
pub const LOG: &str = "MIGSHARE_LOG";
/// Number of an inherited descriptor of a sealed memfd: the segment of ranks that run without an agent.
pub const SEGMENT_FD: &str = "MIGSHARE_SEGMENT_FD";
/// Milliseconds after which a collective gives up waiting for a peer.
pub const TIMEOUT_MS: &str = "MIGSHARE_TIMEOUT_MS";
/// Milliseconds after which a request of the NCCL net plugin gives up waiting for a peer that lives and does nothing.
pub const NET_TIMEOUT_MS: &str = "MIGSHARE_NET_TIMEOUT_MS";
/// Which vector kernels reduce: `base`, `avx2` or `avx512`; the best that the CPU has where it is not set.
pub const KERNELS: &str = "MIGSHARE_KERNELS";
/// Path of `libmigshare.so.1` for the Python package, where it is not the one inside the wheel.
pub const LIBRARY: &str = "MIGSHARE_LIBRARY";

/// All variables, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: CUDA_VISIBLE_DEVICES,
        scope: Scope::Task,
        meaning: "MIG UUIDs of the task's leaves, comma separated",
    },
    Variable {
        name: NVIDIA_VISIBLE_DEVICES,
        scope: Scope::Step,
        meaning: "MIG UUIDs of all the step's leaves on the node",
    },
    Variable { name: LEAVES, scope: Scope::Task, meaning: "MIG UUIDs of the task's leaves, comma separated" },
    Variable { name: LEAF_COUNT, scope: Scope::Task, meaning: "number of the task's leaves" },
    Variable { name: PLACEMENTS, scope: Scope::Task, meaning: "gpu/start:size of each of the task's leaves" },
    Variable { name: PROFILES, scope: Scope::Task, meaning: "profile name of each of the task's leaves" },
    Variable { name: MEMORY_MIB, scope: Scope::Task, meaning: "memory of the task's smallest leaf, MiB" },
    Variable {
        name: NUMA_NODE,
        scope: Scope::Task,
        meaning: "NUMA node of the GPU of the task's first leaf, where the node tells",
    },
    Variable {
        name: STEP_LEAVES,
        scope: Scope::Step,
        meaning: "MIG UUIDs of all the step's leaves on the node",
    },
    Variable {
        name: RANK,
        scope: Scope::Task,
        meaning: "rank of the task among the step's tasks on the node",
    },
    Variable { name: SIZE, scope: Scope::Step, meaning: "number of the step's tasks on the node" },
    Variable {
        name: NCCL_MULTI_RANK_GPU_ENABLE,
        scope: Scope::Default,
        meaning: "1, unless the user has set it: NCCL 2.30 and newer then lets ranks share a GPU",
    },
    Variable {
        name: SEGMENT_SOCKET,
        scope: Scope::Step,
        meaning: "path of the socket where the step's ranks get the memory that they share, where it has any",
    },
    Variable { name: SOCKET, scope: Scope::Input, meaning: "path of the agent's socket, read by `migshare`" },
    Variable {
        name: LOG,
        scope: Scope::Input,
        meaning: "what the programs log: `info`, `debug`, `warn,migshare_agent=trace`",
    },
    Variable {
        name: SEGMENT_FD,
        scope: Scope::Input,
        meaning: "descriptor of a sealed memfd, for ranks that run without an agent",
    },
    Variable {
        name: TIMEOUT_MS,
        scope: Scope::Input,
        meaning: "milliseconds after which a collective gives up waiting, 30000 by default",
    },
    Variable {
        name: NET_TIMEOUT_MS,
        scope: Scope::Input,
        meaning: "the same for requests of the NCCL net plugin, a day by default",
    },
    Variable {
        name: KERNELS,
        scope: Scope::Input,
        meaning: "vector kernels of collectives: `base`, `avx2` or `avx512`",
    },
    Variable { name: LIBRARY, scope: Scope::Input, meaning: "path of libmigshare for the Python package" },
];
