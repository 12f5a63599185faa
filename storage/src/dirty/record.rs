//! Records, and how they lie on the disk: one header sector, then the bytes, padded to a sector.
//!
//! ```text
//!   0 "migshdj" format | 8 number | 16 synced | 24 first | 32 file | 40 offset | 48 len | 52 kind | 56 time
//!   64 CRC32C of each 16 KiB of the bytes (64 of them) | 320 was | 328 nonce | … | 508 CRC32C of the header
//! ```
//! Little-endian. `synced`: records up to this one were durable when this one was written. `first`: the first record of the
//! oldest segment then. `nonce`: drawn for each segment, so that bytes of files cannot pass for headers. A write and a move
//! carry bytes of the file; all other records carry JSON.

use serde::{Deserialize, Serialize};

use crate::cache::FileKey;

/// The newest format that this code reads, and the one that it writes.
pub(super) const FORMAT: u8 = 1;
/// Bytes of a sector; headers and bytes begin at multiples of it.
pub(super) const SECTOR: u64 = 512;
/// Bytes under one checksum.
pub(super) const CHUNK: usize = 16 << 10;
/// Most bytes of a record.
pub const LARGEST: usize = 1 << 20;

const MAGIC: &[u8; 7] = b"migshdj";
const KIND_WRITE: u32 = 0;
const KIND_OTHER: u32 = 1;
const KIND_MOVE: u32 = 2;
const WAS: usize = 320;

/// A dirty file in its journal. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u64);

/// A value with the number of the record that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At<T> {
    /// The record.
    pub seq: u64,
    /// The value.
    pub value: T,
}

/// What tells one content of a file at the backend from another. Changes of rights do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
}

/// How to find a file after a crash, and on whose behalf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file in the cache's terms: backend and inode.
    #[serde(with = "key")]
    pub key: FileKey,
    /// Birth time in nanoseconds since the epoch, 0 where the backend has none.
    pub btime: i64,
    /// Names below the backend's root, as bytes, newest last. Hints: the inode and its birth decide.
    pub paths: Vec<Vec<u8>>,
    /// Who wrote.
    pub uid: u32,
    /// With which group.
    pub gid: u32,
    /// And which supplementary groups.
    pub groups: Vec<u32>,
    /// Its last name was about to be removed through this mount.
    pub unlinking: bool,
}

/// What a segment's head says of a dirty file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The backend's content that the changes were made to.
    pub base: Base,
    /// A flush was begun whose end is not known.
    pub flushing: bool,
    /// The oldest change that is not flushed: nanoseconds since the epoch.
    pub since: At<i64>,
    /// The smallest size it was cut to that the backend has not seen: what lies behind it there is void. For versions that know
    /// no `cuts`.
    pub cut: Option<At<u64>>,
    /// The sizes it was cut to that the backend has not seen, oldest first. One that a later one was not larger than is left out,
    /// so that the first one after any record is the smallest since.
    #[serde(default)]
    pub cuts: Vec<At<u64>>,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// The last record that set size or time, unless the backend has them.
    pub touched: Option<u64>,
}

/// One step of a file's dirty state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A clean file becomes dirty.
    Begin {
        /// How to find it again.
        origin: Origin,
        /// The backend's content now.
        base: Base,
    },
    /// At the head of a segment: what older segments said, but for bytes.
    State {
        /// How to find it again.
        origin: Origin,
        /// The rest.
        meta: Meta,
    },
    /// Bytes; the record carries them.
    Write {
        /// Where in the file.
        offset: u64,
    },
    /// A copy of the bytes of an older record, so that its segment can go.
    Move {
        /// Where in the file.
        offset: u64,
        /// Number of the older record.
        was: u64,
    },
    /// The file got this size, by truncation.
    Cut {
        /// In bytes.
        size: u64,
    },
    /// The file got this modification time.
    Touch {
        /// Nanoseconds since the epoch.
        mtime: i64,
    },
    /// From now on the backend may hold a part of it.
    Flushing,
    /// The backend holds, durably, what was planned.
    Flushed {
        /// Writes up to this record.
        upto: u64,
        /// The cut of this record.
        cut_upto: u64,
        /// Size and time as well.
        whole: bool,
        /// The backend's content now.
        base: Base,
    },
    /// It is about to get another name.
    Named {
        /// Below the backend's root.
        path: Vec<u8>,
    },
    /// Its last name is about to go.
    Unlinking,
    /// Nothing is to be flushed any more: it was unlinked and closed, or kept as a conflict file.
    Gone,
}

/// The first sector of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) seq: u64,
    pub(super) synced: u64,
    pub(super) first: u64,
    pub(super) nonce: u64,
    pub(super) file: FileId,
    pub(super) time: i64,
    pub(super) body: Body,
    pub(super) len: u32,
    pub(super) sums: Vec<u32>,
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Bytes of the file, from this offset on.
    Write { offset: u64 },
    /// The same, copied from an older record.
    Move { offset: u64, was: u64 },
    /// JSON of a [`Change`].
    Other,
}

impl Body {
    pub(super) fn of(change: &Change) -> Self {
        match *change {
            Change::Write { offset } => Self::Write { offset },
            Change::Move { offset, was } => Self::Move { offset, was },
            _ => Self::Other,
        }
    }

    /// The change, from the record's bytes where they say it.
    pub(super) fn change(self, bytes: impl FnOnce() -> Option<Change>) -> Option<Change> {
        match self {
            Self::Write { offset } => Some(Change::Write { offset }),
            Self::Move { offset, was } => Some(Change::Move { offset, was }),
            Self::Other => bytes(),
        }
    }

    fn words(self) -> (u32, u64, u64) {
        match self {
            Self::Write { offset } => (KIND_WRITE, offset, 0),
            Self::Move { offset, was } => (KIND_MOVE, offset, was),
            Self::Other => (KIND_OTHER, 0, 0),
        }
    }
}

/// What a sector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sector {
    Header(Header),
    /// A header of a later format.
    Newer(u8),
    /// Anything else.
    Other,
}

/// Checksums of a record's bytes.
pub(super) fn sums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(CHUNK).map(crc32c::crc32c).collect()
}

impl Header {
    pub(super) fn encode(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let (kind, offset, was) = self.body.words();
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        for word in [self.seq, self.synced, self.first, self.file.0, offset] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(self.time.to_le_bytes());
        self.sums.iter().for_each(|sum| bytes.extend(sum.to_le_bytes()));
        bytes.resize(WAS, 0);
        bytes.extend(was.to_le_bytes());
        bytes.extend(self.nonce.to_le_bytes());
        let (body, check) = sector.split_at_mut(SECTOR as usize - 4);
        body.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        check.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        sector
    }

    /// Bytes that the record takes, with its header.
    pub(super) fn span(len: usize) -> u64 {
        SECTOR + (len as u64).next_multiple_of(SECTOR)
    }
}

impl Sector {
    pub(super) fn decode(sector: &[u8]) -> Self {
        Self::try_decode(sector).unwrap_or(Self::Other)
    }

    fn try_decode(sector: &[u8]) -> Option<Self> {
        let (body, check) = sector.split_at_checked(SECTOR as usize - 4)?;
        if !body.starts_with(MAGIC) {
            return None;
        }
        if body[7] > FORMAT {
            return Some(Self::Newer(body[7]));
        }
        if crc32c::crc32c(body).to_le_bytes() != *check {
            return None;
        }
        let word = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let half = |at: usize| body[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let len = half(48)?;
        if len as usize > LARGEST {
            return None;
        }
        let count = (len as usize).div_ceil(CHUNK);
        Some(Self::Header(Header {
            seq: word(8)?,
            synced: word(16)?,
            first: word(24)?,
            nonce: word(WAS + 8)?,
            file: FileId(word(32)?),
            time: word(56)?.cast_signed(),
            body: match half(52)? {
                KIND_WRITE => Body::Write { offset: word(40)? },
                KIND_MOVE => Body::Move { offset: word(40)?, was: word(WAS)? },
                _ => Body::Other,
            },
            len,
            sums: (0..count).map(|i| half(64 + i * 4)).collect::<Option<_>>()?,
        }))
    }
}

/// The key as two numbers.
mod key {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::cache::FileKey;

    pub(super) fn serialize<S: Serializer>(key: &FileKey, to: S) -> Result<S::Ok, S::Error> {
        (key.backend, key.inode).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FileKey, D::Error> {
        let (backend, inode) = Deserialize::deserialize(from)?;
        Ok(FileKey { backend, inode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_sector_and_every_flipped_bit_is_noticed() {
        let header = Header {
            seq: 7,
            synced: 5,
            nonce: 77,
            first: 3,
            file: FileId(9),
            time: -3,
            body: Body::Move { offset: 1 << 40, was: 4 },
            len: 40_000,
            sums: vec![1, 2, 3],
        };
        let good = header.encode();
        assert_eq!(Sector::decode(&good), Sector::Header(header.clone()));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Sector::decode(&bad), Sector::Header(header.clone()), "bit {bit}");
        }
        assert_eq!(Sector::decode(&[0; 512]), Sector::Other);
        assert_eq!(Sector::decode(&good[..100]), Sector::Other);
    }

    #[test]
    fn a_later_format_is_told_from_garbage() {
        let mut sector = [0; 512];
        sector[..8].copy_from_slice(b"migshdj\x02");
        assert_eq!(Sector::decode(&sector), Sector::Newer(2));
    }
}
