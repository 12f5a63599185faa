//! All-reduce straight from the members' buffers: each rank owns one slice and combines it for all.
//!
//! | buffers                | each rank, for its slice                                                    |
//! |------------------------|-----------------------------------------------------------------------------|
//! | all in the segment     | reads it from all sources and writes it to all targets                      |
//! | private, *by owners*   | reads it by process_vm_readv into its target; then the others' from theirs  |
//!
//! The second way takes three posts whatever the size: for more ranks than cores, where each post costs a turn of
//! all ranks.

use crate::algorithm::combine::{STREAMING_MIN, combine, combine_into};
use crate::algorithm::{Call, In, Out};
use crate::core::{NOT_IN_SEGMENT, Op};
use crate::error::{Error, Result};
use crate::kernels::{copy, stream, stream_fence};
use crate::schedule::{Steps, owners};

/// Posts of an operation by owners.
pub(crate) const POSTS: u64 = 3;
/// Bytes that are read from one peer at a time: with those of the result they stay in a second-level cache.
const PIECE: usize = 128 << 10;

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
    // rank touches its own slice only, and the owners wait for all ranks to be done.
    unsafe {
        combine(call, op.size(), len, source, |at, block, bytes| {
            for (_, target) in buffers {
                store(target.add(start + at), block, bytes);
            }
        });
    }
    stream_fence();
}

/// Each rank combines its slice into its own target, then reads the others' from theirs. All have posted 1.
pub(crate) async fn by_owners(op: &Op<'_>, call: &Call, send: In, recv: Out) -> Result<()> {
    let collect = |rank| {
        let (start, len) = slice_of(call, op.size(), rank);
        let [_, target, _, _] = op.published(rank)?;
        // SAFETY: the target holds the slice.
        unsafe { op.core().read_peer(rank, target.wrapping_add(start as u64), recv.at(start), len) }
    };
    owners(op, || combine_own(op, call, send, recv), collect).await?;
    op.core().check_poison()
}

fn combine_own(op: &Op<'_>, call: &Call, send: In, recv: Out) -> Result<()> {
    let (me, ranks) = (op.rank(), op.size());
    let (start, len) = slice_of(call, ranks, me);
    let piece = PIECE.min(op.core().half_bytes() / ranks) & !63;
    // This rank's own staging, which nobody else reads in this operation.
    let scratch = |rank: usize| op.staging(me).wrapping_add(rank * piece);
    for at in (0..len).step_by(piece) {
        let bytes = piece.min(len - at);
        for rank in op.peers() {
            let [source, ..] = op.published(rank)?;
            // SAFETY: staging has room for a piece of each rank.
            unsafe {
                let from = source.wrapping_add((start + at) as u64);
                op.core().read_peer(rank, from, scratch(rank), bytes)?;
            }
        }
        let source = |rank| if rank == me { send.at(start + at) } else { scratch(rank).cast_const() };
        // SAFETY: the pieces were just read; user buffers hold the slice.
        unsafe { combine_into(call, ranks, bytes, source, recv.at(start + at), false) };
    }
    Ok(())
}
