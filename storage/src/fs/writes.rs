//! Writing: where bytes go, and what the other operations have to wait for.
//!
//! ```text
//!   through   write -> backend                       cached bytes of the file go; read anew once it is quiet
//!   around    write -> backend                       cached bytes of the file go
//!   back      write -> journal -> (flush) -> backend   no room, or the device fails: the file is flushed, then -> backend
//! ```
//! In all modes names, rights and attributes are the backend's at once; only bytes, sizes and modification times of files may
//! be dirty. What publishes a file, a rename or a link, waits until its bytes are at the backend.

mod conflict;
mod flush;
mod journaled;
mod metrics;
mod overlay;
mod recovery;
mod refill;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, statat};
use serde::Deserialize;

pub use flush::Finished;
pub use journaled::{Counters, Settings, WriteBack};
pub use metrics::{BACK_METRICS, BackMetric};
pub use recovery::Recovered;
pub use refill::Refill;

use super::{Caller, Fs, Node, OpenFile, errno};

/// Where a write goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WriteMode {
    /// To the backend; what was cached before is read into the cache again.
    #[default]
    Through,
    /// To the backend.
    Around,
    /// To the journal, and from there to the backend.
    Back,
}

/// Where bytes that are written come from.
#[derive(Clone, Copy, Debug)]
pub enum Writer {
    /// A call.
    Call {
        /// Who made it.
        caller: Caller,
        /// Whether its file had O_APPEND.
        appends: bool,
    },
    /// Pages of a shared mapping. The kernel names nobody, and any file that is open for writing: its opener stands for the
    /// writer.
    Mapping,
}

/// What does the writing of one mount.
pub enum Writes {
    /// See [`WriteMode::Through`].
    Through(Arc<Refill>),
    /// See [`WriteMode::Around`].
    Around,
    /// See [`WriteMode::Back`].
    Back(Arc<WriteBack>),
}

/// What all writers of a node share.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Changes of its content go one by one, where some of them may be dirty.
    gate: Mutex<()>,
    /// Counts errors of flushes, with the last one.
    error: Mutex<(u64, i32)>,
    opens: AtomicU32,
    /// Bytes of it were cached when it was written.
    was_cached: AtomicBool,
    /// Changes of it at the backend.
    changes: AtomicU64,
    /// How many of them the last sync there had to do with: the backend may lose name, size and times of later ones with its
    /// power, and the journal goes by them. Nothing is known of a file that was just met.
    synced: Mutex<Option<u64>>,
}

impl Writing {
    /// The backend was changed.
    pub(super) fn unsynced(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Syncs the backend's file, where that was not done since it was changed. Who comes while another does so waits for it.
    fn sync_once(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.changes.load(Ordering::Acquire);
        if *synced != Some(changes) {
            sync()?;
            *synced = Some(changes);
        }
        Ok(())
    }

    fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something went wrong that no caller waits for: every open file reports it once.
    fn fail(&self, errno: i32) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        *error = (error.0 + 1, errno);
    }

    /// For an open file that reports from now on.
    pub(super) fn errors(&self) -> AtomicU64 {
        AtomicU64::new(self.error.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The error that this open file has not reported yet.
    fn report(&self, seen: &AtomicU64) -> io::Result<()> {
        let (count, number) = *self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.swap(count, Ordering::AcqRel) < count { Err(errno(number)) } else { Ok(()) }
    }

    pub(super) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether that was the last one.
    pub(super) fn closed(&self) -> bool {
        self.opens.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl Fs {
    /// The write-back of this mount, if it has one.
    pub fn back(&self) -> Option<&Arc<WriteBack>> {
        match &self.writes {
            Writes::Back(back) => Some(back),
            Writes::Through(_) | Writes::Around => None,
        }
    }

    /// Its content at the backend changes: cached bytes of it are not believed any more.
    pub(super) fn changed(&self, node: &Node) {
        node.state().change();
        node.writing.unsynced();
        if self.cache().forget(node.state().key()) > 0 {
            node.writing.was_cached.store(true, Ordering::Release);
        }
    }

    /// Runs a change of a file's content at the backend: nothing cached of it is believed from before the change until it
    /// was quiet for two seconds. What is dirty of it gets there first.
    pub(super) fn change<T>(&self, node: &Node, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _gate = self.back().map(|_| node.writing.gate());
        self.settle(node)?;
        self.changed(node);
        let result = work();
        self.changed(node);
        result
    }

    /// Brings what is dirty of a file to the backend.
    pub(super) fn settle(&self, node: &Node) -> io::Result<()> {
        self.back().map_or(Ok(()), |back| back.drain(node.state().key()))
    }

    /// Reads; the reply comes from another thread.
    pub fn read(&self, open: &Arc<OpenFile>, offset: u64, len: u32, reply: super::reads::Reply) {
        match self.back().filter(|_| open.node.state().is_dirty()) {
            Some(back) => back.read_later(open, offset, len, reply),
            None => self.ahead.read(&self.reads, open, offset, len, reply),
        }
    }

    /// Writes. When it returns the bytes are at the backend; with write-back, in the journal.
    ///
    /// # Errors
    /// As the backend gives them.
    pub fn write(&self, writer: Writer, handle: u64, offset: u64, data: &[u8]) -> io::Result<usize> {
        let open = self.file(handle)?;
        let rights = match writer {
            Writer::Call { ref caller, .. } => self.identity.rights(caller),
            Writer::Mapping => open.rights.clone(),
        };
        if let Some(back) = self.back() {
            let _gate = open.node.writing.gate();
            if back.write(&rights, &open, offset, data)? {
                return Ok(data.len());
            }
            self.changed(&open.node);
            let result = self.write_backend(&rights, &open, Some(offset), data);
            self.changed(&open.node);
            return result;
        }
        let at = if matches!(writer, Writer::Call { appends: true, .. }) { None } else { Some(offset) };
        self.change(&open.node, || self.write_backend(&rights, &open, at, data))
    }

    /// Gives a file a size. `handle`: an open file through which that is done.
    pub(super) fn truncate(
        &self,
        caller: &Caller,
        node: &Node,
        handle: Option<u64>,
        size: u64,
    ) -> io::Result<()> {
        let open = handle.and_then(|h| self.file(h).ok());
        let file = match &open {
            Some(open) => Arc::clone(&open.file),
            None => Arc::new(self.act(caller, || self.reopen_for_writing(node))?),
        };
        if let Some(back) = self.back() {
            let _gate = node.writing.gate();
            if back.cut(node, size)? {
                return Ok(());
            }
        }
        self.change(node, || self.act(caller, || file.set_len(size)))
    }

    /// The application closed a descriptor: errors that were kept back come out now.
    ///
    /// # Errors
    /// As the backend gives them.
    pub fn flush(&self, handle: u64) -> io::Result<()> {
        let open = self.file(handle)?;
        open.node.writing.report(&open.errors_seen)?;
        open.close_once()
    }

    /// The same at once, where the backend need not be asked: nothing was written through it, and its owner has no locks.
    pub fn flush_at_once(&self, handle: u64, owner: u64) -> Option<io::Result<()>> {
        let open = self.file(handle).ok()?;
        let nothing_to_do = !open.has_written() && !self.owns_locks(open.node.id(), owner);
        nothing_to_do.then(|| open.node.writing.report(&open.errors_seen))
    }

    /// Makes a file durable: at the backend, or with `fsync=local` in the journal.
    ///
    /// # Errors
    /// As the backend gives them.
    pub fn fsync(&self, handle: u64, data_only: bool) -> io::Result<()> {
        let open = self.file(handle)?;
        let node = &open.node;
        if let Some(back) = self.back() {
            let done = back.fsync(node.state().key());
            let reported = node.writing.report(&open.errors_seen);
            if done? && reported.is_ok() {
                // The journal's bytes belong to a file that the backend must still have after a power loss, as it was.
                return node.writing.sync_once(|| open.file.sync_all());
            }
            reported?;
        }
        if data_only { open.file.sync_data() } else { open.file.sync_all() }
    }

    /// Before a name is given or moved: what is dirty at or below the path, and is about to be seen there, gets to the
    /// backend first. `replaced`: a name that goes in the course of it.
    pub(super) fn before_naming(&self, from: Option<(&Node, &Path)>, to: (&Node, &Path)) -> io::Result<()> {
        let Some(back) = self.back().filter(|b| !b.is_clean()) else { return Ok(()) };
        let to = back.path_of(to.0)?.map(|dir| dir.join(to.1));
        if let Some((dir, name)) = from
            && !has_one_name(dir, name)
        {
            back.drain_linked()?;
        }
        if let Some((dir, name)) = from
            && let Some(dir) = back.path_of(dir)?
        {
            back.publish(&dir.join(name), to.as_deref())?;
        }
        to.map_or(Ok(()), |path| back.unlinking(&path))
    }

    /// Before a name goes.
    pub(super) fn before_unlinking(&self, dir: &Node, name: &Path) -> io::Result<()> {
        let Some(back) = self.back().filter(|b| !b.is_clean()) else { return Ok(()) };
        let path: Option<PathBuf> = back.path_of(dir)?.map(|dir| dir.join(name));
        path.map_or(Ok(()), |path| back.unlinking(&path))
    }

    /// A file is open.
    pub(super) fn after_open(&self, node: &Arc<Node>) {
        node.writing.opened();
        if let Some(back) = self.back().filter(|b| !b.is_clean()) {
            back.attach(node);
        }
    }

    /// A file was closed.
    pub(super) fn after_release(&self, open: &OpenFile) {
        let last = open.node.writing.closed();
        match &self.writes {
            Writes::Back(back) if last && open.node.state().is_dirty() => {
                back.abandon_if_unlinked(&open.node)
            }
            Writes::Through(refill) if last && open.node.writing.was_cached.swap(false, Ordering::AcqRel) => {
                refill.later(self, open);
            }
            _ => {}
        }
    }
}

/// Whether a name is the only one of a file; `false` for a directory, below which there may be others.
fn has_one_name(dir: &Node, name: &Path) -> bool {
    let stat = statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) != FileType::Directory && s.st_nlink == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_file_is_synced_once_per_change_and_again_after_an_error() {
        let writing = Writing::default();
        let syncs = AtomicU32::new(0);
        let sync = || {
            writing.sync_once(|| {
                syncs.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        };
        assert!(writing.sync_once(|| Err(io::Error::other("no"))).is_err());
        sync().unwrap();
        sync().unwrap();
        assert_eq!(syncs.load(Ordering::Relaxed), 1);
        writing.unsynced();
        sync().unwrap();
        assert_eq!(syncs.load(Ordering::Relaxed), 2);
    }

    /// An fsync that came while another one was at the backend must not be told that it is done.
    #[test]
    fn who_comes_during_a_sync_returns_after_it() {
        let (writing, done) = (Writing::default(), AtomicBool::new(false));
        let ((began, has_begun), (go, may_end), (returned, second)) = (channel(), channel(), channel());
        std::thread::scope(|scope| {
            let (writing, done) = (&writing, &done);
            scope.spawn(move || {
                writing.sync_once(|| {
                    began.send(()).unwrap();
                    may_end.recv().unwrap();
                    done.store(true, Ordering::Release);
                    Ok(())
                })
            });
            has_begun.recv().unwrap();
            scope.spawn(move || {
                writing.sync_once(|| Ok(())).unwrap();
                returned.send(done.load(Ordering::Acquire)).unwrap();
            });
            // Time for the second to return too early; none is needed for the test to pass.
            let early = second.recv_timeout(Duration::from_millis(50)).ok();
            go.send(()).unwrap();
            assert!(early.unwrap_or_else(|| second.recv().unwrap()), "the second came back before the sync");
        });
    }
}
