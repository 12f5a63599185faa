//! Where cgroups are mounted, which one a process is in, and which one its filter belongs on.
//!
//! It reads `/proc/self/mountinfo` and `/proc/<pid>/cgroup` (proc(5), cgroups(7)) and changes nothing.

use super::FilterError;
use migshare_proto::StepId;
use std::fs;
use std::path::{Path, PathBuf};

/// A mounted hierarchy: where, and which of its directories is mounted there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    root: PathBuf,
}

/// The hierarchies that can filter devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mounts {
    unified: Option<Mount>,
    devices: Option<Mount>,
}

/// How devices are filtered in a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// cgroup v2: a BPF program.
    Bpf,
    /// cgroup v1: the devices controller.
    Devices,
}

/// The cgroup of a process in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How devices are filtered there.
    pub kind: Kind,
    /// The directory.
    pub dir: PathBuf,
}

/// The cgroups of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// In cgroup v2.
    pub unified: Option<Place>,
    /// In the v1 hierarchy with the devices controller.
    pub devices: Option<Place>,
}

/// Where a filter goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// On this cgroup: Slurm made it for the task alone.
    Task(PathBuf),
    /// On this cgroup: Slurm made it for the step.
    Step(PathBuf),
    /// On a child of this cgroup.
    Below(PathBuf),
}

impl Mounts {
    /// What is mounted in this process's name space.
    pub fn read() -> Result<Mounts, FilterError> {
        let path = Path::new("/proc/self/mountinfo");
        fs::read_to_string(path).map(|text| Mounts::parse(&text)).map_err(FilterError::file(path))
    }

    /// The cgroups of a process.
    pub fn of(&self, pid: i32) -> Result<Places, FilterError> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        fs::read_to_string(&path).map(|text| self.places(&text)).map_err(FilterError::file(&path))
    }

    fn parse(mountinfo: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(at)) = (left.next(), left.next()) else { continue };
            let mount = Mount { at: at.into(), root: root.into() };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => mounts.unified.get_or_insert(mount),
                (Some("cgroup"), Some(options)) if options.split(',').any(|o| o == "devices") => {
                    mounts.devices.get_or_insert(mount)
                }
                _ => continue,
            };
        }
        mounts
    }

    fn places(&self, cgroup: &str) -> Places {
        let mut places = Places::default();
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if id == "0" {
                places.unified = place(Kind::Bpf, self.unified.as_ref(), path);
            } else if controllers.split(',').any(|c| c == "devices") {
                places.devices = place(Kind::Devices, self.devices.as_ref(), path);
            }
        }
        places
    }
}

/// The directory of a path that /proc names, if the mount shows it.
fn place(kind: Kind, mount: Option<&Mount>, path: &str) -> Option<Place> {
    let mount = mount?;
    let inside = Path::new(path).strip_prefix(&mount.root).ok()?;
    // "/../x" is outside of this process's cgroup name space.
    let hidden = inside.components().any(|c| c == std::path::Component::ParentDir);
    (!hidden).then(|| Place { kind, dir: mount.at.join(inside) })
}

impl Place {
    /// Where the filter of a task of this step goes.
    pub fn spot(&self, job: u32, step: StepId) -> Spot {
        let dir = self.dir.clone();
        let names: Vec<_> = dir.components().map(|c| c.as_os_str().to_string_lossy()).collect();
        let (job, step) = (format!("job_{job}"), format!("step_{step}"));
        let mut below = names.iter().skip_while(|n| **n != job).skip(1);
        if below.next().is_none_or(|n| *n != step) {
            return Spot::Below(dir);
        }
        let last = below.last().and_then(|n| n.strip_prefix("task_"));
        let own = last.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if own { Spot::Task(dir) } else { Spot::Step(dir) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
27 25 0:24 / /sys/fs/cgroup/devices rw shared:9 - cgroup cgroup rw,devices
28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn both_hierarchies_of_a_hybrid_host_are_found() {
        let places = Mounts::parse(HYBRID).places("9:name=systemd:/\n5:devices:/x\n1:cpu:/y\n0::/a/b\n");
        assert_eq!(places.unified.unwrap().dir, PathBuf::from("/sys/fs/cgroup/unified/a/b"));
        assert_eq!(places.devices.unwrap().dir, PathBuf::from("/sys/fs/cgroup/devices/x"));
    }

    #[test]
    fn a_host_with_v2_alone_has_no_devices_controller() {
        let mounts =
            Mounts::parse("30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        let places = mounts.places("0::/system.slice/slurmd.service\n");
        assert_eq!(places.unified.unwrap().dir, PathBuf::from("/sys/fs/cgroup/system.slice/slurmd.service"));
        assert_eq!(places.devices, None);
    }

    #[test]
    fn a_mounted_subtree_is_taken_off_the_path_and_what_it_hides_is_no_place() {
        let mounts = Mounts::parse("30 1 0:26 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(mounts.places("0::/pod/x\n").unified.unwrap().dir, PathBuf::from("/sys/fs/cgroup/x"));
        assert_eq!(mounts.places("0::/other\n").unified, None);
        assert_eq!(mounts.places("0::/pod/../other\n").unified, None);
        assert_eq!(mounts.places("").unified, None);
    }

    fn spot(dir: &str, step: StepId) -> Spot {
        Place { kind: Kind::Bpf, dir: dir.into() }.spot(7, step)
    }

    #[test]
    fn slurms_own_cgroups_are_used_in_place() {
        let task = "/c/system.slice/slurmstepd.scope/job_7/step_0/user/task_1";
        assert_eq!(spot(task, StepId(0)), Spot::Task(task.into()));
        let v1 = "/d/slurm_n1/uid_1000/job_7/step_batch/task_0";
        assert_eq!(spot(v1, StepId::BATCH), Spot::Task(v1.into()));
        let special = "/c/job_7/step_0/user/task_special";
        assert_eq!(spot(special, StepId(0)), Spot::Step(special.into()));
        let ext = "/d/slurm/uid_0/job_7/step_extern";
        assert_eq!(spot(ext, StepId::EXTERN), Spot::Step(ext.into()));
    }

    #[test]
    fn another_jobs_or_steps_cgroup_is_not_taken_for_ours() {
        for dir in [
            "/",
            "/c/slurmd.service",
            "/c/job_8/step_0/task_0",
            "/c/job_7/step_1/task_0",
            "/c/job_7",
            "/c/job_7/x/step_0",
        ] {
            assert_eq!(spot(dir, StepId(0)), Spot::Below(dir.into()), "{dir}");
        }
    }
}
