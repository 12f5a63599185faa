//! A control line: one cache line with one writer, a word, up to 48 bytes of payload and a mark.
//!
//! The writer stores payload and mark and then the word (release); a reader that has seen the word
//! (acquire) may read both until it lets the writer go on. Nobody ever needs a read-modify-write,
//! so a rank that dies between any two instructions leaves nothing locked.

use crate::sync::{AtomicU64, Ordering};

/// Payload bytes of a line.
pub const INLINE_BYTES: usize = 48;
const CELLS: usize = INLINE_BYTES / 8;

/// One cache line in the segment. All bit patterns are valid.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Line {
    word: AtomicU64,
    payload: [AtomicU64; CELLS],
    /// A hash of the whole call, for which the word has no room.
    mark: AtomicU64,
}

impl Default for Line {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self { word: zero(0), payload: std::array::from_fn(zero), mark: zero(0) }
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

    /// Stores what the operation of the coming post is. Only the owner may call it.
    #[inline]
    pub fn put_mark(&self, mark: u64) {
        self.mark.store(mark, Ordering::Relaxed);
    }

    /// What the operation of the post that was seen is.
    #[inline]
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Relaxed)
    }

    /// Asks for the line, which its owner may have written by now.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(std::ptr::from_ref(self).cast());
    }

    /// Asks for the line, which the caller will write.
    #[inline]
    pub fn prefetch_to_write(&self) {
        prefetch_to_write(std::ptr::from_ref(self).cast());
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

/// Asks for the cache line at `at` as its next writer; any address is allowed.
///
/// Stores become visible one after the other. A line that another core has read costs the way there and back first, and a rank
/// that only posts would wait for each of them in turn.
#[inline]
pub(crate) fn prefetch_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and processors that do not know this one do nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for the cache line at `at`; any address is allowed.
#[inline]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
