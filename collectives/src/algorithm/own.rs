//! The block that a rank sends to itself: it is copied while the others do their part.

use crate::kernels::{copy, stage, stage_and_stream, stream, stream_fence};

/// From here on a block bypasses the caches. Shorter ones that are sent again and again stay in the third level, from where
/// they are faster.
pub(crate) const BYPASS_MIN: usize = 8 << 20;

/// A rank's own block, on its way from its source to its target.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    to: *mut u8,
    from: *const u8,
    bytes: usize,
}

impl Own {
    /// Source and target are the same place in a call that is in place.
    pub(crate) fn new(to: *mut u8, from: *const u8, bytes: usize) -> Self {
        Self { to, from, bytes }
    }

    fn is_in_place(self) -> bool {
        std::ptr::eq(self.to, self.from)
    }

    fn is_streaming(self) -> bool {
        self.bytes >= BYPASS_MIN
    }

    /// Copies all of it.
    ///
    /// # Safety
    /// Both places hold the bytes, and are equal or do not overlap.
    pub(crate) unsafe fn copy(self) {
        // SAFETY: passed on.
        unsafe { self.copy_part(0, self.bytes) }
        self.finish();
    }

    /// Copies a part of it; after the last one comes [`Own::finish`].
    ///
    /// # Safety
    /// As [`Own::copy`]; the part lies in the block.
    pub(crate) unsafe fn copy_part(self, start: usize, len: usize) {
        if self.is_in_place() {
            return;
        }
        let store = if self.is_streaming() { stream } else { copy };
        // SAFETY: passed on.
        unsafe { store(self.to.add(start), self.from.add(start), len) }
    }

    /// Copies a part of it to `place`, where others will read it, and to its target as well if that costs little more.
    ///
    /// # Safety
    /// As [`Own::copy_part`], and `place` is writable for `len` bytes.
    pub(crate) unsafe fn stage_part(self, place: *mut u8, start: usize, len: usize) {
        // SAFETY: passed on.
        unsafe {
            if self.is_streaming() && !self.is_in_place() {
                stage_and_stream([place, self.to.add(start)], self.from.add(start), len);
            } else {
                stage(place, self.from.add(start), len);
            }
        }
    }

    /// What [`Own::stage_part`] has not done.
    ///
    /// # Safety
    /// As [`Own::copy_part`].
    pub(crate) unsafe fn copy_rest_of_part(self, start: usize, len: usize) {
        if !self.is_streaming() {
            // SAFETY: passed on.
            unsafe { self.copy_part(start, len) }
        }
    }

    /// The target is complete for whoever reads it, on whatever processor.
    pub(crate) fn finish(self) {
        if self.is_streaming() {
            stream_fence();
        }
    }
}
