//! Prolog and epilog of a job on this node. Both run as root in a process of their own and always succeed: an error
//! from either would drain the node.
//!
//! ```text
//! prolog   slurmctld: this node's count ── 0 ──> nothing more, no socket
//!              │ n                      └─ no answer ──> marker "unknown": a step asks again
//!              v
//!          marker {n, start, uid} ── not asked for (--exclusive) ──> nothing more, no socket
//!              │ asked for
//!              v
//!          agent: close leases of ended jobs, open lease ── ok ──> done
//!              ├─ the node's fault ──> drain this node, requeue a batch job
//!              └─ no place for its instances, and the site says so ──> requeue a batch job, away from this node
//! epilog   marker? ── no ──> nothing more, no socket
//!              └─ yes ──> agent: close lease ── ok ──> marker removed
//!                              └─ agent away ──> marker kept as "ended", for the next prolog
//! ```

use crate::agent::{Agent, AgentError};
use crate::config::Config;
use crate::filter;
use crate::marker::{Known, Marker, Markers};
use crate::option;
use crate::slurm::{Elsewhere, Item, Job, Level, Node, Partition, Slurm};
use migshare_proto::JobKey;
use migshare_proto::hostlist;
use migshare_proto::message::{CloseLease, OpenLease, Shape};
use std::time::Duration;

/// What a drain reason of ours starts with: only such nodes are ever resumed by the agent.
pub const REASON: &str = "migshare: ";

/// Time after which the prologs of a job's other nodes, that read Slurm's list of nodes to avoid before this one wrote it, have
/// written theirs.
const SETTLING: Duration = Duration::from_millis(300);
/// How often this node's name is written into that list. A job has a few nodes that can refuse it at the same moment.
const TRIES: u32 = 10;

/// The prolog hook.
pub fn prolog(config: &Config, slurm: &dyn Slurm) {
    let Some(job) = slurm.item(Item::Job) else { return };
    Script { config, slurm, job, markers: Markers::below(&config.run) }.prolog();
}

/// The epilog hook.
pub fn epilog(config: &Config, slurm: &dyn Slurm) {
    let Some(job) = slurm.item(Item::Job) else { return };
    Script { config, slurm, job, markers: Markers::below(&config.run) }.epilog();
    filter::sweep_stale(&config.node);
}

/// A prolog or epilog of one job.
struct Script<'a> {
    config: &'a Config,
    slurm: &'a dyn Slurm,
    job: u32,
    markers: Markers,
}

impl Script<'_> {
    fn prolog(&self) {
        match self.slurm.job(self.job) {
            Ok(info) => match Known::of(&info) {
                None => self.forget(),
                Some(known) => self.open(&info, known),
            },
            Err(e) => {
                self.error(&format!("{e}; its steps will ask again"));
                if let Err(e) = self.markers.write(self.job, &Marker { known: None }) {
                    self.error(&format!("marker: {e}"));
                }
            }
        }
    }

    fn epilog(&self) {
        let cgroups = filter::prefix(&self.config.node, self.job, None);
        let Some(marker) = self.markers.read(self.job) else { return filter::sweep(&cgroups) };
        // Slurm kills what a job leaves behind, but not what slurmstepd had no time to tell it of.
        filter::sweep_and_kill(&cgroups);
        if marker.known.is_some_and(|k| !k.asked) {
            return self.forget();
        }
        let agent = Agent::new(self.config);
        match agent.close(self.close(self.job, &marker)) {
            Ok(()) => self.forget(),
            // No step of it ever learnt what to open a lease for.
            Err(_) if marker.known.is_none() => self.forget(),
            Err(e) => {
                self.error(&format!("its lease outlives it for now: {e}"));
                if let Err(e) = self.markers.end(self.job) {
                    self.error(&format!("marker: {e}; the lease is left to the agent's reaper"));
                }
            }
        }
    }

    /// Ends the leases of jobs that ended while the agent was away: slurmctld counts their leaves as free.
    fn settle(&self, agent: &Agent<'_>) -> Result<(), AgentError> {
        for (job, marker) in self.markers.ended() {
            agent.close(self.close(job, &marker))?;
            if let Err(e) = self.markers.settle(job) {
                self.error(&format!("marker of job {job}: {e}"));
            }
        }
        Ok(())
    }

    fn close(&self, job: u32, marker: &Marker) -> CloseLease {
        let uid = marker.known.map(|k| k.uid).or_else(|| self.slurm.item(Item::Uid)).unwrap_or_default();
        CloseLease { job, uid, start: marker.known.map(|k| k.start) }
    }

    fn open(&self, info: &Job, known: Known) {
        if let Err(e) = self.markers.write(self.job, &Marker { known: Some(known) }) {
            // Without it a step that did not give the option would run without its leaves.
            return self
                .out_of_service(info, &format!("cannot write below {}: {e}", self.config.run.display()));
        }
        if !known.asked {
            return;
        }
        let key = JobKey { job: self.job, start: known.start, uid: known.uid };
        let shape = shape(self.slurm);
        let lease = OpenLease { job: key, leaves: known.leaves, shape };
        let agent = Agent::new(self.config);
        match self.settle(&agent).and_then(|()| agent.open(lease)) {
            Ok(_) => {}
            Err(e) if e.is_the_nodes_fault(shape) => self.out_of_service(info, &reason(&e)),
            Err(AgentError::Refused { requeue: true, text, .. }) if info.batch => self.elsewhere(info, &text),
            Err(e) => self.error(&e.to_string()),
        }
    }

    /// Queues a batch job again, away from this node. Where it can run nowhere else it goes on here, and its first step says why
    /// it fails. Nobody but this job waits for it; each call is bounded by Slurm's own time-outs.
    fn elsewhere(&self, info: &Job, why: &str) {
        let (job, node) = (self.job, &self.config.node);
        if let Err(no) = self.has_other_nodes(&info.elsewhere) {
            return self.error(&format!("{why}; not queued again: {no}"));
        }
        self.error(&format!("{why}; queued again, away from {node}"));
        // Only a pending job takes a list of nodes to avoid; until its begin time, minutes away, it is not placed again.
        let requeued = self.slurm.requeue(job);
        // The prolog of another node may have queued it again before: then it is pending all the same.
        if let Err(e) = self.keep_away(&info.elsewhere, why) {
            requeued.err().iter().for_each(|e| self.error(&e.to_string()));
            self.error(&e);
        }
    }

    /// Adds this node to those that the job must not have. Slurm knows no adding, and the prologs of the job's other nodes may do
    /// the same at this moment: what is there is read, written with this node, and read again, until it is there to stay.
    fn keep_away(&self, elsewhere: &Elsewhere, why: &str) -> Result<(), String> {
        let (job, node) = (self.job, &self.config.node);
        let comment = format!("migshare: queued again, away from {node}: {why}");
        for _ in 0..TRIES {
            let excluded = self.slurm.excluded(job).map_err(|e| e.to_string())?;
            if hostlist::names(&excluded, node) {
                return Ok(());
            }
            let now = Elsewhere { excluded: excluded.clone(), ..elsewhere.clone() };
            self.has_other_nodes(&now).map_err(|no| format!("not kept away from {node}: {no}"))?;
            let both = [excluded.as_str(), node].into_iter().filter(|list| !list.is_empty());
            let both = both.collect::<Vec<_>>().join(",");
            self.slurm.keep_away(job, &both, &comment).map_err(|e| e.to_string())?;
            std::thread::sleep(SETTLING);
        }
        Err(format!("not kept away from {node}: the nodes that job {job} avoids change all the time"))
    }

    /// Whether the job's partitions have as many other nodes with leaves as the job needs.
    fn has_other_nodes(&self, job: &Elsewhere) -> Result<(), String> {
        let here = &self.config.node;
        if hostlist::names(&job.required, here) {
            return Err(format!("the job requires {here}"));
        }
        let partitions = self.slurm.partitions().map_err(|e| e.to_string())?;
        let meant = |p: &&Partition| job.partitions.split(',').any(|name| name == p.name);
        let hosts: Vec<&str> = partitions.iter().filter(meant).map(|p| p.nodes.as_str()).collect();
        let hosts = hosts.join(",");
        let nodes = self.slurm.nodes().map_err(|e| e.to_string())?;
        let other = |node: &&Node| {
            node.leaves > 0
                && node.name != *here
                && hostlist::names(&hosts, &node.name)
                && !hostlist::names(&job.excluded, &node.name)
        };
        let others = nodes.iter().filter(other).count();
        if others >= job.nodes.max(1) as usize {
            return Ok(());
        }
        Err(format!("partition {} has {others} other nodes with leaves for it", job.partitions))
    }

    /// Keeps the queue from running into this node: each further job would fail within milliseconds.
    fn out_of_service(&self, info: &Job, why: &str) {
        self.error(&format!("{why}; draining {}", self.config.node));
        if let Err(e) = self.slurm.drain(&self.config.node, &format!("{REASON}{why}")) {
            self.error(&e.to_string());
        }
        // srun and salloc wait for the result: Slurm requeues batch jobs only.
        if info.batch
            && let Err(e) = self.slurm.requeue(self.job)
        {
            self.error(&e.to_string());
        }
    }

    fn forget(&self) {
        if let Err(e) = self.markers.remove(self.job) {
            self.error(&format!("marker: {e}"));
        }
    }

    fn error(&self, text: &str) {
        self.slurm.say(Level::Error, &format!("job {}: {text}", self.job));
    }
}

/// The reason for a drain, in the words that `sinfo -R` has room for.
fn reason(error: &AgentError) -> String {
    match error {
        AgentError::Away { cause, .. } => format!("agent away: {cause}"),
        AgentError::Broken { cause, .. } => format!("agent broken: {cause}"),
        AgentError::Refused { text, .. } => text.clone(),
    }
}

/// The shape that the user asked for. What a forged environment says instead counts for nothing here: the step will
/// name the fault.
fn shape(slurm: &dyn Slurm) -> Shape {
    let text = slurm.job_option();
    option::parse_inherited(text.as_deref()).unwrap_or_default().shape()
}
