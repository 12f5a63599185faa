//! Rooted collectives of few bytes: one post each, and up to [`LINES`](crate::segment::layout::LINES) of them on the way at once.
//!
//! Bytes travel in the control line or, when it is too short, in the line's place on the board.

use std::mem::MaybeUninit;

use crate::algorithm::combine::combine_into;
use crate::algorithm::own::Own;
use crate::algorithm::{Call, In, Kind, Out};
use crate::core::{Core, Op};
use crate::error::Result;
use crate::kernels::{copy, stage};
use crate::line::INLINE_BYTES;
use crate::schedule::{Steps, short_in, short_out};
use crate::segment::layout::MAX_RANKS;

/// From here on, chunks on their way through the caches are faster than a copy in and a copy out in turn.
const SHORT_MAX: usize = 8 << 10;

/// Whether a call goes this way.
#[inline]
pub(crate) fn serves(core: &Core, call: &Call) -> bool {
    let bytes = match call.kind {
        Kind::Broadcast | Kind::Reduce | Kind::Gather => call.bytes(),
        Kind::Scatter => call.bytes() * core.size(),
        _ => return false,
    };
    core.size() > 1 && bytes <= SHORT_MAX.min(core.place_bytes())
}

/// Runs a call that [`serves`].
#[inline]
pub(crate) async fn run(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    match call.kind {
        Kind::Broadcast => broadcast(core, call, recv).await,
        Kind::Scatter => scatter(core, call, send, recv).await,
        Kind::Gather => gather(core, call, send, recv).await,
        _ => reduce(core, call, send, recv).await,
    }
}

/// How many of `bytes` do not travel in the line.
fn on_board(bytes: usize) -> usize {
    if bytes <= INLINE_BYTES { 0 } else { bytes }
}

/// Puts `bytes` where the others find them.
///
/// # Safety
/// `from` is readable for `bytes`, which fit; the line is ours by the schedule.
#[inline]
unsafe fn put(op: &Op<'_>, from: *const u8, bytes: usize) {
    op.claim_ahead(on_board(bytes));
    // SAFETY: as promised.
    unsafe {
        if bytes <= INLINE_BYTES {
            op.line(op.rank()).put(std::slice::from_raw_parts(from, bytes));
        } else {
            stage(op.place(op.rank()), from, bytes);
        }
    }
}

/// Takes `len` bytes at `offset` of the `bytes` that `rank` put.
///
/// # Safety
/// `to` is writable for `len`; the line is readable by the schedule.
#[inline]
unsafe fn take(op: &Op<'_>, rank: usize, bytes: usize, offset: usize, to: *mut u8, len: usize) {
    // SAFETY: as promised; the range lies in what was put.
    unsafe {
        if bytes > INLINE_BYTES {
            copy(to, op.place(rank).add(offset), len);
            return;
        }
        let mut payload = [0; INLINE_BYTES];
        op.line(rank).get(&mut payload[..bytes]);
        copy(to, payload[offset..offset + len].as_ptr(), len);
    }
}

/// All ranks' payloads of up to [`INLINE_BYTES`] as local copies, given to `work`.
#[inline]
pub(crate) fn with_payloads(op: &Op<'_>, bytes: usize, work: impl FnOnce(&dyn Fn(usize) -> *const u8)) {
    // Only the ranks that exist are written: the whole array would cost more than the exchange.
    let mut payload = [const { MaybeUninit::<[u64; INLINE_BYTES / 8]>::uninit() }; MAX_RANKS];
    for (rank, place) in payload.iter_mut().enumerate().take(op.size()) {
        let words = place.write([0; INLINE_BYTES / 8]);
        // SAFETY: 48 initialised bytes, of which `bytes` are used.
        op.line(rank).get(unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), bytes) });
    }
    work(&|rank| payload[rank].as_ptr().cast());
}

#[inline]
async fn broadcast(core: &Core, call: Call, buffer: Out) -> Result<()> {
    let (bytes, root) = (call.bytes(), call.root);
    let op = call.begin(core, 1)?;
    // SAFETY: the buffer holds the call's bytes; the schedule orders the rest.
    let fill = || unsafe { put(&op, buffer.0, bytes) };
    let drain = || {
        // SAFETY: as above.
        unsafe { take(&op, root, bytes, 0, buffer.0, bytes) };
        op.look_ahead(root, on_board(bytes));
    };
    short_out(&op, root, fill, drain).await
}

/// The root puts the blocks of all ranks.
#[inline]
async fn scatter(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me, root) = (call.bytes(), core.rank(), call.root);
    let all = bytes * core.size();
    let op = call.begin(core, 1)?;
    // SAFETY: the root's source holds a block per rank; the schedule orders the rest.
    let fill = || unsafe { put(&op, send.0, all) };
    let drain = || {
        // SAFETY: the target holds a block.
        unsafe { take(&op, root, all, me * bytes, recv.0, bytes) };
        op.look_ahead(root, on_board(all));
    };
    short_out(&op, root, fill, drain).await?;
    if me == root {
        // SAFETY: the root's source holds a block per rank, its target one.
        unsafe { Own::new(recv.0, send.at(me * bytes), bytes).copy() };
    }
    Ok(())
}

#[inline]
async fn gather(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    let op = call.begin(core, 1)?;
    if me == call.root {
        // SAFETY: the root's target holds a block per rank.
        unsafe { Own::new(recv.at(me * bytes), send.0, bytes).copy() };
    }
    // SAFETY: the source holds a block; the schedule orders the rest.
    let fill = || unsafe { put(&op, send.0, bytes) };
    let drain = || {
        for rank in op.peers() {
            // SAFETY: the root's target holds a block per rank.
            unsafe { take(&op, rank, bytes, 0, recv.at(rank * bytes), bytes) };
            op.look_ahead(rank, on_board(bytes));
        }
    };
    short_in(&op, call.root, fill, drain).await
}

#[inline]
async fn reduce(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let (bytes, me) = (call.bytes(), core.rank());
    let op = call.begin(core, 1)?;
    // SAFETY: the source holds the call's bytes; the schedule orders the rest.
    let fill = || unsafe { put(&op, send.0, bytes) };
    let drain = || {
        let combine = |theirs: &dyn Fn(usize) -> *const u8| {
            let source = |rank| if rank == me { send.0 } else { theirs(rank) };
            // SAFETY: places are readable by the schedule; user buffers hold the bytes.
            unsafe { combine_into(&call, op.size(), bytes, source, recv.0, false) }
        };
        if bytes <= INLINE_BYTES {
            with_payloads(&op, bytes, combine);
        } else {
            combine(&|rank| op.place(rank).cast_const());
        }
        for rank in op.peers() {
            op.look_ahead(rank, on_board(bytes));
        }
    };
    short_in(&op, call.root, fill, drain).await
}
