//! Instances larger than a leaf, made from idle places and charged in leaves.

use super::leases::refusal;
use crate::charge::Need;
use crate::fixture;
use crate::layout::Layout;
use crate::node::{Ask, Service, Verdict};
use crate::rig::{Fault, Rig, close, grant, job, open, rules};
use migshare_proto::Leaf;
use migshare_proto::message::Reason;

fn large(n: u32, leaves: u32, need: Need) -> Ask {
    Ask::Open { job: job(n), leaves, direction: None, need: Some(need) }
}

fn got(verdict: Verdict) -> Vec<Leaf> {
    let Verdict::Lease(leaves) = verdict else { panic!("{verdict:?}") };
    leaves
}

fn kinds(leaves: &[Leaf]) -> Vec<(u32, &str, u8)> {
    leaves.iter().map(|leaf| (leaf.gpu, leaf.profile.as_str(), leaf.placement.start)).collect()
}

#[test]
fn a_large_instance_is_made_from_idle_leaves_and_returned_to_the_layout() {
    let mut rig = Rig::h100s(1);
    let leaves = got(rig.ask(&large(1, 4, Need::Slices(3))));
    assert_eq!(kinds(&leaves), [(0, "3g.40gb", 4)], "the place that leaves room for a 4g");
    assert_eq!(rig.standing(0), [(19, 0), (19, 1), (19, 2), (19, 3), (9, 4)]);
    assert_eq!((rig.node.usable(), rig.node.service()), (7, Service::Serving), "the count never changes");
    rig.ask(&close(1));
    rig.settle();
    assert_eq!(rig.standing(0).len(), 7);
}

#[test]
fn as_many_leaves_are_free_as_slurm_believes() {
    let mut rig = Rig::h100s(1);
    rig.ask(&large(1, 4, Need::Slices(3)));
    // Slurm has charged four of seven leaves, so three more can come.
    assert_eq!(got(rig.ask(&open(2, 3))).len(), 3);
}

#[test]
fn a_lazy_node_keeps_the_shape_until_the_place_is_needed() {
    let mut lazy = rules(Layout::Uniform);
    lazy.reshaping.lazy = true;
    let mut rig = Rig::of(&[fixture::h100(0)], lazy);
    rig.ask(&large(1, 4, Need::Slices(3)));
    rig.ask(&close(1));
    rig.settle();
    assert_eq!(rig.standing(0)[4], (9, 4));
    let before = rig.done.len();
    rig.ask(&large(2, 4, Need::Slices(3)));
    assert_eq!(rig.done.len(), before, "the same shape again costs nothing");
    rig.ask(&close(2));
    assert_eq!(got(rig.ask(&open(3, 7))).len(), 7);
}

#[test]
fn memory_is_met_by_what_the_model_needs_for_it() {
    for (gpu, charge, name) in [
        (fixture::h200(0), 2, "1g.35gb"),
        (fixture::h100(0), 4, "3g.40gb"),
        (fixture::a100_40(0), 7, "7g.40gb"),
    ] {
        let mut rig = Rig::of(&[gpu], rules(Layout::Uniform));
        let leaves = got(rig.ask(&large(1, charge, Need::MemoryMib(30 * 1024))));
        assert_eq!((leaves.len(), leaves[0].profile.as_str()), (1, name));
    }
}

#[test]
fn a_step_is_charged_as_its_job_is() {
    let mut rig = Rig::h100s(2);
    assert_eq!(got(rig.ask(&large(1, 8, Need::Slices(3)))).len(), 2);
    let Verdict::Granted { leaves, .. } = rig.ask(&grant(1, 0, 4, 1)) else { panic!() };
    assert_eq!(leaves.len(), 1);
    let Verdict::Granted { leaves: second, shared: 0, .. } = rig.ask(&grant(1, 1, 4, 1)) else { panic!() };
    assert_ne!(leaves, second);
}

#[test]
fn a_charge_that_is_no_multiple_is_refused_with_what_to_ask_for() {
    let (reason, text) = refusal(Rig::h100s(1).ask(&large(1, 5, Need::Slices(2))));
    assert_eq!(reason, Reason::WrongPrice);
    assert_eq!(
        text,
        "an instance of 1g.20gb is charged 2 leaves here, and 5 are no multiple of that: ask for --gres=mig:4 or 6"
            .replace("1g.20gb", "2g.20gb")
    );
}

#[test]
fn a_size_that_no_gpu_has_is_refused_with_the_largest() {
    let (reason, text) = refusal(Rig::h100s(1).ask(&large(1, 7, Need::MemoryMib(100_000))));
    assert_eq!(reason, Reason::NoSuchSize);
    assert!(text.contains("the largest here is 7g.80gb with 7 slices and 81152 MiB"), "{text}");
}

#[test]
fn a_node_without_a_place_says_who_holds_the_places_and_what_would_work() {
    let mut rig = Rig::h100s(1);
    rig.ask(&open(1, 1));
    rig.ask(&open(2, 2));
    rig.ask(&open(3, 1));
    let held = rig.standing(0).len();
    let (reason, text) = refusal(rig.ask(&large(4, 7, Need::Slices(7))));
    assert_eq!((reason, held), (Reason::Fragmented, 7));
    assert_eq!(
        text,
        "1 instance of 7g.80gb (7 leaves each) asked for, 0 can be made now: 0:8 on gpu 0 is held by job 1 and 2 and 3; \
         ask for up to 3 leaves without size= or mem=, or wait for one of these jobs to end"
    );
}

#[test]
fn shape_changes_are_limited_per_user() {
    let mut strict = rules(Layout::Uniform);
    strict.reshaping.per_user = 2;
    let mut rig = Rig::of(&[fixture::h100(0)], strict);
    for n in 1..=2 {
        assert_eq!(got(rig.ask(&large(n, 2, Need::Slices(2)))).len(), 1);
        rig.ask(&close(n));
        rig.settle();
    }
    let limited = |rig: &mut Rig| {
        let (reason, text) = refusal(rig.ask(&large(3, 2, Need::Slices(2))));
        assert_eq!(reason, Reason::RateLimited);
        assert!(text.contains("user 500") && text.contains("2 times within 3600 s"), "{text}");
    };
    limited(&mut rig);
    rig.restart();
    rig.settle();
    limited(&mut rig);
    // A compacted journal holds the fewest records that fold to the same books.
    rig.journal = rig.node.books().records();
    rig.restart();
    rig.settle();
    limited(&mut rig);
    assert_eq!(got(rig.ask(&open(4, 7))).len(), 7, "leaves without size= are not limited");
    rig.ask(&close(4));
    rig.now += 3601;
    assert_eq!(got(rig.ask(&large(3, 2, Need::Slices(2)))).len(), 1);
}

#[test]
fn an_instance_that_cannot_be_made_ends_the_attempt_and_other_places_are_tried() {
    let mut rig = Rig::h100s(2);
    // Three leaves in the way are destroyed, then the making fails for good.
    rig.faults.extend([Fault::None; 3].into_iter().chain([Fault::Refuse; 3]));
    let leaves = got(rig.ask(&large(1, 4, Need::Slices(3))));
    assert_eq!(leaves.len(), 1);
    assert!(rig.node.books().quarantines.len() <= 1);
    rig.ask(&close(1));
    rig.settle_awake(10);
    assert_eq!((rig.standing(0).len(), rig.standing(1).len()), (7, 7));
    assert_eq!(rig.node.service(), Service::Serving);
}

#[test]
fn a_killed_agent_finishes_or_undoes_what_it_began() {
    for killed_after in 0..30 {
        let mut rig = Rig::h100s(1);
        let proposal = rig.node.answer(rig.now, &large(1, 4, Need::Slices(3)));
        rig.carry(proposal);
        for _ in 0..killed_after {
            rig.step();
        }
        rig.restart();
        rig.settle();
        let leaves = got(rig.ask(&large(1, 4, Need::Slices(3))));
        assert_eq!(leaves.len(), 1, "killed after {killed_after} steps");
        rig.ask(&close(1));
        rig.settle();
        assert_eq!(rig.standing(0).len(), 7, "killed after {killed_after} steps");
    }
}

#[test]
fn a_shape_that_stands_already_is_no_change_and_another_user_has_a_limit_of_its_own() {
    let mut strict = rules(Layout::Uniform);
    (strict.reshaping.per_user, strict.reshaping.lazy) = (1, true);
    let mut rig = Rig::of(&[fixture::h100(0)], strict);
    for n in 1..=3 {
        assert_eq!(got(rig.ask(&large(n, 4, Need::Slices(3)))).len(), 1, "job {n} takes what stands");
        rig.ask(&close(n));
        rig.settle();
    }
    assert_eq!(refusal(rig.ask(&large(4, 2, Need::Slices(2)))).0, Reason::RateLimited);
    let mut other = large(5, 2, Need::Slices(2));
    if let Ask::Open { job, .. } = &mut other {
        job.uid = 501;
    }
    assert_eq!(got(rig.ask(&other)).len(), 1);
}

#[test]
fn changes_that_no_longer_count_are_forgotten_with_the_next_one() {
    let mut rig = Rig::h100s(1);
    for n in 1..=5 {
        rig.ask(&large(n, 2, Need::Slices(2)));
        rig.ask(&close(n));
        rig.settle();
        rig.now += 4000;
    }
    assert_eq!(rig.node.books().reshapes[&500].len(), 1);
}

#[test]
fn a_refusal_for_want_of_a_place_says_whether_the_site_wants_the_job_elsewhere() {
    for requeue in [false, true] {
        let mut site = rules(Layout::Uniform);
        site.reshaping.requeue = requeue;
        let mut rig = Rig::of(&[fixture::h100(0)], site);
        rig.ask(&open(1, 1));
        let Verdict::Refused(no) = rig.ask(&large(2, 7, Need::Slices(7))) else { panic!() };
        assert_eq!((no.reason, no.requeue), (Reason::Fragmented, requeue));
    }
}
