//! Collectives that move data without combining it: broadcast, gather, scatter, all-gather, all-to-all.

use crate::algorithm::combine::STREAMING_MIN;
use crate::algorithm::lend::{Offer, is_lent, publish, read_from};
use crate::algorithm::reduce::{chunk_range, cut};
use crate::algorithm::slots::Slots;
use crate::algorithm::trials::Way;
use crate::algorithm::{Call, In, Out, pulls, short};
use crate::core::Core;
use crate::error::Result;
use crate::kernels::{copy, copy_streaming, fetch, stage};
use crate::schedule::{Steps, exchange, fan_in, fan_out, lend, slot_offset};

/// Copies unless source and target are the same place (an in-place call).
///
/// # Safety
/// As [`copy`], but the two may be equal.
pub(crate) unsafe fn copy_own(to: *mut u8, from: *const u8, len: usize) {
    if !std::ptr::eq(to, from) {
        // SAFETY: passed on.
        unsafe { copy(to, from, len) }
    }
}

/// Copies what `root` has in `buffer` to everybody's `buffer`.
pub(crate) async fn broadcast(core: &Core, call: Call, buffer: Out) -> Result<()> {
    if short::fits(core, call.bytes()) {
        return short::broadcast(core, call, buffer).await;
    }
    spread(core, call, 1, In(buffer.0), buffer).await
}

/// Hands block `rank` of the root's buffer to each rank.
pub(crate) async fn scatter(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, ranks) = (call.bytes(), core.rank(), core.size());
    if me == call.root {
        // SAFETY: the root's source holds a block per rank.
        unsafe { copy_own(recv.0, send.at(me * bytes), bytes) };
    }
    if short::fits(core, bytes * ranks) {
        return short::scatter(core, call, send, recv).await;
    }
    spread(core, call, ranks, send, recv).await
}

/// The root's data to everybody: one block for all, or one of `blocks` for each rank.
async fn spread(core: &Core, call: Call, blocks: usize, send: In, recv: Out) -> Result<()> {
    let (bytes, me, root) = (call.bytes(), core.rank(), call.root);
    let (chunk, chunks) = cut(core, bytes, blocks);
    let op = call.begin(core, chunks + 1)?;
    let block = |rank: usize| rank % blocks;
    let slot = |c, rank| op.staging(root).wrapping_add(slot_offset(c, chunk * blocks) + block(rank) * chunk);
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
            Way::Lent => lend(&op, chunks, op.peers()).await?,
            Way::Staged => fan_out(&op, root, chunks, fill, |_| ()).await?,
        }
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
    fan_out(&op, root, chunks, |_| (), drain).await
}

/// Collects one block of each rank at the root, in rank order.
pub(crate) async fn gather(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, root) = (call.bytes(), core.rank(), call.root);
    if me == root {
        // SAFETY: the root's target holds a block per rank.
        unsafe { copy_own(recv.at(me * bytes), send.0, bytes) };
    }
    if short::fits(core, bytes) {
        return short::gather(core, call, send, recv).await;
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
            Way::Lent => lend(&op, chunks, std::iter::once(root)).await?,
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
    // SAFETY: the target holds a block per rank.
    let own = || unsafe { copy_own(recv.at(me * bytes), send.0, bytes) };
    if pulls(core, bytes) {
        return pull(core, call, (send, bytes), 0, recv, own).await;
    }
    own();
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks)?;
    let slots = Slots::new(&op, chunk, chunks);
    let slot = |c, rank| slots.of(rank, c);
    // SAFETY: the schedule gives the slots to their owners, then to the readers; buffers hold the ranges.
    let fill = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        stage(slot(c, me), send.at(start), len);
    };
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: as above.
            unsafe { store_for(bytes)(recv.at(rank * bytes + start), slot(c, rank), len) };
        }
    };
    exchange(&op, chunks, fill, drain).await
}

/// Sends block `i` of each rank to rank `i`; blocks arrive in rank order.
pub(crate) async fn all_to_all(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    // SAFETY: both hold a block per rank.
    let own = || unsafe { copy_own(recv.at(me * bytes), send.at(me * bytes), bytes) };
    // All ranks must agree on being in place: as the "root" it is part of the signature.
    let in_place = std::ptr::eq(send.0, recv.0);
    let call = Call { root: usize::from(in_place), ..call };
    if pulls(core, bytes) && !in_place {
        return pull(core, call, (send, bytes * core.size()), me * bytes, recv, own).await;
    }
    own();
    staged_all_to_all(core, call, send, recv).await
}

async fn staged_all_to_all(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, ranks) = (call.bytes(), core.rank(), core.size());
    let (chunk, chunks) = cut(core, bytes, ranks);
    let op = call.begin(core, chunks)?;
    let slots = Slots::new(&op, chunk * ranks, chunks);
    let slot = |c, owner, rank: usize| slots.of(owner, c).wrapping_add(rank * chunk);
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
            unsafe { store_for(bytes)(recv.at(rank * bytes + start), slot(c, rank, me), len) };
        }
    };
    exchange(&op, chunks, fill, drain).await
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
    own: impl FnOnce(),
) -> Result<()> {
    let bytes = call.bytes();
    let op = call.begin(core, 2)?;
    op.gate().await?;
    publish(&op, source, length)?;
    op.post(1);
    own();
    for rank in op.peers() {
        op.reach(rank, 1).await?;
        read_from(&op, rank, offset, Out(recv.at(rank * bytes)), bytes)?;
    }
    op.post(2);
    op.reach_all(2).await?;
    core.check_poison()
}
