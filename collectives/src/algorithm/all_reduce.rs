//! All-reduce by size.

use crate::algorithm::combine::{STREAMING_MIN, combine_beside, combine_both, combine_into};
use crate::algorithm::own::Own;
use crate::algorithm::reduce::chunk_range;
use crate::algorithm::short::with_payloads;
use crate::algorithm::slots::Slots;
use crate::algorithm::{Call, In, Out, direct, flat_max};
use crate::core::{Core, Op};
use crate::datatype::ReduceOp;
use crate::error::Result;
use crate::kernels::{fetch, stage, stream, stream_fence};
use crate::line::INLINE_BYTES;
use crate::schedule::{
    DEPTH, Steps, TwoPhase, exchange_after, slot_offset, succession, two_phase, two_phase_posts,
};

/// Bytes of a chunk of two ranks.
const WHOLE: usize = 64 << 10;
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
        unsafe { Own::new(recv.0, send.0, bytes).copy() };
        return Ok(());
    }
    if bytes <= INLINE_BYTES {
        return inline(core, &call, send, recv).await;
    }
    if bytes <= flat_max(core.size()).min(Slots::room(core)) {
        return flat(core, &call, send, recv).await;
    }
    large(core, &call, send, recv).await
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
    op.gate().await?;
    Whole::new(&op, call, call.bytes(), send, recv).run(0).await
}

/// Straight from the members' buffers where they can be reached, in chunks through staging otherwise.
async fn large(core: &Core, call: &Call, send: In, recv: Out) -> Result<()> {
    let pair = core.size() == 2;
    let plan = Plan::new(core, call);
    let posts = if pair { 1 + plan.chunks } else { two_phase_posts(1, plan.chunks) };
    let op = call.begin(core, posts)?;
    op.gate().await?;
    let inside = direct::publish(&op, call, send, recv)?;
    if inside {
        op.post(1);
        op.reach_all(1).await?;
        if let Some(buffers) = direct::all_buffers(&op, call.bytes())? {
            direct::straight(&op, call, &buffers);
            op.post(2);
            return op.reach_all(2).await;
        }
    }
    if pair {
        return Whole::new(&op, call, plan.slice, send, recv).run(1).await;
    }
    two_phase(&op, 1, plan.chunks, Chunked { op: &op, call, plan, send, recv }).await
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
        if ranks == 2 {
            let chunk = WHOLE.min(Slots::room(core) & !63);
            return Self { slice: chunk, chunks: call.bytes().div_ceil(chunk) as u64 };
        }
        let room = core.half_bytes() / DEPTH as usize / (ranks + 1);
        let fair = call.bytes().div_ceil(ranks).div_ceil(2).max(SLICE_MIN);
        let slice = fair.min(SLICE).min(room).next_multiple_of(64).min(room & !63);
        Self { slice, chunks: call.bytes().div_ceil(slice * ranks) as u64 }
    }
}

/// Every rank stages everything and combines everything itself, chunk by chunk.
struct Whole<'a> {
    op: &'a Op<'a>,
    call: &'a Call,
    slots: Slots<'a>,
    chunk: usize,
    chunks: u64,
    streaming: bool,
    send: In,
    recv: Out,
}

impl<'a> Whole<'a> {
    fn new(op: &'a Op<'a>, call: &'a Call, chunk: usize, send: In, recv: Out) -> Self {
        let chunks = call.bytes().div_ceil(chunk) as u64;
        let streaming = call.bytes() >= STREAMING_MIN;
        Self { op, call, slots: Slots::new(op, chunk, chunks), chunk, chunks, streaming, send, recv }
    }

    /// Runs it in the steps after `first`.
    async fn run(self, first: u64) -> Result<()> {
        let fill = |c| self.fill(c);
        if self.streaming && self.call.op != ReduceOp::Average {
            succession(self.op, first, self.chunks, fill, |c| self.next(c)).await
        } else {
            exchange_after(self.op, first, self.chunks, fill, |_| (), |c| self.drain(c)).await
        }
    }

    fn range(&self, c: u64) -> (usize, usize) {
        chunk_range(c, self.chunk, self.call.bytes())
    }

    fn fill(&self, c: u64) {
        let (start, len) = self.range(c);
        // SAFETY: the slot is this rank's to write by the schedule; the source holds the range.
        unsafe { stage(self.slots.of(self.op.rank(), c), self.send.at(start), len) };
    }

    /// What `rank` has for chunk `c`, from `offset` on.
    fn source(&self, rank: usize, c: u64, offset: usize) -> *const u8 {
        if rank == self.op.rank() {
            self.send.at(self.range(c).0 + offset)
        } else {
            self.slots.of(rank, c).wrapping_add(offset)
        }
    }

    fn drain(&self, c: u64) {
        self.drain_from(c, 0);
    }

    fn drain_from(&self, c: u64, offset: usize) {
        let (start, len) = self.range(c);
        let source = |rank| self.source(rank, c, offset);
        let target = self.recv.at(start + offset);
        // SAFETY: the peers' slots are readable by the schedule; user buffers hold the range.
        unsafe { combine_into(self.call, self.op.size(), len - offset, source, target, self.streaming) }
    }

    /// Drains chunk `c` and fills the next one, which is as long or the last.
    fn next(&self, c: u64) {
        let (start, all) = self.range(c);
        let (from, len) = if c + 1 < self.chunks { self.range(c + 1) } else { (start, 0) };
        let sources = [self.source(0, c, 0), self.source(1, c, 0)];
        let copy = (self.slots.of(self.op.rank(), c + 1), self.send.at(from));
        // SAFETY: as in `fill` and `drain`.
        unsafe { combine_beside(self.call, len, sources, self.recv.at(start), copy) };
        // The last chunk always; its fence would stall each of the others.
        if len < all {
            self.drain_from(c, len);
        }
    }
}

/// Each rank combines its slice of each chunk for all.
struct Chunked<'a> {
    op: &'a Op<'a>,
    call: &'a Call,
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
            combine_both(self.call, ranks, len, source, to, self.streaming());
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
