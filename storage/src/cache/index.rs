//! The index in memory: which slot holds which extent, in which version, and who may be evicted.
//!
//! It is the only owner of slots. A slot is free, reserved by a writer (pinned, maybe with valid blocks), or
//! holds valid blocks; it is given away only while nobody has it pinned.

#[cfg(test)]
use std::collections::HashSet;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::free::{Free, Wanted};
use super::pins::Pins;
use super::queue::{MOST_HITS, Queue, Slots};
use super::record::{Extent, FileKey, Record, Version, blocks_inside, mask};
use super::{BLOCK, BLOCKS, EXTENT};

/// Number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Valid blocks of one slot that serve a part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The slot.
    pub slot: Slot,
    /// First block inside the slot.
    pub first_block: u64,
    /// Where in the file that is.
    pub file_offset: u64,
    /// Checksums of the blocks.
    pub checksums: Vec<u32>,
}

#[derive(Debug, Default)]
struct Entry {
    record: Option<Box<Record>>,
    hits: u8,
    pins: u16,
    /// How often the slot was given away.
    stamp: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    by_file: HashMap<FileKey, BTreeMap<u64, Slot>>,
    free: Free,
    queue: Queue,
    pins: Pins,
}

struct View<'a> {
    entries: &'a mut [Entry],
    pins: &'a Pins,
}

impl Slots for View<'_> {
    fn hits(&mut self, slot: Slot) -> &mut u8 {
        &mut self.entries[slot.0 as usize].hits
    }

    fn is_pinned(&self, slot: Slot) -> bool {
        let entry = &self.entries[slot.0 as usize];
        entry.pins > 0 || entry.record.as_ref().is_some_and(|r| self.pins.keep(&r.extent.file))
    }

    fn is_used(&self, slot: Slot, stamp: u32) -> bool {
        let entry = &self.entries[slot.0 as usize];
        entry.record.is_some() && entry.stamp == stamp
    }

    fn fingerprint(&self, slot: Slot) -> u64 {
        self.entries[slot.0 as usize].record.as_ref().map_or(0, |r| fingerprint(&r.extent))
    }
}

fn fingerprint(extent: &Extent) -> u64 {
    let mut hasher = DefaultHasher::new();
    extent.hash(&mut hasher);
    hasher.finish()
}

impl Index {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            entries: (0..slots).map(|_| Entry::default()).collect(),
            by_file: HashMap::new(),
            free: Free::new(slots),
            queue: Queue::new(slots as usize),
            pins: Pins::new(slots),
        }
    }

    /// Puts a record read from disk in place. Of two records of one extent the first one stays.
    pub(super) fn restore(&mut self, slot: Slot, record: Record) {
        let slots = self.by_file.entry(record.extent.file).or_default();
        if let std::collections::btree_map::Entry::Vacant(place) = slots.entry(record.extent.number) {
            place.insert(slot);
            self.queue.insert(slot, 0, fingerprint(&record.extent));
            self.entries[slot.0 as usize].record = Some(Box::new(record));
        }
    }

    /// After the last record: what holds nothing is free, lowest first.
    pub(super) fn finish_restore(&mut self) {
        self.free.set(|slot| self.entries[slot.0 as usize].record.is_none());
    }

    fn find(&self, extent: &Extent, version: &Version) -> Option<Slot> {
        let slot = *self.by_file.get(&extent.file)?.get(&extent.number)?;
        let record = self.entries[slot.0 as usize].record.as_ref()?;
        (record.version == *version).then_some(slot)
    }

    /// Pins the slots of `[start, end)` if every block is valid.
    pub(super) fn pin(&mut self, file: FileKey, version: &Version, start: u64, end: u64) -> Option<Vec<Hit>> {
        let mut hits = Vec::with_capacity(1);
        for number in start / EXTENT..end.div_ceil(EXTENT) {
            let slot = self.find(&Extent { file, number }, version)?;
            let first = start.saturating_sub(number * EXTENT) / BLOCK;
            let last = ((end - number * EXTENT) / BLOCK).min(BLOCKS);
            let record = self.entries[slot.0 as usize].record.as_ref()?;
            let wanted = mask(first, last);
            if record.valid & wanted != wanted {
                return None;
            }
            let checksums = record.checksums[first as usize..last as usize].to_vec();
            hits.push(Hit {
                slot,
                first_block: first,
                file_offset: number * EXTENT + first * BLOCK,
                checksums,
            });
        }
        for hit in &hits {
            let entry = &mut self.entries[hit.slot.0 as usize];
            entry.pins += 1;
            entry.hits = (entry.hits + 1).min(MOST_HITS);
        }
        Some(hits)
    }

    pub(super) fn unpin(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot.0 as usize];
        entry.pins = entry.pins.saturating_sub(1);
        self.recycle(slot);
    }

    /// A slot that lost its record while it was pinned becomes free with the last pin.
    fn recycle(&mut self, slot: Slot) {
        let entry = &self.entries[slot.0 as usize];
        if entry.pins == 0 && entry.record.is_none() {
            self.free.give(slot);
        }
    }

    /// A pinned slot for an extent, and whether another extent had to leave for it. A slot of an older version is
    /// dropped. `None` when every slot is pinned.
    pub(super) fn reserve(&mut self, extent: Extent, version: &Version) -> Option<(Slot, bool)> {
        if let Some(slot) = self.find(&extent, version) {
            self.entries[slot.0 as usize].pins += 1;
            return Some((slot, false));
        }
        if let Some(old) = self.by_file.get(&extent.file).and_then(|f| f.get(&extent.number)).copied() {
            self.drop_slot(old);
        }
        let number = extent.number;
        let before = number.checked_sub(1).and_then(|n| self.by_file.get(&extent.file)?.get(&n).copied());
        let wanted = Wanted { number, before, alone: version.size <= EXTENT };
        let (slot, evicted) = match self.free.take(wanted) {
            Some(slot) => (slot, false),
            None => (self.evict()?, true),
        };
        let stamp = self.entries[slot.0 as usize].stamp.wrapping_add(1);
        self.entries[slot.0 as usize] = Entry { record: None, hits: 0, pins: 1, stamp };
        Some((slot, evicted))
    }

    fn evict(&mut self) -> Option<Slot> {
        let mut view = View { entries: &mut self.entries, pins: &self.pins };
        let slot = self.queue.victim(&mut view)?;
        self.detach(slot);
        Some(slot)
    }

    /// Takes the record off a slot and out of the maps.
    fn detach(&mut self, slot: Slot) -> bool {
        let Some(record) = self.entries[slot.0 as usize].record.take() else { return false };
        self.pins.lost(&record.extent.file);
        if let Some(slots) = self.by_file.get_mut(&record.extent.file) {
            slots.remove(&record.extent.number);
            if slots.is_empty() {
                self.by_file.remove(&record.extent.file);
            }
        }
        true
    }

    /// Ends a reservation. `blocks` (first block, checksums) become valid; `None` keeps nothing new. Returns the
    /// record to store, if the blocks are served from now on.
    pub(super) fn commit(
        &mut self,
        slot: Slot,
        extent: Extent,
        version: &Version,
        blocks: Option<(u64, &[u32])>,
    ) -> Option<Record> {
        let record = blocks.and_then(|(first, sums)| self.fill(slot, extent, version, first, sums));
        self.unpin(slot);
        record
    }

    fn fill(
        &mut self,
        slot: Slot,
        extent: Extent,
        version: &Version,
        first: u64,
        sums: &[u32],
    ) -> Option<Record> {
        if self.entries[slot.0 as usize].record.is_none() {
            // Another writer may have been faster, or the slot was dropped meanwhile.
            if self.by_file.get(&extent.file).is_some_and(|f| f.contains_key(&extent.number)) {
                return None;
            }
            let fresh = Record { extent, version: *version, valid: 0, checksums: [0; BLOCKS as usize] };
            self.entries[slot.0 as usize].record = Some(Box::new(fresh));
            self.by_file.entry(extent.file).or_default().insert(extent.number, slot);
            self.pins.gained(&extent.file);
            let stamp = self.entries[slot.0 as usize].stamp;
            self.queue.insert(slot, stamp, fingerprint(&extent));
            if self.queue.is_cluttered() {
                self.queue.sweep(&View { entries: &mut self.entries, pins: &self.pins });
            }
        }
        let record = self.entries[slot.0 as usize].record.as_mut()?;
        if record.extent != extent || record.version != *version {
            return None;
        }
        record.valid |= mask(first, first + sums.len() as u64);
        record.checksums[first as usize..first as usize + sums.len()].copy_from_slice(sums);
        Some((**record).clone())
    }

    /// Forgets a slot; it becomes free once nobody has it pinned. Returns whether it held anything.
    pub(super) fn drop_slot(&mut self, slot: Slot) -> bool {
        let held = self.detach(slot);
        if held {
            self.recycle(slot);
        }
        held
    }

    /// Drops the extents of a file, but keeps those of version `keep`.
    pub(super) fn drop_file(&mut self, file: FileKey, keep: Option<&Version>) -> Vec<Slot> {
        let Some(slots) = self.by_file.get(&file) else { return Vec::new() };
        let stale = |slot: &Slot| {
            let record = self.entries[slot.0 as usize].record.as_ref();
            record.is_some_and(|r| keep.is_none_or(|v| r.version != *v))
        };
        let dropped: Vec<Slot> = slots.values().copied().filter(stale).collect();
        dropped.iter().for_each(|slot| {
            self.drop_slot(*slot);
        });
        dropped
    }

    pub(super) fn cached_blocks(&self, file: FileKey, version: &Version) -> u64 {
        let slots = self.by_file.get(&file).into_iter().flat_map(BTreeMap::values);
        let records = slots.filter_map(|s| self.entries[s.0 as usize].record.as_ref());
        records.filter(|r| r.version == *version).map(|r| u64::from(r.valid.count_ones())).sum()
    }

    pub(super) fn missing(&self, extent: Extent, version: &Version, size: u64) -> Vec<(u64, u64)> {
        let slot = self.find(&extent, version);
        let valid = slot.and_then(|s| self.entries[s.0 as usize].record.as_ref()).map_or(0, |r| r.valid);
        let mut left = blocks_inside(extent.number, size) & !valid;
        let mut ranges = Vec::new();
        while left != 0 {
            let first = u64::from(left.trailing_zeros());
            let run = u64::from((left >> first).trailing_ones());
            ranges.push((extent.number * EXTENT + first * BLOCK, run * BLOCK));
            left &= !mask(first, first + run);
        }
        ranges
    }

    fn held_by(&self, file: FileKey) -> u64 {
        self.by_file.get(&file).map_or(0, |slots| slots.len() as u64)
    }

    /// Keeps the slots of a file that may come to hold `wanted`, if there is room for it.
    pub(super) fn pin_file(&mut self, file: FileKey, wanted: u64) -> bool {
        let held = self.held_by(file);
        self.pins.add(file, wanted, held)
    }

    pub(super) fn unpin_file(&mut self, file: FileKey) {
        let held = self.held_by(file);
        self.pins.remove(file, held);
    }

    /// What stays.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What a slot holds now.
    pub(super) fn record(&self, slot: Slot) -> Option<Record> {
        self.entries[slot.0 as usize].record.as_deref().cloned()
    }

    pub(super) fn usage(&self) -> (u32, u32) {
        (self.entries.len() as u32 - self.free.count() as u32, self.entries.len() as u32)
    }

    /// Places in the queues, void ones included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.queue.places()
    }

    /// What must hold at any time while nothing is pinned.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut seen = HashSet::new();
        let held: u64 = self.pins.files().map(|file| self.held_by(file)).sum();
        assert_eq!(held, self.pins.held(), "the slots of pinned files were miscounted");
        for (file, slots) in &self.by_file {
            for (number, slot) in slots {
                assert!(seen.insert(*slot), "{slot:?} holds two extents");
                let record =
                    self.entries[slot.0 as usize].record.as_ref().expect("a mapped slot has a record");
                assert_eq!(record.extent, Extent { file: *file, number: *number });
                assert_ne!(record.valid, 0, "an extent without valid blocks holds {slot:?}");
            }
        }
        for slot in self.free.all() {
            assert!(seen.insert(slot), "{slot:?} is free and used, or free twice");
        }
        let pinned = self.entries.iter().filter(|e| e.pins > 0 && e.record.is_none()).count();
        assert_eq!(seen.len() + pinned, self.entries.len(), "a slot was lost");
    }
}
