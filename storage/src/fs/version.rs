//! What is known of a file's content, and until when it may be believed.
//!
//! ```text
//!   unknown --open or validation, unchanged for 2 s--> known(version, when)
//!   known --local change--> unknown        known --another version seen--> known(newer); older extents dropped
//! ```
//! Once a newer version was seen the older one is never believed again, because every look at the backend replaces
//! what was known, and extents of any other version are dropped with it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::Marks;
use crate::cache::{FileKey, Version};

/// Content changed more recently than this is not admitted: a second change may not move the times.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a validation lasts for splitting.
const VALID: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct FileState {
    key: FileKey,
    marks: Marks,
    known: Mutex<Known>,
    /// Counts local changes.
    changes: AtomicU64,
    /// What the backend shows is not what the file is: nothing cached counts.
    dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    version: Option<Version>,
    at: Option<Instant>,
    validating: bool,
    changed: Option<Instant>,
    /// Version of the pages that the kernel may hold.
    pages: Option<Version>,
}

/// The version in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The version.
    pub version: Version,
    /// Whether it was validated lately enough for bytes to come from either side.
    pub fresh: bool,
}

/// What a look at the backend found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Extents of other versions must go.
    pub(super) changed: bool,
    /// The kernel's pages are still good.
    pub(super) keep_pages: bool,
}

impl FileState {
    pub(super) fn new(key: FileKey, marks: Marks) -> Self {
        Self {
            key,
            marks,
            known: Mutex::default(),
            changes: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
        }
    }

    /// Asks the backend for the version that this file has now.
    pub(super) fn ask(&self, file: &File) -> io::Result<Version> {
        self.marks.version(file)
    }

    /// What its backend is asked for.
    pub(super) fn marks(&self) -> Marks {
        self.marks
    }

    /// The file in the cache.
    pub fn key(&self) -> FileKey {
        self.key
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version that cached bytes must have now, if any.
    pub fn current(&self) -> Option<Current> {
        if self.is_dirty() {
            return None;
        }
        let known = self.known();
        let fresh = known.at.is_some_and(|at| at.elapsed() < VALID);
        known.version.map(|version| Current { version, fresh })
    }

    /// Whether some of it is not at the backend yet.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// It becomes dirty, or clean: both are changes.
    pub(super) fn set_dirty(&self, dirty: bool) {
        self.change();
        self.dirty.store(dirty, Ordering::Release);
    }

    /// Count of local changes, for [`Self::still`].
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether no local change happened since [`Self::changes`] was `changes`, and `version` is in force.
    pub fn still(&self, changes: u64, version: &Version) -> bool {
        self.changes() == changes && self.known().version == Some(*version)
    }

    /// A local change begins or ends: cached bytes are no longer believed.
    pub(super) fn change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let mut known = self.known();
        known.version = None;
        known.changed = Some(Instant::now());
    }

    /// Takes over what the backend says, unless a local change came between (`changes` is the count from before the
    /// backend was asked).
    pub(super) fn seen(&self, version: &Version, changes: u64, opening: bool) -> Seen {
        let mut known = self.known();
        known.validating = false;
        let quiet = known.changed.is_none_or(|at| at.elapsed() >= SETTLED);
        let settled = quiet && version.is_settled(SystemTime::now());
        let believe = settled && self.changes() == changes;
        let changed = known.version != Some(*version);
        known.version = believe.then_some(*version);
        known.at = believe.then(Instant::now);
        let keep_pages = known.pages == Some(*version);
        if opening {
            known.pages = settled.then_some(*version);
        }
        Seen { changed, keep_pages }
    }

    /// Whether somebody should validate now; the one who gets `true` must do it.
    pub(super) fn wants_validation(&self) -> bool {
        let mut known = self.known();
        let due = known.at.is_none_or(|at| at.elapsed() >= VALID / 2);
        let quiet = known.changed.is_none_or(|at| at.elapsed() >= SETTLED);
        let wants = due && quiet && !known.validating;
        known.validating |= wants;
        wants
    }

    /// A validation failed.
    pub(super) fn validation_failed(&self) {
        self.known().validating = false;
    }
}

impl Version {
    /// What attributes tell; the rest is told by [`Marks`].
    ///
    /// # Errors
    /// When the backend cannot say.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, mask)?;
        let nanos = |t: rustix::fs::StatxTimestamp| t.tv_sec * 1_000_000_000 + i64::from(t.tv_nsec);
        let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            size: stat.stx_size,
            mtime: nanos(stat.stx_mtime),
            ctime: nanos(stat.stx_ctime),
            btime: if born { nanos(stat.stx_btime) } else { 0 },
            ..Self::default()
        })
    }

    /// Whether the last change is long enough ago. A change in the future (clocks that differ) is not.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let limit = now.saturating_sub(SETTLED).as_nanos();
        i64::try_from(limit).is_ok_and(|limit| self.ctime <= limit)
    }
}
