//! Combines one range of elements of all ranks, in rank order, in blocks that stay in the first-level cache.

use crate::algorithm::Call;
use crate::datatype::ReduceOp;
use crate::kernels::{Beside, Kernels, Target, copy, stream, stream_fence};

/// Bytes of a block: so few that the processor begins to read the next one while it still writes this one out.
const BLOCK: usize = 2 << 10;
/// From this many bytes per call on, results bypass the caches.
pub(crate) const STREAMING_MIN: usize = 1 << 20;

/// A block of scratch memory of the calling thread's stack.
#[repr(align(64))]
struct Scratch(#[allow(dead_code, reason = "used through its address")] [u8; BLOCK]);

/// Combines `len` bytes (whole elements) of `ranks` sources. `target` gets each finished block, as
/// `(offset, block, bytes)`.
///
/// # Safety
/// `source(rank)` is readable for `len` bytes for all ranks.
pub(crate) unsafe fn combine(
    call: &Call,
    ranks: usize,
    len: usize,
    source: impl Fn(usize) -> *const u8,
    mut target: impl FnMut(usize, *const u8, usize),
) {
    let mut scratch = std::mem::MaybeUninit::<Scratch>::uninit();
    let block = scratch.as_mut_ptr().cast::<u8>();
    for at in (0..len).step_by(BLOCK) {
        let bytes = BLOCK.min(len - at);
        // SAFETY: the block has room for BLOCK bytes; sources as promised.
        unsafe { combine_block(call, ranks, bytes, |rank| source(rank).wrapping_add(at), block) };
        target(at, block, bytes);
    }
}

/// Combines into `place`, which others read, and into `target`, which is this rank's own and may be its source. Not for two ranks.
///
/// # Safety
/// As [`combine`], and both targets are writable for `len` bytes.
pub(crate) unsafe fn combine_both(
    call: &Call,
    ranks: usize,
    len: usize,
    source: impl Fn(usize) -> *const u8,
    [place, target]: [*mut u8; 2],
    streaming: bool,
) {
    for at in (0..len).step_by(BLOCK) {
        let bytes = BLOCK.min(len - at);
        let source = |rank| source(rank).wrapping_add(at);
        // SAFETY: as promised.
        unsafe { both_of_block(call, ranks, bytes, source, [place.add(at), target.add(at)], streaming) }
    }
}

/// # Safety
/// As [`combine_both`].
unsafe fn both_of_block(
    call: &Call,
    ranks: usize,
    len: usize,
    source: impl Fn(usize) -> *const u8,
    to: [*mut u8; 2],
    streaming: bool,
) {
    let store = if streaming { stream } else { copy };
    // SAFETY: as promised; the last combination is the only one that writes the second target.
    unsafe {
        if call.op == ReduceOp::Average {
            combine_block(call, ranks, len, source, to[0]);
            store(to[1], to[0], len);
            return;
        }
        combine_block(call, ranks - 1, len, &source, to[0]);
        let target = Target { to: to[1], bypass: streaming, beside: Beside::Result(to[0]) };
        let count = len / call.data.bytes();
        Kernels::get().reduce((call.data, call.op), target, to[0], source(ranks - 1), count);
    }
}

/// Combines straight into `target`, which may be this rank's own source.
///
/// # Safety
/// As [`combine`], and `target` is writable for `len` bytes.
pub(crate) unsafe fn combine_into(
    call: &Call,
    ranks: usize,
    len: usize,
    source: impl Fn(usize) -> *const u8,
    target: *mut u8,
    streaming: bool,
) {
    if ranks == 2 && !streaming {
        // SAFETY: element by element, the target is written after both sources were read.
        return unsafe { combine_block(call, 2, len, source, target) };
    }
    if ranks == 2 && call.op != ReduceOp::Average {
        let target = Target { to: target, bypass: true, beside: Beside::Nothing };
        // SAFETY: as above.
        unsafe {
            Kernels::get().reduce((call.data, call.op), target, source(0), source(1), len / call.data.bytes())
        };
        return stream_fence();
    }
    let store = if streaming { stream } else { copy };
    // SAFETY: a block of the target is written after all sources of the block were read.
    unsafe { combine(call, ranks, len, source, |at, block, bytes| store(target.add(at), block, bytes)) }
    stream_fence();
}

/// Combines `len` bytes of two sources past the caches into `target` and copies as many from one place to another in the same pass.
///
/// Each core moves lines at one pace, whether they come from memory, from the other core or go past the caches (BENCH.md); what it
/// only moves within its own caches is done meanwhile.
///
/// # Safety
/// As [`combine_into`], and the copy's ranges are valid for `len` and overlap nothing else.
pub(crate) unsafe fn combine_beside(
    call: &Call,
    len: usize,
    sources: [*const u8; 2],
    target: *mut u8,
    (to, from): (*mut u8, *const u8),
) {
    let target = Target { to: target, bypass: true, beside: Beside::Copy { to, from } };
    // SAFETY: as promised.
    unsafe {
        Kernels::get().reduce((call.data, call.op), target, sources[0], sources[1], len / call.data.bytes());
    }
}

/// # Safety
/// As [`combine_into`].
#[inline]
unsafe fn combine_block(
    call: &Call,
    ranks: usize,
    len: usize,
    source: impl Fn(usize) -> *const u8,
    target: *mut u8,
) {
    let kernels = Kernels::get();
    let count = len / call.data.bytes();
    // SAFETY: promised by the caller; the target is a source itself only where ranks are two.
    unsafe {
        if ranks == 1 {
            copy(target, source(0), len);
            return;
        }
        kernels.reduce((call.data, call.op), Target::plain(target), source(0), source(1), count);
        for rank in 2..ranks {
            kernels.reduce((call.data, call.op), Target::plain(target), target, source(rank), count);
        }
        kernels.finish(call.data, call.op, target, count, ranks);
    }
}
