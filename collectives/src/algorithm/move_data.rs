//! Collectives that move data without combining it: broadcast, gather, scatter, all-gather, all-to-all.

use crate::algorithm::combine::STREAMING_MIN;
use crate::algorithm::reduce::{chunk_range, cut};
use crate::algorithm::{Call, In, Kind, Out, pulls, short};
use crate::core::{Core, NOT_IN_SEGMENT, Op};
use crate::error::{Error, Result};
use crate::kernels::{copy, copy_streaming};
use crate::schedule::{Steps, exchange, fan_in, fan_out, slot_offset};

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
    let (bytes, root) = (call.bytes(), call.root);
    if short::fits(core, bytes) {
        return short::broadcast(core, call, buffer).await;
    }
    if pulls(core, bytes) {
        return pull(core, call, In(buffer.0), |_, _| Some((0, buffer.0))).await;
    }
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks + 1)?;
    let slot = |c| op.staging(root).wrapping_add(slot_offset(c, chunk));
    // SAFETY: the schedule gives the slot to the root, then to the readers; buffers hold the range.
    let fill = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        copy(slot(c), buffer.at(start), len);
    };
    // SAFETY: as above.
    let drain = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        store_for(bytes)(buffer.at(start), slot(c), len);
    };
    fan_out(&op, root, chunks, fill, drain).await
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
    if pulls(core, bytes) {
        return pull(core, call, send, |_, rank| Some((0, recv.at(rank * bytes)))).await;
    }
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks + 1)?;
    let slot = |c, rank| op.staging(rank).wrapping_add(slot_offset(c, chunk));
    // SAFETY: the schedule gives the slots to their owners, then to the root; buffers hold the ranges.
    let fill = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        copy(slot(c, me), send.at(start), len);
    };
    let drain = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: as above.
            unsafe { store_for(bytes)(recv.at(rank * bytes + start), slot(c, rank), len) };
        }
    };
    fan_in(&op, root, chunks, fill, drain).await
}

/// Hands block `rank` of the root's buffer to each rank.
pub(crate) async fn scatter(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, root, ranks) = (call.bytes(), core.rank(), call.root, core.size());
    if me == root {
        // SAFETY: the root's source holds a block per rank.
        unsafe { copy_own(recv.0, send.at(me * bytes), bytes) };
    }
    if short::fits(core, bytes * ranks) {
        return short::scatter(core, call, send, recv).await;
    }
    if pulls(core, bytes) {
        return pull(core, call, send, |me, _| Some((me * bytes, recv.0))).await;
    }
    let (chunk, chunks) = cut(core, bytes, ranks);
    let op = call.begin(core, chunks + 1)?;
    let slot = |c, rank: usize| op.staging(root).wrapping_add(slot_offset(c, chunk * ranks) + rank * chunk);
    let fill = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: the schedule gives the slots to the root, then to the readers; buffers hold the ranges.
            unsafe { copy(slot(c, rank), send.at(rank * bytes + start), len) };
        }
    };
    // SAFETY: as above.
    let drain = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        store_for(bytes)(recv.at(start), slot(c, me), len);
    };
    fan_out(&op, root, chunks, fill, drain).await
}

/// Collects one block of each rank on all ranks, in rank order.
pub(crate) async fn all_gather(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    // SAFETY: the target holds a block per rank.
    unsafe { copy_own(recv.at(me * bytes), send.0, bytes) };
    if pulls(core, bytes) {
        return pull(core, call, send, |_, rank| Some((0, recv.at(rank * bytes)))).await;
    }
    let (chunk, chunks) = cut(core, bytes, 1);
    let op = call.begin(core, chunks)?;
    let slot = |c, rank| op.staging(rank).wrapping_add(slot_offset(c, chunk));
    // SAFETY: the schedule gives the slots to their owners, then to the readers; buffers hold the ranges.
    let fill = |c| unsafe {
        let (start, len) = chunk_range(c, chunk, bytes);
        copy(slot(c, me), send.at(start), len);
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
    unsafe { copy_own(recv.at(me * bytes), send.at(me * bytes), bytes) };
    // All ranks must agree on being in place: as the "root" it is part of the signature.
    let in_place = std::ptr::eq(send.0, recv.0);
    let call = Call { root: usize::from(in_place), ..call };
    if pulls(core, bytes) && !in_place {
        return pull(core, call, send, |me, rank| Some((me * bytes, recv.at(rank * bytes)))).await;
    }
    staged_all_to_all(core, call, send, recv).await
}

async fn staged_all_to_all(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, ranks) = (call.bytes(), core.rank(), core.size());
    let (chunk, chunks) = cut(core, bytes, ranks);
    let op = call.begin(core, chunks)?;
    let slot =
        |c, owner, rank: usize| op.staging(owner).wrapping_add(slot_offset(c, chunk * ranks) + rank * chunk);
    let fill = |c| {
        let (start, len) = chunk_range(c, chunk, bytes);
        for rank in op.peers() {
            // SAFETY: the schedule gives the slots to their owners, then to the readers; buffers hold the ranges.
            unsafe { copy(slot(c, me, rank), send.at(rank * bytes + start), len) };
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

fn store_for(bytes: usize) -> unsafe fn(*mut u8, *const u8, usize) {
    if bytes >= STREAMING_MIN { copy_streaming } else { copy }
}

/// Readers take the bytes straight out of the source's memory, by the segment or by process_vm_readv.
///
/// `want(reader, source)` says at which offset of the source's buffer the reader's bytes begin and where
/// they go. Step 1 publishes the address, step 2 says that this rank has read all it wanted; a source
/// leaves only when all its readers have said so. What was read counts only if the source has not
/// given up meanwhile, because its buffer is its own again then.
async fn pull(
    core: &Core,
    call: Call,
    send: In,
    want: impl Fn(usize, usize) -> Option<(usize, *mut u8)>,
) -> Result<()> {
    let me = core.rank();
    let op = call.begin(core, 2)?;
    op.gate().await?;
    publish(&op, send, source_bytes(&op, &call))?;
    op.post(1);
    let rooted = !matches!(call.kind, Kind::AllGather | Kind::AllToAll);
    let one_source = matches!(call.kind, Kind::Broadcast | Kind::Scatter);
    for source in op.peers() {
        let reads = !rooted || if one_source { source == call.root } else { me == call.root };
        if let (true, Some((offset, target))) = (reads, want(me, source)) {
            op.reach(source, 1).await?;
            read_from(&op, source, offset, Out(target), call.bytes())?;
        }
    }
    op.post(2);
    if !rooted || (one_source && me == call.root) {
        op.reach_all(2).await?;
    } else if !one_source && me != call.root {
        op.reach(call.root, 2).await?;
    }
    core.check_poison()
}

/// How much of a rank's source others may read.
fn source_bytes(op: &Op<'_>, call: &Call) -> usize {
    let blocks = if matches!(call.kind, Kind::Scatter | Kind::AllToAll) { op.size() } else { 1 };
    call.bytes() * blocks
}

fn publish(op: &Op<'_>, source: In, bytes: usize) -> Result<()> {
    let offset = op.core().charter.segment.offset_of(source.0, bytes)?;
    op.publish([source.0 as u64, 0, offset.map_or(NOT_IN_SEGMENT, |o| o as u64), NOT_IN_SEGMENT]);
    Ok(())
}

fn read_from(op: &Op<'_>, source: usize, offset: usize, target: Out, len: usize) -> Result<()> {
    let core = op.core();
    let [address, _, in_segment, _] = op.published(source)?;
    if in_segment != NOT_IN_SEGMENT {
        let at = in_segment.wrapping_add(offset as u64);
        let from = core.charter.segment.peer_buffer(core.charter.members[source], at, len);
        let from = from.ok_or(Error::Corrupt { rank: source })?;
        // SAFETY: the range was checked to lie in the source's arena; the target is the caller's.
        unsafe { store_for(len)(target.0, from, len) };
        return Ok(());
    }
    // SAFETY: the target is writable for `len`.
    unsafe { core.read_peer(source, address.wrapping_add(offset as u64), target.0, len) }
}
