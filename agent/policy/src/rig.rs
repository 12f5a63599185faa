//! A node with hardware made of values, for tests: carries out effects, keeps the journal, and can fail on command.

use crate::node::{Ask, Effect, Node, Proposal, Reshaping, Rules, Seen, Service, Verdict};
use crate::order::RolledBack;
use crate::placement::Direction;
use crate::record::{Holder, LeafId, Record};
use crate::topology::{Gpu, GpuReport, Health};
use crate::{Books, fixture, layout::Layout};
use migshare_proto::{JobKey, StepId};
use std::collections::VecDeque;

pub(crate) struct Rig {
    pub(crate) node: Node,
    pub(crate) gpus: Vec<GpuReport>,
    pub(crate) journal: Vec<Record>,
    pub(crate) now: i64,
    pub(crate) rules: Rules,
    pub(crate) boot: String,
    /// Outcomes of the next create and destroy calls; success when empty.
    pub(crate) faults: VecDeque<Fault>,
    /// Effects that were handed over and not carried out yet.
    pub(crate) queue: VecDeque<Effect>,
    /// All effects ever carried out.
    pub(crate) done: Vec<Effect>,
    /// All layouts ever gone back on.
    pub(crate) rolled_back: Vec<RolledBack>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call works.
    None,
    /// The call fails and changes nothing.
    Refuse,
    /// The call fails half-way: a GPU instance without compute instance is left.
    HalfWay,
}

pub(crate) fn rules(layout: Layout) -> Rules {
    Rules { layout, direction: Direction::Pack, reshaping: Reshaping::default() }
}

/// Since when a cordon is that Slurm has known for long: it sends no job that may still use the GPU.
pub(crate) const LONG_AGO: i64 = i64::MIN / 2;

pub(crate) fn job(n: u32) -> JobKey {
    JobKey { job: n, start: 1000, uid: 500 }
}

pub(crate) fn holder(pid: u32) -> Holder {
    Holder { pid, born: 1 }
}

pub(crate) fn open(n: u32, leaves: u32) -> Ask {
    Ask::Open { job: job(n), leaves, direction: None, need: None }
}

pub(crate) fn close(n: u32) -> Ask {
    Ask::Close { job: n, uid: 500, start: None, how: crate::record::Ending::Epilog }
}

pub(crate) fn grant(n: u32, step: u32, leaves: u32, tasks: u32) -> Ask {
    let holder = holder((n * 100).wrapping_add(step));
    Ask::Grant { job: job(n), step: StepId(step), leaves, tasks, direction: None, holder }
}

impl Rig {
    /// A node of these GPUs, empty and in MIG mode, that has not started yet.
    pub(crate) fn asleep(gpus: &[Gpu], rules: Rules) -> Rig {
        let boot = "boot-1".to_owned();
        Rig {
            node: Node::new(rules.clone(), Books::default(), boot.clone()),
            gpus: gpus.iter().map(|gpu| fixture::report(gpu, &[])).collect(),
            journal: Vec::new(),
            now: 10_000,
            rules,
            boot,
            faults: VecDeque::new(),
            queue: VecDeque::new(),
            done: Vec::new(),
            rolled_back: Vec::new(),
        }
    }

    /// A node of these GPUs that serves.
    pub(crate) fn of(gpus: &[Gpu], rules: Rules) -> Rig {
        let mut rig = Rig::asleep(gpus, rules);
        rig.settle();
        rig
    }

    pub(crate) fn h100s(count: u32) -> Rig {
        let gpus: Vec<Gpu> = (0..count).map(fixture::h100).collect();
        Rig::of(&gpus, rules(Layout::Uniform))
    }

    /// Carries out all work until nothing is left to do now.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                self.check();
                self.node.prepare();
                return;
            }
        }
        panic!("work never ends: {:?}", self.node.work(self.now));
    }

    /// One piece of work, or else one effect.
    pub(crate) fn step(&mut self) -> bool {
        if let Some(proposal) = self.node.work(self.now) {
            self.carry(proposal);
            return true;
        }
        self.run_effect()
    }

    /// Carries out all work, waking up as often as the node wants to, at most `times`.
    pub(crate) fn settle_awake(&mut self, times: u32) {
        self.settle();
        for _ in 0..times {
            let Some(wake) = self.node.wake(self.now) else { return };
            self.now = wake;
            self.settle();
        }
    }

    pub(crate) fn carry(&mut self, proposal: Proposal) -> Option<Verdict> {
        self.journal.extend(proposal.records.iter().cloned());
        self.node.commit(&proposal);
        self.queue.extend(proposal.effects);
        self.rolled_back.extend(proposal.rolled_back);
        proposal.verdict
    }

    /// The final answer, as a client that waits gets it.
    pub(crate) fn ask(&mut self, ask: &Ask) -> Verdict {
        for _ in 0..1000 {
            let proposal = self.node.answer(self.now, ask);
            let verdict = self.carry(proposal).expect("every answer has a verdict");
            self.check();
            if verdict != Verdict::Wait {
                return verdict;
            }
            self.settle_awake(1);
        }
        panic!("no answer to {ask:?}");
    }

    /// Kills the agent and starts it again with what is on disk: effects not carried out are lost.
    pub(crate) fn restart(&mut self) {
        let mut books = Books::default();
        for record in &self.journal {
            books.fold(record).unwrap();
        }
        assert_eq!(&books, self.node.books(), "replay differs from what was committed");
        self.node = Node::new(self.rules.clone(), books, self.boot.clone());
        self.queue.clear();
    }

    pub(crate) fn reboot(&mut self) {
        for gpu in &mut self.gpus {
            gpu.instances.clear();
        }
        self.boot.push('+');
        self.restart();
    }

    pub(crate) fn check(&self) {
        self.node.invariants().unwrap();
    }

    pub(crate) fn scan(&mut self) {
        self.node.observe(self.now, Seen::Scan(self.gpus.clone()));
        self.settle();
    }

    pub(crate) fn reason(&self) -> String {
        match self.node.service() {
            Service::Unfit { reason } => reason,
            other => format!("{other:?}"),
        }
    }

    /// Profile and start of what stands on a GPU, by start.
    pub(crate) fn standing(&self, gpu: usize) -> Vec<(u32, u8)> {
        let mut all: Vec<(u32, u8)> =
            self.gpus[gpu].instances.iter().map(|i| (i.profile, i.placement.start)).collect();
        all.sort_by_key(|(_, start)| *start);
        all
    }

    fn run_effect(&mut self) -> bool {
        let Some(effect) = self.queue.pop_front() else { return false };
        self.done.push(effect.clone());
        let seen = match effect {
            Effect::Scan => Seen::Scan(self.gpus.clone()),
            Effect::Create { leaf, profile } => self.create(leaf, profile),
            Effect::Destroy { leaf, gi } => self.destroy(leaf, gi),
        };
        self.node.observe(self.now, seen);
        true
    }

    fn create(&mut self, leaf: LeafId, profile: u32) -> Seen {
        let reserved =
            self.journal.iter().any(|r| matches!(r, Record::Reserve { leaf: l, .. } if *l == leaf));
        assert!(reserved, "{leaf} is made without a reservation");
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        let at = leaf.place.placement;
        let report = self.gpus.iter_mut().find(|r| r.gpu.uuid == leaf.place.gpu).unwrap();
        let blocked = report.instances.iter().any(|i| i.placement.overlaps(at));
        if blocked || report.health != Health::Mig || fault == Fault::Refuse {
            return Seen::MakeFailed { leaf, error: "nvmlDeviceCreateGpuInstance: in use".to_owned() };
        }
        let mut instance = fixture::instance(&report.gpu, profile, at.start);
        if fault == Fault::HalfWay {
            instance.compute.clear();
            report.instances.push(instance);
            return Seen::MakeFailed {
                leaf,
                error: "nvmlGpuInstanceCreateComputeInstance: unknown".to_owned(),
            };
        }
        report.instances.push(instance.clone());
        Seen::Made { leaf, instance }
    }

    fn destroy(&mut self, leaf: LeafId, gi: u32) -> Seen {
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        let report = self.gpus.iter_mut().find(|r| r.gpu.uuid == leaf.place.gpu).unwrap();
        let error = "nvmlGpuInstanceDestroy: in use".to_owned();
        let Some(at) = report.instances.iter().position(|i| i.gi == gi) else {
            return Seen::RemoveFailed { leaf, error };
        };
        match fault {
            _ if report.health != Health::Mig => Seen::RemoveFailed { leaf, error },
            Fault::Refuse => Seen::RemoveFailed { leaf, error },
            Fault::HalfWay => {
                report.instances[at].compute.clear();
                Seen::RemoveFailed { leaf, error }
            }
            Fault::None => {
                report.instances.remove(at);
                Seen::Removed { leaf }
            }
        }
    }
}
