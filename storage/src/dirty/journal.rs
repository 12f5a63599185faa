//! The journal on the disk: records one after the other, in numbered segments of one size.
//!
//! ```text
//!   segment n     State of every dirty file | records …            removed once nothing in it is needed,
//!   segment n+1   State of every dirty file | records … | zeros    the oldest first
//! ```
//! * **Torn tail.** Records are numbered without gaps. The first one that is missing or damaged ends the journal, if it is
//!   newer than all that any record calls synced; what lies behind it was never promised. If it is older, it is damage, and
//!   the start is refused.
//! * **Compaction.** A segment's head repeats what older ones say of files, so these are needed only for bytes. Bytes go with
//!   the flush; those that cannot be flushed are copied to the end ([`super::ledger`]).
//! * **Failed append or sync.** Nothing is appended or synced any more until all is flushed, and the journal begins anew:
//!   nobody knows what the device holds, and what goes on in memory alone would be missing between two records.
//! * **Format.** A later one is refused by name, never read.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::disk::{Disk, Segment};
use super::record::{Body, FORMAT, Header, LARGEST, SECTOR, Sector, sums};
use super::{Change, Dirty, FileId, Place};

/// Bytes that are looked through at once behind the journal's end.
const LOOK: usize = 64 << 10;

/// Why a journal of dirty data cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The device.
    #[error("the journal of dirty data cannot be read")]
    Io(#[from] io::Error),
    /// A later version wrote it.
    #[error(
        "the journal of dirty data has format {0}, this migshare-storage reads formats up to {FORMAT}: start the version \
         that wrote it, or a later one, so that the data reaches the backend"
    )]
    Newer(u8),
    /// Promised data is lost.
    #[error(
        "the journal of dirty data is damaged: record {record} in segment {segment} was synced and cannot be read. Some \
         acknowledged writes are lost. To go on without all that is dirty, move the directory away"
    )]
    Damaged {
        /// The first record that is missing.
        record: u64,
        /// Where it should be.
        segment: u64,
    },
}

/// A segment went after its number was taken down: its bytes have reached the backend, were written anew, or moved.
#[derive(Debug, Error)]
#[error("segment {0} of the journal of dirty data is gone")]
struct SegmentGone(u64);

/// Whether a read failed only because what was known of the state is old.
pub fn is_outdated(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SegmentGone>())
}

/// See the module.
pub(super) struct Journal<D: Disk> {
    pub(super) disk: Arc<D>,
    segments: BTreeMap<u64, Arc<D::Segment>>,
    segment_bytes: u64,
    /// Where the next record goes in the last segment; `None`: a new one must be made.
    end: Option<u64>,
    next_segment: u64,
    next_seq: u64,
    synced: u64,
    /// Number of the first record of each segment.
    firsts: BTreeMap<u64, u64>,
    /// Segments with writes that were not synced.
    unsynced: BTreeMap<u64, Arc<D::Segment>>,
    names_unsynced: bool,
    /// A segment was removed, and the removal may not be durable.
    removal_unsynced: bool,
    nonce: u64,
    pub(super) broken: bool,
}

/// What a sync must cover; taken under the journal's lock, carried out without it.
pub(super) struct SyncPoint<S> {
    segments: Vec<(u64, Arc<S>)>,
    upto: u64,
    names: bool,
    next_segment: u64,
}

impl<S: Segment> SyncPoint<S> {
    pub(super) fn run(&self, disk: &impl Disk) -> io::Result<()> {
        self.segments.iter().try_for_each(|(_, segment)| segment.sync())?;
        if self.names { disk.sync_names() } else { Ok(()) }
    }
}

/// A record that was found.
struct Found {
    /// Behind a gap: told for its marks only.
    stray: bool,
    header: Header,
    segment: u64,
    at: u64,
}

impl<D: Disk> Journal<D> {
    /// Reads what is there and folds it.
    pub(super) fn open(disk: D, segment_bytes: u64) -> Result<(Self, Dirty), JournalError> {
        let numbers = disk.list()?;
        let mut journal = Self {
            disk: Arc::new(disk),
            segments: BTreeMap::new(),
            segment_bytes,
            end: None,
            next_segment: numbers.last().map_or(1, |n| n + 1),
            next_seq: 1,
            synced: 0,
            firsts: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            names_unsynced: false,
            removal_unsynced: false,
            nonce: 0,
            broken: false,
        };
        for number in numbers {
            journal.segments.insert(number, Arc::new(journal.disk.open(number)?));
        }
        let dirty = journal.replay()?;
        Ok((journal, dirty))
    }

    fn replay(&mut self) -> Result<Dirty, JournalError> {
        let mut found = Vec::new();
        for (number, segment) in &self.segments {
            self.walk(*number, segment, &mut found)?;
        }
        let first = found.iter().map(|f| f.header.first).max();
        let synced = found.iter().map(|f| f.header.synced).max().unwrap_or(0);
        let begin = self.oldest_segment().unwrap_or(0);
        let mut dirty = Dirty::default();
        let mut last: Option<(u64, u64)> = None;
        let (mut torn, mut unsure) = (None, Vec::new());
        for Found { header, segment, at, .. } in found.into_iter().filter(|f| !f.stray) {
            let expected = match last {
                None => segment == begin,
                Some((seq, before)) => header.seq == seq + 1 && segment <= before + 1,
            };
            let place = Place { segment, at, len: header.len, sums: header.sums.clone().into() };
            let change = expected.then(|| self.change_of(&header, &place, synced)).flatten();
            let Some(change) = change else {
                torn = Some((segment, at));
                break;
            };
            self.firsts.entry(segment).or_insert(header.seq);
            dirty.apply(header.seq, header.time, header.file, &change, Some(&place));
            last = Some((header.seq, segment));
            if header.seq > synced {
                unsure.push((segment, at - SECTOR, Header::span(header.len as usize)));
            }
        }
        // With nothing left to read, numbers go on behind those of segments that are not needed any more.
        let (seq, segment) = last.unwrap_or((first.unwrap_or(1).saturating_sub(1), begin));
        if seq < synced {
            return Err(JournalError::Damaged { record: seq + 1, segment });
        }
        self.next_seq = seq + 1;
        self.synced = synced;
        if let Some((number, at)) = torn
            && number == segment
        {
            // Its number is given out again: it must never pass for a good one.
            let torn = self.segment(number)?;
            torn.write(at - SECTOR, &[0; SECTOR as usize])?;
            torn.sync()?;
        }
        self.cut_off(segment, last.is_some())?;
        self.broken = unsure.into_iter().try_for_each(|(n, at, span)| self.write_again(n, at, span)).is_err();
        // A daemon that was killed may have synced nothing of what it left.
        self.unsynced = self.segments.clone();
        self.names_unsynced = true;
        Ok(dirty)
    }

    /// Of a record that no later one calls synced, the sync may have failed: then the page cache has it, the device does not,
    /// and the next sync would not tell.
    fn write_again(&self, number: u64, at: u64, span: u64) -> io::Result<()> {
        let mut record = vec![0; span as usize];
        let segment = self.segment(number)?;
        segment.read(at, &mut record)?;
        segment.write(at, &record)
    }

    /// Removes what lies behind the last good record, the newest first.
    fn cut_off(&mut self, last: u64, keep_last: bool) -> io::Result<()> {
        let gone = self.segments.keys().rev().copied().filter(|n| *n > last || (*n == last && !keep_last));
        for number in gone.collect::<Vec<_>>() {
            self.remove(number)?;
        }
        self.next_segment = self.segments.last_key_value().map_or(1, |(n, _)| n + 1);
        Ok(())
    }

    /// One segment, durably: what is left after a crash is always a row without gaps.
    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.sync_removal()?;
        self.disk.remove(number)?;
        self.removal_unsynced = true;
        self.segments.remove(&number);
        self.unsynced.remove(&number);
        self.firsts.remove(&number);
        self.sync_removal()
    }

    /// Also the one before, whose sync may have failed: no removal may become durable before it.
    fn sync_removal(&mut self) -> io::Result<()> {
        if self.removal_unsynced {
            self.disk.sync_names()?;
            self.removal_unsynced = false;
        }
        Ok(())
    }

    /// All headers of a segment: in a row, and behind the first gap wherever they are, for the sake of their marks.
    fn walk(&self, number: u64, segment: &D::Segment, found: &mut Vec<Found>) -> Result<(), JournalError> {
        let size = segment.size()?;
        let (mut at, mut sector) = (0, [0; SECTOR as usize]);
        let mut nonce = None;
        while at + SECTOR <= size {
            segment.read(at, &mut sector)?;
            match Sector::decode(&sector) {
                Sector::Newer(format) => return Err(JournalError::Newer(format)),
                Sector::Other => break,
                Sector::Header(header) => {
                    let span = Header::span(header.len as usize);
                    nonce = nonce.or(Some(header.nonce));
                    found.push(Found { stray: false, header, segment: number, at: at + SECTOR });
                    at += span;
                }
            }
        }
        let mut chunk = vec![0; LOOK];
        while at + SECTOR <= size {
            let len = (LOOK as u64).min(size - at) / SECTOR * SECTOR;
            segment.read(at, &mut chunk[..len as usize])?;
            for (i, sector) in chunk[..len as usize].chunks_exact(SECTOR as usize).enumerate() {
                // Bytes of files may look like headers, but do not know the nonce.
                if let Sector::Header(header) = Sector::decode(sector)
                    && Some(header.nonce) == nonce
                {
                    found.push(Found {
                        stray: true,
                        header,
                        segment: number,
                        at: at + (i as u64 + 1) * SECTOR,
                    });
                }
            }
            at += len;
        }
        Ok(())
    }

    /// The change that a record says. Bytes of writes that were synced are checked when they are read.
    fn change_of(&self, header: &Header, place: &Place, synced: u64) -> Option<Change> {
        if !matches!(header.body, Body::Other) && header.seq <= synced {
            return header.body.change(|| None);
        }
        let bytes = self.read(place, 0, place.len.into()).ok()?;
        header.body.change(|| serde_json::from_slice(&bytes).ok())
    }

    /// Some bytes of a record, checked against their checksums.
    pub(super) fn read(&self, place: &Place, skip: u32, len: u64) -> io::Result<Vec<u8>> {
        read_record(&**self.segment(place.segment)?, place, skip, len)
    }

    pub(super) fn segment(&self, number: u64) -> io::Result<&Arc<D::Segment>> {
        self.segments.get(&number).ok_or_else(|| io::Error::other(SegmentGone(number)))
    }

    /// Whether a record of `len` bytes needs a new segment.
    pub(super) fn is_full_for(&self, len: usize) -> bool {
        self.end.is_none_or(|end| end + Header::span(len) > self.segment_bytes)
    }

    /// Space taken, in bytes.
    pub(super) fn space(&self) -> u64 {
        self.segments.len() as u64 * self.segment_bytes
    }

    /// Begins a new segment. Its head is to be appended by the caller.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        let segment = Arc::new(self.disk.create(self.next_segment, self.segment_bytes)?);
        self.segments.insert(self.next_segment, segment);
        self.next_segment += 1;
        self.firsts.insert(self.next_segment - 1, self.next_seq);
        self.nonce = RandomState::new().build_hasher().finish();
        self.end = Some(0);
        self.names_unsynced = true;
        Ok(())
    }

    /// Appends one record to the last segment. Returns its number and where its bytes are.
    pub(super) fn append(
        &mut self,
        file: FileId,
        time: i64,
        change: &Change,
        bytes: &[u8],
    ) -> io::Result<(u64, Place)> {
        let body = Body::of(change);
        let json;
        let bytes = match body {
            Body::Other => {
                json = serde_json::to_vec(change)?;
                &json[..]
            }
            _ => bytes,
        };
        if self.broken || bytes.len() > LARGEST || self.is_full_for(bytes.len()) {
            return Err(io::Error::other("the journal of dirty data takes no more records"));
        }
        let sums = sums(bytes);
        let place = Place { segment: 0, at: 0, len: bytes.len() as u32, sums: sums.clone().into() };
        let (seq, synced, nonce) = (self.next_seq, self.synced, self.nonce);
        let first = self.firsts.first_key_value().map_or(seq, |(_, first)| *first);
        let header = Header { seq, synced, first, nonce, file, time, body, len: bytes.len() as u32, sums };
        let written = self.put(&header, bytes);
        self.broken |= written.is_err();
        let (segment, at) = written?;
        self.next_seq += 1;
        Ok((seq, Place { segment, at, ..place }))
    }

    /// Bytes first: a header that is there tells of bytes that are there, whenever the daemon dies.
    fn put(&mut self, header: &Header, bytes: &[u8]) -> io::Result<(u64, u64)> {
        let (number, segment) = self.segments.last_key_value().ok_or(io::ErrorKind::NotFound)?;
        let end = self.end.ok_or(io::ErrorKind::NotFound)?;
        let whole = bytes.len() / SECTOR as usize * SECTOR as usize;
        if whole > 0 {
            segment.write(end + SECTOR, &bytes[..whole])?;
        }
        if whole < bytes.len() {
            let mut last = [0; SECTOR as usize];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            segment.write(end + SECTOR + whole as u64, &last)?;
        }
        segment.write(end, &header.encode())?;
        self.unsynced.insert(*number, Arc::clone(segment));
        self.end = Some(end + Header::span(bytes.len()));
        Ok((*number, end + SECTOR))
    }

    /// What is to be synced for all records so far to be durable.
    pub(super) fn sync_point(&mut self) -> SyncPoint<D::Segment> {
        let segments = self.unsynced.iter().map(|(n, s)| (*n, Arc::clone(s))).collect();
        SyncPoint {
            segments,
            upto: self.next_seq - 1,
            names: self.names_unsynced,
            next_segment: self.next_segment,
        }
    }

    /// A sync succeeded.
    pub(super) fn synced(&mut self, point: &SyncPoint<D::Segment>) {
        self.synced = self.synced.max(point.upto);
        // Only the last segment grows, and it may have grown since.
        let last = self.next_segment - 1;
        let still = self.next_seq - 1 == point.upto;
        for (number, _) in
            point.segments.iter().filter(|(n, _)| still || *n + 1 < point.next_segment && *n < last)
        {
            self.unsynced.remove(number);
        }
        self.names_unsynced &= point.next_segment != self.next_segment;
    }

    /// Number of the newest record.
    pub(super) fn newest(&self) -> u64 {
        self.next_seq - 1
    }

    /// Whether a sync covered this record.
    pub(super) fn is_synced_upto(&self, seq: u64) -> bool {
        self.synced >= seq
    }

    /// Whether the last sync covers all records.
    pub(super) fn is_synced(&self) -> bool {
        self.is_synced_upto(self.newest())
    }

    /// The oldest segments, as far as they hold nothing dirty; never the last one.
    pub(super) fn unneeded(&self, dirty: &Dirty) -> Vec<u64> {
        let last = self.next_segment - 1;
        self.segments.keys().copied().take_while(|n| *n < last && !dirty.needs(*n)).collect()
    }

    /// Removes segments, the oldest first. What made them clean must be durable.
    pub(super) fn remove_all(&mut self, numbers: &[u64]) -> io::Result<()> {
        numbers
            .iter()
            .filter(|n| self.segments.contains_key(n))
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|n| self.remove(n))
    }

    /// Forgets everything: nothing is dirty, and the next record begins a new segment. What is left when that is interrupted
    /// says that all is clean; of a journal that does not know, it is a state that was.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        let newest = |journal: &Self| journal.segments.last_key_value().map(|(n, _)| *n);
        while let Some(number) = if self.broken { newest(self) } else { self.oldest_segment() } {
            self.remove(number)?;
        }
        self.end = None;
        self.broken = false;
        Ok(())
    }

    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.segments.first_key_value().map(|(n, _)| *n)
    }
}

/// See [`Journal::read`].
pub(super) fn read_record<S: Segment>(
    segment: &S,
    place: &Place,
    skip: u32,
    len: u64,
) -> io::Result<Vec<u8>> {
    use super::record::CHUNK;
    let first = skip as usize / CHUNK;
    let end = (skip as usize + len as usize).min(place.len as usize);
    let last = end.div_ceil(CHUNK);
    let (from, until) = (first * CHUNK, (last * CHUNK).min(place.len as usize));
    let mut bytes = vec![0; (until - from).next_multiple_of(SECTOR as usize)];
    segment.read(place.at + from as u64, &mut bytes)?;
    bytes.truncate(until - from);
    if sums(&bytes) != place.sums.get(first..last).unwrap_or_default() {
        return Err(io::Error::other("dirty data in the journal does not match its checksum"));
    }
    bytes.truncate(end - from);
    bytes.drain(..skip as usize - from);
    Ok(bytes)
}
