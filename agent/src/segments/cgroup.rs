//! Which job step a process is in, by the names of its cgroups.
//!
//! ```text
//!   v1  /slurm[_NODE]/uid_1000/job_7/step_0/task_1             Slurm, below the root of each hierarchy it uses
//!   v2  …/[NODE_]slurmstepd.scope/job_7/step_0/user/task_1     Slurm
//!       …/migshare_NODE_7.0.1                                  the plugin's device filter, where Slurm makes no cgroup
//! ```
//! A name is worth as much as whoever could give it. Users make cgroups of any name in what is delegated to them
//! (cgroups(7)), so a name counts only when every directory above it belongs to root: a user can then neither make such a
//! directory nor move a process into one. Names of another node are strangers, where several nodes share a host.
//!
//! Reads /proc and the owners of directories; decides nothing about segments.

use crate::server::rights;
use migshare_proto::StepId;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the cgroups of a process say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Home {
    /// It is in this step.
    Step(u32, StepId),
    /// It is in something of Slurm's that is no step of this node, or in two steps at once.
    Elsewhere,
    /// They name no step.
    Unnamed,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Controllers or `name=…` of a v1 hierarchy; none for v2.
    options: Option<String>,
    at: PathBuf,
    root: PathBuf,
}

/// Where a process is, by its cgroups, on this node.
pub(super) fn home(pid: u32, node: &str) -> Home {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let mounts = mounts(&read("/proc/self/mountinfo".to_owned()));
    judge(&read(format!("/proc/{pid}/cgroup")), &mounts, node, |dir| {
        std::fs::metadata(dir).is_ok_and(|meta| rights::is_privileged(meta.uid()))
    })
}

/// The verdict over all hierarchies, each of which may name a step. `ours` says whether a directory is none of a user's.
fn judge(cgroups: &str, mounts: &[Mount], node: &str, ours: impl Fn(&Path) -> bool) -> Home {
    let mut homes = BTreeSet::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let fits = |mount: &&Mount| match &mount.options {
            None => id == "0",
            Some(options) => id != "0" && controllers.split(',').all(|c| options.split(',').any(|o| o == c)),
        };
        let Some(inside) = mounts.iter().filter(fits).find_map(|mount| mount.inside(path)) else { continue };
        if let Some(home) = named(&inside, node, &ours) {
            homes.insert(home);
        }
    }
    match (homes.pop_first(), homes.is_empty()) {
        (None, _) => Home::Unnamed,
        (Some(Some((job, step))), true) => Home::Step(job, step),
        _ => Home::Elsewhere,
    }
}

/// The step that a directory names, none inside where it names one of another node. The outer `None`: it names nothing.
fn named(dir: &Path, node: &str, ours: impl Fn(&Path) -> bool) -> Option<Option<(u32, StepId)>> {
    let names: Vec<_> = dir.components().map(|c| c.as_os_str().to_string_lossy()).collect();
    let (depth, step) = (0..names.len()).find_map(|at| {
        let one = filtered(&names[at], node).map(|step| (at, step));
        one.or_else(|| slurms(&names[..=at], node).map(|step| (at, step)))
    })?;
    let above: PathBuf = dir.components().take(depth).collect();
    above.ancestors().all(|dir| dir.as_os_str().is_empty() || ours(dir)).then_some(step)
}

/// A name that the plugin gives: `migshare_NODE_JOB.STEP.RANK`.
fn filtered(name: &str, node: &str) -> Option<Option<(u32, StepId)>> {
    let rest = name.strip_prefix("migshare_")?;
    let Some(rest) = rest.strip_prefix(node).and_then(|rest| rest.strip_prefix('_')) else {
        return Some(None);
    };
    let mut parts = rest.split('.');
    let (job, step, rank) = (parts.next()?.parse().ok()?, step(parts.next()?)?, parts.next()?);
    (parts.next().is_none() && rank.parse::<u32>().is_ok()).then_some(Some((job, step)))
}

/// Names that Slurm gives: a scope, then `job_JOB`, then `step_STEP`, which is the last of these.
fn slurms(names: &[impl AsRef<str>], node: &str) -> Option<Option<(u32, StepId)>> {
    let [above @ .., job, last] = names else { return None };
    let step = step(last.as_ref().strip_prefix("step_")?)?;
    let job = job.as_ref().strip_prefix("job_")?.parse().ok()?;
    let scope = match above {
        [.., scope, uid] if uid.as_ref().starts_with("uid_") => scope.as_ref(),
        [.., scope] => scope.as_ref(),
        [] => return None,
    };
    let here = match (scope.strip_prefix("slurm"), scope.strip_suffix("slurmstepd.scope")) {
        (Some("") | Some("stepd.scope"), _) => true,
        (_, Some(of)) => of.strip_suffix('_')? == node,
        (Some(of), _) => of.strip_prefix('_')? == node,
        _ => return None,
    };
    Some(here.then_some((job, step)))
}

/// A step's name as Slurm and [`StepId`] write it.
fn step(name: &str) -> Option<StepId> {
    match name {
        "batch" => Some(StepId::BATCH),
        "extern" => Some(StepId::EXTERN),
        "interactive" => Some(StepId::INTERACTIVE),
        number => number.parse().ok().map(StepId),
    }
}

impl Mount {
    /// The directory of a path that /proc names, if this mount shows it.
    fn inside(&self, path: &str) -> Option<PathBuf> {
        let inside = Path::new(path).strip_prefix(&self.root).ok()?;
        // "/../x" is outside of this process's cgroup name space.
        let hidden = inside.components().any(|c| c == std::path::Component::ParentDir);
        (!hidden).then(|| self.at.join(inside))
    }
}

/// The cgroup mounts in a mountinfo (proc(5)).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at) = (left.next()?.into(), left.next()?.into());
        let mut right = right.split(' ');
        match (right.next()?, right.nth(1)) {
            ("cgroup2", _) => Some(Mount { options: None, at, root }),
            ("cgroup", Some(options)) => Some(Mount { options: Some(options.to_owned()), at, root }),
            _ => None,
        }
    };
    mountinfo.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests;
