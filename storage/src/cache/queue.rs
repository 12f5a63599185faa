//! S3-FIFO eviction (Yang et al., SOSP'23): a small queue for newcomers, a main queue for what was asked for
//! again, and a ghost list of keys that left the small queue lately.
//!
//! ```text
//!   new ---> small --asked again--> main --asked again--> main (one less)
//!     \        \--not asked--> out, key to ghost              \--not asked--> out
//!      \--key in ghost--------------> main
//! ```
//! A scan passes through the small queue (a tenth of the slots) and leaves the rest alone.

use std::collections::{HashSet, VecDeque};

use super::index::Slot;

/// Most hits that are remembered of a slot.
pub(super) const MOST_HITS: u8 = 3;

/// The queues. Hit counts live with the slots; [`Queue::victim`] asks for them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    small: VecDeque<Ticket>,
    main: VecDeque<Ticket>,
    ghost: VecDeque<u64>,
    ghosts: HashSet<u64>,
    slots: usize,
}

/// A slot's place in a queue. It counts while the slot's stamp is the same: a slot that was emptied and given away again
/// has a newer place.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    slot: Slot,
    stamp: u32,
}

/// What the queue must know of a slot.
pub(super) trait Slots {
    /// Hits since the last look, which sets them to `left`.
    fn hits(&mut self, slot: Slot) -> &mut u8;
    /// Whether it must stay.
    fn is_pinned(&self, slot: Slot) -> bool;
    /// Whether it still holds what it held when it got this stamp; if not, its place in the queue is void.
    fn is_used(&self, slot: Slot, stamp: u32) -> bool;
    /// A number that stands for its extent.
    fn fingerprint(&self, slot: Slot) -> u64;
}

impl Queue {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, ..Self::default() }
    }

    /// A slot was given to an extent with this fingerprint.
    pub(super) fn insert(&mut self, slot: Slot, stamp: u32, fingerprint: u64) {
        let ticket = Ticket { slot, stamp };
        if self.ghosts.remove(&fingerprint) {
            self.main.push_back(ticket);
        } else {
            self.small.push_back(ticket);
        }
    }

    /// Whether so many places are void that [`Self::sweep`] is due: files that are written again and again leave some behind.
    pub(super) fn is_cluttered(&self) -> bool {
        self.small.len() + self.main.len() > 2 * self.slots
    }

    /// Drops void places.
    pub(super) fn sweep(&mut self, slots: &impl Slots) {
        self.small.retain(|t| slots.is_used(t.slot, t.stamp));
        self.main.retain(|t| slots.is_used(t.slot, t.stamp));
    }

    /// Takes the slot out that should be given away, if any may be.
    pub(super) fn victim(&mut self, slots: &mut impl Slots) -> Option<Slot> {
        // Every slot is looked at most once per hit it can have, plus once.
        let tries = (self.small.len() + self.main.len()) * (usize::from(MOST_HITS) + 2);
        for _ in 0..tries {
            let from_small = self.small.len() * 10 >= self.slots || self.main.is_empty();
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let ticket = queue.pop_front()?;
            let slot = ticket.slot;
            if !slots.is_used(slot, ticket.stamp) {
                continue;
            }
            if slots.is_pinned(slot) {
                self.main.push_back(ticket);
            } else if *slots.hits(slot) > 0 {
                let hits = slots.hits(slot);
                *hits = if from_small { 0 } else { *hits - 1 };
                self.main.push_back(ticket);
            } else {
                if from_small {
                    self.remember(slots.fingerprint(slot));
                }
                return Some(slot);
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.small.len() + self.main.len()
    }

    fn remember(&mut self, fingerprint: u64) {
        if self.ghosts.insert(fingerprint) {
            self.ghost.push_back(fingerprint);
        }
        while self.ghost.len() > self.slots {
            if let Some(old) = self.ghost.pop_front() {
                self.ghosts.remove(&old);
            }
        }
    }
}
