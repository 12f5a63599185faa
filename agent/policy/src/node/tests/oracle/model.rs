//! What was promised to whom, and whether the node keeps it.

use super::Op;
use crate::charge::Need;
use crate::fixture;
use crate::layout::{Layout, fit, leaves};
use crate::node::{Ask, Run, Seen, Verdict};
use crate::order::Order;
use crate::placement::Direction;
use crate::record::{Ending, Record};
use crate::rig::{Fault, Rig, holder, rules};
use crate::topology::{GpuReport, Health, Profile};
use migshare_proto::message::Reason;
use migshare_proto::{JobKey, Leaf, Placement, StepId};
use std::collections::{BTreeMap, BTreeSet};

type At = (u32, Placement);

#[derive(Debug, Clone)]
struct Promise {
    places: Vec<At>,
    /// Leaves as Slurm counts them, for each place.
    each: u32,
    /// A reset took away what was promised.
    broken: bool,
    steps: BTreeMap<u32, (Vec<At>, u32)>,
}

pub(super) struct Model {
    pub(super) rig: Rig,
    promises: BTreeMap<JobKey, Promise>,
    /// Jobs whose client hung up before the answer: they may hold a lease.
    unheard: BTreeSet<JobKey>,
    starts: BTreeMap<u32, i64>,
    cordoned: BTreeSet<usize>,
    /// Jobs that Slurm no longer knows and whose steps run.
    stale: BTreeSet<JobKey>,
}

fn at(leaf: &Leaf) -> At {
    (leaf.gpu, leaf.placement)
}

impl Model {
    pub(super) fn new(layout: Layout) -> Model {
        let rig = Rig::of(&[fixture::h100(0), fixture::h100(1)], rules(layout));
        Model {
            rig,
            promises: BTreeMap::new(),
            unheard: BTreeSet::new(),
            starts: BTreeMap::new(),
            cordoned: BTreeSet::new(),
            stale: BTreeSet::new(),
        }
    }

    fn key(&self, job: u32) -> JobKey {
        JobKey { job, start: self.starts.get(&job).copied().unwrap_or(1000), uid: 500 }
    }

    fn healthy(&self, gpu: u32) -> bool {
        self.rig.gpus[gpu as usize].health == Health::Mig
    }

    fn serving(&self) -> impl Iterator<Item = &GpuReport> {
        let gpus = self.rig.gpus.iter().enumerate().filter(|(i, _)| !self.cordoned.contains(i));
        gpus.map(|(_, report)| report).filter(|report| report.health == Health::Mig)
    }

    /// Leaf places that nobody was promised and that nothing is known to be in the way of.
    fn free(&self) -> u32 {
        let taken = self.taken();
        let free = self.serving().map(|report| {
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
                assert_eq!(got.len() as u32, count);
                self.promise(key, &got, 1, &taken);
            }
            (Verdict::Lease(got), Some(held)) => self.check_again(&got, &held, count),
            (Verdict::Refused(no), held) => {
                // What broke while instances were being made counts as well.
                let few = free.min(self.free()) < count;
                self.check_open_refusal(no.reason, count, few, held.as_ref());
            }
            (other, _) => panic!("{other:?}"),
        }
    }

    /// Instances of so many slices, rightly charged or one leaf too many.
    fn large(&mut self, job: u32, slices: u8, count: u32, extra: u32) {
        let key = self.key(job);
        if self.unheard.contains(&key) {
            return;
        }
        // Charged by the worst place: 1g, 2g, 3g and 4g, and 7g for all above.
        let each = [1, 2, 4, 4, 7, 7, 7][usize::from(slices) - 1];
        let asked = count * each + extra;
        let (taken, fits, held) = (self.taken(), self.fits(slices), self.promises.get(&key).cloned());
        let ask = Ask::Open { job: key, leaves: asked, direction: None, need: Some(Need::Slices(slices)) };
        match (self.rig.ask(&ask), held) {
            (Verdict::Lease(got), None) => {
                assert_eq!(got.len() as u32, asked / each);
                assert!(got.iter().all(|leaf| leaf.slices >= slices));
                self.promise(key, &got, each, &taken);
            }
            (Verdict::Lease(got), Some(held)) => self.check_again(&got, &held, asked),
            (Verdict::Refused(no), held) if no.reason == Reason::WrongPrice && held.is_none() => {
                assert!(!asked.is_multiple_of(each));
            }
            (Verdict::Refused(no), held) => {
                let few = fits.min(self.fits(slices)) < asked / each;
                self.check_open_refusal(no.reason, asked, few, held.as_ref());
            }
            (other, _) => panic!("{other:?}"),
        }
    }

    /// How many instances of so many slices could lie on what nobody holds: by trying all sets of places.
    fn fits(&self, slices: u8) -> u32 {
        let taken = self.taken();
        let most = |report: &GpuReport| {
            let mut able: Vec<&Profile> =
                report.gpu.profiles.iter().filter(|p| p.plain && p.slices >= slices).collect();
            able.sort_by_key(|p| (p.slices, p.placements[0].size));
            let clear =
                |p: &&Placement| taken.iter().all(|(g, q)| *g != report.gpu.index || !q.overlaps(**p));
            let free: Vec<&Placement> = able[0].placements.iter().filter(clear).collect();
            let sets = (0u32..1 << free.len()).map(|set| {
                let chosen: Vec<&Placement> =
                    (0..free.len()).filter(|i| set >> i & 1 == 1).map(|i| free[i]).collect();
                let units: u32 = chosen.iter().map(|p| u32::from(p.size)).sum();
                let all = chosen.iter().fold(0, |all, p| all | p.mask());
                if all.count_ones() == units { chosen.len() as u32 } else { 0 }
            });
            sets.max().unwrap_or(0)
        };
        self.serving().map(most).sum()
    }

    fn promise(&mut self, key: JobKey, got: &[Leaf], each: u32, taken: &[At]) {
        let places: Vec<At> = got.iter().map(at).collect();
        for (g, p) in &places {
            assert!(
                self.healthy(*g) && !self.cordoned.contains(&(*g as usize)),
                "a leaf of a gpu out of service"
            );
            assert!(!taken.iter().any(|(h, q)| g == h && p.overlaps(*q)), "{p} on {g} is taken");
        }
        let all_distinct = places.iter().collect::<BTreeSet<_>>().len() == places.len();
        assert!(all_distinct && got.iter().all(|leaf| self.stands(leaf)));
        self.promises.insert(key, Promise { places, each, broken: false, steps: BTreeMap::new() });
    }

    fn check_again(&self, got: &[Leaf], held: &Promise, asked: u32) {
        assert_eq!(held.places.len() as u32 * held.each, asked);
        assert!(got.iter().all(|leaf| held.places.contains(&at(leaf)) && self.stands(leaf)));
        let hurt = held.broken || held.places.iter().any(|p| !self.healthy(p.0));
        assert!(hurt || got.len() == held.places.len());
    }

    fn check_open_refusal(&self, reason: Reason, asked: u32, few: bool, held: Option<&Promise>) {
        let dead = |p: &Promise| p.broken || p.places.iter().all(|at| !self.healthy(at.0));
        let is_true = match reason {
            Reason::BadRequest => asked == 0,
            Reason::NoLeaves | Reason::Fragmented => held.is_none() && few,
            Reason::Unavailable => held.map_or(few, dead),
            Reason::LeaseDiffers => held.is_some_and(|p| p.places.len() as u32 * p.each != asked),
            _ => false,
        };
        assert!(is_true, "{reason:?} for {asked} and {held:?}");
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
                assert_eq!((places.len() as u32, assigned.len() as u32), (count / promise.each, tasks));
                assert!(assigned.iter().all(|t| t.len() as u32 == count / promise.each / tasks));
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
            Reason::BeyondLease => count > promise.places.len() as u32 * promise.each,
            Reason::FewerLeavesThanTasks => count / promise.each < tasks,
            Reason::LeaseDiffers => promise
                .steps
                .get(&step)
                .is_some_and(|s| s.0.len() as u32 != count / promise.each || s.1 != tasks),
            Reason::Unavailable => promise.broken || promise.places.iter().any(|p| !self.healthy(p.0)),
            _ => false,
        };
        assert!(is_true, "{reason:?} for {count} leaves and {tasks} tasks of {promise:?}");
    }

    fn close(&mut self, job: u32) {
        let key = self.key(job);
        let held = self.promises.remove(&key).is_some();
        self.stale.remove(&key);
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
        let known = self.promises.keys().chain(&self.unheard);
        self.stale = known.filter(|key| !runs.contains(&key.job)).copied().collect();
    }

    /// What Slurm does not know ends as soon as no step of it runs.
    fn end_stale(&mut self) {
        let runs = |p: Option<&Promise>| p.is_some_and(|p| !p.steps.is_empty());
        self.stale.retain(|key| {
            let keeps = runs(self.promises.get(key));
            if !keeps {
                self.promises.remove(key);
                self.unheard.remove(key);
            }
            keeps
        });
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

    fn order(&mut self, order: &Order) {
        let proposal = self.rig.node.order(order, false);
        assert!(matches!(self.rig.carry(proposal), Some(Verdict::Done { .. })));
    }

    fn target(&mut self, gpu: usize, layout: Option<Layout>) {
        let layouts = vec![(self.rig.gpus[gpu].gpu.uuid.clone(), layout)];
        self.order(&Order::Apply { layouts, now: false });
    }

    fn cordon(&mut self, gpu: usize, on: bool) {
        let uuid = self.rig.gpus[gpu].gpu.uuid.clone();
        if on {
            self.cordoned.insert(gpu);
            self.order(&Order::Cordon { gpu: uuid, note: "test".to_owned(), at: crate::rig::LONG_AGO });
        } else {
            self.cordoned.remove(&gpu);
            self.order(&Order::Uncordon { gpu: uuid });
        }
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Large { job, slices, count, extra } => self.large(*job, *slices, *count, *extra),
            Op::Cordon { gpu } => self.cordon(*gpu, true),
            Op::Uncordon { gpu } => self.cordon(*gpu, false),
            Op::Halves { gpu } => {
                let halves = fit(&self.rig.gpus[*gpu].gpu, &[("4g.40gb", 1), ("3g.40gb", 1)]);
                self.target(*gpu, halves.ok());
            }
            Op::Configured { gpu } => self.target(*gpu, None),
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
                self.stale.remove(&old);
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
            Op::Restart => {
                self.stale.clear();
                self.rig.restart();
            }
            Op::Reboot => {
                self.stale.clear();
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
        self.end_stale();
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
    pub(super) fn finish(&mut self) {
        // Hardware that still refuses would make an order give way to the layout before it.
        self.rig.faults.clear();
        for job in 1..6 {
            self.close(job);
        }
        for gpu in 0..2 {
            self.reset(gpu);
            self.cordon(gpu, false);
            self.target(gpu, None);
        }
        self.rig.scan();
        self.rig.settle_awake(40);
        assert!(self.rig.node.books().leases.is_empty());
        assert_eq!((self.rig.node.usable(), self.rig.node.problems()), (14, Vec::new()));
        assert_eq!(self.rig.standing(0).len() + self.rig.standing(1).len(), 14);
        assert_eq!(self.rig.node.wake(self.rig.now), None);
    }
}
