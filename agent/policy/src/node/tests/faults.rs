//! What hardware does wrong.

use super::leases::refusal;
use crate::fixture;
use crate::layout::Layout;
use crate::node::{Ask, Seen, Service, Verdict};
use crate::record::Place;
use crate::rig::{Fault, Rig, close, grant, job, open, rules};
use crate::topology::Health;
use migshare_proto::Placement;
use migshare_proto::message::Reason;

fn asleep() -> Rig {
    Rig::asleep(&[fixture::h100(0)], rules(Layout::Uniform))
}

#[test]
fn a_refused_making_is_tried_again() {
    let mut rig = asleep();
    rig.faults.extend([Fault::Refuse, Fault::HalfWay, Fault::None, Fault::Refuse]);
    rig.settle_awake(4);
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn a_place_that_always_fails_is_quarantined_and_heals_by_itself() {
    let mut rig = asleep();
    let late = [Fault::None; 6].into_iter().chain([Fault::Refuse; 4]);
    rig.faults.extend([Fault::Refuse].into_iter().chain(late));
    rig.settle_awake(3);
    assert_eq!((rig.standing(0).len(), rig.node.usable()), (6, 6));
    assert!(
        rig.reason().contains("NVML refused 3 times: nvmlDeviceCreateGpuInstance: in use"),
        "{}",
        rig.reason()
    );
    rig.settle_awake(6);
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn a_removal_that_stops_half_way_is_finished() {
    let mut rig = Rig::of(&[fixture::h100(0)], rules(Layout::Uniform));
    rig.rules = rules(Layout::FullMemory);
    rig.restart();
    rig.faults.extend([Fault::HalfWay, Fault::Refuse, Fault::Refuse, Fault::Refuse, Fault::Refuse]);
    rig.settle_awake(4);
    assert_eq!(rig.node.usable(), 6, "{}", rig.reason());
    rig.settle_awake(6);
    assert_eq!((rig.standing(0)[6], rig.node.service()), ((15, 6), Service::Serving));
}

#[test]
fn a_lost_gpu_makes_the_node_unfit_and_its_jobs_keep_their_leases() {
    let mut rig = Rig::h100s(2);
    rig.ask(&open(1, 3));
    let uuid = rig.gpus[0].gpu.uuid.clone();
    rig.gpus[0].health = Health::Lost;
    rig.gpus[0].instances.clear();
    rig.node.observe(rig.now, Seen::GpuLost(uuid));
    rig.settle();
    assert_eq!(rig.reason(), "migshare: 7 of 14 leaves usable: gpu 0 is lost");
    assert!(rig.node.books().leases.contains_key(&job(1)));
    let (reason, text) = refusal(rig.ask(&grant(1, 0, 3, 3)));
    assert_eq!(reason, Reason::Unavailable);
    assert!(text.contains("gpu 0 is lost"), "{text}");
    let Verdict::Lease(leaves) = rig.ask(&open(2, 7)) else { panic!() };
    assert!(leaves.iter().all(|leaf| leaf.gpu == 1));
}

#[test]
fn a_gpu_that_was_reset_is_cut_again_but_not_under_a_lease() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 2));
    rig.gpus[0].instances.clear();
    rig.scan();
    assert_eq!(rig.standing(0).len(), 5, "places of the lease stay empty");
    assert!(
        rig.node.problems().iter().any(|p| p == "job 1 lost its leaf 4:1 on gpu 0"),
        "{:?}",
        rig.node.problems()
    );
    assert_eq!(refusal(rig.ask(&Ask::JobLeaves { job: job(1) })).0, Reason::Unavailable);
    rig.ask(&close(1));
    rig.settle();
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn dead_nvml_refuses_new_leases_only_and_the_node_looks_again() {
    let mut rig = Rig::h100s(1);
    let before = rig.ask(&open(1, 2));
    rig.node.observe(rig.now, Seen::NvmlDead("driver not loaded".to_owned()));
    assert_eq!(rig.reason(), "migshare: 7 of 7 leaves usable: NVML does not answer: driver not loaded");
    assert_eq!(refusal(rig.ask(&open(2, 1))).0, Reason::NotServing);
    assert_eq!(rig.ask(&open(1, 2)), before);
    rig.settle_awake(1);
    assert_eq!(rig.node.service(), Service::Serving);
}

#[test]
fn mig_mode_switched_off_behind_our_back_is_a_problem_and_no_loss_of_count() {
    let mut rig = Rig::h100s(2);
    rig.gpus[1].health = Health::MigOff;
    rig.gpus[1].instances.clear();
    rig.scan();
    assert_eq!(rig.reason(), "migshare: 7 of 14 leaves usable: gpu 1 is not in MIG mode");
    rig.gpus[1].health = Health::Mig;
    rig.settle_awake(1);
    assert_eq!((rig.node.service(), rig.standing(1).len()), (Service::Serving, 7));
}

#[test]
fn an_instance_replaced_by_another_kind_is_quarantined() {
    let mut rig = Rig::h100s(1);
    rig.gpus[0].instances.retain(|i| i.placement.start < 4);
    let other = fixture::instance(&rig.gpus[0].gpu, 9, 4);
    rig.gpus[0].instances.push(other);
    rig.scan();
    assert_eq!(rig.node.usable(), 4);
    assert!(rig.reason().contains("3g.40gb"), "{}", rig.reason());
}

#[test]
fn a_shortage_is_told_apart_by_whether_jobs_or_hardware_make_it() {
    let mut rig = Rig::h100s(2);
    rig.ask(&open(1, 5));
    assert_eq!(refusal(rig.ask(&open(2, 10))).0, Reason::NoLeaves);
    let uuid = rig.gpus[1].gpu.uuid.clone();
    rig.gpus[1].health = Health::Lost;
    rig.node.observe(rig.now, Seen::GpuLost(uuid));
    rig.settle();
    let (reason, text) = refusal(rig.ask(&open(2, 9)));
    assert_eq!(reason, Reason::Unavailable);
    assert!(text.contains("gpu 1 is lost"), "{text}");
    assert_eq!(refusal(rig.ask(&open(2, 10))).0, Reason::NoLeaves, "too many also for sound hardware");
}

#[test]
fn what_stands_across_the_place_of_a_lease_is_not_adopted_and_given_to_nobody() {
    let mut rig = Rig::h100s(1);
    let large =
        Ask::Open { job: job(1), leaves: 4, direction: None, need: Some(crate::charge::Need::Slices(3)) };
    assert!(matches!(rig.ask(&large), Verdict::Lease(_)));
    assert_eq!(rig.standing(0)[4], (9, 4));
    // Somebody destroys the job's instance and makes a leaf of the layout on a part of its place.
    let gpu = rig.gpus[0].gpu.clone();
    rig.gpus[0].instances.retain(|i| i.placement.start != 4);
    rig.gpus[0].instances.push(fixture::instance(&gpu, 19, 5));
    rig.scan();
    let place = Place { gpu: gpu.uuid, placement: Placement { start: 5, size: 1 } };
    assert!(!rig.node.books().stands.contains_key(&place), "adopted across a lease");
    assert!(rig.node.books().quarantines.contains_key(&place));
    assert!(rig.standing(0).contains(&(19, 5)), "what is not ours is not destroyed");
    // Slurm counts three more leaves; none of them lies where job 1 is.
    let Verdict::Lease(rest) = rig.ask(&open(2, 3)) else { panic!() };
    assert!(rest.iter().all(|leaf| leaf.placement.start < 4), "{rest:?}");
    rig.ask(&close(1));
    rig.settle();
    assert!(rig.standing(0).contains(&(19, 5)), "nor when the lease has ended");
    let release = crate::order::Order::Unquarantine { place };
    let proposal = rig.node.order(&release, false);
    rig.carry(proposal);
    rig.settle_awake(3);
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

/// GB200's `1g.24gb` became `1g.23gb` with a driver (mig-parted #227): ids, slices and places stay.
#[test]
fn profiles_that_another_driver_names_and_sizes_anew_are_the_same_profiles() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 2));
    let made = rig.done.len();
    for profile in &mut rig.gpus[0].gpu.profiles {
        profile.name = format!("{}.new", profile.name);
        profile.memory_mib -= 64;
    }
    rig.restart();
    rig.settle();
    assert_eq!((rig.done.len() - made, rig.node.service()), (1, Service::Serving), "one look and no change");
    let Verdict::Lease(leaves) = rig.ask(&Ask::JobLeaves { job: job(1) }) else { panic!() };
    assert!(leaves.iter().all(|leaf| leaf.profile == "1g.10gb.new" && leaf.memory_mib == 9984 - 64));
    let Verdict::Lease(more) = rig.ask(&open(2, 5)) else { panic!() };
    assert_eq!(more.len(), 5);
}
