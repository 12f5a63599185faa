//! Whether this node can keep tasks from the device files of leaves that are not theirs. The plugin does it, at each launch; here is
//! looked beforehand whether kernel and Slurm let it, so that an admin reads it at the agent's start instead of in the log of a failed job.
//!
//! ```text
//!   kernel   mountinfo, bpf(2)       ──▶ way: BPF on cgroup v2, list of v1's devices controller, or none
//!   Slurm    scontrol show config    ──▶ what may stand in the way, and what is not filtered
//! ```
//! It tries nothing out and changes nothing: a filter that fails all the same kills its task, with a message.

use crate::driver::{Event, Inbox};
use crate::slurm::Slurm;
use migshare_proto::status::{Filter, IsolationStatus};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernel gives. A /proc of choice may have a mountinfo of its own.
pub fn of_kernel(proc_root: &Path) -> IsolationStatus {
    let own = std::fs::read_to_string(proc_root.join("self/mountinfo"));
    let mounts = own.or_else(|_| std::fs::read_to_string("/proc/self/mountinfo")).unwrap_or_default();
    // There with bpf(2) and only then; programs for devices came with Linux 4.15, long before it.
    judge(&mounts, Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists())
}

fn judge(mountinfo: &str, bpf: bool) -> IsolationStatus {
    let kinds: Vec<(&str, &str)> = mountinfo.lines().filter_map(kind).collect();
    let unified = kinds.iter().any(|(kind, _)| *kind == "cgroup2");
    let devices =
        kinds.iter().any(|(kind, options)| *kind == "cgroup" && options.split(',').any(|o| o == "devices"));
    let none = |text: &str| IsolationStatus {
        filter: Filter::None,
        problems: vec![format!("tasks cannot be kept from the leaves of others and are not started: {text}")],
        notes: Vec::new(),
    };
    match (unified, devices) {
        (true, _) if bpf => IsolationStatus { filter: Filter::Bpf, ..IsolationStatus::default() },
        (true, _) => none("cgroup v2 is mounted and the kernel has no bpf(2)"),
        (false, true) => IsolationStatus { filter: Filter::Devices, ..IsolationStatus::default() },
        (false, false) => none("neither cgroup v2 nor v1's devices controller is mounted"),
    }
}

/// Type and super options of a mount (proc(5)).
fn kind(line: &str) -> Option<(&str, &str)> {
    let mut right = line.split_once(" - ")?.1.split(' ');
    Some((right.next()?, right.nth(1)?))
}

/// Asks Slurm until it answers, and tells the driver once.
pub async fn ask(slurm: Slurm, mut kernel: IsolationStatus, pause: Duration, inbox: Inbox) {
    loop {
        match slurm.config().await {
            Ok(config) => {
                add_slurm(&mut kernel, &config, &lines_with_files);
                return inbox.send(Event::Isolation(kernel));
            }
            Err(error) => tracing::debug!(%error, "slurm's configuration is not known yet"),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Adds what Slurm's configuration means. `files` names the lines of a gres.conf that have device files.
fn add_slurm(
    status: &mut IsolationStatus,
    config: &BTreeMap<String, String>,
    files: &dyn Fn(&Path) -> Vec<usize>,
) {
    let value = |key: &str| config.get(key).map_or("", String::as_str);
    let constrains = value("ConstrainDevices").eq_ignore_ascii_case("yes");
    let v1 = value("CgroupPlugin") == "cgroup/v1";
    let gres = PathBuf::from(value("SLURM_CONF")).with_file_name("gres.conf");
    let lines = files(&gres);
    if status.filter == Filter::Bpf
        && constrains
        && !v1
        && let Some(line) = lines.first()
    {
        // Whether the line is about this node only Slurm can tell, and a node that is drained for another's line would be a pity.
        status.notes.push(format!(
            "if {} line {line} (File=) is about this node, Slurm's ConstrainDevices=yes leaves no place for the filter of the leaves on \
             cgroup v2, and their tasks are killed at their start: remove one of the two; `migshare-gres check` knows",
            gres.display()
        ));
    }
    let tracks = value("ProctrackType") == "proctrack/cgroup";
    let tasks = value("TaskPlugin").split(',').any(|plugin| plugin.trim() == "task/cgroup");
    let adopts = tracks && tasks;
    if !config.is_empty() && !adopts {
        status.notes.push(
            "logins that pam_slurm_adopt puts into a job are not filtered: Slurm makes no cgroup for them without \
             ProctrackType=proctrack/cgroup and TaskPlugin=task/cgroup"
                .to_owned(),
        );
    }
}

/// Numbers of the lines with device files; none where the file cannot be read.
fn lines_with_files(gres: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(gres).unwrap_or_default();
    let has = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_ascii_whitespace().any(|word| word.to_ascii_lowercase().starts_with("file="))
    };
    text.lines().enumerate().filter(|(_, line)| has(line)).map(|(at, _)| at + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "27 25 0:24 / /sys/fs/cgroup/devices rw shared:9 - cgroup cgroup rw,devices\n";
    const V2: &str = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_kernels_way_is_known_or_its_lack_is_a_problem() {
        assert_eq!(judge(V2, true).filter, Filter::Bpf);
        assert_eq!(judge(V1, false).filter, Filter::Devices);
        assert_eq!(judge(&format!("{V1}{V2}"), true).filter, Filter::Bpf);
        for (mounts, part) in
            [(V2, "bpf(2)"), ("1 1 0:1 / / rw - ext4 /dev/vda rw\n", "neither"), ("", "neither")]
        {
            let status = judge(mounts, false);
            assert!(status.filter == Filter::None && status.problems[0].contains(part), "{status:?}");
        }
    }

    fn with(config: &[(&str, &str)], lines: &[usize]) -> IsolationStatus {
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut status = judge(V2, true);
        add_slurm(&mut status, &config, &|_| lines.to_vec());
        status
    }

    #[test]
    fn what_slurm_may_make_impossible_and_what_it_leaves_open_are_notes() {
        let good = [("ProctrackType", "proctrack/cgroup"), ("TaskPlugin", "task/affinity,task/cgroup")];
        assert_eq!(with(&good, &[3]), judge(V2, true));
        let both =
            [&good[..], &[("ConstrainDevices", "yes"), ("SLURM_CONF", "/etc/slurm/slurm.conf")]].concat();
        assert!(with(&both, &[]).notes.is_empty());
        let notes = with(&both, &[3]).notes;
        assert!(notes[0].contains("/etc/slurm/gres.conf line 3"), "{notes:?}");
        let v1 = [&both[..], &[("CgroupPlugin", "cgroup/v1")]].concat();
        assert!(with(&v1, &[3]).notes.is_empty());
        let notes =
            with(&[("TaskPlugin", "task/affinity"), ("ProctrackType", "proctrack/linuxproc")], &[]).notes;
        assert!(notes[0].contains("pam_slurm_adopt"), "{notes:?}");
    }
}
