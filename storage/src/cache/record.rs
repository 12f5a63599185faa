//! What one sector of the index says about one slot.

use super::{BLOCK, BLOCKS, EXTENT};

/// A file of a backend: which backend, and the inode there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Identity of the backend file system.
    pub backend: u64,
    /// Inode number.
    pub inode: u64,
}

/// What must be equal for two looks at a file to see the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// Change time in nanoseconds since the epoch.
    pub ctime: i64,
    /// Birth time in nanoseconds since the epoch, 0 where the backend has none: tells apart two files that had the same
    /// inode number one after the other.
    pub btime: i64,
    /// What the generation of its inode makes of it, 0 where the backend has none: the same, also where clocks were set back.
    pub generation: u64,
    /// Lustre's version of its data, 0 elsewhere.
    pub data_version: u64,
}

/// 256 KiB of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The file.
    pub file: FileKey,
    /// Which 256 KiB.
    pub number: u64,
}

/// A slot's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) extent: Extent,
    pub(super) version: Version,
    /// Bit n: block n is valid.
    pub(super) valid: u64,
    pub(super) checksums: [u32; BLOCKS as usize],
}

const MAGIC: &[u8; 8] = b"migshst1";

impl Record {
    /// One sector.
    pub(super) const BYTES: usize = 512;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut sector = [0; Self::BYTES];
        let v = &self.version;
        let words = [
            u64::from_le_bytes(*MAGIC),
            self.extent.file.backend,
            self.extent.file.inode,
            self.extent.number,
            v.size,
            v.mtime.cast_unsigned(),
            v.ctime.cast_unsigned(),
            v.btime.cast_unsigned(),
            self.valid,
        ];
        let sums = self.checksums.iter().flat_map(|s| s.to_le_bytes());
        let late = [v.generation, v.data_version];
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()).chain(sums);
        let bytes = bytes.chain(late.iter().flat_map(|w| w.to_le_bytes()));
        let (body, check) = sector.split_at_mut(Self::BYTES - 4);
        body.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        check.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        sector
    }

    /// `None` for anything that was not written whole by [`Self::encode`].
    pub(super) fn decode(sector: &[u8]) -> Option<Self> {
        let (body, check) = sector.split_at_checked(Self::BYTES - 4)?;
        if !body.starts_with(MAGIC) || crc32c::crc32c(body).to_le_bytes() != *check {
            return None;
        }
        let word = |i: usize| body[i * 8..i * 8 + 8].try_into().map(u64::from_le_bytes).ok();
        let sum = |i: usize| body[72 + i * 4..76 + i * 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
        Some(Self {
            extent: Extent { file: FileKey { backend: word(1)?, inode: word(2)? }, number: word(3)? },
            version: Version {
                size: word(4)?,
                mtime: word(5)?.cast_signed(),
                ctime: word(6)?.cast_signed(),
                btime: word(7)?.cast_signed(),
                // Zeros in records that were written before these were asked for.
                generation: word(41)?,
                data_version: word(42)?,
            },
            valid: word(8)?,
            checksums: std::array::from_fn(sum),
        })
    }
}

/// Blocks of an extent that lie inside a file of `size` bytes, as a mask.
pub(super) fn blocks_inside(number: u64, size: u64) -> u64 {
    let bytes = size.saturating_sub(number * EXTENT).min(EXTENT);
    mask(0, bytes.div_ceil(BLOCK))
}

/// Bits `first..end`.
pub(super) fn mask(first: u64, end: u64) -> u64 {
    let low = |n: u64| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    low(end) & !low(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            extent: Extent { file: FileKey { backend: 3, inode: 4 }, number: 5 },
            version: Version { size: 6, mtime: -7, ctime: 8, btime: 9, generation: 10, data_version: 11 },
            valid: 0b101,
            checksums: std::array::from_fn(|i| i as u32 * 77),
        }
    }

    #[test]
    fn a_record_survives_the_sector() {
        assert_eq!(Record::decode(&record().encode()), Some(record()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = record().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&bad), None, "bit {bit}");
        }
        assert_eq!(Record::decode(&[0; 512]), None);
        assert_eq!(Record::decode(&good[..511]), None);
    }

    #[test]
    fn blocks_inside_a_file_end_with_its_last_byte() {
        assert_eq!(blocks_inside(0, 1), 1);
        assert_eq!(blocks_inside(0, EXTENT), u64::MAX);
        assert_eq!(blocks_inside(1, EXTENT), 0);
        assert_eq!(blocks_inside(1, EXTENT + BLOCK + 1), 0b11);
    }
}
