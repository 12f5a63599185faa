//! One-to-many: leaves, given out by the policy that the agent runs.

use crate::fleet::{Fleet, Started};
use crate::model::gpu;
use crate::speed::{Overhead, on_leaves};
use crate::trace::Job;
use migshare_policy::Books;
use migshare_policy::layout::{Layout, leaves};
use migshare_policy::node::{Ask, Effect, Node, Proposal, Reshaping, Rules, Seen, Verdict};
use migshare_policy::placement::Direction;
use migshare_policy::record::Ending;
use migshare_policy::topology::{Compute, GpuReport, Health, Instance};
use migshare_proto::{JobKey, Leaf};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes with their agents' policy.
pub struct Leaves {
    nodes: Vec<Node>,
    gpus: u32,
    overhead: Overhead,
    /// The node of each running job.
    running: BTreeMap<u32, usize>,
}

impl Leaves {
    /// So many nodes of so many GPUs, all cut to leaves.
    pub fn new(nodes: u32, gpus: u32, direction: Direction, overhead: Overhead) -> Leaves {
        let node = |_| started(gpus, direction);
        Leaves { nodes: (0..nodes).map(node).collect(), gpus, overhead, running: BTreeMap::new() }
    }

    fn try_node(&mut self, at: usize, key: JobKey, wanted: u32) -> Option<Vec<Leaf>> {
        let ask = Ask::Open { job: key, leaves: wanted, direction: None, need: None };
        let proposal = self.nodes[at].answer(key.start, &ask);
        let Some(Verdict::Lease(leaves)) = &proposal.verdict else { return None };
        let leaves = leaves.clone();
        self.nodes[at].commit(&proposal);
        Some(leaves)
    }
}

impl Fleet for Leaves {
    fn start(&mut self, now: f64, number: u32, job: &Job) -> Option<Started> {
        let key = key(number, now);
        let (at, leaves) =
            (0..self.nodes.len()).find_map(|at| Some((at, self.try_node(at, key, job.slices)?)))?;
        self.running.insert(number, at);
        let gpus = leaves.iter().map(|leaf| leaf.gpu).collect::<BTreeSet<u32>>().len() as u32;
        let seconds = on_leaves(job.seconds, job.slices, gpus, self.overhead);
        Some(Started { seconds, slices: job.slices })
    }

    fn end(&mut self, now: f64, number: u32) {
        let Some(at) = self.running.remove(&number) else { return };
        let ask = Ask::Close { job: number, uid: 0, start: None, how: Ending::Epilog };
        let proposal = self.nodes[at].answer(now as i64, &ask);
        self.nodes[at].commit(&proposal);
    }

    fn can_ever(&self, job: &Job) -> bool {
        job.slices <= 7 * self.gpus
    }

    fn ready_at(&self, _now: f64) -> Option<f64> {
        None
    }
}

fn key(number: u32, now: f64) -> JobKey {
    JobKey { job: number, start: now as i64, uid: 0 }
}

/// A node whose GPUs are cut to leaves already.
fn started(gpus: u32, direction: Direction) -> Node {
    let rules = Rules { layout: Layout::Uniform, direction, reshaping: Reshaping::default() };
    let mut node = Node::new(rules, Books::default(), "simulated".to_owned());
    while let Some(proposal) = node.work(0) {
        carry(&mut node, &proposal, gpus);
    }
    node
}

fn carry(node: &mut Node, proposal: &Proposal, gpus: u32) {
    node.commit(proposal);
    if proposal.effects.contains(&Effect::Scan) {
        node.observe(0, Seen::Scan((0..gpus).map(|index| report(index, gpus)).collect()));
    }
}

fn report(index: u32, of: u32) -> GpuReport {
    let gpu = gpu(index, of);
    let instances = leaves(&gpu).into_iter().map(|cut| {
        let uuid = format!("MIG-{index}-{}", cut.placement);
        let compute = Compute { ci: 0, uuid, full: true, cap: None, processes: Vec::new() };
        let gi = u32::from(cut.placement.start) + 7;
        Instance { gi, profile: cut.profile, placement: cut.placement, compute: vec![compute], cap: None }
    });
    let instances = instances.collect();
    GpuReport { gpu, health: Health::Mig, instances }
}
