//! The device filter: before exec, each task on a node with leaves loses access to the capability devices of all
//! leaves but its own.
//!
//! Where cgroup v2 is mounted (alone, or beside v1 at `/sys/fs/cgroup/unified`) the filter is a BPF program; where
//! only v1 is, it is a list in the devices controller. Either is put on the task's own cgroup if Slurm made one, and
//! otherwise on a child of the cgroup the task is in, so that no limit is lost:
//!
//! ```text
//!  where the task is                          where the filter goes
//!  …/job_7/step_0/user/task_1  (Slurm, v2)    there
//!  …/job_7/step_0/user/task_special           there, once, with the leaves of the whole step
//!  anything else, e.g. slurmd's service       …/migshare_<node>_7.0.1, and the task is moved into it
//! ```
//!
//! Children inside Slurm's own tree are never made: Slurm kills by the processes listed in its directories.
//! What this does not do: keep a task from devices other than MIG capabilities; that is `ConstrainDevices`.

pub mod attach;
pub mod bpf;
pub mod cgroup;
pub mod program;
#[cfg(test)]
mod tests;

use crate::caps;
use cgroup::{Mounts, Spot};
use migshare_proto::StepId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a task cannot be guarded; it must not run then.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A file of a cgroup or of /proc.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A call of bpf(2).
    #[error("bpf {call}: {source}")]
    Bpf {
        /// The command.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another filter leaves no place.
    #[error(
        "{path}: another device filter holds this cgroup for itself (Slurm's ConstrainDevices with File= in gres.conf \
         does); leaves and such devices cannot be on one node"
    )]
    Taken {
        /// The cgroup.
        path: PathBuf,
    },
    /// Neither kind of cgroup can filter devices here.
    #[error("process {0} is in no cgroup that can filter devices")]
    NoCgroup(i32),
}

impl FilterError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> FilterError + '_ {
        move |source| FilterError::File { path: path.to_owned(), source }
    }
}

/// Which devices a task may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Major number of the capability devices.
    pub major: u32,
    /// Minor numbers that stay open; all others of this major are closed.
    pub open: BTreeSet<u32>,
}

/// The filters of one step on this node.
#[derive(Debug)]
pub struct Filter {
    proc: PathBuf,
    prefix: String,
    job: u32,
    step: StepId,
    made: Vec<PathBuf>,
    shared: Vec<PathBuf>,
}

/// Name that our cgroups of a job, or of one of its steps, start with.
pub fn prefix(node: &str, job: u32, step: Option<StepId>) -> String {
    match step {
        Some(step) => format!("migshare_{node}_{job}.{step}."),
        None => format!("migshare_{node}_{job}."),
    }
}

/// Removes cgroups of ours beside this process: those that a killed slurmstepd left. One in which something still
/// runs stays, and keeps its filter.
pub fn sweep(prefix: &str) {
    for dir in left_behind(prefix) {
        let _ = fs::remove_dir(dir);
    }
}

/// Removes empty cgroups of ours on this node that no job of now can have made: what still ran in them at their job's
/// epilog has ended since.
pub fn sweep_stale(node: &str) {
    let stale = |dir: &PathBuf| {
        let made = fs::metadata(dir).and_then(|m| m.modified()).ok();
        made.and_then(|m| m.elapsed().ok()).is_some_and(|age| age > STALE)
    };
    for dir in left_behind(&format!("migshare_{node}_")).into_iter().filter(stale) {
        let _ = fs::remove_dir(dir);
    }
}

/// A cgroup is empty for less than a millisecond between being made and being entered.
const STALE: Duration = Duration::from_secs(60);

/// As [`sweep`], and kills what still runs in them. For a job that is over: its leaves are another job's next.
pub fn sweep_and_kill(prefix: &str) {
    for dir in left_behind(prefix) {
        // A process that forks while it is being killed needs another round.
        for _ in 0..KILL_ROUNDS {
            if fs::remove_dir(&dir).is_ok() {
                break;
            }
            let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in list.lines().filter_map(|pid| pid.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }
}

/// Rounds of killing, and the pause after each: a process in a system call of its driver takes its time.
const KILL_ROUNDS: u32 = 40;
const KILL_PAUSE: Duration = Duration::from_millis(25);

fn left_behind(prefix: &str) -> Vec<PathBuf> {
    let Ok(places) = Mounts::read().and_then(|m| m.of(std::process::id() as i32)) else { return Vec::new() };
    let parents = [places.unified, places.devices].into_iter().flatten();
    let entries = parents.filter_map(|parent| fs::read_dir(parent.dir).ok()).flatten().flatten();
    let ours = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|e| e.path()).collect()
}

impl Filter {
    /// Filters for a step. `proc` is where the driver's lists are.
    pub fn new(proc: &Path, node: &str, job: u32, step: StepId) -> Filter {
        let prefix = prefix(node, job, Some(step));
        Filter { proc: proc.to_owned(), prefix, job, step, made: Vec::new(), shared: Vec::new() }
    }

    /// Guards one task that has not called exec yet. `task` is its own rule, `step` the rule for all tasks together,
    /// which is used where Slurm keeps them in one cgroup.
    pub fn guard(&mut self, rank: u32, pid: i32, task: &Rule, step: &Rule) -> Result<(), FilterError> {
        let places = Mounts::read()?.of(pid)?;
        let Some(place) = places.unified.or(places.devices) else { return Err(FilterError::NoCgroup(pid)) };
        match place.spot(self.job, self.step) {
            Spot::Task(dir) => attach::attach(&place, &dir, &self.proc, task),
            Spot::Step(dir) => self.guard_shared(&place, dir, step),
            Spot::Below(dir) => {
                self.guard_child(&place, &dir.join(format!("{}{rank}", self.prefix)), pid, task)
            }
        }
    }

    /// Guards what will be put beside `pid` later, as `pam_slurm_adopt` does with logins. `false` where Slurm keeps
    /// no cgroup for them that can filter devices.
    pub fn guard_adopted(&mut self, pid: i32, rule: &Rule) -> Result<bool, FilterError> {
        let places = Mounts::read()?.of(pid)?;
        for place in [places.unified, places.devices].into_iter().flatten() {
            if let Spot::Task(dir) | Spot::Step(dir) = place.spot(self.job, self.step) {
                return self.guard_shared(&place, dir, rule).map(|()| true);
            }
        }
        Ok(false)
    }

    /// Removes the cgroup of a task that ended.
    pub fn task_ended(&mut self, rank: u32) {
        let name = format!("{}{rank}", self.prefix);
        self.made.retain(|dir| !(dir.ends_with(&name) && fs::remove_dir(dir).is_ok()));
    }

    /// Removes what is left when the step ends.
    pub fn step_ended(&mut self) {
        self.made.retain(|dir| fs::remove_dir(dir).is_err());
        sweep(&self.prefix);
    }

    fn guard_shared(&mut self, place: &cgroup::Place, dir: PathBuf, rule: &Rule) -> Result<(), FilterError> {
        if !self.shared.contains(&dir) {
            attach::attach(place, &dir, &self.proc, rule)?;
            self.shared.push(dir);
        }
        Ok(())
    }

    fn guard_child(
        &mut self,
        place: &cgroup::Place,
        dir: &Path,
        pid: i32,
        rule: &Rule,
    ) -> Result<(), FilterError> {
        make_fresh(dir).map_err(FilterError::file(dir))?;
        self.made.push(dir.to_owned());
        attach::attach(place, dir, &self.proc, rule)?;
        let procs = dir.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(FilterError::file(&procs))
    }
}

/// The rule that opens these minors and no other; a node without capability devices needs none.
pub fn rule(major: u32, open: impl IntoIterator<Item = u32>) -> Rule {
    Rule { major, open: open.into_iter().collect() }
}

/// The minors that a list of denials has to name: all that exist or may come, but the open ones.
pub(crate) fn closed(proc: &Path, rule: &Rule) -> io::Result<Vec<u32>> {
    Ok(caps::minors(proc)?.difference(&rule.open).copied().collect())
}

/// Makes a cgroup; one of this name that a killed slurmstepd left is replaced, filter and all.
fn make_fresh(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir(dir)?;
            fs::create_dir(dir)
        }
        other => other,
    }
}
