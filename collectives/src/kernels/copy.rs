//! Copies between user buffers and the segment.

#[cfg(target_arch = "x86_64")]
use super::abreast::{LINE, abreast};
#[cfg(target_arch = "x86_64")]
use crate::line::prefetch;

/// Plain copy: what is copied will be read soon.
///
/// # Safety
/// As `memcpy`; the source may be changed by a broken peer meanwhile.
#[inline]
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: passed on.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}

/// Shorter copies are left to the C library.
const STRING_MIN: usize = 1 << 10;
/// Longer ones are parts of what may be in no cache: string moves read that at 8 GB/s, this at 24.
const STRING_MAX: usize = 32 << 10;
/// How far ahead the source of a longer copy is asked for.
const AHEAD: usize = 2 << 10;

/// Copy to where others will read it. String moves take whole lines over from a core that has read them before, without
/// their contents; the C library uses them for longer copies only: 2 KiB in 0.17 us instead of 0.4.
///
/// # Safety
/// As [`copy`].
#[inline]
pub unsafe fn stage(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if len > STRING_MAX && std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature is there; the rest is passed on.
        return unsafe { stage_avx512(to, from, len) };
    }
    #[cfg(target_arch = "x86_64")]
    if len >= STRING_MIN && super::Kernels::get().strings {
        // SAFETY: the ranges are the caller's promise; the direction flag is clear by the ABI.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    // SAFETY: passed on.
    unsafe { copy(to, from, len) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stage_avx512(to: *mut u8, from: *const u8, len: usize) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_storeu_si512};
    let whole = len & !(LINE - 1);
    for at in (0..whole).step_by(LINE) {
        prefetch(from.wrapping_add(at + AHEAD));
        // SAFETY: `at + 64 <= len`; the ranges are the caller's promise.
        unsafe { _mm512_storeu_si512(to.add(at).cast(), _mm512_loadu_si512(from.add(at).cast())) }
    }
    // SAFETY: the rest of the range.
    unsafe { copy(to.add(whole), from.add(whole), len - whole) }
}

/// Copy to two places with one read of the source: [`stage`] to the first, [`stream`] to the second.
///
/// # Safety
/// As [`copy`] for both, which do not overlap.
pub unsafe fn stage_and_stream(to: [*mut u8; 2], from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") && to.iter().all(|at| at.align_offset(LINE) == 0) {
        // SAFETY: the feature is there, and so is the alignment; the rest is passed on.
        return unsafe { stage_and_stream_avx512(to, from, len) };
    }
    // SAFETY: passed on.
    unsafe {
        stage(to[0], from, len);
        stream(to[1], from, len);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stage_and_stream_avx512([place, target]: [*mut u8; 2], from: *const u8, len: usize) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_store_si512, _mm512_stream_si512};
    let whole = len & !(LINE - 1);
    for number in 0..whole / LINE {
        let at = abreast(number, whole);
        // SAFETY: `at + 64 <= len`; both targets are aligned to 64.
        unsafe {
            let line = _mm512_loadu_si512(from.add(at).cast());
            _mm512_store_si512(place.add(at).cast(), line);
            _mm512_stream_si512(target.add(at).cast(), line);
        }
    }
    // SAFETY: the rest of the range.
    unsafe {
        copy(place.add(whole), from.add(whole), len - whole);
        copy(target.add(whole), from.add(whole), len - whole);
    }
}

/// Copy of what another core has just written.
///
/// # Safety
/// As [`copy`].
pub unsafe fn fetch(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature is there; the rest is passed on.
        return unsafe { fetch_avx512(to, from, len) };
    }
    // SAFETY: passed on.
    unsafe { copy(to, from, len) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn fetch_avx512(to: *mut u8, from: *const u8, len: usize) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_storeu_si512};
    let whole = len & !(LINE - 1);
    for number in 0..whole / LINE {
        let at = abreast(number, whole);
        // SAFETY: `at + 64 <= len`; the ranges are the caller's promise.
        unsafe { _mm512_storeu_si512(to.add(at).cast(), _mm512_loadu_si512(from.add(at).cast())) }
    }
    // SAFETY: the rest of the range.
    unsafe { copy(to.add(whole), from.add(whole), len - whole) }
}

/// Copy that leaves nothing of the target in the caches and saves reading it first.
///
/// # Safety
/// As [`copy`].
pub unsafe fn copy_streaming(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: passed on.
    unsafe { stream(to, from, len) }
    stream_fence();
}

/// [`copy_streaming`] in pieces: other processors see what was written in order only after a [`stream_fence`],
/// which would stall each piece.
///
/// # Safety
/// As [`copy`].
pub unsafe fn stream(to: *mut u8, from: *const u8, len: usize) {
    let head = to.align_offset(64).min(len);
    let body = (len - head) & !63;
    // SAFETY: the three parts make up the range; `to + head` is a multiple of 64 if `body` is not zero.
    unsafe {
        copy(to, from, head);
        stream_body(to.add(head), from.add(head), body);
        copy(to.add(head + body), from.add(head + body), len - head - body);
    }
}

/// Orders what [`stream`] wrote before everything that follows.
#[inline]
pub fn stream_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn stream_body(to: *mut u8, from: *const u8, len: usize) {
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature is there; alignment and length are the caller's promise.
        unsafe { stream_avx512(to, from, len) }
    } else {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { stream_sse2(to, from, len) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream_body(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: passed on.
    unsafe { copy(to, from, len) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stream_avx512(to: *mut u8, from: *const u8, len: usize) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_stream_si512};
    for number in 0..len / LINE {
        let at = abreast(number, len);
        // SAFETY: `at + 64 <= len`, as `len` is a multiple of 64; `to` is aligned to 64.
        unsafe { _mm512_stream_si512(to.add(at).cast(), _mm512_loadu_si512(from.add(at).cast())) }
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn stream_sse2(to: *mut u8, from: *const u8, len: usize) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};
    for at in (0..len).step_by(16) {
        // SAFETY: `at + 16 <= len`, as `len` is a multiple of 64; `to` is aligned to 16.
        unsafe { _mm_stream_si128(to.add(at).cast(), _mm_loadu_si128(from.add(at).cast())) }
    }
}
