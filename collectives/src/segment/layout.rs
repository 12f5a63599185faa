//! Where things lie in a segment. Every rank computes the layout from the size of the file and the
//! number of ranks; no offset or length is ever read from shared memory.
//!
//! ```text
//!  0            ┌──────────────────────────────────────────────────────────────┐
//!               │ member records   N x 1 KiB    writer: the rank               │  join only
//!  control      ├──────────────────────────────────────────────────────────────┤
//!               │ slot 0 │ rank 0 │ 32 lines of 128 B, op k uses line k % 32   │  writer: the rank
//!               │        │ rank 1 │ …                                          │
//!               │ slot 1 … slot 7                                              │
//!  ring control ├──────────────────────────────────────────────────────────────┤
//!               │ slot │ source x target │ head 128 B: ring, relay (source)    │
//!               │      │                 │ tail 128 B: the same (target)       │
//!  slot data    ├──────────────────────────────────────────────────────────────┤
//!               │ slot │ ring, relay: source x target  writer: the source      │
//!               │      │ per rank: staging, one half per op parity, which two  │
//!               │      │ ranks that exchange swap, and a board, one place per  │
//!               │      │ line; otherwise writer: the rank                      │
//!  heap         ├──────────────────────────────────────────────────────────────┤
//!               │ arena of rank 0 │ arena of rank 1 │ …  user buffers          │
//!  bytes        └──────────────────────────────────────────────────────────────┘
//! ```
//! A slot serves one communicator, or several with disjoint members: all words and bytes in it belong
//! to a rank of the step, not to a communicator. Pages are taken when touched, by the rank that writes
//! them first, which also places them on its NUMA node.

use crate::error::{Error, Result};
use crate::handshake::Record;

pub use crate::handshake::MAX_RANKS;
/// Communicators that one rank can be a member of at the same time.
pub const SLOTS: usize = 8;
/// The segment size that serves well; memory is taken only where it is touched.
pub const DEFAULT_BYTES: u64 = 256 << 20;

pub(crate) const MEMBER_BYTES: usize = 1024;
const _: () = assert!(size_of::<Record>() <= MEMBER_BYTES);
pub(crate) const LINE_STRIDE: usize = 128;
/// Lines of a rank, used in turn by the operations: so many small ones may be under way at once.
pub const LINES: usize = 32;
const PAGE: usize = 4096;
const RING_MAX: usize = 256 << 10;
const RING_MIN: usize = 4 << 10;
/// Per relay; a fourth of it is a block. Smaller blocks cost more posts than they gain.
const RELAY_MAX: usize = 256 << 10;
const RELAY_MIN: usize = 64 << 10;
const STAGING_MAX: usize = 8 << 20;
const STAGING_MIN: usize = 32 << 10;

/// Offsets and sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Ranks of the step on this node.
    pub ranks: usize,
    /// Size of the whole segment.
    pub bytes: usize,
    pub(crate) control: usize,
    pub(crate) ring_control: usize,
    pub(crate) slot_data: usize,
    /// Bytes of one ring; a power of two.
    pub ring_bytes: usize,
    /// Bytes of the relay beside each ring, a power of two; 0 where the segment has no room for it.
    pub relay_bytes: usize,
    /// Bytes of a rank's staging in one slot: two halves of 7/16 each, and the board.
    pub staging_bytes: usize,
    slot_bytes: usize,
    pub(crate) heap: usize,
    /// Bytes of one rank's arena.
    pub arena_bytes: usize,
}

impl Layout {
    /// Divides `bytes` among `ranks`: about half for the slots, up to an eighth for relays, the rest for user buffers.
    ///
    /// # Errors
    /// Refuses more ranks than [`MAX_RANKS`] and segments too small for the least rings and staging.
    pub fn new(bytes: u64, ranks: usize) -> Result<Self> {
        if ranks == 0 || ranks > MAX_RANKS {
            return Err(Error::Invalid("a segment serves 1 to 64 ranks"));
        }
        let bytes = usize::try_from(bytes).map_err(|_| Error::Invalid("segment size"))?;
        let control = page_up(ranks * MEMBER_BYTES);
        let ring_control = page_up(control + SLOTS * ranks * LINES * LINE_STRIDE);
        let slot_data = page_up(ring_control + SLOTS * ranks * ranks * 2 * LINE_STRIDE);
        let budget = (bytes.saturating_sub(slot_data) / 2 / SLOTS) & !(PAGE - 1);
        let ring_share = budget / 4 / (ranks * ranks);
        let ring_bytes = prev_power_of_two(ring_share).clamp(RING_MIN, RING_MAX);
        let rings = ring_bytes * ranks * ranks;
        let staging_share = (budget.saturating_sub(rings) / ranks) & !(2 * PAGE - 1);
        let staging_bytes = staging_share.clamp(STAGING_MIN, STAGING_MAX);
        let needed = slot_data + SLOTS * (rings + staging_bytes * ranks);
        let relay_share = bytes.saturating_sub(needed) / 4 / SLOTS / (ranks * ranks);
        let relay_bytes = prev_power_of_two(relay_share).min(RELAY_MAX);
        let relay_bytes = if relay_bytes < RELAY_MIN { 0 } else { relay_bytes };
        let slot_bytes = rings + relay_bytes * ranks * ranks + staging_bytes * ranks;
        let heap = slot_data + SLOTS * slot_bytes;
        if heap > bytes {
            return Err(Error::TooSmall { bytes: bytes as u64, ranks, needed: least(slot_data, ranks) });
        }
        let arena_bytes = ((bytes - heap) / ranks) & !(PAGE - 1);
        Ok(Self {
            ranks,
            bytes,
            control,
            ring_control,
            slot_data,
            ring_bytes,
            relay_bytes,
            staging_bytes,
            slot_bytes,
            heap,
            arena_bytes,
        })
    }

    /// Where a rank says who it is.
    #[must_use]
    pub fn member(&self, rank: usize) -> usize {
        rank * MEMBER_BYTES
    }

    /// Where a rank says how far it is in the operations that use this line.
    #[must_use]
    pub fn line(&self, slot: usize, rank: usize, index: usize) -> usize {
        self.control + ((slot * self.ranks + rank) * LINES + index) * LINE_STRIDE
    }

    /// Bytes of the half of a rank's staging that operations of one parity use.
    pub(crate) fn half_bytes(&self) -> usize {
        self.staging_bytes / 16 * 7
    }

    /// Bytes of the place on a rank's board that belongs to one line.
    pub(crate) fn place_bytes(&self) -> usize {
        self.staging_bytes / 8 / LINES
    }

    /// Offsets of the head and the tail line of a ring; of one to itself, the head says which communicator of the slot a rank is in.
    #[must_use]
    pub fn ring_lines(&self, slot: usize, source: usize, target: usize) -> (usize, usize) {
        let index = (slot * self.ranks + source) * self.ranks + target;
        let head = self.ring_control + index * 2 * LINE_STRIDE;
        (head, head + LINE_STRIDE)
    }

    /// Offsets of the lines of a relay: the same writers, the second halves of the ring's.
    #[must_use]
    pub fn relay_lines(&self, slot: usize, source: usize, target: usize) -> (usize, usize) {
        let (head, tail) = self.ring_lines(slot, source, target);
        (head + LINE_STRIDE / 2, tail + LINE_STRIDE / 2)
    }

    /// Where the cells of a ring begin.
    #[must_use]
    pub fn ring(&self, slot: usize, source: usize, target: usize) -> usize {
        let one = self.ring_bytes + self.relay_bytes;
        self.slot_data + slot * self.slot_bytes + (source * self.ranks + target) * one
    }

    /// The relay of a ring is behind it.
    pub(crate) fn relay(&self, slot: usize, source: usize, target: usize) -> usize {
        self.ring(slot, source, target) + self.ring_bytes
    }

    pub(crate) fn staging(&self, slot: usize, rank: usize) -> usize {
        self.ring(slot, self.ranks, 0) + rank * self.staging_bytes
    }

    pub(crate) fn arena(&self, rank: usize) -> usize {
        self.heap + rank * self.arena_bytes
    }

    /// A number that differs for different layouts, compared when ranks join.
    pub(crate) fn fingerprint(&self) -> u64 {
        [
            self.ranks,
            self.bytes,
            self.ring_bytes,
            self.relay_bytes,
            self.staging_bytes,
            self.heap,
            self.arena_bytes,
        ]
        .iter()
        .fold(1, |hash: u64, field| (hash ^ *field as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

/// The smallest segment for `ranks`: with the least rings and staging, which half of what is left after the control words must hold.
fn least(slot_data: usize, ranks: usize) -> u64 {
    (slot_data + SLOTS * ranks * (RING_MIN * ranks + STAGING_MIN)) as u64
}

fn page_up(offset: usize) -> usize {
    offset.next_multiple_of(PAGE)
}

fn prev_power_of_two(value: usize) -> usize {
    if value == 0 { 0 } else { 1 << value.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn regions_do_not_overlap(ranks in 1..=MAX_RANKS, mib in 1_u64..2048) {
            let Ok(layout) = Layout::new(mib << 20, ranks) else { return Ok(()) };
            let mut regions = vec![];
            for slot in 0..SLOTS {
                for rank in 0..ranks {
                    regions.push((layout.line(slot, rank, 0), LINES * LINE_STRIDE));
                    regions.push((layout.staging(slot, rank), layout.staging_bytes));
                    for target in 0..ranks {
                        regions.push((layout.ring_lines(slot, rank, target).0, 2 * LINE_STRIDE));
                        regions.push((layout.ring(slot, rank, target), layout.ring_bytes));
                        regions.push((layout.relay(slot, rank, target), layout.relay_bytes));
                    }
                }
            }
            for rank in 0..ranks {
                regions.push((layout.member(rank), MEMBER_BYTES));
                regions.push((layout.arena(rank), layout.arena_bytes));
            }
            regions.sort_unstable();
            for pair in regions.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:?}", pair);
            }
            let last = regions[regions.len() - 1];
            prop_assert!(last.0 + last.1 <= layout.bytes);
        }
    }

    #[test]
    fn a_connection_of_the_net_plugin_has_a_relay_of_full_size() {
        assert_eq!(Layout::new(64 << 20, 2).unwrap().relay_bytes, RELAY_MAX);
        assert_eq!(Layout::new(DEFAULT_BYTES, 8).unwrap().relay_bytes, RELAY_MIN);
        assert_eq!(Layout::new(DEFAULT_BYTES, MAX_RANKS).unwrap().relay_bytes, 0);
    }

    #[test]
    fn the_default_serves_two_and_sixty_four_ranks() {
        assert_eq!(Layout::new(DEFAULT_BYTES, 2).unwrap().ring_bytes, RING_MAX);
        assert_eq!(Layout::new(DEFAULT_BYTES, MAX_RANKS).unwrap().ring_bytes, RING_MIN);
        assert!(Layout::new(DEFAULT_BYTES / 4, MAX_RANKS).is_err());
    }

    #[test]
    fn a_segment_of_the_size_that_the_refusal_names_will_do() {
        for ranks in [1, 2, 7, MAX_RANKS] {
            let Err(Error::TooSmall { needed, .. }) = Layout::new(4096, ranks) else { panic!("{ranks}") };
            assert!(
                Layout::new(needed, ranks).is_ok() && Layout::new(needed - 4096, ranks).is_err(),
                "{ranks}"
            );
        }
    }

    #[test]
    fn a_tiny_segment_is_refused() {
        assert!(Layout::new(4096, 2).is_err());
        assert!(Layout::new(0, 1).is_err());
        assert!(Layout::new(1 << 30, 0).is_err());
        assert!(Layout::new(1 << 30, MAX_RANKS + 1).is_err());
    }
}
