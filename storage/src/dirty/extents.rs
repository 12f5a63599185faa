//! Which bytes of a file lie where in the journal: ranges that do not overlap, each of one record.
//!
//! A later range cuts what it covers out of the earlier ones. Ranges keep the sequence number of their record, which is the
//! order in which they may be flushed. Nothing is merged: a record is the unit that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the bytes of one write lie in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Where in it the bytes of the record start.
    pub at: u64,
    /// Bytes of the whole record.
    pub len: u32,
    /// CRC32C of each 16 KiB of the record.
    pub sums: Arc<[u32]>,
}

/// A range of a file, with the place of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) seq: u64,
    /// When it was written, in nanoseconds since the epoch.
    pub(super) time: i64,
    pub(super) len: u64,
    /// Bytes of the record before the first of this range.
    pub(super) skip: u32,
    pub(super) place: Place,
}

/// See the module. Keyed by the offset of the first byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents(BTreeMap<u64, Extent>);

impl Extents {
    pub(super) fn insert(&mut self, offset: u64, extent: Extent) {
        self.remove(offset, offset + extent.len);
        self.0.insert(offset, extent);
    }

    /// Forgets the bytes in `start..end`.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        let before = self.0.range(..start).next_back().map(|(at, e)| (*at, e.len));
        if let Some((at, len)) = before
            && at + len > start
        {
            self.split(at, start);
        }
        let inside: Vec<u64> = self.0.range(start..end).map(|(at, _)| *at).collect();
        for at in inside {
            let len = self.0.get(&at).map_or(0, |e| e.len);
            if at + len > end {
                self.split(at, end);
            }
            self.0.remove(&at);
        }
    }

    /// Makes two ranges of the one at `at`.
    fn split(&mut self, at: u64, middle: u64) {
        let Some(first) = self.0.get_mut(&at) else { return };
        let mut second = first.clone();
        let head = middle - at;
        first.len = head;
        second.len -= head;
        // A record is at most 1 MiB.
        second.skip += head as u32;
        self.0.insert(middle, second);
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Extent) -> bool) {
        self.0.retain(|_, extent| keep(extent));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.0.iter().map(|(at, extent)| (*at, extent))
    }

    /// Ranges that overlap `start..end`.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Extent)> {
        let first = self.0.range(..=start).next_back().map_or(start, |(at, _)| *at);
        self.0.range(first..end.max(first)).map(|(at, e)| (*at, e)).filter(move |(at, e)| at + e.len > start)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|e| e.len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
