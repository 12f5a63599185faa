//! Flow control of long messages, in blocks: the sender copies ahead into a few slots of shared memory, the receiver
//! takes the next block from there if it is there and reads it from the sender's memory if not. So both work at the
//! same time, and neither ever waits for the other's work.
//!
//! ```text
//!        drained (receiver's line)   staged (sender's line)      announced
//!           ▼                          ▼                           ▼
//!   ────────┬──────────────────────────┬───────────────────────────┬───
//!    done   │ in slots                 │ in the sender's memory    │
//!   ────────┴──────────────────────────┴───────────────────────────┴───
//!   the receiver may overtake `staged`, the sender then goes on from `drained`
//! ```
//! A slot has one writer. It is written for block `b` only after the receiver's line has shown that all blocks up to
//! `b - slots` are drained, and read only after the sender's line has shown block `b`. All numbers only grow, stay in
//! private memory and are published from there; what the other end publishes is checked against the possible range.

use crate::flow::{Damaged, can_count, look, post};
use crate::line::Line;
use crate::word::Codec;

/// Blocks that are read from the sender's memory at once, where it does not stage, at most.
const STRIDE_MAX: u64 = 64;

/// The sender's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Giver {
    announced: u64,
    staged: u64,
    drained: u64,
}

impl Giver {
    /// Adds a message of `blocks` to what the receiver may take; its first block, or `None` if words cannot count so far.
    pub fn announce(&mut self, blocks: u64) -> Option<u64> {
        let first = self.announced;
        can_count(first, blocks).then(|| {
            self.announced += blocks;
            first
        })
    }

    /// How far the receiver was when this end looked last.
    #[must_use]
    pub fn drained(&self) -> u64 {
        self.drained
    }

    /// The block to stage next, if its slot is free. Blocks that the receiver took without are passed over, which is
    /// published, so that what it sees is never far behind.
    ///
    /// # Errors
    /// `Damaged` when the receiver's word is impossible.
    pub fn next(
        &mut self,
        drained: &Line,
        staged: &Line,
        codec: Codec,
        slots: u64,
    ) -> Result<Option<u64>, Damaged> {
        self.drained = look(drained, codec, self.drained, self.announced)?;
        if self.staged < self.drained {
            self.staged = self.drained;
            post(staged, codec, self.staged);
        }
        let is_free = self.staged < self.announced && self.staged < self.drained + slots;
        Ok(is_free.then_some(self.staged))
    }

    /// Publishes the block that [`Giver::next`] named.
    pub fn publish(&mut self, staged: &Line, codec: Codec) {
        self.staged += 1;
        post(staged, codec, self.staged);
    }
}

/// The receiver's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taker {
    drained: u64,
    staged: u64,
    stride: u64,
}

impl Taker {
    /// The block to take next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.drained
    }

    /// Whether a message that begins with block `first` and has `blocks` is the next one.
    #[must_use]
    pub fn expects(&self, first: u64, blocks: u64) -> bool {
        first == self.drained && can_count(first, blocks)
    }

    /// Whether the next block is in its slot; if not, how many to read from the sender's memory: more each time, as a
    /// sender that is not at work now may not be for long, and calls cost time.
    ///
    /// # Errors
    /// `Damaged` when the sender's word is impossible.
    pub fn next(&mut self, staged: &Line, codec: Codec, slots: u64) -> Result<Option<u64>, Damaged> {
        if self.staged <= self.drained {
            self.staged = look(staged, codec, self.staged, self.drained + slots)?;
        }
        let is_staged = self.staged > self.drained;
        self.stride = if is_staged { 0 } else { (self.stride * 2).clamp(1, STRIDE_MAX) };
        Ok((!is_staged).then_some(self.stride))
    }

    /// Publishes that `blocks` more are done with.
    pub fn advance(&mut self, drained: &Line, codec: Codec, blocks: u64) {
        self.drained += blocks;
        post(drained, codec, self.drained);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::word::STEP_MAX;

    const CODEC: Codec = Codec::new(5);
    const SLOTS: u64 = 4;

    #[test]
    fn a_sender_goes_on_where_the_receiver_is() {
        let (staged, drained) = (Line::default(), Line::default());
        let (mut giver, mut taker) = (Giver::default(), Taker::default());
        assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Ok(None), "nothing is announced");
        assert_eq!(giver.announce(7), Some(0));
        for block in 0..SLOTS {
            assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Ok(Some(block)));
            giver.publish(&staged, CODEC);
        }
        assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Ok(None), "no slot is free");
        for _ in 0..SLOTS {
            assert_eq!(taker.next(&staged, CODEC, SLOTS), Ok(None));
            taker.advance(&drained, CODEC, 1);
        }
        for blocks in [1, 2] {
            assert_eq!(taker.next(&staged, CODEC, SLOTS), Ok(Some(blocks)), "as long as nothing is staged");
            taker.advance(&drained, CODEC, blocks);
        }
        assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Ok(None), "all is drained");
        assert_eq!(giver.announce(2), Some(7));
        assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Ok(Some(7)));
        giver.publish(&staged, CODEC);
        assert_eq!(taker.next(&staged, CODEC, SLOTS), Ok(None));
    }

    #[test]
    fn impossible_words_of_the_other_end_are_refused() {
        let (staged, drained) = (Line::default(), Line::default());
        let (mut giver, mut taker) = (Giver::default(), Taker::default());
        assert_eq!(giver.announce(2), Some(0));
        post(&drained, CODEC, 3);
        assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Err(Damaged), "more than was announced");
        post(&staged, CODEC, SLOTS + 1);
        assert_eq!(taker.next(&staged, CODEC, SLOTS), Err(Damaged), "more than there are slots");
        staged.post(u64::MAX);
        assert_eq!(taker.next(&staged, CODEC, SLOTS), Err(Damaged));
    }

    #[test]
    fn an_end_that_was_left_alone_for_long_understands_the_next_word() {
        const FAR: u64 = 3 * crate::word::WINDOW;
        let (staged, drained) = (Line::default(), Line::default());
        let (mut giver, mut taker) = (Giver::default(), Taker::default());
        for _ in 0..3 {
            assert!(giver.announce(FAR).is_some());
            taker.advance(&drained, CODEC, FAR);
            assert_eq!(giver.next(&drained, &staged, CODEC, SLOTS), Ok(None), "all is drained");
            assert!(taker.next(&staged, CODEC, SLOTS).unwrap().is_some(), "nothing is staged");
        }
    }

    #[test]
    fn a_message_that_words_cannot_count_is_refused_by_both_ends() {
        let drained = Line::default();
        let (mut giver, mut taker) = (Giver::default(), Taker::default());
        assert!(giver.announce(STEP_MAX + 1).is_none() && !taker.expects(0, STEP_MAX + 1));
        assert_eq!(giver.announce(STEP_MAX), Some(0));
        assert!(taker.expects(0, STEP_MAX));
        taker.advance(&drained, CODEC, STEP_MAX);
        assert!(giver.announce(1).is_none() && !taker.expects(STEP_MAX, 1));
    }
}
