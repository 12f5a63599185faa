//! The unit as it is shipped, started, watched, restarted and confined by a real systemd.

use crate::container::Container;
use crate::rig::{key, skip, until};
use crate::step::{Step, own_job};
use migshare_proto::StepId;
use migshare_proto::message::{
    JobLeaves, LeaseReply, OpenLease, OpenSegment, Reply, Request, Shape, StatusQuery,
};
use std::process::Command;

/// A machine, or what is missing here to have one.
macro_rules! booted {
    () => {
        match Container::boot() {
            Ok(container) => container,
            Err(missing) => return skip(&missing),
        }
    };
}

fn lease(container: &Container, request: Request) -> LeaseReply {
    match container.client().ask(&request).unwrap() {
        Reply::Lease(lease) => lease,
        other => panic!("{other:?} to a request for leaves"),
    }
}

fn open(container: &Container, job: u32) -> LeaseReply {
    lease(container, Request::OpenLease(OpenLease { job: key(job), leaves: 2, shape: Shape::default() }))
}

/// Waits until all leaves stand.
fn settled(container: &Container) {
    until("whole", || match container.client().ask(&Request::Status(StatusQuery {})).unwrap() {
        Reply::Status(status) => status.usable == 7 && status.gpus[0].leaves.iter().all(|l| l.generation > 0),
        other => panic!("{other:?} to status"),
    });
}

#[test]
fn the_agent_tells_systemd_how_it_is_and_the_journal_what_it_decides() {
    let container = booted!();
    assert_eq!(container.show("StatusText"), "serving");
    settled(&container);
    open(&container, 7);
    // A field of the journal, and no variable of the environment.
    let field = ["MIGSHARE", "_JOB=7"].concat();
    let journal = || container.run("journalctl", &["-t", "migshared", &field, "-o", "cat"]).stdout;
    until("in the journal", || {
        String::from_utf8(journal()).unwrap().lines().any(|line| line == "lease opened")
    });
    let stopped = container.run("systemctl", &["stop", "migshared"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(
        (container.show("Result"), container.show("ActiveState")),
        ("success".into(), "inactive".into())
    );
    assert!(!container.path("/run/migshare/agent.sock").exists(), "a client would be told nothing by it");
}

#[test]
fn an_agent_that_hangs_is_killed_by_the_watchdog_and_the_next_one_knows_the_leases() {
    let container = booted!();
    settled(&container);
    let held = open(&container, 7);
    let agent = container.show("MainPID");
    assert!(container.run("kill", &["-STOP", &agent]).status.success());
    until("started again", || {
        container.show("NRestarts") == "1" && container.show("ActiveState") == "active"
    });
    assert_ne!(container.show("MainPID"), agent);
    assert_eq!(lease(&container, Request::JobLeaves(JobLeaves { job: key(7) })), held);
}

#[test]
fn systemd_keeps_the_memory_of_a_step_over_a_restart() {
    let container = booted!();
    settled(&container);
    let program = container.path("/srv/stepd.py");
    std::fs::copy(crate::step::PROGRAM, program).unwrap();
    let mut command: Command = container.command("python3");
    command.args(["/srv/stepd.py", "/run/migshare/segment.sock", "1"]);
    let mut step = Step::of(&command);
    let holder = step.rank(0, "stepd").parse().unwrap();
    let asked = OpenSegment { job: own_job(7), step: StepId(0), leaves: 2, bytes: None, holder };
    assert!(matches!(container.client().ask(&Request::OpenSegment(asked)), Ok(Reply::Segment(_))));
    step.rank(0, "fetch");
    step.rank(0, "put kept");
    step.rank(0, "forget");
    until("kept", || container.show("NFileDescriptorStore") == "1");
    let restarted = container.run("systemctl", &["restart", "migshared"]);
    assert!(restarted.status.success(), "{restarted:?}");
    step.rank(0, "fetch");
    assert_eq!(step.rank(0, "get 4"), "kept");
    drop(step);
    until("given up", || container.show("NFileDescriptorStore") == "0");
}

/// What a confined program tries, and what it is to hear. The first shows that it could make device files if it were let.
const ESCAPES: [(&str, &str); 7] = [
    ("mknod /run/migshare/null c 1 3 && echo made", "made"),
    ("mknod /run/migshare/mem c 1 1", "Operation not permitted"),
    ("echo x > /etc/migshare-was-here", "Read-only file system"),
    ("echo x > /var/lib/migshare-was-here", "Read-only file system"),
    ("unshare --net true", "Operation not permitted"),
    ("ls /root/", "Permission denied"),
    ("python3 -c 'import socket; socket.socket(socket.AF_PACKET)'", "Address family not supported"),
];

#[test]
fn systemd_confines_what_runs_in_the_unit() {
    let container = booted!();
    let status =
        std::fs::read_to_string(container.path(&format!("/proc/{}/status", container.show("MainPID"))))
            .unwrap();
    for field in ["CapEff:\t0000000008200000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.lines().any(|line| line == field), "{field}: {status}");
    }
    let script: Vec<String> =
        ESCAPES.iter().map(|(escape, _)| format!("echo \"== $( ({escape}) 2>&1)\"\n")).collect();
    std::fs::write(container.path("/srv/escape"), script.concat()).unwrap();
    let ran = container.run("systemctl", &["start", "escape"]);
    let said = std::fs::read_to_string(container.path("/srv/escaped")).unwrap_or_default();
    assert!(ran.status.success(), "{ran:?} {said}");
    let said: Vec<&str> = said.split("== ").skip(1).collect();
    assert_eq!(said.len(), ESCAPES.len(), "{said:?}");
    for ((escape, expected), said) in ESCAPES.iter().zip(said) {
        assert!(said.contains(expected), "{escape}: {said}");
    }
    let rated = container.run("systemd-analyze", &["security", "--threshold=30", "migshared.service"]);
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
}
