//! Keeps Slurm's idea of this node in line with the truth: drains it while it cannot serve, lifts only what migshare drained, and
//! brings the driver the list of jobs that run here.
//!
//! Level-triggered: it compares and corrects, at every change and at every interval, so it does not matter who drained (the
//! agent, the plugin, the health check), what was missed, or for how long the controller was away. A controller that does not answer
//! means: change nothing and keep every lease.

use super::{Slurm, SlurmError, one_line};
use crate::driver::{Event, Inbox, now};
use migshare_policy::node::{Run, Seen, Service};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

/// Pause after a command that failed; doubled at each further failure up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// What the keeper follows.
#[derive(Debug)]
pub struct Follows {
    /// Whether Slurm may send jobs here.
    pub service: watch::Receiver<Service>,
    /// Number of open leases.
    pub leases: watch::Receiver<usize>,
}

/// Keeps until the driver is gone.
pub async fn keep(slurm: Slurm, drains: bool, interval: Duration, mut follows: Follows, inbox: Inbox) {
    let mut looks = Looks::default();
    let mut retry = FIRST_RETRY;
    loop {
        let service = follows.service.borrow_and_update().clone();
        let leases = *follows.leases.borrow();
        let done = async {
            if drains {
                level(&slurm, &service).await?;
            }
            reap(&slurm, leases, &mut looks, &inbox).await
        };
        let pause = match done.await {
            Ok(()) => {
                retry = FIRST_RETRY;
                interval
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "slurm is not reachable: nothing is changed, all leases are kept");
                retry = (retry * 2).min(interval.max(FIRST_RETRY));
                retry
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => inbox.send(Event::Look),
            changed = follows.service.changed() => if changed.is_err() { return },
        }
    }
}

/// Corrects the node's state in Slurm, where it is migshare's to correct.
pub async fn level(slurm: &Slurm, service: &Service) -> Result<(), SlurmError> {
    let reason = match service {
        Service::Starting => return Ok(()),
        Service::Serving => None,
        Service::Unfit { reason } => Some(one_line(reason)),
    };
    let state = slurm.state().await?;
    match reason {
        Some(reason)
            if !state.is_drained() || (state.is_drained_by_us() && one_line(&state.reason) != reason) =>
        {
            tracing::warn!(reason, "draining this node");
            slurm.drain(&reason).await
        }
        None if state.is_drained_by_us() => {
            tracing::info!(reason = state.reason, "resuming this node");
            slurm.resume().await
        }
        _ => Ok(()),
    }
}

/// The last list of jobs and when it was asked for.
#[derive(Debug, Default)]
struct Looks(Option<(Vec<Run>, i64)>);

/// Asks what runs here, where a lease is open at all. The driver is told of a job's absence after two lists that agree on it: it gets
/// the union of the two, as of the first.
async fn reap(slurm: &Slurm, leases: usize, looks: &mut Looks, inbox: &Inbox) -> Result<(), SlurmError> {
    if leases == 0 {
        looks.0 = None;
        return Ok(());
    }
    let asked = now();
    let jobs = match slurm.running().await {
        Ok(jobs) => jobs,
        Err(e) => {
            looks.0 = None;
            return Err(e);
        }
    };
    if let Some((before, at)) = looks.0.replace((jobs.clone(), asked)) {
        let both: BTreeSet<(u32, Option<i64>)> =
            before.iter().chain(&jobs).map(|r| (r.job, r.start)).collect();
        let jobs = both.into_iter().map(|(job, start)| Run { job, start }).collect();
        inbox.send(Event::Seen(Seen::Running { jobs, asked: at }));
    }
    Ok(())
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(e) = source {
            write!(f, ": {e}")?;
            source = e.source();
        }
        Ok(())
    }
}
