//! All-reduce straight from the members' buffers, where all are in the segment: each rank owns one slice, reads it from
//! all sources and writes it to all targets.
//!
//! Private buffers are not read this way: with more ranks than cores, slices by process_vm_readv took 2.4 ms for 1 MiB
//! of eight ranks, chunks through staging 1.2 (BENCH.md).

use crate::algorithm::combine::{STREAMING_MIN, combine};
use crate::algorithm::{Call, In, Out};
use crate::core::{NOT_IN_SEGMENT, Op};
use crate::error::{Error, Result};
use crate::kernels::{copy, stream, stream_fence};
use crate::schedule::Steps;

/// Publishes where this rank's buffers are; whether both are in the segment.
pub(crate) fn publish(op: &Op<'_>, call: &Call, send: In, recv: Out) -> Result<bool> {
    let offset = |at| op.core().charter.segment.offset_of(at, call.bytes());
    let (from, to) = (offset(send.0)?, offset(recv.0.cast_const())?);
    let inside = from.is_some() && to.is_some();
    let [from, to] = [from, to].map(|at| at.filter(|_| inside).map_or(NOT_IN_SEGMENT, |at| at as u64));
    op.publish([send.0 as u64, recv.0 as u64, from, to]);
    Ok(inside)
}

/// The buffers of all ranks, if all are in the segment.
pub(crate) fn all_buffers(op: &Op<'_>, bytes: usize) -> Result<Option<Vec<(*const u8, *mut u8)>>> {
    let charter = &op.core().charter;
    let mut buffers = Vec::with_capacity(op.size());
    for rank in 0..op.size() {
        let [_, _, send, recv] = op.published(rank)?;
        if send == NOT_IN_SEGMENT {
            return Ok(None);
        }
        let find = |offset| charter.segment.peer_buffer(charter.members[rank], offset, bytes);
        match (find(send), find(recv)) {
            (Some(send), Some(recv)) => buffers.push((send.cast_const(), recv)),
            _ => return Err(Error::Corrupt { rank }),
        }
    }
    Ok(Some(buffers))
}

/// Start and length of the slice of `rank`. Slices begin at multiples of a cache line so that no line has two
/// writers.
fn slice_of(call: &Call, ranks: usize, rank: usize) -> (usize, usize) {
    let slice = call.bytes().div_ceil(ranks).next_multiple_of(64);
    let start = (slice * rank).min(call.bytes());
    (start, slice.min(call.bytes() - start))
}

/// Each rank combines its slice from everybody's source and writes it to everybody's target.
pub(crate) fn straight(op: &Op<'_>, call: &Call, buffers: &[(*const u8, *mut u8)]) {
    let (start, len) = slice_of(call, op.size(), op.rank());
    let store = if call.bytes() >= STREAMING_MIN { stream } else { copy };
    let source = |rank: usize| buffers[rank].0.wrapping_add(start);
    // SAFETY: all buffers were checked to lie in the arenas of their ranks for the call's bytes; each
    // rank touches its own slice only, and all wait for all to be done.
    unsafe {
        combine(call, op.size(), len, source, |at, block, bytes| {
            for (_, target) in buffers {
                store(target.add(start + at), block, bytes);
            }
        });
    }
    stream_fence();
}
