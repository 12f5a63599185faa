//! Where the chunks of an exchange lie in staging.

use crate::core::{Core, Op};
use crate::schedule::{DEPTH, PAIR_DEPTH, Steps, slot_offset, swapped};

/// The slots of all ranks in one exchange.
pub(crate) struct Slots<'a> {
    op: &'a Op<'a>,
    /// Of a slot.
    bytes: usize,
    turns: u64,
}

impl<'a> Slots<'a> {
    /// Slots of `bytes` for `chunks` chunks.
    pub(crate) fn new(op: &'a Op<'a>, bytes: usize, chunks: u64) -> Self {
        Self { op, bytes, turns: op.turns(chunks.div_ceil(PAIR_DEPTH)) }
    }

    /// The most bytes that a slot has.
    pub(crate) fn room(core: &Core) -> usize {
        core.half_bytes() / if core.size() == 2 { PAIR_DEPTH } else { DEPTH } as usize
    }

    /// Where `rank` writes its chunk `c`.
    #[inline]
    pub(crate) fn of(&self, rank: usize, c: u64) -> *mut u8 {
        if self.op.size() != 2 {
            return self.op.staging(rank).wrapping_add(slot_offset(c, self.bytes));
        }
        let half = self.op.staging(swapped(rank, self.turns, c));
        half.wrapping_add((c % PAIR_DEPTH) as usize * self.bytes)
    }
}

/// Parts of a slot where a rank has something else for each of the others.
pub(crate) fn parts(ranks: usize) -> usize {
    (ranks - 1).max(1)
}

/// Which of its parts `owner` fills for `rank`. Two ranks have one, so that each writes over what it has read.
pub(crate) fn part(owner: usize, rank: usize) -> usize {
    rank - usize::from(rank > owner)
}
