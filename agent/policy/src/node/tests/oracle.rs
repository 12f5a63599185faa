//! Sequences of everything that can happen, against a model that knows only what was promised to whom.
//!
//! The model keeps the answers, the test keeps the hardware; neither looks into the node to know what it should say. What
//! the model takes from the books are quarantines, whose reasons have tests of their own.

use crate::fixture;
use crate::layout::{Layout, leaves};
use crate::node::{Ask, Run, Seen, Verdict};
use crate::placement::Direction;
use crate::record::{Ending, Record};
use crate::rig::{Fault, Rig, holder, rules};
use crate::topology::Health;
use migshare_proto::message::Reason;
use migshare_proto::{JobKey, Leaf, Placement, StepId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type At = (u32, Placement);

#[derive(Debug, Clone)]
enum Op {
    Open { job: u32, leaves: u32, direction: Option<Direction> },
    OpenAndHangUp { job: u32, leaves: u32 },
    JournalFails { job: u32, leaves: u32, step: u32 },
    Grant { job: u32, step: u32, leaves: u32, tasks: u32 },
    Release { job: u32, step: u32 },
    Close { job: u32 },
    StartAgain { job: u32, leaves: u32 },
    HolderGone { job: u32, step: u32 },
    Reap { runs: BTreeSet<u32> },
    Restart,
    Reboot,
    Lose { gpu: usize },
    Reset { gpu: usize },
    Foreign { gpu: usize, profile: u32 },
    Vanish { gpu: usize, start: u8 },
    Faults(Vec<bool>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let job = 1u32..6;
    let direction = prop::option::of(prop_oneof![Just(Direction::Pack), Just(Direction::Spread)]);
    let op = prop_oneof![
        8 => (job.clone(), 0u32..9, direction).prop_map(|(job, leaves, direction)| Op::Open { job, leaves, direction }),
        1 => (job.clone(), 1u32..9).prop_map(|(job, leaves)| Op::OpenAndHangUp { job, leaves }),
        2 => (job.clone(), 1u32..9, 0u32..3).prop_map(|(job, leaves, step)| Op::JournalFails { job, leaves, step }),
        8 => (job.clone(), 0u32..4, 0u32..6, 0u32..5)
            .prop_map(|(job, step, leaves, tasks)| Op::Grant { job, step, leaves, tasks }),
        3 => (job.clone(), 0u32..4).prop_map(|(job, step)| Op::Release { job, step }),
        3 => job.clone().prop_map(|job| Op::Close { job }),
        1 => (job.clone(), 1u32..9).prop_map(|(job, leaves)| Op::StartAgain { job, leaves }),
        1 => (job.clone(), 0u32..4).prop_map(|(job, step)| Op::HolderGone { job, step }),
        1 => prop::collection::btree_set(job, 0..4).prop_map(|runs| Op::Reap { runs }),
        1 => Just(Op::Restart),
        1 => Just(Op::Reboot),
        1 => (0usize..2).prop_map(|gpu| Op::Lose { gpu }),
        2 => (0usize..2).prop_map(|gpu| Op::Reset { gpu }),
        1 => (0usize..2, prop::sample::select(vec![19u32, 15, 14, 9, 5]))
            .prop_map(|(gpu, profile)| Op::Foreign { gpu, profile }),
        1 => (0usize..2, 0u8..7).prop_map(|(gpu, start)| Op::Vanish { gpu, start }),
        1 => prop::collection::vec(any::<bool>(), 1..5).prop_map(Op::Faults),
    ];
    prop::collection::vec(op, 1..40)
}

#[derive(Debug, Clone)]
struct Promise {
    places: Vec<At>,
    /// A reset took away what was promised.
    broken: bool,
    steps: BTreeMap<u32, (Vec<At>, u32)>,
}

struct Model {
    rig: Rig,
    promises: BTreeMap<JobKey, Promise>,
    /// Jobs whose client hung up before the answer: they may hold a lease.
    unheard: BTreeSet<JobKey>,
    starts: BTreeMap<u32, i64>,
}

fn at(leaf: &Leaf) -> At {
    (leaf.gpu, leaf.placement)
}

impl Model {
    fn new(layout: Layout) -> Model {
        let rig = Rig::of(&[fixture::h100(0), fixture::h100(1)], rules(layout));
        Model { rig, promises: BTreeMap::new(), unheard: BTreeSet::new(), starts: BTreeMap::new() }
    }

    fn key(&self, job: u32) -> JobKey {
        JobKey { job, start: self.starts.get(&job).copied().unwrap_or(1000), uid: 500 }
    }

    fn healthy(&self, gpu: u32) -> bool {
        self.rig.gpus[gpu as usize].health == Health::Mig
    }

    /// Leaf places that nobody was promised and that nothing is known to be in the way of.
    fn free(&self) -> u32 {
        let taken = self.taken();
        let gpus = self.rig.gpus.iter().filter(|r| r.health == Health::Mig);
        let free = gpus.map(|report| {
            let clear = |p: Placement| taken.iter().all(|(g, q)| *g != report.gpu.index || !q.overlaps(p));
            leaves(&report.gpu).iter().filter(|cut| clear(cut.placement)).count() as u32
        });
        free.sum()
    }

    fn taken(&self) -> Vec<At> {
        let index = |uuid: &migshare_proto::GpuUuid| {
            self.rig.gpus.iter().find(|r| r.gpu.uuid == *uuid).map(|r| r.gpu.index).unwrap()
        };
        let books = self.rig.node.books();
        let quarantined = books.quarantines.keys().map(|place| (index(&place.gpu), place.placement));
        let unheard = books.leases.iter().filter(|(key, _)| self.unheard.contains(key));
        let unheard = unheard.flat_map(|(_, lease)| &lease.leaves);
        let unheard = unheard.map(|pick| (index(&pick.leaf.place.gpu), pick.leaf.place.placement));
        let promised = self.promises.values().flat_map(|p| p.places.iter().copied());
        promised.chain(quarantined).chain(unheard).collect()
    }

    /// What was promised stands on the hardware, with the identity that was told.
    fn stands(&self, leaf: &Leaf) -> bool {
        let report = &self.rig.gpus[leaf.gpu as usize];
        let found = report.instances.iter().find(|i| i.placement == leaf.placement);
        found.is_some_and(|i| i.gi == leaf.gi && i.full_compute().is_some_and(|c| c.uuid == leaf.uuid))
    }

    fn open(&mut self, job: u32, count: u32, direction: Option<Direction>) {
        let key = self.key(job);
        if self.unheard.contains(&key) {
            return;
        }
        let (taken, free, held) = (self.taken(), self.free(), self.promises.get(&key).cloned());
        match (self.rig.ask(&Ask::Open { job: key, leaves: count, direction, need: None }), held) {
            (Verdict::Lease(got), None) => {
                let places: Vec<At> = got.iter().map(at).collect();
                assert_eq!(places.len() as u32, count);
                for (g, p) in &places {
                    assert!(self.healthy(*g), "a leaf of a lost gpu");
                    assert!(!taken.iter().any(|(h, q)| g == h && p.overlaps(*q)), "{p} on {g} is taken");
                }
                let all_distinct = places.iter().collect::<BTreeSet<_>>().len() == places.len();
                assert!(all_distinct && got.iter().all(|leaf| self.stands(leaf)));
                self.promises.insert(key, Promise { places, broken: false, steps: BTreeMap::new() });
            }
            (Verdict::Lease(got), Some(held)) => {
                assert_eq!(held.places.len() as u32, count);
                assert!(got.iter().all(|leaf| held.places.contains(&at(leaf)) && self.stands(leaf)));
                assert!(
                    held.broken
                        || held.places.iter().any(|p| !self.healthy(p.0))
                        || got.len() as u32 == count
                );
            }
            (Verdict::Refused(no), held) => self.check_open_refusal(no.reason, count, free, held.as_ref()),
            (other, _) => panic!("{other:?}"),
        }
    }

    fn check_open_refusal(&self, reason: Reason, count: u32, free: u32, held: Option<&Promise>) {
        let dead = |p: &Promise| p.broken || p.places.iter().all(|at| !self.healthy(at.0));
        let is_true = match reason {
            Reason::BadRequest => count == 0,
            // What became free or broke while a makeshift was tried counts as well.
            Reason::NoLeaves => held.map_or(free.min(self.free()) < count, dead),
            Reason::LeaseDiffers => held.is_some_and(|p| p.places.len() as u32 != count),
            _ => false,
        };
        assert!(is_true, "{reason:?} for {count} with {free} free and {held:?}");
    }

    fn grant(&mut self, job: u32, step: u32, count: u32, tasks: u32) {
        let key = self.key(job);
        if self.unheard.contains(&key) {
            return;
        }
        let holder = holder(job * 100 + step);
        let ask = Ask::Grant { job: key, step: StepId(step), leaves: count, tasks, direction: None, holder };
        let verdict = self.rig.ask(&ask);
        let Some(promise) = self.promises.get(&key).cloned() else {
            assert!(matches!(verdict, Verdict::Refused(no) if no.reason == Reason::NoLease));
            return;
        };
        match verdict {
            Verdict::Granted { leaves, tasks: assigned, shared } => {
                let places: Vec<At> = leaves.iter().map(at).collect();
                assert!(leaves.iter().all(|leaf| self.stands(leaf)));
                assert!(places.iter().all(|p| promise.places.contains(p)), "beyond the lease");
                assert_eq!((places.len() as u32, assigned.len() as u32), (count, tasks));
                assert!(assigned.iter().all(|t| t.len() as u32 == count / tasks));
                if !promise.steps.contains_key(&step) {
                    self.check_shares(&promise, &places, shared);
                }
                self.promises.get_mut(&key).unwrap().steps.insert(step, (places, tasks));
            }
            Verdict::Refused(no) => self.check_grant_refusal(no.reason, &promise, step, count, tasks),
            other => panic!("{other:?}"),
        }
    }

    /// Only what no other step uses, as far as that reaches.
    fn check_shares(&self, promise: &Promise, places: &[At], shared: u32) {
        let used: BTreeSet<&At> = promise.steps.values().flat_map(|s| &s.0).collect();
        let really = places.iter().filter(|p| used.contains(p)).count() as u32;
        assert_eq!(really, shared);
        let standing = promise.places.iter().filter(|p| {
            self.healthy(p.0) && self.rig.gpus[p.0 as usize].instances.iter().any(|i| i.placement == p.1)
        });
        let free = standing.filter(|p| !used.contains(p)).count() as u32;
        assert!(promise.broken || shared == (places.len() as u32).saturating_sub(free));
    }

    fn check_grant_refusal(&self, reason: Reason, promise: &Promise, step: u32, count: u32, tasks: u32) {
        let is_true = match reason {
            Reason::BadRequest => count == 0 || tasks == 0,
            Reason::BeyondLease => count as usize > promise.places.len(),
            Reason::FewerLeavesThanTasks => count < tasks,
            Reason::LeaseDiffers => {
                promise.steps.get(&step).is_some_and(|s| s.0.len() as u32 != count || s.1 != tasks)
            }
            Reason::NoLeaves => promise.broken || promise.places.iter().any(|p| !self.healthy(p.0)),
            _ => false,
        };
        assert!(is_true, "{reason:?} for {count} leaves and {tasks} tasks of {promise:?}");
    }

    fn close(&mut self, job: u32) {
        let key = self.key(job);
        let held = self.promises.remove(&key).is_some();
        let ask = Ask::Close { job, uid: 500, start: Some(key.start), how: Ending::Epilog };
        let Verdict::Done { found } = self.rig.ask(&ask) else { panic!() };
        assert!(found == held || self.unheard.contains(&key));
        self.unheard.remove(&key);
    }

    /// The journal cannot be written: whatever was proposed has not happened.
    fn journal_fails(&mut self, job: u32, count: u32, step: u32) {
        let before = self.rig.node.clone();
        let job = self.key(job);
        let asks = [
            Ask::Open { job, leaves: count, direction: None, need: None },
            Ask::Grant {
                job,
                step: StepId(step),
                leaves: count,
                tasks: 1,
                direction: None,
                holder: holder(7),
            },
            Ask::Close { job: job.job, uid: 500, start: None, how: Ending::Admin },
        ];
        for ask in &asks {
            let dropped = self.rig.node.answer(self.rig.now, ask);
            assert_eq!(dropped, before.answer(self.rig.now, ask));
        }
        assert_eq!((before.books(), before.status()), (self.rig.node.books(), self.rig.node.status()));
    }

    fn reap(&mut self, runs: &BTreeSet<u32>) {
        self.rig.now += 100;
        let jobs = runs.iter().map(|&job| Run { job, start: Some(self.key(job).start) }).collect();
        self.rig.node.observe(self.rig.now, Seen::Running { jobs, asked: self.rig.now });
        self.promises.retain(|key, _| runs.contains(&key.job));
        self.unheard.retain(|key| runs.contains(&key.job));
    }

    fn reset(&mut self, gpu: usize) {
        self.rig.gpus[gpu].health = Health::Mig;
        self.rig.gpus[gpu].instances.clear();
        for promise in self.promises.values_mut() {
            promise.broken |= promise.places.iter().any(|p| p.0 as usize == gpu);
        }
    }

    /// Somebody destroys an instance behind the agent's back.
    fn vanish(&mut self, gpu: usize, start: u8) {
        self.rig.gpus[gpu].instances.retain(|i| i.placement.start != start);
        for promise in self.promises.values_mut() {
            promise.broken |= promise.places.iter().any(|p| p.0 as usize == gpu && p.1.start == start);
        }
    }

    fn foreign(&mut self, gpu: usize, profile: u32) {
        let report = &mut self.rig.gpus[gpu];
        let places = report.gpu.profile(profile).unwrap().placements.clone();
        let clear = |p: &Placement| report.instances.iter().all(|i| !i.placement.overlaps(*p));
        if let Some(place) = places.iter().find(|p| clear(p)) {
            let instance = fixture::instance(&report.gpu, profile, place.start);
            report.instances.push(instance);
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Open { job, leaves, direction } => self.open(*job, *leaves, *direction),
            Op::OpenAndHangUp { job, leaves } => {
                let job = self.key(*job);
                if !self.promises.contains_key(&job) {
                    let ask = Ask::Open { job, leaves: *leaves, direction: None, need: None };
                    let proposal = self.rig.node.answer(self.rig.now, &ask);
                    self.rig.carry(proposal);
                    self.unheard.insert(job);
                }
            }
            Op::JournalFails { job, leaves, step } => self.journal_fails(*job, *leaves, *step),
            Op::Grant { job, step, leaves, tasks } => self.grant(*job, *step, *leaves, *tasks),
            Op::Release { job, step } => {
                let key = self.key(*job);
                self.rig.ask(&Ask::Release { job: key, step: StepId(*step) });
                self.promises.get_mut(&key).and_then(|p| p.steps.remove(step));
            }
            Op::Close { job } => self.close(*job),
            Op::StartAgain { job, leaves } => {
                let old = self.key(*job);
                self.starts.insert(*job, old.start + 1000);
                self.promises.remove(&old);
                self.unheard.remove(&old);
                // An older run is over from now on, whether or not the new one finds leaves.
                self.rig.ask(&Ask::Close { job: *job, uid: 500, start: Some(old.start), how: Ending::Admin });
                self.open(*job, *leaves, None);
            }
            Op::HolderGone { job, step } => {
                self.rig.node.observe(self.rig.now, Seen::HolderGone(holder(job * 100 + step)));
                let key = self.key(*job);
                self.promises.get_mut(&key).and_then(|p| p.steps.remove(step));
            }
            Op::Reap { runs } => self.reap(runs),
            Op::Restart => self.rig.restart(),
            Op::Reboot => {
                self.promises.clear();
                self.unheard.clear();
                self.rig.gpus.iter_mut().for_each(|r| r.health = Health::Mig);
                self.rig.reboot();
            }
            Op::Lose { gpu } => self.rig.gpus[*gpu].health = Health::Lost,
            Op::Reset { gpu } => self.reset(*gpu),
            Op::Foreign { gpu, profile } => self.foreign(*gpu, *profile),
            Op::Vanish { gpu, start } => self.vanish(*gpu, *start),
            Op::Faults(which) => {
                let fault = |&half: &bool| if half { Fault::HalfWay } else { Fault::Refuse };
                self.rig.faults.extend(which.iter().map(fault));
            }
        }
        self.rig.scan();
        self.check();
    }

    /// The books hold exactly the leases that were promised and not ended.
    fn check(&self) {
        let held: BTreeSet<JobKey> = self.rig.node.books().leases.keys().copied().collect();
        let promised: BTreeSet<JobKey> = self.promises.keys().copied().collect();
        assert!(promised.is_subset(&held), "lost: {promised:?} of {held:?}");
        assert!(
            held.iter().all(|key| promised.contains(key) || self.unheard.contains(key)),
            "leaked: {held:?}"
        );
        let closed = |r: &&Record| matches!(r, Record::Close { .. } | Record::Boot { .. });
        let opened = self.rig.journal.iter().filter(|r| matches!(r, Record::Open { .. })).count();
        assert!(opened <= held.len() + self.rig.journal.iter().filter(closed).count() * 8);
        let picture = self.rig.node.status();
        assert_eq!(picture.counted, 14, "the count never changes");
    }

    /// When all jobs have ended and the hardware is well again, everything is as at the beginning.
    fn finish(&mut self) {
        for job in 1..6 {
            self.close(job);
        }
        for gpu in 0..2 {
            self.reset(gpu);
        }
        self.rig.faults.clear();
        self.rig.scan();
        self.rig.settle_awake(40);
        assert!(self.rig.node.books().leases.is_empty());
        assert_eq!((self.rig.node.usable(), self.rig.node.problems()), (14, Vec::new()));
        assert_eq!(self.rig.standing(0).len() + self.rig.standing(1).len(), 14);
        assert_eq!(self.rig.node.wake(self.rig.now), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_promise_is_kept_and_every_refusal_is_true(ops in ops(), full_memory in any::<bool>()) {
        let mut model = Model::new(if full_memory { Layout::FullMemory } else { Layout::Uniform });
        for op in &ops {
            model.apply(op);
        }
        model.finish();
    }

    #[test]
    fn a_compacted_journal_folds_to_the_same_books(ops in ops()) {
        let mut model = Model::new(Layout::Uniform);
        for op in &ops {
            model.apply(op);
            let mut books = crate::Books::default();
            for record in model.rig.node.books().records() {
                books.fold(&record).unwrap();
            }
            prop_assert_eq!(&books, model.rig.node.books());
        }
    }

    #[test]
    fn a_journal_torn_anywhere_starts_to_a_sound_node(ops in ops(), cut in any::<prop::sample::Index>()) {
        let mut model = Model::new(Layout::Uniform);
        for op in &ops {
            model.apply(op);
        }
        let mut rig = model.rig;
        rig.journal.truncate(cut.index(rig.journal.len() + 1));
        rig.faults.clear();
        let mut books = crate::Books::default();
        for record in &rig.journal {
            books.fold(record).unwrap();
        }
        rig.node = crate::Node::new(rig.rules.clone(), books, rig.boot.clone());
        rig.settle_awake(3);
        rig.check();
    }
}
