//! Flow control of a byte ring with one writer and one reader, in cells of 64 bytes.
//!
//! ```text
//!        taken (reader's line)         given (writer's line)
//!           ▼                            ▼
//!   ────────┬────────────────────────────┬───────────────
//!   free …  │ cells the reader may read  │ cells the writer may write …
//!   ────────┴────────────────────────────┴───────────────
//!   given - taken never exceeds the capacity; both only grow
//! ```
//! Both ends keep their own number in private memory and only publish it; what the other end
//! publishes is checked against the possible range each time.

use crate::line::Line;
use crate::word::{Codec, STEP_MAX, Seen};

/// Bytes of a cell.
pub const CELL: usize = 64;
/// Words of rings carry no operation.
const SIGNATURE: u16 = 0x155;

/// The other end's word is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// One end of a ring: its own number and what it last saw of the other's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    own: u64,
    other: u64,
}

impl Flow {
    /// Cells that this end has given or taken so far.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.own
    }

    /// For the writer: how many cells it may write.
    ///
    /// # Errors
    /// `Damaged` when the reader's word is impossible.
    #[inline]
    pub fn free(&mut self, taken: &Line, codec: Codec, capacity: u64) -> Result<u64, Damaged> {
        if self.own - self.other == capacity {
            self.other = look(taken, codec, self.other, self.own)?;
        }
        Ok(capacity - (self.own - self.other))
    }

    /// For the writer: whether the reader has taken everything before `position`.
    ///
    /// # Errors
    /// As [`Flow::free`].
    #[inline]
    pub fn has_taken(&mut self, taken: &Line, codec: Codec, position: u64) -> Result<bool, Damaged> {
        if self.other < position {
            self.other = look(taken, codec, self.other, self.own)?;
        }
        Ok(self.other >= position)
    }

    /// For the reader: how many cells it may read.
    ///
    /// # Errors
    /// `Damaged` when the writer's word is impossible.
    #[inline]
    pub fn available(&mut self, given: &Line, codec: Codec, capacity: u64) -> Result<u64, Damaged> {
        if self.other == self.own {
            self.other = look(given, codec, self.other, self.own + capacity)?;
        }
        Ok(self.other - self.own)
    }

    /// For the reader, which waits for more than it has seen: looks again.
    ///
    /// # Errors
    /// As [`Flow::available`].
    #[inline]
    pub fn refresh(&mut self, given: &Line, codec: Codec, capacity: u64) -> Result<u64, Damaged> {
        self.other = look(given, codec, self.other, self.own + capacity)?;
        Ok(self.other - self.own)
    }

    /// Publishes that this end has given or taken `cells` more.
    #[inline]
    pub fn advance(&mut self, line: &Line, codec: Codec, cells: u64) {
        self.own += cells;
        post(line, codec, self.own);
    }

    /// Whether the ring still counts.
    #[must_use]
    pub fn has_room_to_count(&self, cells: u64) -> bool {
        can_count(self.own, cells)
    }
}

/// Whether a number of an end can grow by `more`.
#[inline]
pub(crate) fn can_count(number: u64, more: u64) -> bool {
    number.saturating_add(more) <= STEP_MAX
}

/// Publishes a number of this end.
#[inline]
pub(crate) fn post(line: &Line, codec: Codec, number: u64) {
    line.post(codec.encode(number, SIGNATURE));
}

/// The other end's number, which must lie in `least..=most`.
#[inline]
pub(crate) fn look(line: &Line, codec: Codec, least: u64, most: u64) -> Result<u64, Damaged> {
    let word = line.word();
    if Codec::step_of(word) == 0 && least == 0 {
        return Ok(0); // not used yet
    }
    // Any distance is one that a word can say: the range is narrower than what `decode` would refuse, or the end was left alone for long.
    match codec.decode(word, Codec::step_of(word)) {
        Seen::Step { step, signature: SIGNATURE } if (least..=most).contains(&step) => Ok(step),
        _ => Err(Damaged),
    }
}
