//! Reduce and reduce-scatter.

use crate::algorithm::combine::{STREAMING_MIN, combine_into};
use crate::algorithm::slots::{Slots, part, parts};
use crate::algorithm::{Call, In, Out};
use crate::core::Core;
use crate::error::Result;
use crate::kernels::stage;
use crate::schedule::{DEPTH, Steps, exchange, fan_in, slot_offset};

/// Bytes of a chunk: small enough for the caches, large enough to hide the flags.
const CHUNK: usize = 64 << 10;
/// Fewer bytes than `CHUNK` times this are cut in so many: one copies while the other does.
const PARTS: usize = 4;

/// Chunk size for slots that hold `parts` of them, and the number of chunks of `bytes`.
pub(crate) fn cut(core: &Core, bytes: usize, parts: usize) -> (usize, u64) {
    let room = core.half_bytes() / DEPTH as usize / parts;
    let chunk = CHUNK.min(bytes.div_ceil(PARTS).max(8 << 10)).min(room).next_multiple_of(64).min(room & !63);
    (chunk, bytes.div_ceil(chunk).max(1) as u64)
}

/// Start and length of chunk `c` of `bytes`.
pub(crate) fn chunk_range(c: u64, chunk: usize, bytes: usize) -> (usize, usize) {
    let start = (c as usize * chunk).min(bytes);
    (start, chunk.min(bytes - start))
}

/// Combines all ranks' elements at the root; `recv` counts there only.
pub(crate) async fn reduce(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks + 1)?;
    let fill = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        // SAFETY: the slot is ours by the schedule; the source holds the range.
        unsafe { stage(op.staging(me).add(slot_offset(c, chunk)), send.at(start), len) }
    };
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        let staged = |rank| op.staging(rank).wrapping_add(slot_offset(c, chunk)).cast_const();
        let source = |rank| if rank == me { send.at(start) } else { staged(rank) };
        // SAFETY: the peers' slots are readable by the schedule; user buffers hold the range.
        unsafe { combine_into(&call, op.size(), len, source, recv.at(start), bytes >= STREAMING_MIN) }
    };
    fan_in(&op, call.root, chunks, fill, drain).await
}

/// Combines block `rank` of all ranks' `size` blocks of `count` elements on each rank.
pub(crate) async fn reduce_scatter(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, ranks) = (call.bytes(), core.rank(), core.size());
    let (chunk, chunks) = cut(core, bytes, parts(ranks));
    let op = call.begin(core, chunks)?;
    let slots = Slots::new(&op, chunk * parts(ranks), chunks);
    let slot = |c, owner, rank: usize| slots.of(owner, c).wrapping_add(part(owner, rank) * chunk);
    let fill = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: the slot is ours by the schedule; the source holds all ranks' blocks.
            unsafe { stage(slot(c, me, rank), send.at(rank * bytes + start), len) }
        }
    };
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        let own = send.at(me * bytes + start);
        let source = |rank| if rank == me { own } else { slot(c, rank, me).cast_const() };
        // SAFETY: the peers' slots are readable by the schedule; the target holds the range.
        unsafe { combine_into(&call, ranks, len, source, recv.at(start), bytes >= STREAMING_MIN) }
    };
    exchange(&op, chunks, fill, |_| (), drain).await
}
