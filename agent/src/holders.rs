//! Watches the processes that hold grants. A slurmstepd that is killed never says good-bye; the kernel tells by its pidfd
//! (pidfd_open(2)), without polling. What the end of a holder means is the policy's business.

use crate::driver::{Event, Inbox};
use crate::process;
use migshare_policy::node::Seen;
use migshare_policy::record::Holder;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Pause between two looks at a process that has no pidfd (kernels before 5.3).
const LOOK: Duration = Duration::from_secs(5);

/// Watches whatever set of holders the driver wants, until the driver is gone.
pub async fn watch(mut wanted: watch::Receiver<BTreeSet<Holder>>, inbox: Inbox) {
    let mut watched: BTreeMap<Holder, AbortHandle> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        watched.retain(|holder, task| {
            let keep = now.contains(holder);
            if !keep {
                task.abort();
            }
            keep
        });
        for holder in now {
            watched
                .entry(holder)
                .or_insert_with(|| tokio::spawn(tell_end(holder, inbox.clone())).abort_handle());
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_end(holder: Holder, inbox: Inbox) {
    end_of(holder).await;
    tracing::info!(pid = holder.pid, "the process that held a grant is gone");
    inbox.send(Event::Seen(Seen::HolderGone(holder)));
}

/// Returns when exactly this process runs no more.
pub(crate) async fn end_of(holder: Holder) {
    let pidfd = i32::try_from(holder.pid).ok().and_then(rustix::process::Pid::from_raw).map(|pid| {
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)
            .or_else(|_| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()))
    });
    // The pid may have been used again before it was opened: the start time tells.
    if !process::is_alive(holder) {
        return;
    }
    if let Some(Ok(fd)) = pidfd
        && let Ok(fd) = register(fd)
        && fd.readable().await.is_ok()
    {
        return;
    }
    while process::is_alive(holder) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Hands a pidfd to the reactor.
#[expect(
    deprecated,
    reason = "an OwnedFd always gives the same descriptor, which is all that the unsafe successor asks for"
)]
fn register(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
