//! Write-back: writes go to the journal, and the flushers bring them to the backend.
//!
//! A file stays open for writing, as its first writer opened it, until it is clean; after a crash it is opened anew
//! with the writer's ids ([`super::recovery`]). Writers with other ids wait until it is clean.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, openat};

use crate::cache::{FileKey, Version};
use crate::dirty::ledger::Recorded;
use crate::dirty::{Base, Change, Directory, FileId, JournalError, LARGEST, Ledger, Origin};
use crate::fs::caller::{Identity, Rights};
use crate::fs::{Node, OpenFile};
use crate::io::Workers;

/// Threads that read dirty files.
const READERS: usize = 16;

/// What an administrator sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the journal is.
    pub directory: PathBuf,
    /// Most bytes it may take.
    pub bound: u64,
    /// fsync makes durable in the journal, not at the backend.
    pub fsync_local: bool,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes that reached the backend from the journal.
    pub flushed_bytes: AtomicU64,
    /// Rounds of flushing that failed.
    pub flush_errors: AtomicU64,
    /// Files of which two copies were kept.
    pub conflicts: AtomicU64,
    /// Writes that went to the backend because the journal had no room or its device failed.
    pub throttled_writes: AtomicU64,
}

/// A dirty file that can be flushed.
pub(super) struct Live {
    pub(super) id: FileId,
    pub(super) sink: Arc<File>,
    pub(super) rights: Rights,
    /// Its node, once somebody opened it in this life of the daemon.
    pub(super) node: Mutex<Option<Arc<Node>>>,
    /// One round at a time.
    pub(super) round: Mutex<()>,
    /// Found after a crash, and not flushed since: no change that this flush made is younger, in nanoseconds since the epoch.
    pub(super) ours_until: Mutex<Option<i64>>,
    /// After a failure: when to try again, and how long the pause is.
    pub(super) retry: Mutex<Option<(Instant, std::time::Duration)>>,
}

/// See the module.
pub struct WriteBack {
    pub(super) ledger: Ledger<Directory>,
    pub(super) lives: Mutex<HashMap<FileId, Arc<Live>>>,
    pub(super) identity: Identity,
    pub(super) root: OwnedFd,
    pub(super) backend_id: u64,
    pub(super) wake: Condvar,
    pub(super) closing: AtomicBool,
    pub(super) ended: AtomicBool,
    fsync_local: bool,
    device_failed: AtomicBool,
    readers: Workers,
    /// What happened so far.
    pub counters: Counters,
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The content that the backend shows.
pub(super) fn base_of(file: &File) -> io::Result<(Base, i64)> {
    let version = Version::of(file)?;
    Ok((Base { size: version.size, mtime: version.mtime }, version.btime))
}

impl Live {
    /// How many names the backend has for it; 1 where it does not say.
    fn names(&self) -> u64 {
        self.sink.metadata().map_or(1, |m| std::os::unix::fs::MetadataExt::nlink(&m))
    }

    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl WriteBack {
    /// Opens the journal of a backend. What it holds is flushed after [`Self::recover`] found the files.
    ///
    /// # Errors
    /// When the journal cannot be used, or the backend not be opened.
    pub fn open(
        settings: &Settings,
        backend: &Path,
        backend_id: u64,
        identity: Identity,
    ) -> Result<Arc<Self>, JournalError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, backend, flags, Mode::empty()).map_err(io::Error::from)?;
        Ok(Arc::new(Self {
            ledger: Ledger::open(Directory::open(&settings.directory)?, settings.bound)?,
            lives: Mutex::default(),
            identity,
            root,
            backend_id,
            wake: Condvar::new(),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            fsync_local: settings.fsync_local,
            device_failed: AtomicBool::new(false),
            readers: Workers::start("dirty read", READERS)?,
            counters: Counters::default(),
        }))
    }

    pub(super) fn lives(&self) -> MutexGuard<'_, HashMap<FileId, Arc<Live>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything is at the backend.
    pub fn is_clean(&self) -> bool {
        self.ledger.dirty().is_empty()
    }

    /// Bytes that are not at the backend.
    pub fn dirty_bytes(&self) -> u64 {
        self.ledger.dirty().bytes()
    }

    /// Files that are not all at the backend.
    pub fn dirty_files(&self) -> u64 {
        self.ledger.dirty().len() as u64
    }

    /// Seconds since the oldest change that is not at the backend; 0 when there is none.
    pub fn oldest_seconds(&self) -> u64 {
        let since = self.ledger.dirty().oldest();
        since.map_or(0, |since| u64::try_from((now() - since) / 1_000_000_000).unwrap_or(0))
    }

    /// Makes what is in the journal durable there; one that is not needed any more goes, and a device that had failed gets
    /// another chance with the next one. A failure shows at the next fsync.
    pub fn sync(&self) {
        let done = if self.is_clean() { self.ledger.trim() } else { self.ledger.sync() };
        if let Err(error) = done {
            tracing::warn!("the dirty journal cannot be synced: {error}");
        }
    }

    pub(super) fn live_of(&self, key: FileKey) -> Option<Arc<Live>> {
        let (id, _) = self.ledger.dirty().find(key).map(|(id, f)| (id, f.since()))?;
        self.lives().get(&id).cloned()
    }

    /// Writes to the journal. `false`: there is no room, the file is clean, and the bytes must go to the backend now.
    pub(super) fn write(
        &self,
        rights: &Rights,
        open: &OpenFile,
        offset: u64,
        data: &[u8],
    ) -> io::Result<bool> {
        let key = open.node.state().key();
        if let Some(live) = self.live_of(key)
            && self.identity == Identity::Caller
            && (live.rights.uid, live.rights.gid) != (rights.uid, rights.gid)
        {
            self.drain(key)?;
        }
        for (i, chunk) in data.chunks(LARGEST).enumerate() {
            let at = offset + (i * LARGEST) as u64;
            if !self.record(rights, open, &Change::Write { offset: at }, chunk)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&self, rights: &Rights, open: &OpenFile, change: &Change, data: &[u8]) -> io::Result<bool> {
        let key = open.node.state().key();
        let begin = || {
            let (base, btime) = base_of(&open.file)?;
            let path = self.path_of(&open.node)?.map(|p| p.as_os_str().as_bytes().to_vec());
            // Whoever has it open may go on with it, as at the backend: nobody's content is replaced.
            let unlinking = std::os::unix::fs::MetadataExt::nlink(&open.file.metadata()?) == 0;
            if path.is_none() && !unlinking {
                return Ok(None);
            }
            let Rights { uid, gid, groups } = rights.clone();
            let paths = path.into_iter().collect();
            let origin = Origin { key, btime, paths, uid, gid, groups, unlinking };
            Ok(Some(Change::Begin { origin, base }))
        };
        // Asked for before the journal is locked, because the backend may take its time.
        let ready = if self.ledger.dirty().find(key).is_none() { Some(begin()?) } else { None };
        let begin = || ready.map_or_else(begin, Ok);
        let begun = |id| self.begin_life(id, open, rights.clone());
        match self.ledger.record(key, now(), (change, data), begin, begun) {
            Ok(Recorded::Kept(_)) => {
                self.wake.notify_one();
                Ok(true)
            }
            Ok(Recorded::Full) => self.step_aside(key),
            Ok(Recorded::Nameless) => Ok(false),
            Err(error) => {
                if !self.device_failed.swap(true, Ordering::AcqRel) {
                    tracing::error!("the device of the dirty journal: {error}; writes go to the backend");
                }
                self.step_aside(key)
            }
        }
    }

    /// No room: the writer brings its own file to the backend, and so goes at the backend's speed.
    fn step_aside(&self, key: FileKey) -> io::Result<bool> {
        self.counters.throttled_writes.fetch_add(1, Ordering::Relaxed);
        self.drain(key)?;
        Ok(false)
    }

    fn begin_life(&self, id: FileId, open: &OpenFile, rights: Rights) {
        open.node.state().set_dirty(true);
        self.device_failed.store(false, Ordering::Release);
        let live = Live {
            id,
            sink: Arc::clone(&open.file),
            rights,
            node: Mutex::new(Some(Arc::clone(&open.node))),
            round: Mutex::default(),
            ours_until: Mutex::default(),
            retry: Mutex::default(),
        };
        self.lives().insert(id, Arc::new(live));
    }

    /// Cuts a dirty file, or makes it longer. `false`: it is clean, and the backend is to do it.
    pub(super) fn cut(&self, node: &Node, size: u64) -> io::Result<bool> {
        let known = self.ledger.dirty().find(node.state().key()).map(|(id, _)| id);
        let Some(id) = known else { return Ok(false) };
        match self.ledger.note(id, now(), &Change::Cut { size }) {
            // It may have become clean meanwhile, and then nothing was noted.
            Ok(noted) => Ok(noted),
            Err(_) => self.step_aside(node.state().key()),
        }
    }

    /// Gives a dirty file a modification time. `false`: it is clean, and the backend is to do it.
    pub(in crate::fs) fn set_mtime(&self, key: FileKey, mtime: i64) -> io::Result<bool> {
        let known = self.ledger.dirty().find(key).map(|(id, _)| id);
        let Some(id) = known else { return Ok(false) };
        self.ledger.note(id, now(), &Change::Touch { mtime })
    }

    /// Makes what is dirty of a file durable. `true`: in the journal; `false`: at the backend, where more may be to sync.
    pub(super) fn fsync(&self, key: FileKey) -> io::Result<bool> {
        if self.fsync_local && self.ledger.dirty().find(key).is_some() {
            match self.ledger.sync() {
                Ok(()) => return Ok(true),
                Err(error) => {
                    tracing::error!("the dirty journal cannot be synced: {error}; flushing instead")
                }
            }
        }
        self.drain(key)?;
        Ok(false)
    }

    /// Name of a node below the backend's root; `None` when it has none any more.
    pub(super) fn path_of(&self, node: &Node) -> io::Result<Option<PathBuf>> {
        use std::os::fd::{AsFd, AsRawFd};
        let root = std::fs::read_link(format!("/proc/self/fd/{}", self.root.as_fd().as_raw_fd()))?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", node.fd_name()))?;
        let removed = path.as_os_str().as_bytes().ends_with(b" (deleted)");
        Ok(path.strip_prefix(root).ok().filter(|_| !removed).map(Path::to_owned))
    }

    /// Files at or below a path.
    fn below(&self, path: &Path) -> Vec<(FileId, FileKey, PathBuf)> {
        let dirty = self.ledger.dirty();
        let last = dirty.files().filter_map(|(id, f)| {
            let name = Path::new(std::ffi::OsStr::from_bytes(f.origin.paths.last()?)).to_owned();
            name.starts_with(path).then_some((id, f.origin.key, name))
        });
        last.collect()
    }

    /// Brings what is dirty at or below `from` to the backend, because it is about to be seen as `to`.
    pub(super) fn publish(&self, from: &Path, to: Option<&Path>) -> io::Result<()> {
        for (_, key, _) in self.below(from) {
            self.drain(key)?;
        }
        // What was written meanwhile goes on being dirty under its new name.
        for (id, _, name) in self.below(from) {
            let tail = name.strip_prefix(from).unwrap_or(&name);
            if let Some(to) = to {
                let path = if tail.as_os_str().is_empty() { to.to_owned() } else { to.join(tail) };
                let path = path.as_os_str().as_bytes().to_vec();
                self.ledger.note(id, now(), &Change::Named { path })?;
            }
        }
        Ok(())
    }

    /// Brings what is dirty of files with several names to the backend: their journal knows one of them.
    pub(super) fn drain_linked(&self) -> io::Result<()> {
        let lives: Vec<Arc<Live>> = self.lives().values().cloned().collect();
        for live in lives.into_iter().filter(|live| live.names() > 1) {
            let key = self.ledger.dirty().get(live.id).map(|f| f.origin.key);
            key.map_or(Ok(()), |key| self.drain(key))?;
        }
        Ok(())
    }

    /// A name is about to go; after a crash, nobody shall look for its bytes. Where another name is left, they are brought to
    /// the backend, because the journal would not find them under that one.
    pub(super) fn unlinking(&self, path: &Path) -> io::Result<()> {
        for (id, key, name) in self.below(path) {
            let live = self.lives().get(&id).cloned();
            match live {
                _ if name != path => {}
                Some(live) if live.names() > 1 => self.drain(key)?,
                _ => {
                    self.ledger.note(id, now(), &Change::Unlinking)?;
                }
            }
        }
        Ok(())
    }

    /// A node of a file that was found dirty after a crash.
    pub(super) fn attach(&self, node: &Arc<Node>) {
        let live = self.ledger.hold(|dirty| {
            let (id, _) = dirty.find(node.state().key())?;
            let live = self.lives().get(&id).cloned()?;
            let mut slot = live.node.lock().unwrap_or_else(PoisonError::into_inner);
            // The kernel may have forgotten the file and found it again meanwhile.
            if !slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, node)) {
                node.state().set_dirty(true);
                *slot = Some(Arc::clone(node));
            }
            drop(slot);
            Some(live)
        });
        let Some(live) = live else { return };
        // Another node's change must not be mixed with what is dirty: the flush finds it and keeps both.
        let base = self.ledger.dirty().get(live.id).map(|f| f.base());
        if let (Some(base), Ok((now, _))) = (base, base_of(&live.sink))
            && base != now
            && let Err(error) = self.round(&live)
        {
            tracing::warn!("a dirty file was changed at the backend: {error}");
        }
    }

    /// Nobody can see an unlinked file any more once it is closed.
    pub(super) fn abandon_if_unlinked(&self, node: &Node) {
        let Some(live) = self.live_of(node.state().key()) else { return };
        if live.names() == 0 {
            let _one = live.round.lock().unwrap_or_else(PoisonError::into_inner);
            self.end_life(&live, &Change::Gone);
        }
    }

    /// Appends a record that may end a file's dirtiness, and lets go of it if it does.
    pub(super) fn end_life(&self, live: &Live, change: &Change) {
        self.ledger.note_anyway(live.id, now(), change, || {
            self.lives().remove(&live.id);
            if let Some(node) = live.node() {
                node.state().set_dirty(false);
            }
        });
    }

    pub(super) fn read_later(
        self: &Arc<Self>,
        open: &Arc<OpenFile>,
        offset: u64,
        len: u32,
        reply: crate::fs::reads::Reply,
    ) {
        let (back, open) = (Arc::clone(self), Arc::clone(open));
        self.readers.run(Box::new(move || match back.read(&open, offset, len.into()) {
            Ok(bytes) => reply(Ok(&bytes)),
            Err(error) => reply(Err(error)),
        }));
    }
}
