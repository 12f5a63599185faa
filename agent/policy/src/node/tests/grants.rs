//! Grants: a step's part of its job's lease.

use super::leases::refusal;
use crate::node::{Ask, Seen, Verdict};
use crate::rig::{Rig, grant, holder, job, open};
use migshare_proto::StepId;
use migshare_proto::message::Reason;

struct Got {
    places: Vec<(u32, u8)>,
    tasks: Vec<Vec<u32>>,
    shared: u32,
}

fn granted(verdict: Verdict) -> Got {
    let Verdict::Granted { leaves, tasks, shared } = verdict else { panic!("{verdict:?}") };
    Got { places: leaves.iter().map(|leaf| (leaf.gpu, leaf.placement.start)).collect(), tasks, shared }
}

#[test]
fn as_many_leaves_as_tasks_gives_one_each() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 3));
    let got = granted(rig.ask(&grant(1, 0, 3, 3)));
    assert_eq!((got.tasks, got.shared), (vec![vec![0], vec![1], vec![2]], 0));
    assert_eq!(got.places, [(0, 4), (0, 5), (0, 6)]);
}

#[test]
fn two_concurrent_steps_have_different_leaves() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 4));
    let first = granted(rig.ask(&grant(1, 0, 2, 2)));
    let second = granted(rig.ask(&grant(1, 1, 2, 2)));
    assert_eq!((first.shared, second.shared), (0, 0));
    assert!(first.places.iter().all(|p| !second.places.contains(p)));
}

#[test]
fn a_step_beyond_the_free_leaves_shares_those_that_the_fewest_steps_use() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 4));
    let first = granted(rig.ask(&grant(1, 0, 3, 1)));
    let second = granted(rig.ask(&grant(1, 1, 2, 1)));
    assert_eq!(second.shared, 1);
    let third = granted(rig.ask(&grant(1, 2, 2, 1)));
    assert_eq!(third.shared, 2);
    let twice: Vec<_> = first.places.iter().filter(|p| second.places.contains(p)).collect();
    assert_eq!(twice.len(), 1);
    assert!(!third.places.contains(twice[0]), "the leaf with two steps is not the least shared");
}

#[test]
fn the_same_grant_is_answered_again() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 4));
    let first = rig.ask(&grant(1, 0, 2, 1));
    let records = rig.journal.len();
    assert_eq!(rig.ask(&grant(1, 0, 2, 1)), first);
    assert_eq!(rig.journal.len(), records);
    assert_eq!(refusal(rig.ask(&grant(1, 0, 3, 1))).0, Reason::LeaseDiffers);
}

#[test]
fn fewer_leaves_than_tasks_is_refused_with_what_to_ask_for() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 3));
    let (reason, text) = refusal(rig.ask(&grant(1, 0, 3, 4)));
    assert_eq!(reason, Reason::FewerLeavesThanTasks);
    assert_eq!(
        text,
        "step 1.0 has 4 tasks and 3 leaves on this node, and each task needs a leaf of its own: ask for --gres=mig:4 or \
         --mig-share=4, or start 3 here"
    );
}

#[test]
fn more_than_the_lease_is_refused() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 3));
    let (reason, text) = refusal(rig.ask(&grant(1, 0, 4, 4)));
    assert_eq!(reason, Reason::BeyondLease);
    assert!(text.contains("the job holds 3") && text.contains("--mig-share=4"), "{text}");
}

#[test]
fn bad_grants_are_refused() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 3));
    assert_eq!(refusal(rig.ask(&grant(1, 0, 0, 1))).0, Reason::BadRequest);
    assert_eq!(refusal(rig.ask(&grant(1, 0, 1, 0))).0, Reason::BadRequest);
    assert_eq!(refusal(rig.ask(&grant(1, StepId::BATCH.0, 1, 1))).0, Reason::BadRequest);
    assert_eq!(refusal(rig.ask(&grant(2, 0, 1, 1))).0, Reason::NoLease);
}

#[test]
fn a_grant_ends_by_release_and_by_the_end_of_its_holder() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 2));
    rig.ask(&grant(1, 0, 1, 1));
    rig.ask(&grant(1, 1, 1, 1));
    assert_eq!(rig.node.holders().len(), 2);
    let release = Ask::Release { job: job(1), step: StepId(0) };
    assert_eq!(rig.ask(&release), Verdict::Done { found: true });
    assert_eq!(rig.ask(&release), Verdict::Done { found: false });
    rig.node.observe(rig.now, Seen::HolderGone(holder(101)));
    rig.settle();
    assert!(rig.node.holders().is_empty());
    assert_eq!(granted(rig.ask(&grant(1, 2, 2, 2))).shared, 0);
}

#[test]
fn a_pid_that_came_again_does_not_end_the_grant_of_another_process() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 2));
    rig.ask(&grant(1, 0, 1, 1));
    let earlier = crate::record::Holder { pid: 100, born: 0 };
    rig.node.observe(rig.now, Seen::HolderGone(earlier));
    rig.settle();
    assert_eq!(rig.node.holders().len(), 1);
}

#[test]
fn grants_survive_a_restart_with_their_leaves() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 4));
    let before = rig.ask(&grant(1, 0, 2, 2));
    rig.restart();
    assert_eq!(rig.ask(&grant(1, 0, 2, 2)), before);
}
