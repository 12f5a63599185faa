//! One step on this node, inside slurmstepd.
//!
//! ```text
//! init_post_opt (root)          marker or option? ── no ──> no leaves
//!                                   └─ yes ──> agent: grant (numbered step) or the job's leaves (special step)
//!                               an error is kept: returned from here it would lose the job's exit code, and drain
//!                               the node of a batch job
//! task_init_privileged (child)  a kept error becomes a message and a failed job
//! task_post_fork (parent, root) device filter, before exec; the task is killed if that fails
//! task_init (child, user)       environment
//! task_exit, exit (root)        cgroups removed, grant released
//! ```
//!
//! Which error from which hook does what was measured on Slurm 22.05 and 25.05; see also pyxis and
//! <https://bugs.schedmd.com/show_bug.cgi?id=7573>.

mod access;
mod network;
mod segment;

use crate::agent::Agent;
use crate::caps;
use crate::config::Config;
use crate::filter::{self, Filter, Rule};
use crate::option::Spec;
use crate::slurm::{Item, Level, Slurm};
use crate::task_env::{self, Change};
use access::Access;
use migshare_proto::StepId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// A step, from `init_post_opt` to `exit`.
#[derive(Debug)]
pub struct Step {
    access: Result<Access, String>,
    major: Option<u32>,
    filter: Filter,
    tasks: u32,
}

impl Step {
    /// Finds out what this step may use, and asks the agent for it. `spec` is the option as it reached this node.
    pub fn open(config: &Config, slurm: &dyn Slurm, spec: Result<Option<Spec>, String>) -> Step {
        let job = slurm.item(Item::Job).unwrap_or_default();
        let step = StepId(slurm.item(Item::Step).unwrap_or_default());
        let tasks = slurm.item(Item::LocalTasks).unwrap_or(1);
        let access = spec.and_then(|spec| {
            let asking = access::Asking { config, slurm, job, step, tasks, spec };
            asking.access().map_err(|e| e.to_string())
        });
        if let Err(e) = &access {
            slurm.say(Level::Error, &format!("job {job} step {step}: {e}"));
        }
        let major = caps::major(&config.proc).or(access.as_ref().ok().and_then(Access::major));
        Step { access, major, filter: Filter::new(&config.proc, &config.node, job, step), tasks }
    }

    /// `task_init_privileged`: the one place where an error fails the job and nothing else.
    pub fn check(&self, slurm: &dyn Slurm) -> Result<(), String> {
        let unfit = |access: &Access| {
            network::refusal(|name| slurm.getenv(name)).filter(|_| !access.leaves.is_empty())
        };
        let error = match &self.access {
            Ok(access) => unfit(access),
            Err(e) => Some(e.clone()),
        };
        match error {
            None => Ok(()),
            // All tasks meet the same error: one of them says it.
            Some(_) if slurm.item(Item::Task).unwrap_or_default() > 0 => Err(String::new()),
            Some(e) => Err(e),
        }
    }

    /// `task_post_fork`: guards the task, or kills it.
    pub fn guard(&mut self, slurm: &dyn Slurm) {
        // A slurmd that is not root runs its own user's jobs only, and could not keep them from anything.
        let Some(major) = self.major.filter(|_| nix::unistd::geteuid().is_root()) else { return };
        let all = self.rule(major, None);
        let Some(pid) = slurm.item(Item::TaskPid).and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 0)
        else {
            return self.guard_adopted(slurm, &all);
        };
        let rank = slurm.item(Item::Task).unwrap_or_default();
        if let Err(e) = self.filter.guard(rank, pid, &self.rule(major, Some(rank)), &all) {
            slurm.say(Level::Error, &format!("task {rank} killed: no device filter: {e}"));
            // It waits for slurmstepd before it execs, so this is in time.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// `task_init`: the task's environment.
    pub fn environment(&self, slurm: &dyn Slurm) -> Result<(), String> {
        let rank = slurm.item(Item::Task).unwrap_or_default();
        let now = |name: &str| slurm.getenv(name);
        let changes = match &self.access {
            Ok(access) if !access.leaves.is_empty() => task_env::granted(access.task(rank, self.tasks), now),
            Ok(_) if self.major.is_some() || now(migshare_proto::env::LEAVES).is_some() => {
                task_env::cleared(now)
            }
            _ => Vec::new(),
        };
        for change in changes {
            let done = match &change {
                Change::Set(name, value) => slurm.setenv(name, value),
                Change::Unset(name) => slurm.unsetenv(name),
            };
            done.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// `task_exit`.
    pub fn task_ended(&mut self, slurm: &dyn Slurm) {
        self.filter.task_ended(slurm.item(Item::Task).unwrap_or_default());
    }

    /// `exit`: ends the grant. An agent that is away finds the holder gone when it is back.
    pub fn close(&mut self, config: &Config, slurm: &dyn Slurm) {
        self.filter.step_ended();
        let Some(grant) = self.access.as_ref().ok().and_then(Access::grant) else { return };
        let (job, step) = (grant.job, grant.step);
        if let Err(e) = Agent::new(config).release(grant) {
            slurm.say(Level::Error, &format!("job {job} step {step}: grant left to the agent: {e}"));
        }
    }

    /// What one task, or all together, may open.
    fn rule(&self, major: u32, rank: Option<u32>) -> Rule {
        match (&self.access, rank) {
            (Ok(access), Some(rank)) => {
                filter::rule(major, access.task(rank, self.tasks).leaves().flat_map(|l| l.caps.clone()))
            }
            (Ok(access), None) => filter::rule(major, access.leaves.iter().flat_map(|l| l.caps.clone())),
            (Err(_), _) => filter::rule(major, []),
        }
    }

    /// The extern step has no task but a child that stands for those which `pam_slurm_adopt` will add.
    fn guard_adopted(&mut self, slurm: &dyn Slurm, rule: &Rule) {
        for pid in children() {
            match self.filter.guard_adopted(pid, rule) {
                Ok(true) => {}
                Ok(false) => slurm.say(Level::Debug, "Slurm keeps no cgroup for adopted logins here"),
                Err(e) => slurm.say(Level::Error, &format!("adopted logins have no device filter: {e}")),
            }
        }
    }
}

/// Child processes of this one, by proc(5).
fn children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect()
}
