//! Dirty state: what of each file is newer in the journal than at the backend, and what a crash leaves behind.
//!
//! ```text
//!            Begin              Flushing                     Flushed(upto), nothing later left
//!   clean ----------> dirty ----------------> flushing ----------------------------------------> clean
//!     ^                ^ Write, Cut, Touch: at any time, also while flushing
//!     '--- Gone -------'---- Flushed(upto), but later changes are left
//!
//!   what a crash leaves            what the next start does
//!   clean                          nothing
//!   dirty, backend is as `base`    flushes
//!   dirty, backend is not          keeps both: the journal's copy becomes a conflict file
//!   flushing                       flushes again: what the backend shows may be a part of our own flush
//! ```
//! The state is a fold over records, and the running daemon and the recovery use the same fold, so that every prefix of the
//! journal is a state that the daemon once was in. Pure: no IO, no clock. Where bytes lie is told by a [`Place`]; who
//! reads and writes them is [`ledger`]. It decides nothing about rights, nor when to flush.

mod disk;
mod extents;
mod file;
mod journal;
pub mod ledger;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

pub use disk::{Directory, Disk, Segment};
pub use extents::Place;
pub use file::{DirtyFile, Piece, Plan};
pub use journal::{JournalError, is_outdated};
pub use ledger::Ledger;
pub use record::{At, Base, Change, FileId, LARGEST, Meta, Origin};

use crate::cache::FileKey;

/// See the module.
#[derive(Debug, Default)]
pub struct Dirty {
    files: BTreeMap<FileId, DirtyFile>,
    by_key: HashMap<FileKey, FileId>,
    last: u64,
    newest: i64,
}

impl Dirty {
    /// Folds one record in. `place` is where the bytes of a write lie. A record of an unknown file, which only damage could
    /// leave, changes nothing.
    pub fn apply(&mut self, seq: u64, time: i64, file: FileId, change: &Change, place: Option<&Place>) {
        self.last = self.last.max(file.0);
        // These carry a time of the file, which anybody may set.
        if !matches!(change, Change::State { .. } | Change::Touch { .. }) {
            self.newest = self.newest.max(time);
        }
        let begun = match change {
            Change::Begin { origin, base } => {
                Some(DirtyFile::begin(origin.clone(), *base, At { seq, value: time }))
            }
            Change::State { origin, meta } => Some(DirtyFile::resume(origin.clone(), meta.clone())),
            _ => None,
        };
        if let Some(begun) = begun {
            if !self.files.contains_key(&file) {
                self.by_key.insert(begun.origin.key, file);
                self.files.insert(file, begun);
            }
            return;
        }
        let Some(known) = self.files.get_mut(&file) else { return };
        known.apply(seq, time, change, place);
        if matches!(change, Change::Gone) || known.is_clean() {
            let key = known.origin.key;
            self.by_key.remove(&key);
            self.files.remove(&file);
        }
    }

    /// An id that no file of this journal had yet.
    pub fn fresh_id(&self) -> FileId {
        FileId(self.last + 1)
    }

    /// A dirty file.
    pub fn get(&self, file: FileId) -> Option<&DirtyFile> {
        self.files.get(&file)
    }

    /// The dirty file with this key.
    pub fn find(&self, key: FileKey) -> Option<(FileId, &DirtyFile)> {
        let id = *self.by_key.get(&key)?;
        Some((id, self.files.get(&id)?))
    }

    /// When anything was last recorded, in nanoseconds since the epoch; 0 if that is not known.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// All dirty files, longest dirty first.
    pub fn by_age(&self) -> Vec<FileId> {
        let mut ids: Vec<_> = self.files.iter().map(|(id, f)| (f.oldest_seq(), *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Files by id.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &DirtyFile)> {
        self.files.iter().map(|(id, file)| (*id, file))
    }

    /// Number of dirty files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether everything is at the backend.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes that are not yet at the backend.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(DirtyFile::bytes).sum()
    }

    /// When the oldest change that is not at the backend was made, in nanoseconds since the epoch.
    pub fn oldest(&self) -> Option<i64> {
        self.files.values().map(DirtyFile::since).min()
    }

    /// Whether a segment of the journal holds bytes that are not at the backend.
    pub fn needs(&self, segment: u64) -> bool {
        self.files.values().any(|f| f.needs(segment))
    }

    /// What a new segment begins with, so that all before it is needed only for its bytes.
    pub fn snapshot(&self) -> Vec<(FileId, i64, Change)> {
        self.files.iter().map(|(id, file)| (*id, file.mtime(), file.snapshot())).collect()
    }
}
