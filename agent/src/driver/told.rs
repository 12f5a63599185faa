//! The log's account of what was decided: one event per decision, with its reason. Decides nothing.

use super::history::OPENED;
use super::{Question, now};
use crate::journal::Told;
use migshare_policy::Books;
use migshare_policy::books::Lease;
use migshare_policy::charge::Need;
use migshare_policy::layout::Layout;
use migshare_policy::node::{Ask, Proposal, Seen, Verdict};
use migshare_policy::order::RolledBack;
use migshare_policy::placement::Direction;
use migshare_policy::record::{Ending, Grant, LeafId, Pick, Record};
use migshare_proto::Reply;
use migshare_proto::status::IsolationStatus;
use std::fmt::Write;

/// A change that is durable now, and in these books.
pub(super) fn record(record: &Record, books: &Books) {
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
        Record::Reshape { uid, until, .. } => info!(uid, until, "shape of instances is changed for a user"),
        Record::Close { job, how } => {
            info!(job = job.job, start = job.start, uid = job.uid, ?how, "lease ended")
        }
        Record::Grant { job, step, grant } => {
            let Grant { leaves, shared, holder, .. } = grant;
            info!(job = job.job, %step, leaves = list(leaves), shared, pid = holder.pid, "grant made");
        }
        Record::Release { job, step } => info!(job = job.job, %step, "grant ended"),
        Record::Quarantine { place, cause, note } => warn!(%place, ?cause, note, "place is quarantined"),
        Record::Unquarantine { place } => info!(%place, "place is released from quarantine"),
        Record::Cordon { gpu, note, .. } => info!(%gpu, note, "gpu is cordoned"),
        Record::Uncordon { gpu } => info!(%gpu, "gpu is uncordoned"),
        Record::Target { gpu, layout } => {
            let layout = layout_name(layout.as_ref());
            match books.formers.contains_key(gpu) {
                true => info!(%gpu, layout, "layout of the gpu is ordered"),
                false => info!(%gpu, layout, "layout of the gpu is settled"),
            }
        }
    }
}

/// A layout that is gone back on.
pub(super) fn rolled_back(refused: &RolledBack) {
    let RolledBack { gpu, layout, why } = refused;
    let layout = layout_name(layout.as_ref());
    tracing::warn!(%gpu, layout, why, "layout of the gpu is rolled back to the one before: hardware refused it");
}

fn layout_name(layout: Option<&Layout>) -> String {
    layout.map_or_else(|| "configured".to_owned(), ToString::to_string)
}

/// A refusal or an error; what was granted is told by its record.
pub(super) fn reply(question: &Question, reply: &Reply) {
    let (job, what) = subject(question);
    match reply {
        Reply::Refused(r) => tracing::warn!(job, what, reason = r.reason.name(), text = r.text, "refused"),
        Reply::Error(e) => tracing::warn!(job, what, code = ?e.code, text = e.text, "failed"),
        _ => tracing::debug!(job, what, "answered"),
    }
}

/// How tasks are kept from the leaves of others, where it is known or known better now.
pub(super) fn isolation(isolation: &IsolationStatus) {
    tracing::info!(filter = ?isolation.filter, "isolation of tasks");
    isolation.problems.iter().for_each(|text| tracing::error!(text, "tasks cannot be isolated"));
    isolation.notes.iter().for_each(|text| tracing::warn!(text, "isolation has a gap"));
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

/// What was decided about a job that asked, and why, for `migshare explain`.
pub(super) fn decision(question: &Question, proposal: &Proposal, default: Direction) -> Option<Told> {
    let (job, what) = subject(question);
    let mut reason = None;
    let text = match (&proposal.verdict, question) {
        (Some(Verdict::Refused(r)), _) => {
            reason = Some(r.reason);
            format!("{what} refused: {}", r.text)
        }
        (_, Question::Ask(Ask::Open { leaves, direction, need, .. })) => {
            let opened = proposal.records.iter().find_map(|r| match r {
                Record::Open { leaves, .. } => Some(picks(leaves)),
                _ => None,
            })?;
            let size = need.map_or_else(String::new, |need| format!(" in instances of {}", size(need)));
            format!("{OPENED}: asked for {leaves} leaves{size}, {}: {opened}", placed(*direction, default))
        }
        (_, Question::Ask(Ask::Grant { step, tasks, .. })) => {
            let grant = proposal.records.iter().find_map(|r| match r {
                Record::Grant { grant, .. } => Some(grant),
                _ => None,
            })?;
            let shared = if grant.shared == 0 { String::new() } else { format!(", {} shared", grant.shared) };
            format!("step {step} granted {} for {tasks} tasks{shared}", list(&grant.leaves))
        }
        _ => return None,
    };
    (job != 0).then(|| Told { job, at: now(), text, reason })
}

/// The end of a lease or a grant, however it came about.
pub(super) fn ending(record: &Record) -> Option<Told> {
    let (job, text) = match record {
        Record::Close { job, how } => (job.job, format!("lease ended by {}", by(*how))),
        Record::Release { job, step } => (job.job, format!("grant of step {step} ended")),
        _ => return None,
    };
    Some(Told { job, at: now(), text, reason: None })
}

fn by(how: Ending) -> &'static str {
    match how {
        Ending::Epilog => "the job's epilog",
        Ending::Reaper => "the reaper: Slurm no longer runs the job here",
        Ending::Admin => "an admin",
        Ending::Reconcile => "the agent: the job began again, or an instance could not be made",
    }
}

fn size(need: Need) -> String {
    match need {
        Need::Slices(n) => format!("at least {n} compute slices"),
        Need::MemoryMib(n) => format!("at least {n} MiB"),
    }
}

fn placed(asked: Option<Direction>, default: Direction) -> String {
    let name = |d| match d {
        Direction::Pack => "packed on few gpus",
        Direction::Spread => "spread over gpus",
    };
    match asked {
        Some(direction) => format!("{} as asked", name(direction)),
        None => format!("{} as is the default here", name(default)),
    }
}

fn subject(question: &Question) -> (u32, &'static str) {
    match question {
        Question::Ask(Ask::Open { job, .. }) => (job.job, "lease"),
        Question::Ask(Ask::Grant { job, .. }) => (job.job, "grant"),
        Question::Ask(Ask::JobLeaves { job }) => (job.job, "list of leaves"),
        Question::Ask(Ask::Release { job, .. }) => (job.job, "release"),
        Question::Ask(Ask::Close { job, .. }) => (*job, "end of lease"),
        Question::Order { .. } => (0, "order"),
    }
}

/// The opening of a lease of which nothing else is known any more.
pub(super) fn opening(job: u32, lease: &Lease) -> Told {
    let Lease { leaves, charged, opened, .. } = lease;
    let text = format!("{OPENED}: {charged} leaves: {}; why these is not known any more", picks(leaves));
    Told { job, at: *opened, text, reason: None }
}

fn picks(leaves: &[Pick]) -> String {
    list(leaves.iter().map(|pick| &pick.leaf))
}

fn list<'a>(leaves: impl IntoIterator<Item = &'a LeafId>) -> String {
    let mut text = String::with_capacity(512);
    for leaf in leaves {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{leaf}");
    }
    text
}
