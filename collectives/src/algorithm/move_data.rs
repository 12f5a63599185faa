//! Collectives that move data without combining it: broadcast, gather, scatter, all-gather, all-to-all.

use crate::algorithm::combine::STREAMING_MIN;
use crate::algorithm::lend::{Offer, is_lent, publish, read_from};
use crate::algorithm::own::{BYPASS_MIN, Own};
use crate::algorithm::reduce::{chunk_range, cut};
use crate::algorithm::slots::{Slots, part, parts};
use crate::algorithm::trials::Way;
use crate::algorithm::{Call, In, Out, pulls};
use crate::core::Core;
use crate::error::Result;
use crate::kernels::{copy_streaming, fetch, stage, stream, stream_fence};
use crate::schedule::{Steps, exchange, fan_in, fan_out, lend, slot_offset};

/// Copies what `root` has in `buffer` to everybody's `buffer`.
pub(crate) async fn broadcast(core: &Core, call: Call, buffer: Out) -> Result<()> {
    spread(core, call, 1, In(buffer.0), buffer, None).await
}

/// Hands block `rank` of the root's buffer to each rank.
pub(crate) async fn scatter(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, ranks) = (call.bytes(), core.rank(), core.size());
    let own = (me == call.root).then(|| Own::new(recv.0, send.at(me * bytes), bytes));
    spread(core, call, ranks, send, recv, own).await
}

/// The root's data to everybody: one block for all, or one of `blocks` for each rank. The root copies its `own` block while the
/// others take theirs.
async fn spread(core: &Core, call: Call, blocks: usize, send: In, recv: Out, own: Option<Own>) -> Result<()> {
    let (bytes, me, root) = (call.bytes(), core.rank(), call.root);
    let (chunk, chunks) = cut(core, bytes, blocks);
    let op = call.begin(core, chunks + 1)?;
    let block = |rank: usize| rank % blocks;
    let slot = |c, rank| op.staging(root).wrapping_add(slot_offset(c, chunk * blocks) + block(rank) * chunk);
    let copy_own = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        // SAFETY: the root's source holds a block per rank.
        own.iter().for_each(|own| unsafe { own.copy_part(start, len) });
    };
    let fill = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers().take(blocks) {
            // SAFETY: the schedule gives the slots to the root, then to the readers; buffers hold the ranges.
            unsafe { stage(slot(c, rank), send.at(block(rank) * bytes + start), len) };
        }
    };
    if me == root {
        op.gate().await?;
        let offer = Offer::publish(&op, &call, send, bytes * blocks)?;
        match offer.way {
            Way::Lent => lend(&op, chunks, || (0..chunks).for_each(copy_own), op.peers()).await?,
            Way::Staged => fan_out(&op, root, chunks, fill, copy_own, |_| ()).await?,
        }
        own.iter().for_each(|own| own.finish());
        if offer.waits() {
            op.reach_all(chunks + 1).await?;
        }
        offer.close(&op);
        return Ok(());
    }
    op.reach(root, 1).await?;
    if is_lent(&op, root)? {
        read_from(&op, root, block(me) * bytes, recv, bytes)?;
        op.post(chunks + 1);
        return core.check_poison();
    }
    // SAFETY: as above.
    let drain = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        store_for(bytes)(recv.at(start), slot(c, me), len);
    };
    fan_out(&op, root, chunks, |_| (), |_| (), drain).await
}

/// Collects one block of each rank at the root, in rank order.
pub(crate) async fn gather(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, root) = (call.bytes(), core.rank(), call.root);
    if me == root {
        // SAFETY: the root's target holds a block per rank.
        unsafe { Own::new(recv.at(me * bytes), send.0, bytes).copy() };
    }
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks + 1)?;
    let slot = |c, rank| op.staging(rank).wrapping_add(slot_offset(c, chunk));
    // SAFETY: the schedule gives the slots to their owners, then to the root; buffers hold the ranges.
    let fill = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        stage(slot(c, me), send.at(start), len);
    };
    if me != root {
        op.gate().await?;
        let offer = Offer::publish(&op, &call, send, bytes)?;
        match offer.way {
            Way::Lent => lend(&op, chunks, || (), std::iter::once(root)).await?,
            Way::Staged => fan_in(&op, root, chunks, fill, |_| ()).await?,
        }
        if offer.waits() {
            op.reach(root, chunks + 1).await?;
        }
        offer.close(&op);
        return Ok(());
    }
    op.reach_all(1).await?;
    let mut staged = Vec::with_capacity(op.size());
    for rank in op.peers() {
        if is_lent(&op, rank)? {
            read_from(&op, rank, 0, Out(recv.at(rank * bytes)), bytes)?;
        } else {
            staged.push(rank);
        }
    }
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in &staged {
            // SAFETY: as above.
            unsafe { store_for(bytes)(recv.at(rank * bytes + start), slot(c, *rank), len) };
        }
    };
    fan_in(&op, root, chunks, |_| (), drain).await?;
    core.check_poison()
}

/// Collects one block of each rank on all ranks, in rank order.
pub(crate) async fn all_gather(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    let own = Own::new(recv.at(me * bytes), send.0, bytes);
    if pulls(core, call.kind, bytes) {
        return pull(core, call, (send, bytes), 0, recv, own).await;
    }
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks)?;
    let slots = Slots::new(&op, chunk, chunks);
    let slot = |c, rank| slots.of(rank, c);
    // SAFETY: the schedule gives the slots to their owners, then to the readers; buffers hold the ranges.
    let fill = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        own.stage_part(slot(c, me), start, len);
    };
    // SAFETY: the target holds a block per rank.
    let meanwhile = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        own.copy_rest_of_part(start, len);
    };
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: as above.
            unsafe { drain_for(bytes)(recv.at(rank * bytes + start), slot(c, rank), len) };
        }
    };
    exchange(&op, chunks, fill, meanwhile, drain).await?;
    finish_parts(bytes);
    Ok(())
}

/// Sends block `i` of each rank to rank `i`; blocks arrive in rank order.
pub(crate) async fn all_to_all(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    let own = Own::new(recv.at(me * bytes), send.at(me * bytes), bytes);
    // All ranks must agree on being in place: as the "root" it is part of the signature.
    let in_place = std::ptr::eq(send.0, recv.0);
    let call = Call { root: usize::from(in_place), ..call };
    if pulls(core, call.kind, bytes) && !in_place {
        return pull(core, call, (send, bytes * core.size()), me * bytes, recv, own).await;
    }
    staged_all_to_all(core, call, send, recv, own).await
}

async fn staged_all_to_all(core: &Core, call: Call, send: In, recv: Out, own: Own) -> Result<()> {
    let (bytes, me, ranks) = (call.bytes(), core.rank(), core.size());
    let (chunk, chunks) = cut(core, bytes, parts(ranks));
    let op = call.begin(core, chunks)?;
    let slots = Slots::new(&op, chunk * parts(ranks), chunks);
    let slot = |c, owner, rank: usize| slots.of(owner, c).wrapping_add(part(owner, rank) * chunk);
    let fill = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: the schedule gives the slots to their owners, then to the readers; buffers hold the ranges.
            unsafe { stage(slot(c, me, rank), send.at(rank * bytes + start), len) };
        }
    };
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: as above.
            unsafe { drain_for(bytes)(recv.at(rank * bytes + start), slot(c, rank, me), len) };
        }
    };
    // SAFETY: both buffers hold a block per rank.
    let meanwhile = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        own.copy_part(start, len);
    };
    exchange(&op, chunks, fill, meanwhile, drain).await?;
    finish_parts(bytes);
    Ok(())
}

/// Copies one of several parts of `bytes`; after the last one comes [`finish_parts`].
fn drain_for(bytes: usize) -> unsafe fn(*mut u8, *const u8, usize) {
    if bytes >= STREAMING_MIN { stream } else { fetch }
}

/// All parts are complete for whoever reads them, those of a rank's own block too, which bypass the caches from more bytes on.
fn finish_parts(bytes: usize) {
    const { assert!(BYPASS_MIN >= STREAMING_MIN) };
    if bytes >= STREAMING_MIN {
        stream_fence();
    }
}

pub(crate) fn store_for(bytes: usize) -> unsafe fn(*mut u8, *const u8, usize) {
    if bytes >= STREAMING_MIN { copy_streaming } else { fetch }
}

/// Each rank takes `bytes` straight out of the memory of all others, from `offset` of their sources to its own target.
///
/// Step 1 publishes the address, step 2 says that this rank has read all it wanted; a rank leaves only when all have said so.
async fn pull(
    core: &Core,
    call: Call,
    (source, length): (In, usize),
    offset: usize,
    recv: Out,
    own: Own,
) -> Result<()> {
    let bytes = call.bytes();
    let op = call.begin(core, 2)?;
    op.gate().await?;
    publish(&op, source, length)?;
    op.post(1);
    // SAFETY: source and target hold this rank's block.
    unsafe { own.copy() };
    for rank in op.peers() {
        op.reach(rank, 1).await?;
        read_from(&op, rank, offset, Out(recv.at(rank * bytes)), bytes)?;
    }
    op.post(2);
    op.reach_all(2).await?;
    core.check_poison()
}
