//! All-reduce by size.

use crate::algorithm::combine::{STREAMING_MIN, combine_both, combine_into};
use crate::algorithm::move_data::copy_own;
use crate::algorithm::short::with_payloads;
use crate::algorithm::{Call, In, Out, direct, flat_max};
use crate::core::{Core, Op};
use crate::error::Result;
use crate::kernels::{fetch, stage, stream, stream_fence};
use crate::line::INLINE_BYTES;
use crate::schedule::{DEPTH, Steps, TwoPhase, exchange, slot_offset, two_phase, two_phase_posts};

/// Bytes of one rank's slice of a chunk. Large enough to hide the flags, small enough that all slots of
/// both ranks stay in a second-level cache of 2 MiB.
const SLICE: usize = 64 << 10;
/// Smaller slices let the phases of ranks overlap in the middle sizes.
const SLICE_MIN: usize = 8 << 10;

/// Combines `call.count` elements of all ranks and leaves the result on all.
pub(crate) async fn all_reduce(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let bytes = call.bytes();
    if core.size() == 1 {
        core.check_fault()?;
        // SAFETY: both are valid for the call's bytes and are equal or do not overlap.
        unsafe { copy_own(recv.0, send.0, bytes) };
        return Ok(());
    }
    if bytes <= INLINE_BYTES {
        return inline(core, &call, send, recv).await;
    }
    if bytes <= flat_max(core.size()).min(core.half_bytes()) {
        return flat(core, &call, send, recv).await;
    }
    large(core, call, send, recv).await
}

/// The elements travel in the control lines: one line per rank and direction, no staging.
async fn inline(core: &Core, call: &Call, send: In, recv: Out) -> Result<()> {
    let op = call.begin(core, 1)?;
    op.window().await?;
    let bytes = call.bytes();
    // SAFETY: the source is readable for `bytes`.
    op.line(op.rank()).put(unsafe { std::slice::from_raw_parts(send.0, bytes) });
    op.post(1);
    op.reach_all(1).await?;
    with_payloads(&op, bytes, |source| {
        // SAFETY: sources are local copies, the target is writable for `bytes`.
        unsafe { combine_into(call, op.size(), bytes, source, recv.0, false) };
    });
    Ok(())
}

/// One step: every rank copies in, waits for all, and combines everything itself.
async fn flat(core: &Core, call: &Call, send: In, recv: Out) -> Result<()> {
    let op = call.begin(core, 1)?;
    let (bytes, me) = (call.bytes(), op.rank());
    // SAFETY: staging has room for `bytes`; it is ours until posted, and the peers' are theirs until
    // their next post but one.
    let fill = |_| unsafe { stage(op.staging(me), send.0, bytes) };
    let drain = |_| {
        let source = |rank| if rank == me { send.0 } else { op.staging(rank).cast_const() };
        // SAFETY: as above; user buffers are valid for `bytes`.
        unsafe { combine_into(call, op.size(), bytes, source, recv.0, false) }
    };
    exchange(&op, 1, fill, drain).await
}

/// Straight from the members' buffers where they can be reached, in chunks through staging otherwise.
async fn large(core: &Core, call: Call, send: In, recv: Out) -> Result<()> {
    let plan = Plan::new(core, &call);
    let op = call.begin(core, two_phase_posts(1, plan.chunks))?;
    op.gate().await?;
    let inside = direct::publish(&op, &call, send, recv)?;
    let mut work = Chunked { op: &op, call, plan, send, recv };
    if inside {
        op.post(1);
        op.reach_all(1).await?;
        if let Some(buffers) = direct::all_buffers(&op, call.bytes())? {
            direct::straight(&op, &call, &buffers);
            op.post(2);
            return op.reach_all(2).await;
        }
        return two_phase(&op, 1, false, plan.chunks, work).await;
    }
    work.fill(0);
    op.post(2);
    two_phase(&op, 1, true, plan.chunks, work).await
}

/// How a large call is cut.
#[derive(Clone, Copy)]
struct Plan {
    /// Bytes of a rank's slice of a chunk.
    slice: usize,
    chunks: u64,
}

impl Plan {
    fn new(core: &Core, call: &Call) -> Self {
        let ranks = core.size();
        let room = core.half_bytes() / DEPTH as usize / (ranks + 1);
        let fair = call.bytes().div_ceil(ranks).div_ceil(2).max(SLICE_MIN);
        let slice = fair.min(SLICE).min(room).next_multiple_of(64).min(room & !63);
        Self { slice, chunks: call.bytes().div_ceil(slice * ranks) as u64 }
    }
}

struct Chunked<'a> {
    op: &'a Op<'a>,
    call: Call,
    plan: Plan,
    send: In,
    recv: Out,
}

impl Chunked<'_> {
    /// Start and length of the slice of `rank` in chunk `c`, in the user's buffer.
    fn range(&self, c: u64, rank: usize) -> (usize, usize) {
        let start = (c as usize * self.op.size() + rank) * self.plan.slice;
        let start = start.min(self.call.bytes());
        (start, self.plan.slice.min(self.call.bytes() - start))
    }

    /// Where `owner` keeps, for chunk `c`, what is meant for `rank`; its result is in the last place.
    fn slot(&self, c: u64, owner: usize, rank: usize) -> *mut u8 {
        let slot = (self.op.size() + 1) * self.plan.slice;
        self.op.staging(owner).wrapping_add(slot_offset(c, slot) + rank * self.plan.slice)
    }

    fn streaming(&self) -> bool {
        self.call.bytes() >= STREAMING_MIN
    }
}

impl TwoPhase for Chunked<'_> {
    fn fill(&mut self, c: u64) {
        for rank in self.op.peers() {
            let (start, len) = self.range(c, rank);
            // SAFETY: the slot is this rank's to write by the schedule; the source holds the range.
            unsafe { stage(self.slot(c, self.op.rank(), rank), self.send.at(start), len) };
        }
    }

    fn reduce(&mut self, c: u64) {
        let (me, ranks) = (self.op.rank(), self.op.size());
        let (start, len) = self.range(c, me);
        let result = self.slot(c, me, ranks);
        let source =
            |rank| if rank == me { self.send.at(start) } else { self.slot(c, rank, me).cast_const() };
        // SAFETY: peers' slots are readable by the schedule, the result's place is ours; the user's target is written
        // where its own source was read.
        unsafe {
            let to = [result, self.recv.at(start)];
            combine_both(&self.call, ranks, len, source, to, self.streaming());
        }
    }

    fn drain(&mut self, c: u64) {
        let store = if self.streaming() { stream } else { fetch };
        for rank in self.op.peers() {
            let (start, len) = self.range(c, rank);
            // SAFETY: the peer's result is readable by the schedule, the target holds the range.
            unsafe { store(self.recv.at(start), self.slot(c, rank, self.op.size()), len) };
        }
        if c + 1 == self.plan.chunks {
            stream_fence(); // the caller may hand its buffer to another thread
        }
    }
}
