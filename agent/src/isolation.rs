//! Whether this node can keep tasks from the device files of leaves that are not theirs. The plugin does it, at each launch; here is
//! looked beforehand whether kernel and Slurm let it, so that an admin reads it at the agent's start instead of in the log of a failed job.
//!
//! ```text
//!   kernel   mountinfo, bpf(2)       ──▶ way: BPF on cgroup v2, list of v1's devices controller, or none
//!   Slurm    scontrol show config,
//!            gres.conf               ──▶ what stands in the way or may, and what is not filtered; asked again, as files change
//! ```
//! It tries nothing out and changes nothing: a filter that fails all the same kills its task, with a message.

use crate::driver::{Event, Inbox};
use crate::slurm::Slurm;
use migshare_gres::installed::Installed;
use migshare_proto::status::{Filter, IsolationStatus};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shortest time between two looks at Slurm's configuration that was understood.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What the kernel gives.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Without what Slurm has to say.
    pub status: IsolationStatus,
    /// Whether Slurm may use cgroup v1 all the same.
    v1: bool,
}

/// What the kernel gives. A /proc of choice may have a mountinfo of its own.
pub fn of_kernel(proc_root: &Path) -> Kernel {
    let own = std::fs::read_to_string(proc_root.join("self/mountinfo"));
    let mounts = own.or_else(|_| std::fs::read_to_string("/proc/self/mountinfo")).unwrap_or_default();
    // There with bpf(2) and only then; programs for devices came with Linux 4.15, long before it.
    let bpf = Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists();
    Kernel { status: judge(&mounts, bpf), v1: has_v1(&mounts) }
}

/// Whether the kernel has cgroup v1's devices controller mounted: Slurm then may use either hierarchy.
fn has_v1(mountinfo: &str) -> bool {
    let mut kinds = mountinfo.lines().filter_map(kind);
    kinds.any(|(kind, options)| kind == "cgroup" && options.split(',').any(|o| o == "devices"))
}

fn judge(mountinfo: &str, bpf: bool) -> IsolationStatus {
    let kinds: Vec<(&str, &str)> = mountinfo.lines().filter_map(kind).collect();
    let unified = kinds.iter().any(|(kind, _)| *kind == "cgroup2");
    let devices = has_v1(mountinfo);
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

/// Asks Slurm, again and again, and tells the driver what is news.
pub async fn ask(slurm: Slurm, node: String, kernel: Kernel, pause: Duration, inbox: Inbox) {
    let mut told = kernel.status.clone();
    loop {
        let pause = match slurm.config().await {
            Ok(config) => {
                let conf = config.get("SLURM_CONF").map(PathBuf::from);
                // A file that cannot be read is Slurm's own trouble, told by `migshare-gres check`.
                let installed = conf.and_then(|conf| Installed::read(&conf).ok());
                let status = with_slurm(&kernel, &node, &config, installed.as_ref());
                if status != told {
                    told.clone_from(&status);
                    inbox.send(Event::Isolation(status));
                }
                pause.max(LOOK_AGAIN)
            }
            Err(error) => {
                tracing::debug!(%error, "slurm's configuration is not known yet");
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Adds what Slurm's configuration means for this node.
fn with_slurm(
    kernel: &Kernel,
    node: &str,
    config: &BTreeMap<String, String>,
    installed: Option<&Installed>,
) -> IsolationStatus {
    let mut status = kernel.status.clone();
    let value = |key: &str| config.get(key).map_or("", String::as_str);
    let constrains = value("ConstrainDevices").eq_ignore_ascii_case("yes");
    let v1 = value("CgroupPlugin") == "cgroup/v1";
    if let Some(installed) = installed
        && status.filter == Filter::Bpf
        && constrains
        && !v1
    {
        crowded(&mut status, node, installed, kernel.v1);
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
    status
}

/// On cgroup v2 the filter of Slurm's own leaves no place for that of the leaves.
fn crowded(status: &mut IsolationStatus, node: &str, installed: &Installed, maybe_v1: bool) {
    const WHY: &str = "Slurm's ConstrainDevices=yes leaves no place for the filter of the leaves on cgroup v2, and their tasks are \
                       killed at their start: remove one of the two";
    if let Some(line) = installed.device_lines(node).first() {
        let text = format!("{} names device files of this node, and {WHY}", line.at());
        if maybe_v1 {
            status.notes.push(format!("if Slurm uses cgroup v2 here: {text}"));
        } else {
            status.problems.push(text);
        }
    } else if let Some(line) = installed.detecting_lines(node).first() {
        status.notes.push(format!("if {} (AutoDetect=) finds devices on this node: {WHY}", line.at()));
    }
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

    /// The status of node n1 with these settings and this gres.conf.
    fn with(mounts: &str, config: &[(&str, &str)], gres: &str) -> IsolationStatus {
        let dir = tempfile::tempdir().unwrap();
        let slurm = dir.path().join("slurm.conf");
        std::fs::write(&slurm, "ClusterName=c\n").unwrap();
        std::fs::write(dir.path().join("gres.conf"), gres).unwrap();
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let kernel = Kernel { status: judge(mounts, true), v1: has_v1(mounts) };
        with_slurm(&kernel, "n1", &config, Some(&Installed::read(&slurm).unwrap()))
    }

    const TRACKED: [(&str, &str); 2] =
        [("ProctrackType", "proctrack/cgroup"), ("TaskPlugin", "task/affinity,task/cgroup")];

    #[test]
    fn device_files_of_this_node_beside_slurms_own_filter_are_a_problem() {
        let both = [&TRACKED[..], &[("ConstrainDevices", "yes")]].concat();
        for line in ["NodeName=n[1-2] Name=gpu File=/dev/nvidia1", "Name=nic MultipleFiles=/dev/a,/dev/b"] {
            let gres = format!("NodeName=n1 Name=mig Count=7\n{line}\n");
            assert_eq!(with(V2, &TRACKED, &gres), judge(V2, true), "Slurm filters nothing");
            let status = with(V2, &both, &gres);
            assert!(status.problems[0].contains("gres.conf:2") && status.notes.is_empty(), "{status:?}");
            let hybrid = with(&format!("{V1}{V2}"), &both, &gres);
            assert!(hybrid.problems.is_empty() && hybrid.notes[0].contains("gres.conf:2"), "{hybrid:?}");
            let v1 = [&both[..], &[("CgroupPlugin", "cgroup/v1")]].concat();
            assert_eq!(with(V2, &v1, &gres), judge(V2, true));
        }
        for line in ["NodeName=other Name=gpu File=/dev/nvidia1", "#Name=gpu File=/dev/nvidia0", ""] {
            assert_eq!(with(V2, &both, line), judge(V2, true), "{line}");
        }
        let detects = with(V2, &both, "AutoDetect=nvml\n");
        assert!(detects.problems.is_empty() && detects.notes[0].contains("AutoDetect"), "{detects:?}");
        assert_eq!(with(V2, &both, "AutoDetect=off\n"), judge(V2, true));
    }

    #[test]
    fn logins_that_slurm_cannot_contain_are_a_note() {
        assert_eq!(with(V2, &TRACKED, ""), judge(V2, true));
        let loose = [("TaskPlugin", "task/affinity"), ("ProctrackType", "proctrack/linuxproc")];
        let notes = with(V2, &loose, "").notes;
        assert!(notes[0].contains("pam_slurm_adopt"), "{notes:?}");
    }
}
