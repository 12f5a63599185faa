//! Leases: opened, repeated, refused, closed.

use crate::node::{Ask, Run, Seen, Service, Verdict};
use crate::placement::Direction;
use crate::record::Ending;
use crate::rig::{Rig, close, grant, job, open};
use migshare_proto::message::{Reason, Refused};
use migshare_proto::{JobKey, StepId};

pub(super) fn refusal(verdict: Verdict) -> (Reason, String) {
    let Verdict::Refused(Refused { reason, text, .. }) = verdict else { panic!("not refused: {verdict:?}") };
    (reason, text)
}

fn places(verdict: Verdict) -> Vec<(u32, u8)> {
    let Verdict::Lease(leaves) = verdict else { panic!("{verdict:?}") };
    leaves.iter().map(|leaf| (leaf.gpu, leaf.placement.start)).collect()
}

#[test]
fn nine_leaves_span_two_gpus() {
    let mut rig = Rig::h100s(2);
    let got = places(rig.ask(&open(1, 9)));
    assert_eq!(got.len(), 9);
    assert!(got.iter().any(|p| p.0 == 0) && got.iter().any(|p| p.0 == 1));
    assert!(got.is_sorted());
}

#[test]
fn spread_takes_leaves_of_every_gpu() {
    let mut rig = Rig::h100s(4);
    let ask = Ask::Open { job: job(1), leaves: 8, direction: Some(Direction::Spread), need: None };
    let got = places(rig.ask(&ask));
    assert!((0..4).all(|gpu| got.iter().filter(|p| p.0 == gpu).count() == 2), "{got:?}");
}

#[test]
fn the_same_lease_is_answered_again_and_another_count_is_refused() {
    let mut rig = Rig::h100s(1);
    let first = rig.ask(&open(1, 3));
    let records = rig.journal.len();
    assert_eq!(rig.ask(&open(1, 3)), first);
    assert_eq!(rig.ask(&Ask::JobLeaves { job: job(1) }), first);
    assert_eq!(rig.journal.len(), records, "a repeated answer writes nothing");
    assert_eq!(refusal(rig.ask(&open(1, 4))).0, Reason::LeaseDiffers);
}

#[test]
fn too_many_leaves_are_refused_with_who_holds_them_and_a_way_out() {
    let mut rig = Rig::h100s(2);
    rig.ask(&open(811, 7));
    rig.ask(&open(812, 5));
    let (reason, text) = refusal(rig.ask(&open(813, 3)));
    assert_eq!(reason, Reason::NoLeaves);
    assert_eq!(
        text,
        "3 leaves asked for, 2 of 14 free: job 811 holds 7, job 812 holds 5; ask for 2 leaves or wait"
    );
}

#[test]
fn zero_leaves_make_no_sense() {
    assert_eq!(refusal(Rig::h100s(1).ask(&open(1, 0))).0, Reason::BadRequest);
}

#[test]
fn a_refusal_and_a_dropped_proposal_leave_no_trace() {
    let mut rig = Rig::h100s(1);
    let before = rig.node.books().clone();
    let dropped = rig.node.answer(rig.now, &open(1, 3));
    assert_eq!(dropped.records.len(), 1);
    drop(dropped);
    assert_eq!(rig.node.books(), &before);
    refusal(rig.ask(&open(1, 8)));
    assert_eq!(rig.node.books(), &before);
    assert_eq!(places(rig.ask(&open(2, 7))).len(), 7);
}

#[test]
fn closing_frees_the_leaves_and_closing_again_finds_nothing() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 7));
    assert_eq!(rig.ask(&close(1)), Verdict::Done { found: true });
    assert_eq!(rig.ask(&close(1)), Verdict::Done { found: false });
    assert_eq!(places(rig.ask(&open(2, 7))).len(), 7);
}

#[test]
fn the_epilog_of_the_first_run_does_not_end_the_second() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 2));
    let second = JobKey { start: 2000, ..job(1) };
    rig.ask(&Ask::Close { job: 1, uid: 500, start: Some(1000), how: Ending::Epilog });
    rig.ask(&Ask::Open { job: second, leaves: 2, direction: None, need: None });
    let late = Ask::Close { job: 1, uid: 500, start: Some(1000), how: Ending::Epilog };
    assert_eq!(rig.ask(&late), Verdict::Done { found: false });
    assert!(rig.node.books().leases.contains_key(&second));
    let other_user = Ask::Close { job: 1, uid: 501, start: None, how: Ending::Epilog };
    assert_eq!(rig.ask(&other_user), Verdict::Done { found: false });
}

#[test]
fn a_job_that_started_again_replaces_its_earlier_run() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 6));
    let second = JobKey { start: 2000, ..job(1) };
    assert_eq!(places(rig.ask(&Ask::Open { job: second, leaves: 6, direction: None, need: None })).len(), 6);
    assert_eq!(rig.node.books().leases.len(), 1);
    let (reason, text) = refusal(rig.ask(&open(1, 6)));
    assert_eq!(reason, Reason::LeaseDiffers);
    assert!(text.contains("start 2000"), "{text}");
}

#[test]
fn a_job_without_lease_is_told_to_ask_for_one() {
    let (reason, text) = refusal(Rig::h100s(1).ask(&Ask::JobLeaves { job: job(9) }));
    assert_eq!(reason, Reason::NoLease);
    assert!(text.contains("job 9") && text.contains("--gres=mig:"), "{text}");
}

#[test]
fn the_reaper_ends_leases_of_jobs_that_slurm_no_longer_runs_but_no_young_ones() {
    let mut rig = Rig::h100s(1);
    for n in 1..=4 {
        rig.ask(&open(n, 1));
    }
    rig.now += 100;
    rig.ask(&open(5, 1));
    // 1 runs, 2 runs again since later, 3 runs since an unknown time, 4 is gone, 5 is too young to be missed.
    let run = |job, start| Run { job, start };
    let jobs = vec![run(1, Some(1000)), run(2, Some(1500)), run(3, None)];
    rig.node.observe(rig.now, Seen::Running { jobs, asked: rig.now });
    rig.settle();
    let left: Vec<u32> = rig.node.books().leases.keys().map(|key| key.job).collect();
    assert_eq!(left, [1, 3, 5]);
    assert!(
        rig.journal
            .iter()
            .any(|r| matches!(r, crate::record::Record::Close { job, how: Ending::Reaper } if job.job == 4))
    );
}

#[test]
fn a_job_that_slurm_does_not_know_keeps_its_leaves_while_a_step_of_it_runs() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(700, 7));
    rig.ask(&grant(700, 0, 7, 7));
    rig.ask(&grant(700, 1, 1, 1));
    rig.now += 100;
    let nothing = || Seen::Running { jobs: Vec::new(), asked: 10_100 };
    rig.node.observe(rig.now, nothing());
    rig.settle();
    assert!(matches!(rig.ask(&open(701, 1)), Verdict::Refused(_)), "another job gets none of them");
    assert_eq!(
        rig.node.problems(),
        [
            "Slurm does not know job 700, and it still runs: step 0 (pid 70000), step 1 (pid 70001); it keeps its leaves until \
          that ends, or until `migshare evict 700 --force`"
        ]
    );
    assert_eq!(rig.node.service(), Service::Serving, "this is no reason to drain");
    rig.ask(&Ask::Release { job: job(700), step: StepId(0) });
    rig.settle();
    assert_eq!(rig.node.books().leases.len(), 1);
    rig.node.observe(rig.now, Seen::HolderGone(crate::rig::holder(70_001)));
    rig.settle();
    assert!(rig.node.books().leases.is_empty() && rig.node.problems().is_empty());
    assert!(matches!(rig.ask(&open(701, 7)), Verdict::Lease(_)));
}

/// A batch script sees all leaves of its job and takes no grant.
#[test]
fn a_job_that_slurm_does_not_know_keeps_its_leaves_while_a_process_is_seen_on_them() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(700, 7));
    rig.gpus[0].instances[3].compute[0].processes.push(4711);
    rig.now += 100;
    rig.scan();
    rig.node.observe(rig.now, Seen::Running { jobs: Vec::new(), asked: rig.now });
    rig.settle();
    assert!(matches!(rig.ask(&open(701, 1)), Verdict::Refused(_)));
    assert!(rig.node.problems()[0].contains("it still runs: process 4711"), "{:?}", rig.node.problems());
    rig.gpus[0].instances[3].compute[0].processes.clear();
    rig.scan();
    assert!(rig.node.books().leases.is_empty() && rig.node.problems().is_empty());
}
