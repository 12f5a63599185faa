//! Which parts of this rank's arena are taken. Private memory of the rank: a peer cannot damage it.

use std::collections::BTreeMap;

/// User buffers start at multiples of this.
const ALIGN: usize = 4096;

/// First-fit allocator over `[0, bytes)`.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: usize,
    /// Start to (length, era of the allocation).
    taken: BTreeMap<usize, (usize, u64)>,
}

impl Arena {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, taken: BTreeMap::new() }
    }

    /// Takes `len` bytes; their offset.
    pub(crate) fn take(&mut self, len: usize, era: u64) -> Option<usize> {
        let len = len.max(1).checked_next_multiple_of(ALIGN)?;
        let mut start = 0;
        for (&taken, &(taken_len, _)) in &self.taken {
            if taken - start >= len {
                break;
            }
            start = taken + taken_len;
        }
        if self.bytes.checked_sub(start)? < len {
            return None;
        }
        self.taken.insert(start, (len, era));
        Some(start)
    }

    /// Gives back what `take` returned; a buffer of an earlier era stays taken for ever, because a
    /// stopped peer may still write to it when it is resumed.
    pub(crate) fn give(&mut self, start: usize, era: u64) {
        if self.taken.get(&start).is_some_and(|(_, taken_era)| *taken_era == era) {
            self.taken.remove(&start);
        }
    }

    /// The era of the allocation that holds all of `[start, start + len)`.
    pub(crate) fn era_of(&self, start: usize, len: usize) -> Option<u64> {
        let (&taken, &(taken_len, era)) = self.taken.range(..=start).next_back()?;
        (start - taken + len <= taken_len).then_some(era)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_space_is_taken_again_and_neighbours_never_overlap() {
        let mut arena = Arena::new(4 * ALIGN);
        let first = arena.take(10, 0).unwrap();
        let second = arena.take(ALIGN + 1, 0).unwrap();
        assert_eq!((first, second), (0, ALIGN));
        assert_eq!(arena.take(2 * ALIGN, 0), None);
        arena.give(first, 0);
        assert_eq!(arena.take(ALIGN, 0), Some(0));
        assert_eq!(arena.era_of(ALIGN + 5, 10), Some(0));
        assert_eq!(arena.era_of(ALIGN, 3 * ALIGN), None);
    }

    #[test]
    fn a_buffer_from_before_a_fault_is_never_taken_again() {
        let mut arena = Arena::new(2 * ALIGN);
        let old = arena.take(1, 0).unwrap();
        arena.give(old, 1);
        assert_eq!(arena.take(1, 1), Some(ALIGN));
        assert_eq!(arena.take(1, 1), None);
    }

    #[test]
    fn absurd_lengths_are_refused() {
        assert_eq!(Arena::new(ALIGN).take(usize::MAX, 0), None);
        assert_eq!(Arena::new(0).take(1, 0), None);
    }
}
