//! Tells the service manager how the sidecar is (sd_notify(3)); without one nothing happens.
//!
//! The watchdog is fed from a thread of its own which first takes every lock that readers need: so it notices a deadlock,
//! and a device that hangs is not mistaken for one (the other copy serves then, and a restart would not help).

use std::io;
use std::sync::Arc;

use sd_notify::{NotifyState, notify, watchdog_enabled};

use crate::cache::{Cache, FileStore};
use crate::metrics::Source;

fn tell(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        tracing::warn!("the service manager does not listen: {error}");
    }
}

/// Everything is mounted.
pub(super) fn ready(cache: &Arc<Cache<FileStore>>, mounts: &Arc<Vec<Source>>) -> io::Result<()> {
    let paths: Vec<String> = mounts.iter().map(|m| m.at.display().to_string()).collect();
    tell(NotifyState::Status(&format!("mounted: {}", paths.join(", "))));
    tell(NotifyState::Ready);
    let Some(limit) = watchdog_enabled() else { return Ok(()) };
    let (cache, mounts) = (Arc::clone(cache), Arc::clone(mounts));
    let feed = move || {
        loop {
            cache.usage();
            for mount in mounts.iter() {
                mount.reads.in_flight();
            }
            tell(NotifyState::Watchdog);
            std::thread::sleep(limit / 3);
        }
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(feed).map(drop)
}

/// The end has begun: what is not at the backend is flushed, which may take its time.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}
