//! Which leaves a step may use: from the marker, slurmctld and the agent.
//!
//! The count always comes from slurmctld (by way of the marker or directly), never from the option or the
//! environment: those are the user's.

use crate::agent::{Agent, AgentError};
use crate::config::Config;
use crate::gres::{self, Asked};
use crate::marker::{Known, Marker, Markers};
use crate::option::Spec;
use crate::slurm::{Level, Slurm, SlurmError, Step};
use crate::task_env::Task;
use migshare_proto::message::{GrantStep, Need, OpenLease, ReleaseGrant};
use migshare_proto::{JobKey, Leaf, StepId};
use std::path::PathBuf;

/// What a step may use.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// The step's leaves on this node; none for a step without.
    pub(super) leaves: Vec<Leaf>,
    /// Positions in `leaves` per local task; empty where every task has all of them.
    tasks: Vec<Vec<u32>>,
    /// `0..leaves.len()`, for a step whose tasks have all leaves.
    every: Vec<u32>,
    major: Option<u32>,
    grant: Option<ReleaseGrant>,
    /// Where the step's ranks fetch the memory that they share.
    segment: Option<PathBuf>,
}

/// Why a step cannot have its leaves.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    /// See [`AgentError`].
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// slurmctld did not say how many leaves the step has.
    #[error("slurmctld does not say how many leaves this step has: {0}")]
    Slurm(#[from] SlurmError),
    /// The job holds smaller instances than its step asks for. The grant ends with this process.
    #[error(
        "the job holds {0}, which is less than the step's --mig-share asks for: instances are chosen when the job starts, so \
         give size= or mem= to the command that makes the job, with --gres=mig:N for so many leaves (prices: `migshare status`)"
    )]
    Small(String),
}

impl Access {
    /// The leaves of one task.
    pub(super) fn task(&self, rank: u32, size: u32) -> Task<'_> {
        let shared = self.tasks.is_empty();
        let mine = if shared {
            &self.every[..]
        } else {
            self.tasks.get(rank as usize).map_or(&[][..], Vec::as_slice)
        };
        Task { rank, size, step: &self.leaves, mine, segment: self.segment.as_deref() }
    }

    /// Major number of the capability devices, as the agent says.
    pub(super) fn major(&self) -> Option<u32> {
        self.major
    }

    /// The grant to release at the end.
    pub(super) fn grant(&self) -> Option<ReleaseGrant> {
        self.grant.clone()
    }

    fn whole(leaves: Vec<Leaf>, major: Option<u32>) -> Access {
        let every = (0..leaves.len() as u32).collect();
        Access { leaves, every, major, ..Access::default() }
    }
}

/// Everything that the question depends on.
pub(super) struct Asking<'a> {
    pub(super) config: &'a Config,
    pub(super) slurm: &'a dyn Slurm,
    pub(super) job: u32,
    pub(super) step: StepId,
    pub(super) tasks: u32,
    /// The option, where it was given.
    pub(super) spec: Option<Spec>,
}

impl Asking<'_> {
    /// Asks. A job that has neither marker nor option costs one look for a file.
    pub(super) fn access(&self) -> Result<Access, AccessError> {
        let Some(known) = self.known()? else { return Ok(Access::default()) };
        let job = JobKey { job: self.job, start: known.start, uid: known.uid };
        let shape = self.spec.unwrap_or_default().shape();
        let lease = OpenLease { job, leaves: known.leaves, shape };
        let agent = Agent::new(self.config);
        if self.step.is_special() {
            if !known.asked {
                return Ok(Access::default());
            }
            let reply = agent.job_leaves(lease)?;
            self.suffice(&reply.leaves)?;
            let segment = self.segment(&agent, job, reply.leaves.len() as u32)?;
            return Ok(Access { segment, ..Access::whole(reply.leaves, reply.caps_major) });
        }
        let leaves = self.step_leaves()?;
        if leaves == 0 {
            return Ok(Access::default());
        }
        if !known.asked {
            self.mark(Known { asked: true, ..known });
        }
        let holder = std::process::id();
        let grant = GrantStep { job, step: self.step, leaves, tasks: self.tasks, shape, holder };
        let reply = agent.grant(lease, grant)?;
        self.suffice(&reply.leaves)?;
        let segment = self.segment(&agent, job, leaves)?;
        Ok(Access {
            leaves: reply.leaves,
            tasks: reply.tasks,
            every: Vec::new(),
            major: reply.caps_major,
            grant: Some(ReleaseGrant { job, step: self.step }),
            segment,
        })
    }

    /// Whether each instance has what the option asks for.
    fn suffice(&self, leaves: &[Leaf]) -> Result<(), AccessError> {
        let small = |leaf: &&Leaf| match self.spec.and_then(|spec| spec.need) {
            None => false,
            Some(Need::Slices(slices)) => leaf.slices < slices,
            Some(Need::MemoryMib(memory)) => leaf.memory_mib < memory,
        };
        leaves.iter().find(small).map_or(Ok(()), |leaf| Err(AccessError::Small(leaf.to_string())))
    }

    /// What the job holds on this node; `None` where it holds nothing.
    fn known(&self) -> Result<Option<Known>, AccessError> {
        let marker = Markers::below(&self.config.run).read(self.job);
        if let Some(Marker { known: Some(known) }) = marker {
            return Ok(Some(known));
        }
        if marker.is_none() && self.spec.is_none() {
            return Ok(None);
        }
        let known = Known::of(&self.slurm.job(self.job)?);
        if let Some(known) = known {
            self.mark(known);
        }
        Ok(known)
    }

    /// Leaves word for the job's other steps, and for the epilog, which has a lease to close.
    fn mark(&self, known: Known) {
        if let Err(e) = Markers::below(&self.config.run).write(self.job, &Marker { known: Some(known) }) {
            self.slurm.say(Level::Error, &format!("job {}: marker: {e}", self.job));
        }
    }

    /// Leaves of this step on this node. Where the step did not say, slurmctld has put in what its job asked for; where
    /// it said `--gres=none`, there is nothing (`_copy_job_tres_to_step` in slurmctld).
    fn step_leaves(&self) -> Result<u32, AccessError> {
        let Step { per_node, per_task } = self.slurm.step(self.job, self.step.0)?;
        let leaves = |gres: Option<String>| match gres.as_deref().map(gres::asked) {
            Some(Asked::Leaves(n)) => n,
            _ => 0,
        };
        Ok(match leaves(per_task) {
            0 => leaves(per_node),
            each => each.saturating_mul(self.tasks),
        })
    }
}
