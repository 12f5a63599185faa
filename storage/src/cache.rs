//! The extent cache: 256 KiB slots on one preallocated file, with a checksum per 4 KiB block.
//!
//! ```text
//!   DIR/data    slot 0 | slot 1 | …            256 KiB each
//!   DIR/index   record 0 | record 1 | …        512 bytes each: key, version, valid blocks, their CRC32C
//! ```
//! A record fits one sector, so it is either old or new after a power loss, and it carries the checksums of
//! the blocks it calls valid. No write order is needed: whatever subset of sectors survives, a block is
//! served only if it matches the checksum that was stored with the version it belongs to. It does no
//! validation against the backend and decides no routes; see [`crate::fs`].

mod directory;
mod free;
mod index;
mod pins;
mod queue;
mod record;
mod store;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use directory::{CacheDir, CacheDirError};
pub use index::{Hit, Slot};
pub use record::{Extent, FileKey, Version};
pub use store::{FileStore, Sectors};

use index::Index;
use record::Record;

/// Bytes of a block: the unit of validity and of checksums.
pub const BLOCK: u64 = 4096;
/// Blocks of a slot.
pub const BLOCKS: u64 = 64;
/// Bytes of a slot.
pub const EXTENT: u64 = BLOCK * BLOCKS;

/// Counters of the cache since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Blocks whose checksum did not match.
    pub corrupt_blocks: AtomicU64,
    /// Bytes written by fills.
    pub filled_bytes: AtomicU64,
    /// Slots taken from one extent for another.
    pub evictions: AtomicU64,
    /// Failed writes to the store.
    pub write_errors: AtomicU64,
}

/// A cache over a store.
#[derive(Debug)]
pub struct Cache<S: Sectors> {
    store: S,
    index: Mutex<Index>,
    /// Slots whose records are to be erased on the device.
    dropped: Mutex<Vec<Slot>>,
    /// What happened so far.
    pub counters: Counters,
}

/// One contiguous read of the store that serves a part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where in the file it starts; a multiple of [`BLOCK`].
    pub file_offset: u64,
    /// Where in the store it starts.
    pub store_offset: u64,
    /// Its length, a multiple of [`BLOCK`].
    pub len: u64,
    /// The slots it touches; pinned until [`Cache::unpin`].
    pub slots: Vec<Slot>,
    /// Expected checksum of each block.
    pub checksums: Vec<u32>,
}

impl Part {
    /// Whether `data` is what was stored.
    pub fn matches(&self, data: &[u8]) -> bool {
        let mut blocks = data.chunks_exact(BLOCK as usize);
        data.len() as u64 == self.len
            && self.checksums.iter().all(|sum| blocks.next().map(crc32c::crc32c) == Some(*sum))
    }
}

impl Cache<FileStore> {
    /// Opens or creates the cache in `dir` with at most `size` bytes of data, and loads its index.
    ///
    /// # Errors
    /// When the directory is unsafe, in use or not writable.
    pub fn open(dir: &Path, size: u64) -> Result<Self, CacheDirError> {
        let dir = CacheDir::open(dir, size)?;
        let slots = dir.slots();
        Ok(Self::load(FileStore::new(dir), slots))
    }
}

impl<S: Sectors> Cache<S> {
    /// Reads the records of `slots` slots; what does not decode is a free slot.
    pub fn load(store: S, slots: u32) -> Self {
        let mut index = Index::new(slots);
        let chunk = 2048;
        for first in (0..slots).step_by(chunk) {
            let count = (slots - first).min(chunk as u32);
            let mut bytes = vec![0; count as usize * Record::BYTES];
            if store.read_index(u64::from(first) * Record::BYTES as u64, &mut bytes).is_err() {
                continue;
            }
            for (i, sector) in bytes.chunks_exact(Record::BYTES).enumerate() {
                if let Some(record) = Record::decode(sector) {
                    index.restore(Slot(first + i as u32), record);
                }
            }
        }
        index.finish_restore();
        Self { store, index: Mutex::new(index), dropped: Mutex::default(), counters: Counters::default() }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The parts that serve `[offset, offset + len)` of a file, block-aligned, or `None` unless all of it is
    /// valid in this version. The slots are pinned.
    pub fn lookup(&self, file: FileKey, version: &Version, offset: u64, len: u64) -> Option<Vec<Part>> {
        let start = offset / BLOCK * BLOCK;
        let end = (offset + len).next_multiple_of(BLOCK);
        let hits = self.index().pin(file, version, start, end)?;
        let mut parts: Vec<Part> = Vec::with_capacity(1);
        for hit in hits {
            let store_offset = u64::from(hit.slot.0) * EXTENT + hit.first_block * BLOCK;
            let len = hit.checksums.len() as u64 * BLOCK;
            match parts.last_mut().filter(|p| p.store_offset + p.len == store_offset) {
                Some(part) => {
                    part.len += len;
                    part.slots.push(hit.slot);
                    part.checksums.extend(hit.checksums);
                }
                None => parts.push(Part {
                    file_offset: hit.file_offset,
                    store_offset,
                    len,
                    slots: vec![hit.slot],
                    checksums: hit.checksums,
                }),
            }
        }
        Some(parts)
    }

    /// Releases the slots of a part.
    pub fn unpin(&self, part: &Part) {
        let mut index = self.index();
        part.slots.iter().for_each(|slot| index.unpin(*slot));
    }

    /// Forgets the slots of a part whose bytes were not what was stored.
    pub fn corrupt(&self, part: &Part) {
        self.counters.corrupt_blocks.fetch_add(part.checksums.len() as u64, Ordering::Relaxed);
        let dropped: Vec<Slot> = {
            let mut index = self.index();
            part.slots.iter().copied().filter(|slot| index.drop_slot(*slot)).collect()
        };
        self.erase(&dropped);
    }

    /// Stores blocks of one extent: `data` starts at `offset` of the file, both multiples of [`BLOCK`], and does
    /// not cross an extent. `still_valid` is asked after the data was written; if it says no, nothing is kept.
    /// Returns whether the blocks are now served.
    pub fn insert(
        &self,
        file: FileKey,
        version: &Version,
        offset: u64,
        data: &[u8],
        still_valid: impl FnOnce() -> bool,
    ) -> bool {
        let extent = Extent { file, number: offset / EXTENT };
        let first = offset % EXTENT / BLOCK;
        let Some((slot, evicted)) = self.index().reserve(extent, version) else { return false };
        if evicted {
            self.counters.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let at = u64::from(slot.0) * EXTENT + first * BLOCK;
        let sums: Vec<u32> = data.chunks_exact(BLOCK as usize).map(crc32c::crc32c).collect();
        let written = self.store.write_data(at, data);
        if written.is_err() {
            self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        }
        let keep = written.is_ok() && still_valid();
        let record = self.index().commit(slot, extent, version, keep.then_some((first, &sums[..])));
        let Some(record) = record else { return false };
        self.counters.filled_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let kept = self.store.write_index(u64::from(slot.0) * Record::BYTES as u64, &record.encode());
        if kept.is_err() {
            // The blocks are good in memory; only a restart will not find them.
            self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Drops every extent of a file. Returns the bytes dropped.
    pub fn forget(&self, file: FileKey) -> u64 {
        let dropped = self.index().drop_file(file, None);
        self.erase(&dropped);
        dropped.len() as u64 * EXTENT
    }

    /// Drops the extents of a file that are not of this version.
    pub fn retain_version(&self, file: FileKey, version: &Version) {
        let dropped = self.index().drop_file(file, Some(version));
        self.erase(&dropped);
    }

    /// Nobody waits for it: a record that stays is harmless, because its version will never be asked for again; it only takes
    /// the place of a better one after a restart.
    fn erase(&self, slots: &[Slot]) {
        self.dropped().extend(slots);
    }

    fn dropped(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Erases on the device the records that are not valid any more; may block.
    pub fn erase_dropped(&self) {
        let slots = std::mem::take(&mut *self.dropped());
        for slot in slots {
            let at = u64::from(slot.0) * Record::BYTES as u64;
            if self.index().record(slot).is_some() {
                continue;
            }
            let _ = self.store.write_index(at, &[0; Record::BYTES]);
            // It may have been given away meanwhile, and its new record written before.
            let new = self.index().record(slot);
            if let Some(record) = new {
                let _ = self.store.write_index(at, &record.encode());
            }
        }
    }

    /// Makes everything acknowledged so far survive a power loss.
    ///
    /// # Errors
    /// When the store cannot be synced.
    pub fn sync(&self) -> std::io::Result<()> {
        self.erase_dropped();
        self.store.sync()
    }

    /// Blocks of a file that are valid in this version.
    pub fn cached_blocks(&self, file: FileKey, version: &Version) -> u64 {
        self.index().cached_blocks(file, version)
    }

    /// Missing ranges of the extent that holds `offset`, as (offset, length).
    pub fn missing(&self, file: FileKey, version: &Version, offset: u64) -> Vec<(u64, u64)> {
        self.index().missing(Extent { file, number: offset / EXTENT }, version, version.size)
    }

    /// Keeps the extents of a file of this size from eviction. Returns whether there is room: half of the slots may be kept.
    pub fn pin_file(&self, file: FileKey, size: u64) -> bool {
        self.index().pin_file(file, size.div_ceil(EXTENT))
    }

    /// Lets a file's extents go again.
    pub fn unpin_file(&self, file: FileKey) {
        self.index().unpin_file(file);
    }

    /// Whether any file is pinned.
    pub fn has_pins(&self) -> bool {
        !self.index().pins().is_empty()
    }

    /// Slots that pinned files hold.
    pub fn pinned_slots(&self) -> u64 {
        self.index().pins().held()
    }

    /// Slots in use and slots in all.
    pub fn usage(&self) -> (u32, u32) {
        self.index().usage()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod traces;
