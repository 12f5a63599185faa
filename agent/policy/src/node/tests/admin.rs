//! Orders of an admin, and changes of layout while jobs run.

use super::leases::refusal;
use crate::fixture;
use crate::layout::{Layout, Slot, fit};
use crate::node::{Ask, Effect, Service, Verdict};
use crate::order::Order;
use crate::record::Place;
use crate::rig::{Fault, LONG_AGO, Rig, close, job, open};
use crate::topology::Health;
use migshare_proto::{GpuUuid, JobKey, Placement};

const DONE: Verdict = Verdict::Done { found: true };

fn uuid(rig: &Rig, gpu: usize) -> GpuUuid {
    rig.gpus[gpu].gpu.uuid.clone()
}

fn place(rig: &Rig, gpu: usize, start: u8, size: u8) -> Place {
    Place { gpu: uuid(rig, gpu), placement: Placement { start, size } }
}

fn order(rig: &mut Rig, order: &Order) -> Verdict {
    let proposal = rig.node.order(order, false);
    let verdict = rig.carry(proposal).unwrap();
    rig.settle();
    verdict
}

fn apply(rig: &mut Rig, gpu: usize, layout: Option<Layout>) -> Verdict {
    let layouts = vec![(uuid(rig, gpu), layout)];
    order(rig, &Order::Apply { layouts, now: false })
}

fn halves() -> Layout {
    fit(&fixture::h100(0), &[("4g.40gb", 1), ("3g.40gb", 1)]).unwrap()
}

#[test]
fn a_cordoned_gpu_takes_no_job_makes_the_node_unfit_and_comes_back() {
    let mut rig = Rig::h100s(2);
    rig.ask(&open(1, 2));
    let gpu = uuid(&rig, 0);
    assert_eq!(
        order(&mut rig, &Order::Cordon { gpu: gpu.clone(), note: "fan".to_owned(), at: LONG_AGO }),
        DONE
    );
    assert_eq!(rig.reason(), "migshare: 7 of 14 leaves usable: gpu 0 is cordoned: fan");
    assert!(matches!(rig.ask(&open(1, 2)), Verdict::Lease(leaves) if leaves.len() == 2), "its job goes on");
    let Verdict::Lease(leaves) = rig.ask(&open(2, 7)) else { panic!() };
    assert!(leaves.iter().all(|leaf| leaf.gpu == 1));
    rig.restart();
    rig.settle();
    assert!(rig.reason().contains("cordoned"), "a cordon survives a restart");
    assert_eq!(order(&mut rig, &Order::Uncordon { gpu: gpu.clone() }), DONE);
    assert_eq!(order(&mut rig, &Order::Uncordon { gpu }), Verdict::Done { found: false });
    assert_eq!(rig.node.service(), Service::Serving);
}

/// Slurm learns of a cordon a moment later: what it sent before that must not fail.
#[test]
fn a_job_that_was_on_its_way_when_its_gpu_was_cordoned_gets_what_stands_there() {
    let mut rig = Rig::h100s(2);
    let gpu = uuid(&rig, 0);
    let started =
        |n, start| Ask::Open { job: JobKey { start, ..job(n) }, leaves: 4, direction: None, need: None };
    let cordoned = 1000;
    assert_eq!(
        order(&mut rig, &Order::Cordon { gpu: gpu.clone(), note: "fan".to_owned(), at: cordoned }),
        DONE
    );
    let gpus = |verdict| match verdict {
        Verdict::Lease(leaves) => leaves.iter().map(|leaf| leaf.gpu).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(gpus(rig.ask(&started(1, cordoned - 5))), [1; 4], "the other GPU comes first");
    assert!(gpus(rig.ask(&started(2, cordoned + 1))).contains(&0), "three are left on the other");
    assert!(matches!(rig.ask(&started(3, cordoned + 60)), Verdict::Refused(_)), "Slurm knows by now");
    rig.ask(&close(2));
    // What does not stand is not made there.
    rig.gpus[0].instances.truncate(3);
    rig.scan();
    rig.settle();
    assert!(matches!(
        rig.ask(&Ask::Open { job: job(4), leaves: 7, direction: None, need: None }),
        Verdict::Refused(_)
    ));
    assert_eq!(gpus(rig.ask(&Ask::Open { job: job(5), leaves: 6, direction: None, need: None })).len(), 6);
    assert_eq!(rig.standing(0).len(), 3);
}

#[test]
fn nothing_is_made_or_destroyed_on_a_cordoned_gpu_until_it_is_back() {
    let mut rig = Rig::h100s(2);
    let gpu = uuid(&rig, 1);
    rig.ask(&open(1, 7));
    // A lease that waits for an instance there is given up: nobody was told of it.
    let large =
        Ask::Open { job: job(2), leaves: 4, direction: None, need: Some(crate::charge::Need::Slices(3)) };
    let waits = rig.node.answer(rig.now, &large);
    assert_eq!(rig.carry(waits), Some(Verdict::Wait));
    assert_eq!(
        order(&mut rig, &Order::Cordon { gpu: gpu.clone(), note: "new fan".to_owned(), at: LONG_AGO }),
        DONE
    );
    assert_eq!(rig.node.books().leases.len(), 1);
    rig.gpus[1].instances.clear();
    apply(&mut rig, 1, Some(halves()));
    rig.scan();
    rig.restart();
    rig.settle();
    assert_eq!(rig.standing(1), []);
    let plan = rig.node.plan(&[(gpu.clone(), Some(halves()))]).unwrap();
    assert!(plan.moves.is_empty() && plan.deferred[0].why.contains("gpu 1 is cordoned: new fan"), "{plan:?}");
    // What was done to it meanwhile is seen before anything else.
    let foreign = fixture::instance(&rig.gpus[1].gpu, 19, 6);
    rig.gpus[1].instances.push(foreign);
    let done = rig.done.len();
    assert_eq!(order(&mut rig, &Order::Uncordon { gpu }), DONE);
    assert_eq!(rig.standing(1), [(5, 0), (19, 6)]);
    assert_eq!(rig.done[done], Effect::Scan);
    assert_eq!(rig.done.len() - done, 2, "nothing was tried in vain: {:?}", &rig.done[done..]);
    assert!(rig.reason().contains("not made by migshare"), "{}", rig.reason());
}

/// What is under way when the cordon comes is ended, and not tried again.
#[test]
fn an_instance_that_failed_to_be_made_on_a_cordoned_gpu_waits_for_its_return() {
    let mut rig = Rig::asleep(&[fixture::h100(0)], crate::rig::rules(Layout::Uniform));
    rig.faults.push_back(Fault::HalfWay);
    while rig.queue.is_empty() || rig.node.books().stands.is_empty() {
        assert!(rig.step());
    }
    let gpu = uuid(&rig, 0);
    assert_eq!(order(&mut rig, &Order::Cordon { gpu: gpu.clone(), note: String::new(), at: LONG_AGO }), DONE);
    let done = rig.done.len();
    rig.settle_awake(5);
    assert!(rig.done[done..].iter().all(|effect| *effect == Effect::Scan), "{:?}", &rig.done[done..]);
    assert_eq!(order(&mut rig, &Order::Uncordon { gpu }), DONE);
    rig.settle_awake(5);
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn a_quarantined_leaf_keeps_its_job_and_gets_no_other() {
    let mut rig = Rig::h100s(1);
    let Verdict::Lease(leaves) = rig.ask(&open(1, 1)) else { panic!() };
    let at = place(&rig, 0, leaves[0].placement.start, 1);
    assert_eq!(order(&mut rig, &Order::Quarantine { place: at.clone(), note: "ecc".to_owned() }), DONE);
    assert!(matches!(rig.ask(&open(1, 1)), Verdict::Lease(_)));
    rig.ask(&close(1));
    rig.settle();
    assert_eq!(rig.node.usable(), 6);
    assert!(matches!(rig.ask(&open(2, 7)), Verdict::Refused(_)));
    assert_eq!(order(&mut rig, &Order::Unquarantine { place: at }), DONE);
    assert!(matches!(rig.ask(&open(2, 7)), Verdict::Lease(_)));
}

#[test]
fn a_place_or_gpu_that_does_not_exist_is_named() {
    let mut rig = Rig::h100s(1);
    let nowhere = place(&rig, 0, 7, 1);
    let (_, text) = refusal(order(&mut rig, &Order::Quarantine { place: nowhere, note: String::new() }));
    assert_eq!(text, "gpu 0 has no place 7:1");
    let gpu = GpuUuid::new("GPU-x");
    let (_, text) = refusal(order(&mut rig, &Order::Cordon { gpu, note: String::new(), at: LONG_AGO }));
    assert_eq!(text, "this node has no gpu GPU-x in MIG mode");
}

#[test]
fn a_foreign_instance_that_is_released_becomes_ours_and_goes_back_to_the_layout() {
    let mut rig = Rig::h100s(1);
    rig.gpus[0].instances.retain(|i| i.placement.start < 4);
    let foreign = fixture::instance(&rig.gpus[0].gpu, 9, 4);
    rig.gpus[0].instances.push(foreign);
    rig.scan();
    assert_eq!(rig.node.usable(), 4);
    let at = place(&rig, 0, 4, 4);
    assert_eq!(order(&mut rig, &Order::Unquarantine { place: at }), DONE);
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn a_broken_instance_that_is_released_is_made_anew() {
    let mut rig = Rig::h100s(1);
    rig.gpus[0].instances[3].compute.clear();
    rig.scan();
    assert_eq!(rig.node.usable(), 6);
    let at = place(&rig, 0, rig.gpus[0].instances[3].placement.start, 1);
    assert_eq!(order(&mut rig, &Order::Unquarantine { place: at }), DONE);
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
    assert!(rig.gpus[0].instances.iter().all(|i| i.full_compute().is_some()));
}

#[test]
fn a_plan_is_what_apply_does() {
    let mut rig = Rig::h100s(2);
    let target = [(uuid(&rig, 1), Some(halves()))];
    let plan = rig.node.plan(&target).unwrap();
    assert_eq!((plan.moves.len(), plan.deferred.len()), (9, 0));
    let before = rig.done.len();
    assert_eq!(apply(&mut rig, 1, Some(halves())), DONE);
    assert_eq!(rig.done.len() - before, plan.moves.len());
    assert_eq!(rig.standing(1), [(5, 0), (9, 4)]);
    assert_eq!(rig.node.remaining(), crate::order::Plan::default());
    assert_eq!((rig.node.counted(), rig.node.service()), (14, Service::Serving));
    assert_eq!(apply(&mut rig, 1, Some(halves())), Verdict::Done { found: false });
}

#[test]
fn leased_parts_are_deferred_and_follow_when_the_lease_ends() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(812, 2));
    let plan = rig.node.plan(&[(uuid(&rig, 0), Some(halves()))]).unwrap();
    let whys: Vec<&str> = plan.deferred.iter().map(|d| d.why.as_str()).collect();
    assert!(whys.iter().all(|why| why.contains("held by job 812")), "{whys:?}");
    assert_eq!(whys.last(), Some(&"3g.40gb: 4:1 on gpu 0 is held by job 812"));
    apply(&mut rig, 0, Some(halves()));
    assert_eq!(rig.standing(0), [(5, 0), (19, 4), (19, 5)]);
    assert!(matches!(rig.ask(&open(812, 2)), Verdict::Lease(leaves) if leaves.len() == 2));
    rig.restart();
    rig.ask(&close(812));
    rig.settle();
    assert_eq!(rig.standing(0), [(5, 0), (9, 4)]);
}

#[test]
fn an_order_for_now_is_judged_when_its_turn_comes() {
    let mut rig = Rig::h100s(2);
    let layouts = vec![(uuid(&rig, 0), Some(halves())), (uuid(&rig, 1), Some(halves()))];
    let now = Order::Apply { layouts, now: true };
    let agreed = rig.node.order(&now, false);
    assert_eq!(agreed.verdict, Some(DONE));
    // A lease comes first, as in a batch where it was asked for before the order.
    rig.ask(&open(812, 1));
    let (reason, text) = refusal(order(&mut rig, &now));
    assert_eq!(reason, migshare_proto::message::Reason::WouldWait);
    assert!(text.starts_with("nothing was changed, because 2 of it would have to wait: 1g.10gb"), "{text}");
    assert_eq!((rig.standing(0).len(), rig.standing(1).len()), (7, 7));
}

#[test]
fn leaves_are_still_to_be_had_from_a_gpu_of_another_layout() {
    let mut rig = Rig::h100s(1);
    apply(&mut rig, 0, Some(halves()));
    assert!(matches!(rig.ask(&open(1, 7)), Verdict::Lease(leaves) if leaves.len() == 7));
    rig.ask(&close(1));
    rig.settle();
    assert_eq!(rig.standing(0), [(5, 0), (9, 4)]);
    assert_eq!(apply(&mut rig, 0, None), DONE);
    assert_eq!(rig.standing(0).len(), 7);
}

#[test]
fn a_layout_that_hardware_refuses_is_rolled_back() {
    let mut rig = Rig::h100s(1);
    // Seven leaves are destroyed, the 4g is made, the 3g never.
    rig.faults.extend([Fault::None; 8].into_iter().chain([Fault::Refuse; 3]));
    apply(&mut rig, 0, Some(halves()));
    rig.settle_awake(6);
    let [refused] = &rig.rolled_back[..] else { panic!("{:?}", rig.rolled_back) };
    assert_eq!((&refused.gpu, &refused.layout), (&uuid(&rig, 0), &Some(halves())));
    assert_eq!(refused.why, "4:4: NVML refused 3 times: nvmlDeviceCreateGpuInstance: in use");
    assert!(rig.node.books().targets.is_empty());
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn a_layout_that_hardware_refuses_is_rolled_back_also_by_an_agent_that_was_killed_in_between() {
    let mut rig = Rig::h100s(1);
    let order = Order::Apply { layouts: vec![(uuid(&rig, 0), Some(halves()))], now: false };
    let proposal = rig.node.order(&order, false);
    rig.carry(proposal);
    for _ in 0..12 {
        rig.step();
    }
    assert!(rig.standing(0).len() < 7, "some leaves are gone");
    rig.restart();
    // What is left of seven leaves goes, the 4g is made, the 3g never.
    rig.faults.extend([Fault::None; 8].into_iter().take(rig.standing(0).len() + 1).chain([Fault::Refuse; 3]));
    rig.settle_awake(6);
    assert!(rig.node.books().targets.is_empty());
    assert_eq!((rig.standing(0).len(), rig.node.service()), (7, Service::Serving));
}

#[test]
fn a_layout_that_has_been_cut_is_not_gone_back_on_when_hardware_fails_later() {
    let mut rig = Rig::h100s(1);
    apply(&mut rig, 0, Some(halves()));
    rig.restart();
    rig.settle();
    rig.gpus[0].instances.clear();
    rig.faults.extend([Fault::Refuse; 4]);
    rig.scan();
    rig.settle_awake(8);
    assert_eq!(rig.node.books().targets.len(), 1);
    assert_eq!(rig.standing(0), [(5, 0), (9, 4)]);
}

#[test]
fn a_layout_that_the_gpu_cannot_have_is_refused() {
    let mut rig = Rig::h100s(1);
    let nonsense = Layout::Custom(vec![Slot { slices: 2, placement: Placement { start: 6, size: 2 } }]);
    let (_, text) = refusal(apply(&mut rig, 0, Some(nonsense)));
    assert_eq!(text, "gpu 0: NVIDIA H100 80GB HBM3 has no 2g at 6:2");
}

#[test]
fn a_gpu_that_is_named_twice_in_a_target_is_refused() {
    let mut rig = Rig::h100s(2);
    let gpu = uuid(&rig, 1);
    let layouts = vec![(gpu.clone(), Some(halves())), (gpu, None)];
    assert!(rig.node.plan(&layouts).is_err());
    assert_eq!(refusal(order(&mut rig, &Order::Apply { layouts, now: false })).1, "gpu 1 is named twice");
}

#[test]
fn the_ordered_layout_comes_back_after_a_reboot_and_after_a_reset() {
    let mut rig = Rig::h100s(1);
    apply(&mut rig, 0, Some(halves()));
    rig.reboot();
    rig.settle();
    assert_eq!(rig.standing(0), [(5, 0), (9, 4)]);
    rig.gpus[0].instances.clear();
    rig.scan();
    assert_eq!(rig.standing(0), [(5, 0), (9, 4)]);
}

#[test]
fn an_eviction_names_the_job_and_happens_only_by_force() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(812, 3));
    let (_, text) = refusal(order(&mut rig, &Order::Evict { job: 812 }));
    assert_eq!(
        text,
        "this takes away the leaves of job 812 of user 500 (3 leaves, 0 steps); --force does it all the same"
    );
    let forced = rig.node.order(&Order::Evict { job: 812 }, true);
    assert_eq!(rig.carry(forced), Some(DONE));
    assert!(rig.node.books().leases.is_empty());
    assert_eq!(order(&mut rig, &Order::Evict { job: 812 }), Verdict::Done { found: false });
}

#[test]
fn only_a_gpu_that_is_gone_is_forgotten_and_its_jobs_are_not_by_themselves() {
    let mut rig = Rig::h100s(2);
    let gpu = uuid(&rig, 0);
    rig.ask(&open(1, 7));
    let forget = Order::Forget { gpu };
    assert!(refusal(order(&mut rig, &forget)).1.contains("cordon it instead"));
    rig.gpus[0].health = Health::Lost;
    rig.scan();
    assert!(refusal(order(&mut rig, &forget)).1.contains("job 1 of user 500"));
    rig.ask(&Ask::Close { job: 1, uid: 500, start: Some(job(1).start), how: crate::record::Ending::Epilog });
    rig.gpus.remove(0);
    rig.scan();
    assert_eq!(order(&mut rig, &forget), DONE);
    assert_eq!((rig.node.counted(), rig.node.service()), (7, Service::Serving));
}
