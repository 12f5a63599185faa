//! What the plugin needs of Slurm, and nothing more.
//!
//! Two implementations exist: the shim's, over `spank.h` and `slurm.h`, and the tests', over a table.

use std::fmt;

/// How loud a message is. Slurm decides by its own log level who sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `slurm_error`: the log, and the user where the step's output is already connected.
    Error,
    /// `slurm_info`.
    Info,
    /// `slurm_debug`.
    Debug,
}

/// What the plugin asks `spank_get_item` for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// Job id (`S_JOB_ID`).
    Job,
    /// Step id (`S_JOB_STEPID`).
    Step,
    /// User id (`S_JOB_UID`).
    Uid,
    /// Tasks of the step on this node (`S_JOB_LOCAL_TASK_COUNT`).
    LocalTasks,
    /// Rank of the task among the node's tasks (`S_TASK_ID`).
    Task,
    /// Process id of the task (`S_TASK_PID`).
    TaskPid,
}

/// What slurmctld knows of a job on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// When this run started, seconds since the epoch.
    pub start: i64,
    /// The user that owns it.
    pub uid: u32,
    /// Whether it was submitted with sbatch, and so can be requeued.
    pub batch: bool,
    /// The GRES allocated on this node, as in `scontrol show job -d` (`mig(CNT:2)`); `None` where there is none.
    pub gres: Option<String>,
    /// The GRES that it asked for, per node, task or otherwise; empty where it asked for none. `--exclusive` gives a
    /// job all GRES of its nodes without being asked.
    pub asked: String,
    /// Where else it could run.
    pub elsewhere: Elsewhere,
}

/// What decides where a job can run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elsewhere {
    /// Its partitions, comma separated.
    pub partitions: String,
    /// How many nodes it has.
    pub nodes: u32,
    /// The nodes that it must have, as a host list; empty where it does not say.
    pub required: String,
    /// The nodes that it must not have, as a host list.
    pub excluded: String,
}

/// The GRES that a step has, in Slurm's own words (`gres:mig:1` up to 23.02, `gres/mig:1` from 23.11).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Per node; what the job asked for where the step did not say, `None` for `--gres=none`.
    pub per_node: Option<String>,
    /// Per task (`--tres-per-task`).
    pub per_task: Option<String>,
}

/// A node of the cluster that counts leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Features, as `--constraint` names them.
    pub features: Vec<String>,
    /// Leaves that Slurm counts.
    pub leaves: u32,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// Name.
    pub name: String,
    /// Its nodes, as a host list.
    pub nodes: String,
    /// Whether jobs that name none go there.
    pub default: bool,
}

/// A call to Slurm failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {cause}")]
pub struct SlurmError {
    /// The function.
    pub call: &'static str,
    /// What Slurm says of its error code.
    pub cause: String,
}

impl SlurmError {
    /// An error of `call` for a reason.
    pub fn new(call: &'static str, cause: impl fmt::Display) -> SlurmError {
        SlurmError { call, cause: cause.to_string() }
    }
}

/// The part of Slurm that the plugin uses.
pub trait Slurm {
    /// Writes a message to Slurm's log.
    fn say(&self, level: Level, text: &str);

    /// A variable of this process, which Slurm or the user's shell set.
    fn process_env(&self, name: &str) -> Option<String>;

    /// An item of the step or task at hand; `None` where the context has none.
    fn item(&self, item: Item) -> Option<u32>;

    /// A variable of the task at hand.
    fn getenv(&self, name: &str) -> Option<String>;
    /// Sets a variable of the task at hand.
    fn setenv(&self, name: &str, value: &str) -> Result<(), SlurmError>;
    /// Removes a variable of the task at hand; one that is not there is no error.
    fn unsetenv(&self, name: &str) -> Result<(), SlurmError>;

    /// The value of `--mig-share` in a prolog or epilog; `None` where it was not given.
    fn job_option(&self) -> Option<String>;

    /// Asks slurmctld for a job. Only in `job_prolog` and in a step's `init_post_opt`.
    fn job(&self, job: u32) -> Result<Job, SlurmError>;
    /// Asks slurmctld what a step asked for. Only in a step's `init_post_opt`.
    fn step(&self, job: u32, step: u32) -> Result<Step, SlurmError>;
    /// Takes a node out of scheduling; running jobs continue.
    fn drain(&self, node: &str, reason: &str) -> Result<(), SlurmError>;
    /// Puts a batch job back into the queue.
    fn requeue(&self, job: u32) -> Result<(), SlurmError>;

    /// The nodes that a job must not have now, as a host list.
    fn excluded(&self, job: u32) -> Result<String, SlurmError>;

    /// Keeps a pending job away from these nodes (a host list) and no others, and leaves word why in its `AdminComment`.
    fn keep_away(&self, job: u32, nodes: &str, why: &str) -> Result<(), SlurmError>;

    /// The nodes of the cluster. Not in a step.
    fn nodes(&self) -> Result<Vec<Node>, SlurmError>;
    /// The partitions of the cluster. Not in a step.
    fn partitions(&self) -> Result<Vec<Partition>, SlurmError>;

    /// The value of an option (`gres`, `ntasks`) of the command at hand (srun, sbatch, salloc); `None` where it is not given.
    fn option(&self, name: &str) -> Result<Option<String>, SlurmError>;
    /// Sets an option of the command at hand.
    fn set_option(&self, name: &str, value: &str) -> Result<(), SlurmError>;
}
