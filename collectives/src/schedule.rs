//! Who may touch which staging slot when. Payload is moved by the closures; order is kept here.
//!
//! Each rank's half of staging holds [`DEPTH`] slots, used in turn by the chunks of one operation:
//! ```text
//!   meet        all ranks:  post                   nobody leaves before all have come
//!   exchange    all ranks:  fill 0 · fill 1, drain 0 · fill 2, drain 1 · …       drain c needs fill c of all
//!   succession  two ranks:  fill 0 · (drain 0, fill 1) · (drain 1, fill 2) · …    in one pass each
//!   short_out   root:       fill                 reader: drain                   many operations in flight
//!   short_in    sources:    fill                 root:   drain                   likewise
//!   fan_out     root:       fill 0 · fill 1 · …   reader: drain 0 · drain 1 …    fill c needs drain c-4 of all
//!   fan_in      sources:    fill 0 · fill 1 · …   root:   drain 0 · drain 1 …    likewise
//!   lend        sources:    post and wait         readers: read, post     in place of the source's part of fan_out and fan_in
//!   two_phase   all ranks:  fill c · reduce c-1 · drain c-2                      see there
//! ```
//! The models in `tests/loom.rs` run these functions' rules over all interleavings.

use std::future::Future;

use crate::error::Result;

/// What a schedule needs of an operation: `core::Op` in life, a few lines and cells in the models.
pub trait Steps {
    /// This rank.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn size(&self) -> usize;
    /// Publishes everything this rank wrote up to now as `step` of the operation, counted from 1.
    fn post(&self, step: u64);
    /// Waits until `rank` has posted `step`.
    fn reach(&self, rank: usize, step: u64) -> impl Future<Output = Result<()>>;
    /// Waits until this rank's half of staging may be overwritten: all peers are in the operation before.
    fn gate(&self) -> impl Future<Output = Result<()>>;
    /// Waits until this rank's line and its place on the board may be overwritten: all peers are past the
    /// operation that last used them.
    fn window(&self) -> impl Future<Output = Result<()>>;

    /// The other ranks, the next one first, so that not all ranks start with the same one.
    fn peers(&self) -> impl Iterator<Item = usize> + use<Self> {
        let (rank, size) = (self.rank(), self.size());
        (1..size).map(move |distance| (rank + distance) % size)
    }

    /// Waits until all peers have posted `step`.
    fn reach_all(&self, step: u64) -> impl Future<Output = Result<()>> {
        async move {
            for rank in self.peers() {
                self.reach(rank, step).await?;
            }
            Ok(())
        }
    }
}

/// Slots of a half: the fewest that `exchange` can do with; with three its model fails.
pub const DEPTH: u64 = 4;

/// Where chunk `c` lies in a half that is divided in slots of `slot` bytes.
#[inline]
pub fn slot_offset(c: u64, slot: usize) -> usize {
    (c % DEPTH) as usize * slot
}

/// Slots of a half in an [`exchange`] of two ranks, which swap halves: see [`swapped`].
pub const PAIR_DEPTH: u64 = 2;

/// Whose half takes chunk `c` of `rank`, when two ranks exchange and have done so `turns` times before in these halves.
///
/// Each rank writes over the chunk that it has read last. The processor hands a line that another core has written to its
/// reader together with the right to write it, so nothing has to be taken back: such a write runs at three times the speed of
/// one over what the other rank has read (BENCH.md).
#[inline]
pub fn swapped(rank: usize, turns: u64, c: u64) -> usize {
    rank ^ ((turns + c / PAIR_DEPTH) % 2) as usize
}

/// All ranks have come when this ends. Takes one post, for whose mark the line has to be free.
pub async fn meet(op: &impl Steps) -> Result<()> {
    op.window().await?;
    op.post(1);
    op.reach_all(1).await
}

/// Every rank writes its chunk `c` to staging, then reads chunk `c` of all. Takes `chunks` posts. `meanwhile` is the part of
/// the work on a chunk for which nobody waits.
///
/// A slot is filled again four chunks later: to have come to that point, this rank has seen all peers
/// post three chunks later, which each did after its drain of the slot. Two ranks fill each other's slots two
/// chunks later ([`swapped`]): each has read by itself what it writes over.
pub async fn exchange(
    op: &impl Steps,
    chunks: u64,
    fill: impl FnMut(u64),
    meanwhile: impl FnMut(u64),
    drain: impl FnMut(u64),
) -> Result<()> {
    op.gate().await?;
    exchange_after(op, 0, chunks, fill, meanwhile, drain).await
}

/// The same by a caller that has passed the gate and starts to count after step `first`.
pub async fn exchange_after(
    op: &impl Steps,
    first: u64,
    chunks: u64,
    mut fill: impl FnMut(u64),
    mut meanwhile: impl FnMut(u64),
    mut drain: impl FnMut(u64),
) -> Result<()> {
    for c in 0..=chunks {
        if c < chunks {
            fill(c);
            op.post(first + c + 1);
            meanwhile(c);
        }
        if c > 0 {
            op.reach_all(first + c).await?;
            drain(c - 1);
        }
    }
    Ok(())
}

/// [`exchange_after`] of two ranks in their slots of [`swapped`], in other order: `next(c)` drains chunk `c` and fills chunk `c+1`,
/// if there is one, in one pass. Still a rank writes over what it has read itself, a chunk later than there.
pub async fn succession(
    op: &impl Steps,
    first: u64,
    chunks: u64,
    fill: impl FnOnce(u64),
    mut next: impl FnMut(u64),
) -> Result<()> {
    fill(0);
    op.post(first + 1);
    for c in 0..chunks {
        op.reach_all(first + c + 1).await?;
        next(c);
        if c + 1 < chunks {
            op.post(first + c + 2);
        }
    }
    Ok(())
}

/// The root writes its line or place, everybody else reads it. Takes one post. The root does not wait for the
/// readers, but for those of the operation that used the line before.
pub async fn short_out(
    op: &impl Steps,
    root: usize,
    fill: impl FnOnce(),
    drain: impl FnOnce(),
) -> Result<()> {
    if op.rank() == root {
        op.window().await?;
        fill();
    } else {
        op.reach(root, 1).await?;
        drain();
    }
    op.post(1);
    Ok(())
}

/// Everybody writes its line or place, the root reads those of all. Takes one post; likewise.
pub async fn short_in(op: &impl Steps, root: usize, fill: impl FnOnce(), drain: impl FnOnce()) -> Result<()> {
    if op.rank() == root {
        op.reach_all(1).await?;
        drain();
    } else {
        op.window().await?;
        fill();
    }
    op.post(1);
    Ok(())
}

/// The root writes chunks, everybody else reads them. Takes `chunks + 1` posts. `meanwhile` is the part of the root's work on
/// a chunk for which nobody waits.
pub async fn fan_out(
    op: &impl Steps,
    root: usize,
    chunks: u64,
    mut fill: impl FnMut(u64),
    mut meanwhile: impl FnMut(u64),
    mut drain: impl FnMut(u64),
) -> Result<()> {
    if op.rank() == root {
        op.gate().await?;
    }
    for c in 0..chunks {
        if op.rank() == root {
            if c >= DEPTH {
                op.reach_all(c - DEPTH + 2).await?;
            }
            fill(c);
            op.post(c + 1);
            meanwhile(c);
        } else {
            op.reach(root, c + 1).await?;
            drain(c);
            op.post(c + 2);
        }
    }
    Ok(())
}

/// Everybody writes chunks, the root reads those of all. Takes `chunks + 1` posts.
pub async fn fan_in(
    op: &impl Steps,
    root: usize,
    chunks: u64,
    mut fill: impl FnMut(u64),
    mut drain: impl FnMut(u64),
) -> Result<()> {
    if op.rank() != root {
        op.gate().await?;
    }
    for c in 0..chunks {
        if op.rank() == root {
            op.reach_all(c + 1).await?;
            drain(c);
            op.post(c + 2);
        } else {
            if c >= DEPTH {
                op.reach(root, c - DEPTH + 2).await?;
            }
            fill(c);
            op.post(c + 1);
        }
    }
    Ok(())
}

/// The part of a source in [`fan_out`] or [`fan_in`] that lends its data instead of writing chunks: it says so with the payload of
/// its post, does something `meanwhile`, and has them back when the readers have posted their last step. A reader copies them when it has reached step 1.
pub async fn lend(
    op: &impl Steps,
    chunks: u64,
    meanwhile: impl FnOnce(),
    readers: impl Iterator<Item = usize>,
) -> Result<()> {
    op.post(chunks);
    meanwhile();
    for rank in readers {
        op.reach(rank, chunks + 1).await?;
    }
    Ok(())
}

/// Steps of [`two_phase`], which starts to count after `first`.
pub fn two_phase_posts(first: u64, chunks: u64) -> u64 {
    first + 2 * (chunks + 2)
}

/// What happens with the chunks of a reduce-scatter that is followed by an all-gather.
pub trait TwoPhase {
    /// Writes this rank's part of chunk `c` for all other ranks to its staging.
    fn fill(&mut self, c: u64);
    /// Combines this rank's slice of chunk `c` of all ranks, and leaves the result in staging.
    fn reduce(&mut self, c: u64);
    /// Reads the result slices of all other ranks of chunk `c`.
    fn drain(&mut self, c: u64);
}

/// Chunk `c` is filled, published as step `2c+1`, reduced one turn later (step `2c+4`), drained another
/// turn later; the cache still holds what the peer wrote, and no rank waits for what was just started.
///
/// Input of slot `c % 4` is last read by peers' `reduce(c-4)` before their step `2c-4`; this rank has seen
/// `2c-2` before `fill(c)`. Results are last read by `drain(c-4)` before step `2c-1`; seen before
/// `reduce(c)`: `2c+1`. The caller has gated.
pub async fn two_phase(op: &impl Steps, first: u64, chunks: u64, mut work: impl TwoPhase) -> Result<()> {
    for c in 0..chunks + 2 {
        if c < chunks {
            work.fill(c);
            op.post(first + 2 * c + 1);
        }
        if c >= 1 && c <= chunks {
            op.reach_all(first + 2 * c - 1).await?;
            work.reduce(c - 1);
            op.post(first + 2 * c + 2);
        }
        if c >= 2 {
            op.reach_all(first + 2 * c).await?;
            work.drain(c - 2);
        }
    }
    Ok(())
}
