//! Combines one range of elements of all ranks, in rank order, in blocks that stay in the first-level cache.

use crate::algorithm::Call;
use crate::datatype::ReduceOp;
use crate::kernels::{Kernels, copy, stream, stream_fence};

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
        unsafe { combine_block(call, ranks, bytes, |rank| source(rank).wrapping_add(at), block, false) };
        target(at, block, bytes);
    }
}

/// Combines into `place`, which others read, and into `target`, which is this rank's own and may be its source.
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
    // Two sources are read once for both targets; more, in blocks that stay near.
    let step = if ranks == 2 { len.max(1) } else { BLOCK };
    for at in (0..len).step_by(step) {
        let bytes = step.min(len - at);
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
            combine_block(call, ranks, len, source, to[0], false);
            store(to[1], to[0], len);
            return;
        }
        let first = if ranks > 2 { to[0].cast_const() } else { source(0) };
        if ranks > 2 {
            combine_block(call, ranks - 1, len, &source, to[0], false);
        }
        let count = len / call.data.bytes();
        Kernels::get().reduce_both((call.data, call.op), to, first, source(ranks - 1), count, streaming);
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
    if ranks == 2 && (!streaming || call.op != ReduceOp::Average) {
        // SAFETY: element by element, the target is written after both sources were read.
        unsafe { combine_block(call, 2, len, source, target, streaming) };
        return stream_fence();
    }
    let store = if streaming { stream } else { copy };
    // SAFETY: a block of the target is written after all sources of the block were read.
    unsafe { combine(call, ranks, len, source, |at, block, bytes| store(target.add(at), block, bytes)) }
    stream_fence();
}

/// With `bypass` past the caches, which is for two ranks and no average: all else reads the target again.
///
/// # Safety
/// As [`combine_into`].
#[inline]
unsafe fn combine_block(
    call: &Call,
    ranks: usize,
    len: usize,
    source: impl Fn(usize) -> *const u8,
    target: *mut u8,
    bypass: bool,
) {
    let kernels = Kernels::get();
    let count = len / call.data.bytes();
    // SAFETY: promised by the caller; the target is a source itself only where ranks are two.
    unsafe {
        if ranks == 1 {
            copy(target, source(0), len);
            return;
        }
        kernels.reduce((call.data, call.op), target, source(0), source(1), count, bypass);
        for rank in 2..ranks {
            kernels.reduce((call.data, call.op), target, target, source(rank), count, bypass);
        }
        kernels.finish(call.data, call.op, target, count, ranks);
    }
}
