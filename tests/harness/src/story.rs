//! The frame of a story: a cluster of its own, what happens on it, and what holds after every story.

use crate::artifacts::Artifacts;
use crate::{Cluster, Result, Site, require};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Tells one story on a cluster of its own.
///
/// Afterwards no leaf is leased, no journal entry open, no process left and no node drained. Logs of a story that
/// failed are kept beside the programs, in `story-logs`.
///
/// # Panics
/// When the cluster does not start, the story fails, or something is left over.
pub fn story(site: Site, tell: impl FnOnce(&mut Cluster) -> Result) {
    if !require::cluster_can_run() {
        return;
    }
    let mut cluster = Cluster::prepare(site).unwrap_or_else(|t| panic!("no cluster: {t}"));
    let told = catch_unwind(AssertUnwindSafe(|| {
        cluster.bring_up()?;
        tell(&mut cluster)?;
        cluster.settle()?;
        cluster.bring_down()
    }));
    if matches!(told, Ok(Ok(()))) {
        return;
    }
    report_logs(&cluster);
    drop(cluster);
    match told {
        Ok(Ok(())) => {}
        Ok(Err(trouble)) => panic!("{trouble}"),
        Err(panic) => resume_unwind(panic),
    }
}

fn report_logs(cluster: &Cluster) {
    let name = std::thread::current().name().unwrap_or("story").replace("::", ".");
    let kept = Artifacts::find().map(|a| a.logs_of(&name)).and_then(|to| cluster.keep_logs(&to).map(|()| to));
    match kept {
        Ok(to) => eprintln!("logs of the cluster: {}", to.display()),
        Err(trouble) => eprintln!("the logs of the cluster could not be kept: {trouble}"),
    }
}
