//! Host memory that the ranks of a step share: who gets it, what they can do with it, and when it is gone.

use crate::rig::{Holder, Rig, skip, until};
use crate::step::{Step, own_job};
use migshare_proto::ClientError;
use migshare_proto::StepId;
use migshare_proto::message::{CloseLease, Reason, ReleaseGrant, Request};

const FETCHED: &str = "job 7 step 0 bytes 268435456";

#[test]
fn ranks_share_bytes_in_memory_whose_size_no_peer_can_change() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 2);
    assert_eq!((step.rank(0, "fetch"), step.rank(1, "fetch")), (FETCHED.to_owned(), FETCHED.to_owned()));
    assert_eq!(step.rank(0, "touched"), "0", "nothing is taken before it is used");
    step.rank(0, "put hello");
    assert_eq!(step.rank(1, "get 5"), "hello");
    for change in ["truncate 0", "truncate 4096", "grow 536870912", "write-seal"] {
        assert_eq!(step.rank(1, change), "Operation not permitted", "{change}");
    }
    assert_eq!(step.rank(0, "get 5"), "hello");
}

#[test]
fn what_a_rank_starts_reaches_the_segment_too() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 1);
    assert_eq!(step.rank(0, "child"), FETCHED);
}

#[test]
fn jobs_of_one_user_are_strangers_to_each_other() {
    let mut rig = Rig::new(1);
    rig.start();
    let (mut one, mut other) = (rig.step(7, 1), rig.step(8, 1));
    assert_eq!(one.rank(0, "fetch"), FETCHED);
    assert_eq!(other.rank(0, "fetch"), "job 8 step 0 bytes 268435456", "each gets its own");
    one.rank(0, "put secret");
    assert_eq!(other.rank(0, "get 6"), "\0\0\0\0\0\0");
    let mut without = Step::start(&rig, 1);
    let said = without.rank(0, "fetch");
    assert!(said.contains("is in no job step that has leaves on n1"), "{said}");
}

#[test]
fn another_users_step_is_not_given_away() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = Step::start(&rig, 1);
    // The rig's own job belongs to user 1000, and these ranks do not.
    rig.segment(crate::rig::key(7), 2, None, step.pid()).unwrap();
    let said = step.rank(0, "fetch");
    assert!(said.contains("step 7.0 is user 1000's, not user"), "{said}");
}

#[test]
fn a_steps_cgroup_decides_wherever_its_processes_come_from() {
    let root = std::path::Path::new("/sys/fs/cgroup/freezer");
    if !nix::unistd::geteuid().is_root() || !root.join("cgroup.procs").exists() {
        return skip("needs root and a cgroup hierarchy to make groups in");
    }
    let mut rig = Rig::new(1);
    rig.start();
    let held = Holder::new();
    rig.segment(own_job(7), 2, None, held.pid()).unwrap();
    let here = root.join(format!("segment-test-{}", std::process::id()));
    let groups = ["slurm_n1/uid_0/job_7/step_0", "migshare_n1_7.0.0", "slurm_n2/uid_0/job_7/step_0"];
    let answers = groups.map(|name| {
        std::fs::create_dir_all(here.join(name)).unwrap();
        let mut orphan = Step::start(&rig, 1);
        orphan.enter(&here.join(name), 1);
        let said = orphan.rank(0, "fetch");
        // A group can be removed when nobody is in it.
        std::fs::write(root.join("cgroup.procs"), orphan.rank(0, "pid")).unwrap();
        said
    });
    let made = ["slurm_n1/uid_0/job_7/step_0", "slurm_n2/uid_0/job_7/step_0", "migshare_n1_7.0.0"];
    for name in made {
        let mut dir = here.join(name);
        while dir != root && std::fs::remove_dir(&dir).is_ok() {
            dir.pop();
        }
    }
    assert_eq!(answers[..2], [FETCHED, FETCHED]);
    assert!(answers[2].contains("in no job step"), "another node on this host: {}", answers[2]);
}

#[test]
fn a_segment_ends_with_its_slurmstepd_whatever_killed_that() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 1);
    step.rank(0, "fetch");
    until("held by the agent alone", || rig.memfds() == 1);
    step.kill_stepd();
    until("let go of by the agent", || rig.memfds() == 0);
    let list = || std::fs::read_to_string(rig.path("state/segments.json")).unwrap();
    until("out of the list", || list().contains("\"segments\":[]"));
}

#[test]
fn a_segment_ends_with_the_grant_and_with_the_lease() {
    let mut rig = Rig::new(1);
    rig.start();
    let (mut first, mut second) = (rig.step(7, 1), rig.step(8, 1));
    first.rank(0, "fetch");
    second.rank(0, "fetch");
    rig.ask(Request::Release(ReleaseGrant { job: own_job(7), step: StepId(0) })).unwrap();
    let said = first.rank(0, "fetch");
    assert!(said.starts_with("refused: "), "{said}");
    let uid = own_job(8).uid;
    rig.ask(Request::CloseLease(CloseLease { job: 8, uid: uid + 1, start: None })).unwrap();
    assert_eq!(rig.memfds(), 1, "another user's job of this number ends nothing");
    rig.ask(Request::CloseLease(CloseLease { job: 8, uid, start: None })).unwrap();
    assert_eq!(rig.memfds(), 0);
}

#[test]
fn a_pool_of_huge_pages_that_is_too_small_costs_a_message_and_no_step() {
    let slurm = "[slurm]\ndrain = false\nsqueue = \"/bin/false\"\n";
    let mut rig = Rig::new(1).with(&format!("{slurm}[segments]\nhuge_pages = \"try\"\n"));
    rig.start();
    let mut step = rig.step(7, 1);
    assert_eq!(step.rank(0, "fetch"), FETCHED);
    step.rank(0, "put hello");
    assert_eq!(step.rank(0, "get 5"), "hello");
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|pages| pages.trim().parse::<u64>().unwrap() >= 128) {
        return println!("the pool of this machine is large enough: no message");
    }
    assert!(rig.log().contains("vm.nr_hugepages"), "{}", rig.log());
}

#[test]
fn the_sites_limits_hold() {
    let mut rig = Rig::new(1).with(
        "[slurm]\ndrain = false\nsqueue = \"/bin/false\"\n[segments]\ndefault = \"64M\"\nmax = \"128M\"\ntotal = \"160M\"\nper_user = \"1G\"\n",
    );
    rig.start();
    let holder = Holder::new();
    let refused = |answer: Result<_, ClientError>| match answer {
        Err(ClientError::Refused(refused)) => (refused.reason, refused.text),
        other => panic!("{other:?} where a refusal was expected"),
    };
    let (reason, text) = refused(rig.segment(own_job(1), 2, Some(129 << 20), holder.pid()));
    assert_eq!(reason, Reason::NoSegment);
    assert!(text.contains("128M") && text.contains("segments.max"), "{text}");
    assert_eq!(rig.segment(own_job(1), 2, Some(128 << 20), holder.pid()).unwrap().bytes, Some(128 << 20));
    let (_, text) = refused(rig.segment(own_job(2), 2, Some(64 << 20), holder.pid()));
    assert!(text.contains("segments.total"), "{text}");
    let unasked = rig.segment(own_job(3), 2, None, holder.pid()).unwrap();
    assert!(unasked.bytes.is_none() && unasked.note.unwrap().contains("segments.total"));
    assert!(rig.log().contains("a step goes without its segment"), "{}", rig.log());
    let shown = rig.try_status().unwrap().segments.unwrap();
    assert_eq!((shown.steps, shown.promised, shown.limit), (1, 128 << 20, 160 << 20));
    assert_eq!(rig.segment(own_job(4), 1, None, holder.pid()).unwrap().bytes, None, "one leaf needs none");
    let (reason, _) = refused(rig.segment(own_job(5), 2, None, 0));
    assert_eq!(reason, Reason::BadRequest);
}
