//! A control line: one cache line with one writer, a word and up to 56 bytes of payload.
//!
//! The writer stores the payload and then the word (release); a reader that has seen the word
//! (acquire) may read the payload until it lets the writer go on. Nobody ever needs a read-modify-write,
//! so a rank that dies between any two instructions leaves nothing locked.

use crate::sync::{AtomicU64, Ordering};

/// Payload bytes of a line.
pub const INLINE_BYTES: usize = 56;
const CELLS: usize = INLINE_BYTES / 8;

/// One cache line in the segment. All bit patterns are valid.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Line {
    word: AtomicU64,
    payload: [AtomicU64; CELLS],
}

impl Default for Line {
    fn default() -> Self {
        Self { word: AtomicU64::new(0), payload: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Line {
    /// Publishes `word` and everything that the caller wrote before it.
    #[inline]
    pub fn post(&self, word: u64) {
        self.word.store(word, Ordering::Release);
    }

    /// The current word; what its owner wrote before it is visible afterwards.
    #[inline]
    pub fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// Stores `bytes` (at most [`INLINE_BYTES`]) as payload. Only the owner may call it.
    #[inline]
    pub fn put(&self, bytes: &[u8]) {
        for (cell, part) in self.payload.iter().zip(bytes.chunks(8)) {
            let mut raw = [0; 8];
            raw[..part.len()].copy_from_slice(part);
            cell.store(u64::from_ne_bytes(raw), Ordering::Relaxed);
        }
    }

    /// Reads the payload into `bytes` (at most [`INLINE_BYTES`]).
    #[inline]
    pub fn get(&self, bytes: &mut [u8]) {
        for (cell, part) in self.payload.iter().zip(bytes.chunks_mut(8)) {
            let raw = cell.load(Ordering::Relaxed).to_ne_bytes();
            let len = part.len();
            part.copy_from_slice(&raw[..len]);
        }
    }
}
