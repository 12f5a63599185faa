//! The filter against the running kernel: real cgroups, real device files, a real process that tries to open them.

use super::cgroup::{Kind, Mounts, Place};
use super::*;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use tempfile::TempDir;

/// A major without a driver: opening gives ENXIO where allowed, EPERM where not.
const MAJOR: u32 = 511;
const MINORS: [u32; 4] = [10, 11, 12, 13];

/// Device files and the driver's lists of a node.
struct Node(TempDir);

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        for minor in MINORS {
            let path = dir.path().join(minor.to_string());
            let (major, minor) = (u64::from(MAJOR), u64::from(minor));
            mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)).unwrap();
        }
        fs::create_dir_all(dir.path().join("driver/nvidia/capabilities/gpu0")).unwrap();
        fs::create_dir_all(dir.path().join("driver/nvidia-caps")).unwrap();
        let lines = MINORS.map(|m| format!("gpu0/gi{m}/access {m}\n"));
        fs::write(dir.path().join("driver/nvidia-caps/mig-minors"), lines.concat()).unwrap();
        Node(dir)
    }

    /// A process that waits for a line and then says which of the devices it may open.
    fn task(&self) -> (Child, ChildStdin) {
        let script = "read _; for m in 10 11 12 13; do case $( { : < $m; } 2>&1 ) in \
                      *'not permitted'*) ;; *'No such device or address'*) echo $m;; *) echo odd;; esac; done";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(self.0.path()).env("LC_ALL", "C");
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }
}

/// What the task says that it may open.
fn opened((mut child, mut stdin): (Child, ChildStdin)) -> Vec<String> {
    stdin.write_all(b"go\n").unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    child.wait().unwrap();
    lines
}

/// Whether this machine can run these tests; says why where not.
fn can(kind: Kind) -> Option<Place> {
    let places = Mounts::read().and_then(|m| m.of(std::process::id() as i32)).unwrap();
    let place = match kind {
        Kind::Bpf => places.unified,
        Kind::Devices => places.devices,
    };
    let root = nix::unistd::geteuid().is_root();
    if root && place.is_some() {
        return place;
    }
    assert!(
        std::env::var_os("MIGSHARE_REQUIRE").is_none_or(|r| r != "all"),
        "needs root and {kind:?} cgroups"
    );
    println!("SKIP: needs root and {kind:?} cgroups");
    None
}

/// A cgroup that goes when the test does.
struct Cgroup(PathBuf);

impl Cgroup {
    fn below(place: &Place, name: &str) -> Cgroup {
        let dir = place.dir.join(format!("migshare_test_{}_{name}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Cgroup(dir)
    }
    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn each_task_opens_its_own_devices_and_no_other() {
    if can(Kind::Bpf).is_none() && can(Kind::Devices).is_none() {
        return;
    }
    let node = Node::new();
    let job = std::process::id();
    let mut filter = Filter::new(node.0.path(), "unit", job, StepId(0));
    let all = rule(MAJOR, [10, 11, 12]);
    let rules = [rule(MAJOR, [10, 12]), rule(MAJOR, [11]), rule(MAJOR, [])];
    let tasks = rules.each_ref().map(|_| node.task());
    for (rank, (child, _)) in tasks.iter().enumerate() {
        filter.guard(rank as u32, child.id() as i32, &rules[rank], &all).unwrap();
    }
    let made = filter.made.clone();
    let [first, second, third] = tasks;
    assert_eq!(opened(first), ["10", "12"]);
    assert_eq!(opened(second), ["11"]);
    assert_eq!(opened(third), [""; 0]);
    assert!(made.len() == 3 && made.iter().all(|dir| dir.exists()));
    filter.task_ended(0);
    filter.task_ended(2);
    assert_eq!(made.iter().map(|dir| dir.exists()).collect::<Vec<_>>(), [false, true, false]);
    filter.step_ended();
    assert!(!made[1].exists());
}

#[test]
fn a_cgroup_that_a_killed_slurmstepd_left_is_swept_by_job_and_by_no_other() {
    let Some(place) = can(Kind::Bpf).or_else(|| can(Kind::Devices)) else { return };
    let job = std::process::id();
    let left = [
        format!("{}0", prefix("sweep", job, Some(StepId(3)))),
        format!("{}1", prefix("sweep", job, Some(StepId::BATCH))),
    ];
    let other = format!("{}0", prefix("sweep", job + 1, Some(StepId(3))));
    let dirs = left.iter().chain([&other]).map(|name| place.dir.join(name)).collect::<Vec<_>>();
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    sweep(&prefix("sweep", job, None));
    let there: Vec<bool> = dirs.iter().map(|dir| dir.exists()).collect();
    let _ = fs::remove_dir(&dirs[2]);
    assert_eq!(there, [false, false, true]);
}

#[test]
fn what_outlives_a_job_with_leaves_is_killed() {
    let Some(place) = can(Kind::Bpf).or_else(|| can(Kind::Devices)) else { return };
    let (node, job) = (Node::new(), std::process::id());
    let name = format!("{}0", prefix("kill", job, Some(StepId(0))));
    let group = Cgroup(place.dir.join(name));
    fs::create_dir(&group.0).unwrap();
    let (mut child, _stdin) = node.task();
    group.take(child.id());
    sweep(&prefix("kill", job, None));
    assert!(group.0.exists() && child.try_wait().unwrap().is_none());
    // A zombie still counts as a member of a v1 cgroup: reap it while the sweep goes on.
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    sweep_and_kill(&prefix("kill", job, None));
    assert!(!group.0.exists());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&reaper.join().unwrap()), Some(9));
}

#[test]
fn two_filters_on_one_cgroup_must_both_allow() {
    let Some(place) = can(Kind::Bpf) else { return };
    let (node, group) = (Node::new(), Cgroup::below(&place, "and"));
    attach::attach(&place, &group.0, node.0.path(), &rule(MAJOR, [10, 11])).unwrap();
    attach::attach(&place, &group.0, node.0.path(), &rule(MAJOR, [11, 12])).unwrap();
    let task = node.task();
    group.take(task.0.id());
    assert_eq!(opened(task), ["11"]);
}

#[test]
fn a_filter_that_ours_would_replace_or_cannot_join_is_respected() {
    const ALLOW_OVERRIDE: u32 = 1;
    const ALONE: u32 = 0;
    let Some(place) = can(Kind::Bpf) else { return };
    for flags in [ALLOW_OVERRIDE, ALONE] {
        let (node, above) = (Node::new(), Cgroup::below(&place, &format!("above{flags}")));
        let theirs = bpf::load(&program::program(&rule(MAJOR, [13]))).unwrap();
        let parent = File::open(&above.0).unwrap();
        bpf::change(bpf::PROG_ATTACH, parent.as_fd(), theirs.as_fd(), flags).unwrap();
        let below = Cgroup(above.0.join("task"));
        fs::create_dir(&below.0).unwrap();
        let said = attach::attach(&place, &below.0, node.0.path(), &rule(MAJOR, [10])).unwrap_err();
        assert!(matches!(said, FilterError::Taken { .. }), "{said}");
        let task = node.task();
        below.take(task.0.id());
        assert_eq!(opened(task), ["13"], "theirs still decides");
    }
}

#[test]
fn the_devices_controller_of_v1_closes_the_same() {
    let Some(place) = can(Kind::Devices) else { return };
    let (node, group) = (Node::new(), Cgroup::below(&place, "v1"));
    attach::attach(&place, &group.0, node.0.path(), &rule(MAJOR, [11, 13])).unwrap();
    let task = node.task();
    group.take(task.0.id());
    assert_eq!(opened(task), ["11", "13"]);
}
