//! Free slots, given out so that neighbours in a file become neighbours in the store: one read serves both.
//!
//! Slots come in groups of [`GROUP`], 1 MiB, the largest request. An extent gets the slot after the one of the extent before it;
//! the first of a group in a file opens a free group; what is left over of groups goes to files that need one slot, and to all
//! when no group is free. The lists may name slots that were taken meanwhile; the marks decide.

use super::index::Slot;

/// Slots of a group.
const GROUP: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Free {
    marks: Vec<bool>,
    count: usize,
    /// Groups of which all slots were free.
    groups: Vec<u32>,
    /// Other free slots.
    singles: Vec<Slot>,
}

/// What a slot is wanted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Number of the extent in its file.
    pub(super) number: u64,
    /// Where the extent before it is.
    pub(super) before: Option<Slot>,
    /// The file has no other extent.
    pub(super) alone: bool,
}

impl Free {
    /// Of `slots` slots none is free yet.
    pub(super) fn new(slots: u32) -> Self {
        Self { marks: vec![false; slots as usize], count: 0, groups: Vec::new(), singles: Vec::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Exactly those are free for which `is_free` says so. They are given out lowest first.
    pub(super) fn set(&mut self, is_free: impl Fn(Slot) -> bool) {
        self.marks.iter_mut().enumerate().for_each(|(i, mark)| *mark = is_free(Slot(i as u32)));
        self.count = self.marks.iter().filter(|m| **m).count();
        self.list();
    }

    /// Makes the lists from the marks.
    fn list(&mut self) {
        let groups = (0..self.marks.len() as u32 / GROUP).rev();
        self.groups = groups.filter(|g| self.is_whole(*g)).collect();
        let slots = (0..self.marks.len() as u32).rev().map(Slot);
        self.singles = slots.filter(|s| self.is_free(*s) && !self.is_whole(s.0 / GROUP)).collect();
    }

    fn is_free(&self, slot: Slot) -> bool {
        self.marks.get(slot.0 as usize).is_some_and(|mark| *mark)
    }

    fn is_whole(&self, group: u32) -> bool {
        (0..GROUP).all(|i| self.is_free(Slot(group * GROUP + i)))
    }

    /// A slot becomes free.
    pub(super) fn give(&mut self, slot: Slot) {
        if let Some(mark) = self.marks.get_mut(slot.0 as usize).filter(|mark| !**mark) {
            *mark = true;
            self.count += 1;
            if self.is_whole(slot.0 / GROUP) {
                self.groups.push(slot.0 / GROUP);
            } else {
                self.singles.push(slot);
            }
            if self.groups.len() + self.singles.len() > 2 * self.marks.len() {
                self.list();
            }
        }
    }

    /// Takes a free slot, if there is any.
    pub(super) fn take(&mut self, wanted: Wanted) -> Option<Slot> {
        let opens = wanted.number.is_multiple_of(GROUP.into());
        let next = wanted.before.filter(|_| !opens).map(|before| Slot(before.0 + 1));
        let next = next.filter(|slot| self.is_free(*slot));
        let left_over = next.or_else(|| wanted.alone.then(|| self.single()).flatten());
        let slot = left_over.or_else(|| self.group(wanted.number)).or_else(|| self.single())?;
        self.marks[slot.0 as usize] = false;
        self.count -= 1;
        Some(slot)
    }

    fn single(&mut self) -> Option<Slot> {
        while let Some(slot) = self.singles.pop() {
            if self.is_free(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Opens a group for an extent, at its place; the other slots are left to its neighbours while there are groups.
    fn group(&mut self, number: u64) -> Option<Slot> {
        while let Some(group) = self.groups.pop() {
            let place = (number % u64::from(GROUP)) as u32;
            let whole = self.is_whole(group);
            for slot in (0..GROUP).rev().filter(|i| !whole || *i != place).map(|i| Slot(group * GROUP + i)) {
                if self.is_free(slot) {
                    self.singles.push(slot);
                }
            }
            if whole {
                return Some(Slot(group * GROUP + place));
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = Slot> {
        (0..self.marks.len() as u32).map(Slot).filter(|slot| self.is_free(*slot))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all_free(slots: u32) -> Free {
        let mut free = Free::new(slots);
        free.set(|_| true);
        free
    }

    #[test]
    fn files_that_are_filled_at_once_get_neighbouring_slots_each() {
        let mut free = all_free(32);
        let mut files = [Vec::new(), Vec::new()];
        for number in 0..8 {
            for file in &mut files {
                let before = file.last().copied();
                file.push(free.take(Wanted { number, before, alone: false }).unwrap());
            }
        }
        for file in files {
            for group in file.chunks(4) {
                assert!(group.windows(2).all(|w| w[1].0 == w[0].0 + 1), "{group:?}");
            }
        }
    }

    #[test]
    fn files_of_one_slot_take_what_is_left_over_first() {
        let mut free = all_free(8);
        let first = free.take(Wanted { number: 0, before: None, alone: false }).unwrap();
        for _ in 0..3 {
            let slot = free.take(Wanted { number: 0, before: None, alone: true }).unwrap();
            assert_eq!(slot.0 / GROUP, first.0 / GROUP);
        }
        let last = free.take(Wanted { number: 0, before: None, alone: true }).unwrap();
        assert_ne!(last.0 / GROUP, first.0 / GROUP);
    }

    #[test]
    fn a_slot_out_of_a_group_that_nobody_opened_does_not_hide_the_others() {
        let mut free = all_free(8);
        assert_eq!(free.take(Wanted { number: 1, before: Some(Slot(4)), alone: false }), Some(Slot(5)));
        let rest: BTreeSet<Slot> =
            std::iter::from_fn(|| free.take(Wanted { number: 0, before: None, alone: false })).collect();
        assert_eq!(rest.len(), 7);
    }

    proptest! {
        /// Against a set: whatever is given can be taken, once, and nothing else.
        #[test]
        fn every_free_slot_is_given_out_once(
            slots in 1u32..23,
            steps in proptest::collection::vec((any::<bool>(), 0u64..9, 0u32..25, any::<bool>()), 0..400),
        ) {
            let mut free = all_free(slots);
            let mut model: BTreeSet<Slot> = (0..slots).map(Slot).collect();
            for (give, number, other, alone) in steps {
                if give {
                    let slot = Slot(other % slots);
                    free.give(slot);
                    model.insert(slot);
                } else {
                    let before = (other < slots).then_some(Slot(other));
                    match free.take(Wanted { number, before, alone }) {
                        Some(slot) => prop_assert!(model.remove(&slot)),
                        None => prop_assert!(model.is_empty()),
                    }
                }
                prop_assert_eq!(free.count(), model.len());
                prop_assert!(free.groups.len() + free.singles.len() <= 3 * slots as usize + GROUP as usize);
            }
            prop_assert_eq!(free.all().collect::<BTreeSet<_>>(), model);
        }
    }
}
