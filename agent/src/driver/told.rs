//! The log's account of what was decided: one event per decision, with its reason. Decides nothing.

use migshare_policy::node::{Ask, Seen};
use migshare_policy::record::{Grant, Pick, Record};
use migshare_proto::Reply;

/// A change that is durable now.
pub(super) fn record(record: &Record) {
    use tracing::{info, warn};
    match record {
        Record::Boot { boot } => {
            info!(boot, "the node was booted: leases and instances of before have ended")
        }
        Record::Enrol { gpu, index, leaves } => info!(%gpu, index, leaves, "gpu is counted"),
        Record::Forget { gpu } => info!(%gpu, "gpu is no longer counted"),
        Record::Reserve { leaf, profile } => info!(%leaf, profile, "instance is about to be made"),
        Record::Remove { leaf } => info!(%leaf, "instance is about to be destroyed"),
        Record::Stand { leaf, profile } => info!(%leaf, profile, "instance stands"),
        Record::Gone { leaf } => info!(%leaf, "instance is gone"),
        Record::Generation { .. } => {}
        Record::Open { job, leaves, charged, .. } => {
            info!(
                job = job.job,
                start = job.start,
                uid = job.uid,
                charged,
                leaves = picks(leaves),
                "lease opened"
            );
        }
        Record::Close { job, how } => {
            info!(job = job.job, start = job.start, uid = job.uid, ?how, "lease ended")
        }
        Record::Grant { job, step, grant } => {
            let Grant { leaves, shared, holder, .. } = grant;
            let leaves: Vec<String> = leaves.iter().map(ToString::to_string).collect();
            info!(job = job.job, %step, leaves = leaves.join(", "), shared, pid = holder.pid, "grant made");
        }
        Record::Release { job, step } => info!(job = job.job, %step, "grant ended"),
        Record::Quarantine { place, cause, note } => warn!(%place, ?cause, note, "place is quarantined"),
        Record::Unquarantine { place } => info!(%place, "place is released from quarantine"),
        Record::Cordon { gpu, note } => info!(%gpu, note, "gpu is cordoned"),
        Record::Uncordon { gpu } => info!(%gpu, "gpu is uncordoned"),
        Record::Target { gpu, layout } => {
            info!(%gpu, layout = layout.as_ref().map(ToString::to_string), "layout of the gpu is set");
        }
    }
}

/// A refusal or an error; what was granted is told by its record.
pub(super) fn reply(ask: &Ask, reply: &Reply) {
    let (job, what) = subject(ask);
    match reply {
        Reply::Refused(r) => tracing::warn!(job, what, reason = ?r.reason, text = r.text, "refused"),
        Reply::Error(e) => tracing::warn!(job, what, code = ?e.code, text = e.text, "failed"),
        _ => tracing::debug!(job, what, "answered"),
    }
}

/// What hardware or Slurm said, where it is news.
pub(super) fn seen(seen: &Seen) {
    match seen {
        Seen::NvmlDead(error) => tracing::error!(error, "NVML does not answer"),
        Seen::GpuLost(gpu) => tracing::error!(%gpu, "gpu is lost"),
        Seen::Running { jobs, .. } => tracing::debug!(jobs = jobs.len(), "slurm says what runs here"),
        _ => {}
    }
}

fn subject(ask: &Ask) -> (u32, &'static str) {
    match ask {
        Ask::Open { job, .. } => (job.job, "open lease"),
        Ask::Grant { job, .. } => (job.job, "grant"),
        Ask::JobLeaves { job } => (job.job, "job leaves"),
        Ask::Release { job, .. } => (job.job, "release"),
        Ask::Close { job, .. } => (*job, "close lease"),
    }
}

fn picks(leaves: &[Pick]) -> String {
    let texts: Vec<String> = leaves.iter().map(|p| p.leaf.to_string()).collect();
    texts.join(", ")
}
