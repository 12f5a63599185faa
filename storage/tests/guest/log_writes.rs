//! The log of dm-log-writes (kernel, Documentation/admin-guide/device-mapper/log-writes.rst), and disks as a power cut
//! leaves them.
//!
//! ```text
//!   super | entry data | entry data | … | entry(flush) | … | entry(mark) …
//!   |-- durable -------------------------^--- any subset of these sectors ----^ the next flush
//! ```
//! The target logs a plain write once a flush has covered it, and a write with FUA at once. So what stands between two flushes
//! was not durable when the second one was issued: a power cut before that keeps any part of it, and all of it that had FUA.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use migshare_storage::random::Random;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// The whole disk.
pub(crate) const ANYWHERE: Range<u64> = 0..u64::MAX;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Byte position on the disk.
    at: u64,
    len: u64,
    /// Byte position of the data in the log.
    data: u64,
    flags: u64,
    /// Text of a mark.
    pub(crate) mark: Option<String>,
}

/// A whole log.
pub(crate) struct Log {
    file: File,
    sector: u64,
    pub(crate) entries: Vec<Entry>,
}

fn number(bytes: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(bytes[index * 8..][..8].try_into().unwrap())
}

/// Bytes at the start of a file system that are written whole or not at all.
const SUPERBLOCK: u64 = 4096;

impl Log {
    pub(crate) fn read(file: File) -> io::Result<Self> {
        let mut head = [0; 32];
        file.read_exact_at(&mut head, 0)?;
        assert_eq!((number(&head, 0), number(&head, 1)), (MAGIC, 1), "not a log of dm-log-writes");
        let sector = number(&head, 3) & 0xffff_ffff;
        let mut entries = Vec::new();
        let mut at = sector;
        for _ in 0..number(&head, 2) {
            let mut header = vec![0; sector as usize];
            file.read_exact_at(&mut header, at)?;
            let field = |i| number(&header, i);
            let (flags, text) = (field(2), &header[32..32 + (field(3) as usize).min(header.len() - 32)]);
            let mark =
                (flags & MARK != 0).then(|| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
            let len = field(1) * sector;
            entries.push(Entry { at: field(0) * sector, len, data: at + sector, flags, mark });
            at += sector + if flags & DISCARD == 0 { len } else { 0 };
        }
        Ok(Self { file, sector, entries })
    }

    /// Texts with where they stand.
    pub(crate) fn marks(&self) -> Vec<(usize, String)> {
        self.entries.iter().enumerate().filter_map(|(i, e)| Some((i, e.mark.clone()?))).collect()
    }

    /// Where flushes are: the end of what is durable for sure.
    pub(crate) fn flushes(&self) -> Vec<usize> {
        let flushes = self.entries.iter().enumerate().filter(|(_, e)| e.flags & FLUSH != 0);
        flushes.map(|(i, _)| i).collect()
    }

    /// Carries out some entries in full.
    pub(crate) fn apply(&self, entries: Range<usize>, disk: &File) -> io::Result<()> {
        self.apply_at(entries, ANYWHERE, disk)
    }

    /// The same for a part of the disk.
    pub(crate) fn apply_at(&self, entries: Range<usize>, part: Range<u64>, disk: &File) -> io::Result<()> {
        let mut here = self.entries[entries].iter().filter(|e| part.contains(&e.at));
        here.try_for_each(|entry| self.apply_part(entry, 0, entry.len, disk))
    }

    /// Carries out what a power cut left of some entries that no flush covered, in a part of the disk.
    pub(crate) fn apply_some(
        &self,
        entries: Range<usize>,
        part: Range<u64>,
        disk: &File,
        dice: &mut Random,
    ) -> io::Result<()> {
        // How much is lost differs from cut to cut: nothing, everything, or some of it.
        let kept = [0, 10, 50, 90, 100][dice.below(5) as usize];
        for entry in self.entries[entries].iter().filter(|e| part.contains(&e.at)) {
            if entry.flags & FUA != 0 {
                self.apply_part(entry, 0, entry.len, disk)?;
                continue;
            }
            let mut from = 0;
            while from < entry.len {
                // Runs of sectors, because disks write in runs. The first 4 KiB hold ext4's superblock, which no mount survives in
                // halves: its sum is checked, and nobody but e2fsck takes one of the copies.
                let (run, at) = (self.sector << dice.below(6), entry.at + from - part.start);
                let run = if at < SUPERBLOCK { SUPERBLOCK - at } else { run }.min(entry.len - from);
                if dice.below(100) < kept {
                    self.apply_part(entry, from, run, disk)?;
                }
                from += run;
            }
        }
        Ok(())
    }

    fn apply_part(&self, entry: &Entry, from: u64, len: u64, disk: &File) -> io::Result<()> {
        if entry.mark.is_some() || len == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; len as usize];
        // Discarded sectors read as zeros on these disks.
        if entry.flags & DISCARD == 0 {
            self.file.read_exact_at(&mut bytes, entry.data + from)?;
        }
        disk.write_all_at(&bytes, entry.at + from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of (sector, byte that fills it, flags), and marks.
    fn log(entries: &[(u64, u8, u64)]) -> Log {
        let file = tempfile::tempfile().unwrap();
        let mut at = 512;
        for (sector, byte, flags) in entries {
            let sectors = u64::from(*byte != 0);
            let head = [*sector, sectors, *flags, if flags & MARK != 0 { 4 } else { 0 }];
            let mut block: Vec<u8> = head.iter().flat_map(|n| n.to_le_bytes()).collect();
            block.extend(b"here");
            file.write_all_at(&block, at).unwrap();
            at += 512;
            if sectors == 1 && flags & DISCARD == 0 {
                file.write_all_at(&[*byte; 512], at).unwrap();
                at += 512;
            }
        }
        file.set_len(at + 512).unwrap();
        let head = [MAGIC, 1, entries.len() as u64, 512];
        let head: Vec<u8> = head.iter().flat_map(|n| n.to_le_bytes()).collect();
        file.write_all_at(&head, 0).unwrap();
        Log::read(file).unwrap()
    }

    fn sector(disk: &File, number: u64) -> u8 {
        let mut byte = [0];
        disk.read_exact_at(&mut byte, number * 512).unwrap();
        byte[0]
    }

    #[test]
    fn a_log_is_read_and_replayed_up_to_any_entry() {
        let log = log(&[(1, 7, 0), (2, 8, FLUSH), (0, 0, MARK), (1, 9, FUA), (2, 1, DISCARD)]);
        assert_eq!(log.flushes(), [1]);
        assert_eq!(log.entries[2].mark.as_deref(), Some("here"));
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(4096).unwrap();
        for (until, expected) in [(1, [7, 0]), (2, [7, 8]), (3, [7, 8]), (4, [9, 8]), (5, [9, 0])] {
            log.apply(until - 1..until, &disk).unwrap();
            assert_eq!([sector(&disk, 1), sector(&disk, 2)], expected, "after {until}");
        }
    }

    #[test]
    fn a_power_cut_keeps_any_part_of_plain_writes_and_all_of_those_with_fua() {
        let log = log(&[(1, 7, 0), (2, 8, 0), (3, 9, FUA)]);
        let mut dice = Random(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let disk = tempfile::tempfile().unwrap();
            disk.set_len(4096).unwrap();
            log.apply_some(0..3, ANYWHERE, &disk, &mut dice).unwrap();
            assert_eq!(sector(&disk, 3), 9);
            seen.insert((sector(&disk, 1), sector(&disk, 2)));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 8), (7, 0), (7, 8)]);
    }
}
