//! The dirty state together with its journal: every change is on the device's way before the state has it.
//!
//! Writers and flushers share it. The journal's lock is held for an append and never for a sync; the state can be asked at
//! any time. It does not know the backend.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::disk::Disk;
use super::journal::{Journal, JournalError, read_record};
use super::{At, Change, Dirty, FileId, Piece};

/// Segments that the bound is divided into.
const SEGMENTS: u64 = 16;
/// Least and most bytes of a segment: a record and a head must fit, and space comes free in these steps.
const SEGMENT_BYTES: (u64, u64) = (2 << 20, 64 << 20);
/// Least bound in bytes.
pub const LEAST: u64 = 8 * SEGMENT_BYTES.0;
/// Bytes of a segment per dirty file, so that a head takes at most a good part of a segment.
const BYTES_PER_FILE: u64 = 8 << 10;

/// See the module.
pub struct Ledger<D: Disk> {
    journal: Mutex<Journal<D>>,
    /// Held by who syncs: the others find themselves covered.
    syncing: Mutex<()>,
    dirty: RwLock<Dirty>,
    bound: u64,
    segment_bytes: u64,
}

/// Room of a segment that bytes leave free, so that a flush can be told on a device that is full.
const SPARE: usize = 64 << 10;

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the journal.
    Kept(FileId),
    /// There is no room: the bytes must go to the backend.
    Full,
    /// Nobody would find the file after a crash: the same.
    Nameless,
}

impl<D: Disk> Ledger<D> {
    /// Opens the journal with at most `bound` bytes, and folds what it holds.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or of a later format.
    pub fn open(disk: D, bound: u64) -> Result<Self, JournalError> {
        let segment_bytes = (bound / SEGMENTS).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let (mut journal, dirty) = Journal::open(disk, segment_bytes)?;
        if dirty.is_empty() {
            journal.sync_point().run(&*journal.disk)?;
            journal.clear()?;
        }
        let (journal, dirty) = (Mutex::new(journal), RwLock::new(dirty));
        Ok(Self { journal, syncing: Mutex::default(), dirty, bound, segment_bytes })
    }

    fn journal(&self) -> MutexGuard<'_, Journal<D>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state.
    pub fn dirty(&self) -> RwLockReadGuard<'_, Dirty> {
        self.dirty.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state while no file begins or ends to be dirty.
    pub fn hold<T>(&self, look: impl FnOnce(&Dirty) -> T) -> T {
        let _journal = self.journal();
        look(&self.dirty())
    }

    /// Records a write or cut of the file with this key; `begin` makes the record that precedes it when the file was clean, or
    /// says that there is no name for it.
    /// `begun` is called with the file's id before it can become clean again.
    ///
    /// # Errors
    /// When the device fails. Nothing was recorded then.
    pub fn record(
        &self,
        key: crate::cache::FileKey,
        time: i64,
        (change, bytes): (&Change, &[u8]),
        begin: impl FnOnce() -> io::Result<Option<Change>>,
        begun: impl FnOnce(FileId),
    ) -> io::Result<Recorded> {
        let mut journal = self.journal();
        let known = self.dirty().find(key).map(|(id, _)| id);
        if !self.has_room(&journal, bytes.len(), known.is_none()) {
            return Ok(Recorded::Full);
        }
        let file = match known {
            Some(file) => file,
            None => {
                let Some(begin) = begin()? else { return Ok(Recorded::Nameless) };
                let file = self.dirty().fresh_id();
                self.put(&mut journal, file, time, &begin, &[])?;
                begun(file);
                file
            }
        };
        self.put(&mut journal, file, time, change, bytes)?;
        Ok(Recorded::Kept(file))
    }

    fn has_room(&self, journal: &Journal<D>, len: usize, another_file: bool) -> bool {
        let files = self.dirty().len() as u64;
        let room = !journal.is_full_for(len + SPARE) || journal.space() + self.segment_bytes <= self.bound;
        !journal.broken && room && !(another_file && files >= self.segment_bytes / BYTES_PER_FILE)
    }

    /// Records something about a file that is dirty already; not held back by the bound. Of one that is clean there is nothing
    /// to say. Returns whether it was recorded.
    ///
    /// # Errors
    /// See [`Self::record`].
    pub fn note(&self, file: FileId, time: i64, change: &Change) -> io::Result<bool> {
        let mut journal = self.journal();
        if self.dirty().get(file).is_none() {
            return Ok(false);
        }
        self.put(&mut journal, file, time, change, &[])?;
        Ok(true)
    }

    /// The same, and the state follows even when the device fails: a crash would then find the older state, whose base the
    /// backend no longer has, and keep both copies. `ended` is called if the file is clean now, before it can become dirty
    /// again.
    pub fn note_anyway(&self, file: FileId, time: i64, change: &Change, ended: impl FnOnce()) {
        let mut journal = self.journal();
        if self.dirty().get(file).is_none() {
            return;
        }
        if let Err(error) = self.put(&mut journal, file, time, change, &[]) {
            // Records of what comes now would not fit those that the journal has.
            journal.broken = true;
            tracing::warn!("the journal of dirty data: {error}; a crash would keep a conflict copy");
            let mut dirty = self.dirty.write().unwrap_or_else(PoisonError::into_inner);
            dirty.apply(u64::MAX, time, file, change, None);
        }
        if self.dirty().get(file).is_none() {
            ended();
        }
    }

    fn put(
        &self,
        journal: &mut Journal<D>,
        file: FileId,
        time: i64,
        change: &Change,
        bytes: &[u8],
    ) -> io::Result<()> {
        let spare = if bytes.is_empty() { 0 } else { SPARE };
        if journal.is_full_for(bytes.len().max(json_size(change)) + spare) {
            journal.roll()?;
            let head = self.dirty().snapshot();
            let written = head
                .iter()
                .try_for_each(|(file, time, state)| journal.append(*file, *time, state, &[]).map(drop));
            // Behind half a head, the older segments could not go.
            journal.broken |= written.is_err();
            written?;
        }
        let (seq, place) = journal.append(file, time, change, bytes)?;
        let mut dirty = self.dirty.write().unwrap_or_else(PoisonError::into_inner);
        dirty.apply(seq, time, file, change, Some(&place));
        Ok(())
    }

    /// Makes all that was recorded so far durable.
    ///
    /// # Errors
    /// When the device fails, or has failed since something is dirty: the kernel tells of a lost write once, and the next
    /// fsync succeeds without it.
    pub fn sync(&self) -> io::Result<()> {
        let upto = self.journal().newest();
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (point, disk) = {
            let mut journal = self.journal();
            if journal.broken {
                return Err(failed_before());
            }
            if journal.is_synced_upto(upto) {
                return Ok(());
            }
            (journal.sync_point(), Arc::clone(&journal.disk))
        };
        let done = point.run(&*disk);
        let mut journal = self.journal();
        journal.broken |= done.is_err();
        done?;
        if journal.broken {
            // Another sync failed meanwhile, and this one was not told of what that lost.
            return Err(failed_before());
        }
        journal.synced(&point);
        Ok(())
    }

    /// Gives space back that nothing needs, after moving what only a few stuck bytes hold.
    ///
    /// # Errors
    /// When the device fails.
    pub fn trim(&self) -> io::Result<()> {
        self.compact()?;
        // What nothing needs now, nothing will need later: it may go once the state of now is durable.
        let (unneeded, clean, broken) = {
            let (journal, dirty) = (self.journal(), self.dirty());
            let clean = dirty.is_empty() && (journal.space() > 0 || journal.broken);
            (journal.unneeded(&dirty), clean, journal.broken)
        };
        if !clean && (unneeded.is_empty() || broken) {
            return Ok(());
        }
        if !broken {
            self.sync()?;
        }
        let mut journal = self.journal();
        let clean = self.dirty().is_empty() && (journal.is_synced() || journal.broken);
        match (clean, broken) {
            (true, _) => journal.clear(),
            (false, false) => journal.remove_all(&unneeded),
            (false, true) => Ok(()),
        }
    }

    /// Copies the bytes that the oldest segment still holds to the end, when the journal is nearly full and they are few.
    fn compact(&self) -> io::Result<()> {
        let mut journal = self.journal();
        let Some(oldest) = journal.oldest_segment() else { return Ok(()) };
        if journal.broken || journal.space() * 4 < self.bound * 3 {
            return Ok(());
        }
        let stuck: Vec<(FileId, At<i64>, Piece)> = {
            let dirty = self.dirty();
            let of = |(id, file): (FileId, &super::DirtyFile)| {
                file.in_segment(oldest)
                    .into_iter()
                    .map(move |(was, piece)| (id, was, piece))
                    .collect::<Vec<_>>()
            };
            dirty.files().flat_map(of).collect()
        };
        let bytes: u64 = stuck.iter().map(|(_, _, p)| p.len).sum();
        if bytes * 2 > self.segment_bytes {
            return Ok(());
        }
        for (file, was, piece) in stuck {
            let copy = journal.read(&piece.place, piece.skip, piece.len)?;
            let change = Change::Move { offset: piece.offset, was: was.seq };
            self.put(&mut journal, file, was.value, &change, &copy)?;
        }
        Ok(())
    }

    /// The bytes of a piece, checked.
    ///
    /// # Errors
    /// When the device fails or returns others.
    pub fn read(&self, piece: &Piece) -> io::Result<Vec<u8>> {
        let segment = Arc::clone(self.journal().segment(piece.place.segment)?);
        read_record(&*segment, &piece.place, piece.skip, piece.len)
    }

    /// Space that the journal takes on the device, in bytes.
    pub fn space(&self) -> u64 {
        self.journal().space()
    }

    /// Whether so much of the bound is taken that flushing should not wait.
    pub fn is_filling(&self) -> bool {
        self.space() * 2 > self.bound
    }
}

fn failed_before() -> io::Error {
    io::Error::other(
        "the device of the dirty journal has failed before; it is used again once nothing is dirty",
    )
}

fn json_size(change: &Change) -> usize {
    match change {
        Change::Write { .. } | Change::Move { .. } => 0,
        other => serde_json::to_vec(other).map_or(0, |json| json.len()),
    }
}
