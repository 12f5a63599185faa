//! Too many nodes: every file that the kernel remembers holds a descriptor here, and descriptors are limited.
//!
//! ```text
//!   lookup -> node, listed by name --more nodes than the limit--> oldest names: the kernel is asked to forget them -> forget
//! ```
//! A name that is in use (an open file, a working directory's file) is looked up again when it is next needed; its node stays
//! until the last use ends. Directories are not listed: dropping the name of one that is a working directory would detach it.
//! When there are too many of them, all names that nobody uses have to go, which is for the kernel to do.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The part of the process's descriptors that nodes of one mount may take: open files and other mounts need some too.
const SHARE: u64 = 4;
/// How long [`Crowd::surplus`] waits for one, and after one, for the kernel to forget.
const PAUSE: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_millis(20);

/// What the kernel should forget.
#[derive(Debug, Default)]
pub struct Surplus {
    /// Names of files, oldest first.
    pub names: Vec<Known>,
    /// These are not enough: all names that are not in use.
    pub unused: bool,
}

/// A name under which the kernel knows a node.
#[derive(Debug)]
pub struct Known {
    /// Node of the directory.
    pub parent: u64,
    /// Name in it.
    pub name: OsString,
    id: u64,
}

/// Names in the order of their lookups.
#[derive(Debug)]
pub(super) struct Crowd {
    names: Mutex<VecDeque<Known>>,
    crowded: Condvar,
    limit: usize,
}

impl Crowd {
    pub(super) fn new() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = usize::try_from(descriptors / SHARE).unwrap_or(usize::MAX);
        Self { names: Mutex::default(), crowded: Condvar::new(), limit }
    }

    /// Lists a node that was looked up, unless it is listed already. `nodes`: how many there are now.
    pub(super) fn list(&self, listed: &AtomicBool, (id, parent, name): (u64, u64, &OsStr), nodes: usize) {
        if !listed.swap(true, Ordering::AcqRel) {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.push_back(Known { parent, name: name.to_owned(), id });
        }
        self.came(nodes);
    }

    /// There is another node, listed or not.
    pub(super) fn came(&self, nodes: usize) {
        if nodes > self.limit {
            self.crowded.notify_one();
        }
    }

    /// Waits a while for there to be too many nodes; returns what should go. `nodes` says how many there are,
    /// `unlist` marks one as no longer listed.
    pub(super) fn surplus(&self, nodes: impl Fn() -> usize, unlist: impl Fn(u64)) -> Surplus {
        if nodes() > self.limit {
            // What was to be forgotten before is on its way.
            std::thread::sleep(REST);
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let calm = |_: &mut VecDeque<Known>| nodes() <= self.limit;
        let (mut names, _) =
            self.crowded.wait_timeout_while(names, PAUSE, calm).unwrap_or_else(PoisonError::into_inner);
        let nodes = nodes();
        // Names of nodes that went by themselves stay behind; they must not pile up.
        let stale = names.len().saturating_sub(nodes.max(self.limit));
        let surplus = if nodes > self.limit { nodes - self.limit / 4 * 3 } else { 0 };
        let count = surplus.max(stale).min(names.len());
        let gone: Vec<Known> = names.drain(..count).collect();
        gone.iter().for_each(|known| unlist(known.id));
        Surplus { unused: surplus > gone.len(), names: gone }
    }
}
