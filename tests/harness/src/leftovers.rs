//! What a cluster may leave behind: processes and control groups.
//!
//! Processes are found in /proc by the `SLURM_CONF` in their environment. Daemons, slurmstepds and tasks all carry it, whoever their parent is by now.

use crate::{Result, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::path::Path;

/// One process of the cluster.
#[derive(Debug, Clone)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.command)
    }
}

/// All living processes that belong to the cluster with this slurm.conf.
pub fn of(slurm_conf: &Path) -> Vec<Process> {
    let mark = format!("SLURM_CONF={}", slurm_conf.display());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| carries(*pid, mark.as_bytes()))
        .map(|pid| Process { pid, command: command_of(pid) })
        .collect()
}

/// Kills what is left of a cluster and waits until nothing is.
pub fn kill_all(slurm_conf: &Path) -> Result {
    wait::until("without processes of the cluster", || {
        let left = of(slurm_conf);
        for process in &left {
            let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
        }
        if left.is_empty() { Ok(()) } else { Err(show(&left)) }
    })
}

/// Control groups that the plugin made for tasks of jobs from this id on: `migshare_NODE_JOB.STEP.TASK`.
pub fn filters(first_job: u32) -> Vec<String> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/devices"];
    let entries = roots.iter().filter_map(|root| std::fs::read_dir(root).ok()).flat_map(Iterator::flatten);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| job_of(name).is_some_and(|job| (first_job..first_job + JOBS).contains(&job)))
        .collect()
}

/// More jobs than a story has.
const JOBS: u32 = 1000;

fn job_of(control_group: &str) -> Option<u32> {
    let (_, ids) = control_group.strip_prefix("migshare_")?.rsplit_once('_')?;
    ids.split('.').next()?.parse().ok()
}

/// The processes as one line.
pub fn show(processes: &[Process]) -> String {
    processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A zombie has no environment any more, so it does not count.
fn carries(pid: u32, mark: &[u8]) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == mark)
}

fn command_of(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}
