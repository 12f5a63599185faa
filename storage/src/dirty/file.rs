//! One dirty file: its bytes in the journal, the sizes it was cut to, its times, and the plan of the next flush.
//!
//! The plan is a value; carrying it out, and asking first whether the backend is still as `base`, is the caller's.

use super::Place;
use super::extents::{Extent, Extents};
use super::record::{At, Base, Change, Meta, Origin};

/// Names of a file that are remembered: all but the newest serve only where a crash kept a rename from happening.
const MOST_NAMES: usize = 8;

/// See the module.
#[derive(Clone, Debug)]
pub struct DirtyFile {
    /// How to find it again, and on whose behalf it is written.
    pub origin: Origin,
    meta: Meta,
    extents: Extents,
}

/// Bytes to be written, in the order of their acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the file.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// Bytes of the record before them.
    pub skip: u32,
    /// The record.
    pub place: Place,
}

/// What a round of flushing does, in this order: cut, write, give the size, give the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The backend's content must be this, unless a flush was interrupted.
    pub base: Base,
    /// A flush was begun whose end is not known: the backend may show a part of it.
    pub interrupted: bool,
    /// Shorten the file to this first.
    pub cut: Option<u64>,
    /// Then write these.
    pub pieces: Vec<Piece>,
    /// Then, if these were all, the size and modification time (nanoseconds since the epoch) that the file has.
    pub end: Option<(u64, i64)>,
    /// What an interrupted flush cannot have made the backend's file longer than.
    longest: u64,
    upto: u64,
    cut_upto: u64,
}

impl Plan {
    /// Whether the backend may go on from `now`: nobody else changed it, as far as can be told after an interrupted flush.
    pub fn fits(&self, now: Base) -> bool {
        now == self.base || self.interrupted && now.size <= self.longest
    }

    /// The record to append when all of it is durable at the backend, which now is as `base`.
    pub fn done(&self, base: Base) -> Change {
        Change::Flushed { upto: self.upto, cut_upto: self.cut_upto, whole: self.end.is_some(), base }
    }
}

impl DirtyFile {
    pub(super) fn begin(origin: Origin, base: Base, now: At<i64>) -> Self {
        let At { seq, .. } = now;
        let meta = Meta {
            base,
            flushing: false,
            since: now,
            cut: None,
            cuts: Vec::new(),
            size: base.size,
            mtime: base.mtime,
            touched: Some(seq),
        };
        Self::resume(origin, meta)
    }

    pub(super) fn resume(origin: Origin, mut meta: Meta) -> Self {
        if meta.cuts.is_empty() {
            meta.cuts.extend(meta.cut);
        }
        Self { origin, meta, extents: Extents::default() }
    }

    /// What the file is now, but for its bytes.
    pub(super) fn snapshot(&self) -> Change {
        let cut = self.meta.cuts.last().zip(self.least()).map(|(last, value)| At { seq: last.seq, value });
        Change::State { origin: self.origin.clone(), meta: Meta { cut, ..self.meta.clone() } }
    }

    /// Where the backend's own bytes end to count.
    fn least(&self) -> Option<u64> {
        self.meta.cuts.first().map(|cut| cut.value)
    }

    pub(super) fn apply(&mut self, seq: u64, time: i64, change: &Change, place: Option<&Place>) {
        match change {
            Change::Write { offset } => {
                let Some(place) = place else { return };
                let len = u64::from(place.len);
                self.extents.insert(*offset, Extent { seq, time, len, skip: 0, place: place.clone() });
                self.meta.size = self.meta.size.max(offset + len);
                self.touch(seq, time);
            }
            Change::Move { offset, was } => {
                if let Some(place) = place {
                    // All of it was live when it was copied, and its older record may be gone by now.
                    let (seq, len) = (*was, u64::from(place.len));
                    self.extents.insert(*offset, Extent { seq, time, len, skip: 0, place: place.clone() });
                }
            }
            Change::Cut { size } => self.cut(At { seq, value: *size }, time),
            Change::Touch { mtime } => self.touch(seq, *mtime),
            Change::Flushing => self.meta.flushing = true,
            Change::Flushed { upto, cut_upto, whole, base } => {
                self.flushed(*upto, *cut_upto, *whole);
                self.meta.base = *base;
                // A cut or a new time that came in the middle of the flush is older than the record of its end.
                let later = self.meta.cuts.first().map(|c| c.seq).into_iter().chain(self.meta.touched);
                let left = self.extents.iter().map(|(_, e)| At { seq: e.seq, value: e.time });
                let left = left.chain(later.map(|seq| At { seq, value: time }));
                self.meta.since = left.min_by_key(|at| at.seq).unwrap_or(At { seq, value: time });
            }
            Change::Named { path } => {
                self.origin.paths.push(path.clone());
                let old = self.origin.paths.len().saturating_sub(MOST_NAMES);
                self.origin.paths.drain(..old);
            }
            Change::Unlinking => self.origin.unlinking = true,
            Change::Begin { .. } | Change::State { .. } | Change::Gone => {}
        }
    }

    fn touch(&mut self, seq: u64, mtime: i64) {
        self.meta.mtime = mtime;
        self.meta.touched = Some(seq);
    }

    fn cut(&mut self, to: At<u64>, time: i64) {
        if to.value < self.meta.size {
            self.meta.cuts.retain(|earlier| earlier.value < to.value);
            self.meta.cuts.push(to);
        }
        self.extents.remove(to.value, u64::MAX);
        self.meta.size = to.value;
        self.touch(to.seq, time);
    }

    fn flushed(&mut self, upto: u64, cut_upto: u64, whole: bool) {
        self.meta.flushing = false;
        self.extents.retain(|e| e.seq > upto);
        self.meta.cuts.retain(|cut| cut.seq > cut_upto);
        if whole {
            self.meta.touched = self.meta.touched.filter(|seq| *seq > upto);
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        let Meta { flushing, cuts, touched, .. } = &self.meta;
        !flushing && self.extents.is_empty() && cuts.is_empty() && touched.is_none()
    }

    /// A round of flushing that takes about `most` bytes: the oldest ones.
    pub fn plan(&self, most: u64) -> Plan {
        let mut all: Vec<(u64, &Extent)> = self.extents.iter().collect();
        all.sort_by_key(|(offset, e)| (e.seq, *offset));
        let (mut bytes, mut taken) = (0, 0);
        // A record's ranges stay together: what is flushed is told by its number.
        while taken < all.len() && (bytes < most || taken > 0 && all[taken - 1].1.seq == all[taken].1.seq) {
            bytes += all[taken].1.len;
            taken += 1;
        }
        let whole = taken == all.len();
        let last = all[..taken].last().map_or(0, |(_, e)| e.seq);
        let cut_upto = self.meta.cuts.last().map_or(0, |c| c.seq);
        let pieces = all[..taken].iter().map(|(offset, e)| Piece {
            offset: *offset,
            len: e.len,
            skip: e.skip,
            place: e.place.clone(),
        });
        Plan {
            base: self.meta.base,
            interrupted: self.meta.flushing,
            cut: self.least(),
            pieces: pieces.collect(),
            end: whole.then_some((self.meta.size, self.meta.mtime)),
            // With a cut that is not flushed, it was longer once, and the flush may have got that far.
            longest: self.least().map_or(self.meta.size.max(self.meta.base.size), |_| u64::MAX),
            upto: if whole { last.max(self.meta.touched.unwrap_or(0)) } else { last },
            cut_upto,
        }
    }

    /// The bytes of `offset..offset + len` that the backend does not have, in place; and up to where the backend's own count.
    pub fn overlay(&self, offset: u64, len: u64) -> (Vec<Piece>, u64) {
        let end = offset + len;
        let pieces = self.extents.within(offset, end).map(|(at, e)| {
            let (from, to) = (at.max(offset), (at + e.len).min(end));
            Piece { offset: from, len: to - from, skip: e.skip + (from - at) as u32, place: e.place.clone() }
        });
        (pieces.collect(), self.least().unwrap_or(u64::MAX))
    }

    /// What lies in a segment, with number and time of the record.
    pub(super) fn in_segment(&self, segment: u64) -> Vec<(At<i64>, Piece)> {
        let here = self.extents.iter().filter(|(_, e)| e.place.segment == segment);
        let piece = |offset, e: &Extent| Piece { offset, len: e.len, skip: e.skip, place: e.place.clone() };
        here.map(|(offset, e)| (At { seq: e.seq, value: e.time }, piece(offset, e))).collect()
    }

    pub(super) fn needs(&self, segment: u64) -> bool {
        self.extents.iter().any(|(_, e)| e.place.segment == segment)
    }

    /// When it became dirty, in nanoseconds since the epoch.
    pub fn since(&self) -> i64 {
        self.meta.since.value
    }

    /// The backend's content that the changes were made to.
    pub fn base(&self) -> Base {
        self.meta.base
    }

    /// A flush was begun whose end is not known.
    pub fn is_flushing(&self) -> bool {
        self.meta.flushing
    }

    /// Number of the newest change.
    pub fn newest_seq(&self) -> u64 {
        self.meta.touched.unwrap_or(0)
    }

    /// Number of the oldest change that is not flushed.
    pub fn oldest_seq(&self) -> u64 {
        self.meta.since.seq
    }

    /// Size as its users see it.
    pub fn size(&self) -> u64 {
        self.meta.size
    }

    /// Modification time as its users see it, in nanoseconds since the epoch.
    pub fn mtime(&self) -> i64 {
        self.meta.mtime
    }

    /// Bytes in the journal.
    pub fn bytes(&self) -> u64 {
        self.extents.bytes()
    }
}
