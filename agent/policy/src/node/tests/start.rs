//! The start: adopt, cut, quarantine.

use crate::books::Stage;
use crate::fixture;
use crate::layout::Layout;
use crate::node::{Effect, Service, Verdict};
use crate::rig::{Rig, close, open, rules};
use crate::topology::{Gpu, Health};

fn uniform(starts: std::ops::Range<u8>) -> Vec<(u32, u8)> {
    starts.map(|start| (19, start)).collect()
}

#[test]
fn an_empty_gpu_is_cut_to_seven_equal_leaves() {
    let rig = Rig::h100s(2);
    assert_eq!(rig.standing(0), uniform(0..7));
    assert_eq!(rig.standing(1), uniform(0..7));
    assert_eq!((rig.node.counted(), rig.node.usable()), (14, 14));
    assert_eq!(rig.node.service(), Service::Serving);
    assert_eq!(rig.node.wake(rig.now), None, "a healthy node is left in peace");
}

#[test]
fn full_memory_layout_makes_one_leaf_of_double_memory() {
    let rig =
        Rig::of(&[fixture::h100(0), fixture::a30(1), fixture::rtx_pro_6000(2)], rules(Layout::FullMemory));
    assert_eq!(rig.standing(0), [uniform(0..6), vec![(15, 6)]].concat());
    assert_eq!(rig.standing(1), [(14, 0), (14, 1), (14, 2), (14, 3)]);
    assert_eq!(rig.standing(2), [(14, 0), (14, 3), (14, 6), (14, 9)]);
    assert_eq!((rig.node.counted(), rig.node.usable()), (15, 15));
}

fn found(instances: &[(u32, u8)]) -> Rig {
    let gpu = fixture::h100(0);
    let mut rig = Rig::asleep(std::slice::from_ref(&gpu), rules(Layout::Uniform));
    rig.gpus = vec![fixture::report(&gpu, instances)];
    rig
}

#[test]
fn leaves_that_stand_already_are_adopted_and_not_made_again() {
    let mut rig = found(&[(19, 0), (19, 1), (19, 5)]);
    rig.settle();
    let made = rig.done.iter().filter(|e| matches!(e, Effect::Create { .. })).count();
    assert_eq!(made, 4);
    assert_eq!(rig.standing(0), uniform(0..7));
    assert_eq!(rig.node.usable(), 7);
}

#[test]
fn an_instance_of_another_kind_is_quarantined_by_name_and_the_rest_is_cut_around_it() {
    let mut rig = found(&[(9, 4)]);
    rig.settle();
    assert_eq!(rig.standing(0), [uniform(0..4), vec![(9, 4)]].concat());
    assert_eq!(rig.node.usable(), 4);
    let reason = rig.reason();
    assert!(reason.starts_with("migshare: 4 of 7 leaves usable"), "{reason}");
    assert!(reason.contains("3g.40gb") && reason.contains("not made by migshare"), "{reason}");
}

#[test]
fn a_media_variant_of_a_leaf_is_no_leaf_of_the_layout() {
    let mut rig = found(&[(20, 3)]);
    rig.settle();
    assert_eq!((rig.standing(0)[3], rig.node.usable()), ((20, 3), 6));
}

#[test]
fn an_instance_without_full_compute_instance_is_quarantined() {
    let mut rig = found(&[(19, 2)]);
    rig.gpus[0].instances[0].compute[0].full = false;
    rig.settle();
    assert!(rig.reason().contains("no compute instance of full size"), "{}", rig.reason());
    assert_eq!(rig.node.usable(), 6);
}

#[test]
fn a_quarantine_of_something_foreign_ends_when_it_has_gone() {
    let mut rig = found(&[(9, 4)]);
    rig.settle();
    rig.gpus[0].instances.retain(|i| i.profile != 9);
    assert!(rig.node.wake(rig.now).is_some(), "the node looks again by itself");
    rig.settle_awake(1);
    assert_eq!((rig.standing(0), rig.node.service()), (uniform(0..7), Service::Serving));
}

#[test]
fn a_leaf_used_by_a_process_of_no_job_is_not_leased_until_it_is_idle() {
    let mut rig = found(&[(19, 6)]);
    rig.gpus[0].instances[0].compute[0].processes = vec![4242];
    rig.settle();
    assert_eq!(rig.node.usable(), 6);
    assert!(rig.reason().contains("process 4242 of no job"), "{}", rig.reason());
    let Verdict::Lease(leaves) = rig.ask(&open(1, 6)) else { panic!() };
    assert!(leaves.iter().all(|leaf| leaf.placement.start != 6));
    rig.gpus[0].instances[0].compute[0].processes.clear();
    rig.settle_awake(1);
    assert_eq!(rig.node.service(), Service::Serving);
}

#[test]
fn an_idle_gpu_of_another_layout_of_ours_is_cut_anew_and_leased_leaves_stay() {
    let gpus = [fixture::h100(0)];
    let mut rig = Rig::of(&gpus, rules(Layout::Uniform));
    // Takes the leaf at 6, which is in the way of the wider one.
    rig.ask(&open(1, 1));
    rig.rules = rules(Layout::FullMemory);
    rig.restart();
    rig.settle();
    assert_eq!(rig.standing(0), uniform(0..7));
    rig.ask(&close(1));
    rig.settle();
    assert_eq!(rig.standing(0), [uniform(0..6), vec![(15, 6)]].concat());
}

#[test]
fn leases_survive_a_restart_and_end_with_a_reboot() {
    let mut rig = Rig::h100s(1);
    let before = rig.ask(&open(1, 3));
    rig.restart();
    assert_eq!(rig.ask(&open(1, 3)), before);
    rig.reboot();
    rig.settle();
    assert!(rig.node.books().leases.is_empty());
    assert_eq!(rig.standing(0), uniform(0..7));
    let Verdict::Lease(after) = rig.ask(&open(1, 3)) else { panic!() };
    let Verdict::Lease(before) = before else { panic!() };
    assert!(after.iter().zip(&before).all(|(a, b)| a.uuid == b.uuid && a.generation > b.generation));
}

#[test]
fn an_exchanged_gpu_takes_the_count_of_the_missing_one() {
    let mut rig = Rig::h100s(2);
    rig.gpus[1] = fixture::report(&fixture::h100(7), &[]);
    rig.scan();
    assert_eq!((rig.node.counted(), rig.node.usable()), (14, 14));
}

#[test]
fn a_missing_gpu_stays_counted() {
    let mut rig = Rig::h100s(2);
    rig.gpus.pop();
    rig.restart();
    rig.settle();
    assert_eq!((rig.node.counted(), rig.node.usable()), (14, 7));
    assert_eq!(rig.reason(), "migshare: 7 of 14 leaves usable: gpu 1 (GPU-00000001) is missing");
}

#[test]
fn a_gpu_without_mig_mode_is_none_of_ours() {
    let gpus: [Gpu; 2] = [fixture::h100(0), fixture::h100(1)];
    let mut rig = Rig::asleep(&gpus, rules(Layout::Uniform));
    rig.gpus[1].health = Health::MigOff;
    rig.settle();
    assert_eq!((rig.node.counted(), rig.node.service()), (7, Service::Serving));
    assert!(rig.standing(1).is_empty());
}

#[test]
fn intents_of_a_killed_agent_are_carried_on() {
    for cut_after in 0..40 {
        let mut rig = Rig::asleep(&[fixture::h100(0)], rules(Layout::Uniform));
        for _ in 0..cut_after {
            rig.step();
        }
        rig.restart();
        rig.settle();
        assert_eq!(rig.standing(0), uniform(0..7), "killed after {cut_after} steps");
        assert_eq!(rig.node.service(), Service::Serving, "killed after {cut_after} steps");
        assert!(rig.node.books().stands.values().all(|s| s.stage == Stage::Standing));
    }
}
