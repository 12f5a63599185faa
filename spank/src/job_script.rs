//! Prolog and epilog of a job on this node. Both run as root in a process of their own and always succeed: an error
//! from either would drain the node.
//!
//! ```text
//! prolog   slurmctld: this node's count ── 0 ──> nothing more, no socket
//!              │ n                      └─ no answer ──> marker "unknown": a step asks again
//!              v
//!          marker {n, start, uid} ──> agent: open lease ── ok ──> done
//!                                          └─ the node's fault ──> drain this node, requeue a batch job
//! epilog   marker? ── no ──> nothing more, no socket
//!              └─ yes ──> agent: close lease ──> marker removed
//! ```

use crate::agent::{Agent, AgentError};
use crate::config::Config;
use crate::filter;
use crate::gres;
use crate::marker::{Known, Marker, Markers};
use crate::option;
use crate::slurm::{Item, Job, Level, Slurm};
use migshare_proto::JobKey;
use migshare_proto::message::{CloseLease, OpenLease, Shape};

/// What a drain reason of ours starts with: only such nodes are ever resumed by the agent.
pub const REASON: &str = "migshare: ";

/// The prolog hook.
pub fn prolog(config: &Config, slurm: &dyn Slurm) {
    let Some(job) = slurm.item(Item::Job) else { return };
    let markers = Markers::below(&config.run);
    match slurm.job(job) {
        Ok(info) => match gres::given(info.gres.as_deref().unwrap_or_default()) {
            0 => forget(&markers, job, slurm),
            leaves => open(config, slurm, &markers, job, &info, leaves),
        },
        Err(e) => {
            slurm.say(Level::Error, &format!("job {job}: {e}; its steps will ask again"));
            if let Err(e) = markers.write(job, &Marker { known: None }) {
                slurm.say(Level::Error, &format!("job {job}: marker: {e}"));
            }
        }
    }
}

/// The epilog hook.
pub fn epilog(config: &Config, slurm: &dyn Slurm) {
    let Some(job) = slurm.item(Item::Job) else { return };
    filter::sweep(&filter::prefix(&config.node, job, None));
    let markers = Markers::below(&config.run);
    let Some(marker) = markers.read(job) else { return };
    let uid = marker.known.map(|k| k.uid).or_else(|| slurm.item(Item::Uid)).unwrap_or_default();
    let close = CloseLease { job, uid, start: marker.known.map(|k| k.start) };
    if let Err(e) = Agent::new(config).close(close) {
        // The agent's reaper and its next start find the lease of a job that is gone.
        slurm.say(Level::Error, &format!("job {job}: lease left to the agent's reaper: {e}"));
    }
    forget(&markers, job, slurm);
}

fn open(config: &Config, slurm: &dyn Slurm, markers: &Markers, job: u32, info: &Job, leaves: u32) {
    let known = Known { leaves, start: info.start, uid: info.uid };
    if let Err(e) = markers.write(job, &Marker { known: Some(known) }) {
        // Without it a step that did not give the option would run without its leaves.
        let dir = config.run.display();
        return out_of_service(config, slurm, job, info, &format!("cannot write below {dir}: {e}"));
    }
    let lease =
        OpenLease { job: JobKey { job, start: info.start, uid: info.uid }, leaves, shape: shape(slurm) };
    match Agent::new(config).open(lease) {
        Ok(_) => {}
        Err(e) if e.is_the_nodes_fault() => out_of_service(config, slurm, job, info, &reason(&e)),
        Err(e) => slurm.say(Level::Error, &format!("job {job}: {e}")),
    }
}

/// Keeps the queue from running into this node: each further job would fail within milliseconds.
fn out_of_service(config: &Config, slurm: &dyn Slurm, job: u32, info: &Job, why: &str) {
    slurm.say(Level::Error, &format!("job {job}: {why}; draining {}", config.node));
    if let Err(e) = slurm.drain(&config.node, &format!("{REASON}{why}")) {
        slurm.say(Level::Error, &format!("job {job}: {e}"));
    }
    // srun and salloc wait for the result: Slurm requeues batch jobs only.
    if info.batch
        && let Err(e) = slurm.requeue(job)
    {
        slurm.say(Level::Error, &format!("job {job}: {e}"));
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
    let spec = option::parse_inherited(text.as_deref()).unwrap_or_default();
    Shape { spread: spec.spread }
}

fn forget(markers: &Markers, job: u32, slurm: &dyn Slurm) {
    if let Err(e) = markers.remove(job) {
        slurm.say(Level::Error, &format!("job {job}: marker: {e}"));
    }
}
