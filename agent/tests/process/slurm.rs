//! The agent and Slurm's commands, played by scripts here: only what is said and when. The real ones are in the cluster
//! stories.

use crate::rig::{Holder, Rig, until};
use migshare_agent::journal::Journal;
use migshare_policy::record::Record;
use migshare_proto::admin::{GpuNote, Order, OrderRequest};
use migshare_proto::{GpuUuid, Request};
use nvidia_ml::machine::{Condition, Process};
use nvidia_ml::process::Pid;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A node's state in a file, and the two commands over it.
const SCONTROL: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
[ -e unreachable ] && exit 1
case "$1" in
show) cat node ;;
update)
    echo "$*" >> updates
    case "$*" in
    *state=drain*) printf 'NodeName=n1\n   State=IDLE+DRAIN Cores=1\n   Reason=%s [root@2025-01-01T00:00:00]\n' "${4#reason=}" > node ;;
    *state=resume*) printf 'NodeName=n1\n   State=IDLE Cores=1\n' > node ;;
    esac ;;
esac
"#;
const SQUEUE: &str =
    "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n[ -e unreachable -o -e squeue_fails ] && exit 1\ncat jobs\n";

fn rig(gpus: u32) -> Rig {
    let rig = Rig::new(gpus);
    let at = rig.dir.path().display().to_string();
    for (name, text) in [("scontrol", SCONTROL), ("squeue", SQUEUE)] {
        std::fs::write(rig.path(name), text).unwrap();
        std::fs::set_permissions(rig.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    write(&rig.path("jobs"), "");
    write(&rig.path("node"), "NodeName=n1\n   State=IDLE Cores=1\n");
    rig.with(&format!("[slurm]\nscontrol = \"{at}/scontrol\"\nsqueue = \"{at}/squeue\"\ninterval = 1\n"))
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn node_when(rig: &mut Rig, wanted: impl Fn(&str) -> bool) -> String {
    let path = rig.path("node");
    rig.until("change in slurm", |_| std::fs::read_to_string(&path).is_ok_and(|t| wanted(&t)));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_node_that_cannot_serve_is_drained_with_the_reason_and_resumed_by_itself() {
    let mut rig = rig(2);
    rig.start();
    rig.change(|m| m.gpu_mut(1).unwrap().condition = Condition::Lost);
    let text = node_when(&mut rig, |t| t.contains("DRAIN"));
    assert!(text.contains("Reason=migshare: ") && text.contains("gpu 1 is lost"), "{text}");
    rig.change(|m| m.reset(1, None).unwrap());
    node_when(&mut rig, |t| !t.contains("DRAIN"));
}

/// A batch script takes no grant; NVML shows what it runs.
#[test]
fn a_job_that_slurm_does_not_know_keeps_its_leaves_while_nvml_shows_its_process() {
    let mut rig = rig(1);
    rig.start();
    rig.open(700, 7).unwrap();
    let script = Holder::new();
    let pid = Pid::find(script.pid()).unwrap();
    rig.change(|m| m.gpus[0].instances[2].compute[0].processes.push(Process { pid, memory_mib: 10 }));
    rig.kill();
    age(&rig);
    rig.launch(rig.command());
    let notice = format!("Slurm does not know job 700, and it still runs: process {}", script.pid());
    let status = rig.until("notice", |s| s.problems.iter().any(|p| p.contains(&notice)));
    assert_eq!(status.leases.len(), 1);
    drop(script);
    rig.until("the reaper", |s| s.leases.is_empty() && s.problems.is_empty());
}

/// What Slurm keeps of a reason is one line; a longer one must not look like news at each interval.
#[test]
fn a_reason_of_several_lines_drains_once() {
    let mut rig = rig(2);
    let text = std::fs::read_to_string(rig.path("scontrol")).unwrap();
    // As Slurm prints it: the lines of a reason behind each other, each with its own indent.
    write(&rig.path("scontrol"), &text.replace("show) cat node ;;", "show) echo >> looks; cat node ;;"));
    rig.start();
    let gpu = GpuUuid::new(&rig.machine().gpus[1].uuid);
    let order = Order::Cordon(GpuNote { gpu, note: "fan\n  ticket\t12\u{1b}[31m\n".to_owned() });
    rig.ask(Request::Order(OrderRequest { order, force: false })).unwrap();
    let node = node_when(&mut rig, |t| t.contains("DRAIN"));
    assert!(node.contains("gpu 1 is cordoned: fan ticket 12 [31m"), "{node}");
    let looks = |rig: &Rig| std::fs::read_to_string(rig.path("looks")).unwrap().len();
    let before = looks(&rig);
    until("several more looks", || looks(&rig) > before + 3);
    let updates = std::fs::read_to_string(rig.path("updates")).unwrap();
    assert_eq!(updates.matches("state=drain").count(), 1, "{updates}");
}

#[test]
fn a_drain_of_the_plugin_is_lifted_and_one_of_an_admin_is_not() {
    let mut rig = rig(1);
    let drained = |why: &str| format!("NodeName=n1\n   State=IDLE+DRAIN Cores=1\n   Reason={why} [root@x]\n");
    write(&rig.path("node"), &drained("migshare: agent away: no answer"));
    rig.start();
    node_when(&mut rig, |t| !t.contains("DRAIN"));
    write(&rig.path("node"), &drained("new fan"));
    let before = std::fs::read_to_string(rig.path("updates")).unwrap();
    rig.change(|m| m.gpu_mut(0).unwrap().condition = Condition::Lost);
    rig.until("notice", |s| !s.problems.is_empty());
    rig.change(|m| m.reset(0, None).unwrap());
    rig.settled();
    assert_eq!(
        std::fs::read_to_string(rig.path("updates")).unwrap(),
        before,
        "the admin's drain was not touched"
    );
}

/// As if the leases had been opened long ago: the reaper says nothing of young ones.
fn age(rig: &Rig) {
    let (mut journal, replay) = Journal::open(&rig.path("state")).unwrap();
    let older = |record| match record {
        Record::Open { job, leaves, charged, at } => Record::Open { job, leaves, charged, at: at - 3600 },
        other => other,
    };
    let records: Vec<Record> = replay.records.into_iter().map(older).collect();
    journal.compact(&records, &replay.told).unwrap();
}

/// An old lease that the reaper would end if the failure were taken for an empty list, and looks enough for that.
#[test]
fn an_unreachable_controller_means_keep() {
    for (mute, whose) in [("unreachable", "scontrol"), ("squeue_fails", "squeue")] {
        let mut rig = rig(1);
        rig.start();
        rig.open(7, 2).unwrap();
        rig.kill();
        age(&rig);
        write(&rig.path(mute), "");
        rig.launch(rig.command());
        let log = rig.path("log");
        let failed = |line: &&str| line.contains("slurm is not reachable") && line.contains(whose);
        rig.until("three failed looks", |_| {
            std::fs::read_to_string(&log).unwrap().lines().filter(failed).count() >= 3
        });
        assert_eq!(rig.try_status().unwrap().leases.len(), 1, "{mute}");
        // The same lease ends once the controller says so.
        std::fs::remove_file(rig.path(mute)).unwrap();
        rig.until("the reaper", |s| s.leases.is_empty());
    }
}

#[test]
fn a_lease_whose_job_is_gone_ends_and_that_of_a_running_job_stays() {
    let mut rig = rig(1);
    rig.start();
    rig.open(7, 1).unwrap();
    rig.open(8, 1).unwrap();
    write(&rig.path("jobs"), "8 1700000000\n");
    rig.kill();
    age(&rig);
    rig.start();
    let status = rig.until("the reaper", |s| s.leases.len() == 1);
    assert_eq!(status.leases[0].job.job, 8);
    assert!(rig.log().contains("Reaper"));
}

/// A controller that came back without its state knows no job and says so without an error.
#[test]
fn a_job_that_slurm_does_not_know_keeps_its_leaves_while_its_step_runs() {
    let mut rig = rig(1);
    rig.start();
    rig.open(700, 7).unwrap();
    let holder = Holder::new();
    rig.grant(700, 0, 7, holder.pid()).unwrap();
    rig.kill();
    age(&rig);
    rig.launch(rig.command());
    let status =
        rig.until("notice", |s| s.problems.iter().any(|p| p.contains("Slurm does not know job 700")));
    assert_eq!(status.leases.len(), 1);
    rig.open(701, 1).unwrap_err();
    drop(holder);
    rig.until("the reaper", |s| s.leases.is_empty() && s.problems.is_empty());
    assert!(rig.log().contains("Reaper"));
}

#[test]
fn the_health_check_drains_a_node_without_an_agent_and_the_agent_resumes_it() {
    let mut rig = rig(1);
    rig.start();
    let health = |rig: &Rig| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_migshare"));
        command
            .args(["health", "--config"])
            .arg(rig.path("agent.toml"))
            .output()
            .unwrap()
            .status
            .code()
            .unwrap()
    };
    assert_eq!(health(&rig), 0);
    rig.kill();
    assert_eq!(health(&rig), 4);
    let text = std::fs::read_to_string(rig.path("node")).unwrap();
    assert!(text.contains("DRAIN") && text.contains("Reason=migshare: agent away"), "{text}");
    rig.start();
    node_when(&mut rig, |t| !t.contains("DRAIN"));
}
