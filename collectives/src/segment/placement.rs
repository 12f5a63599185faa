//! On which NUMA node the pages of a rank's parts of the segment are.
//!
//! Each rank writes its rings, staging and board itself, so the first touch places them where it runs; but its user buffers
//! may be written first by a peer (an all-reduce between buffers in the segment stores to everybody's target). The policy
//! that is set here belongs to the shared file (mbind(2)) and holds for all who touch a page first. It prefers a node and does
//! not bind to it: memory elsewhere is better than none. Where there is one node, or no such call, nothing happens.
//!
//! Huge pages are transparent ones (`sys::map_shared`); pages of hugetlbfs would be taken from a pool that a peer can empty
//! by punching holes, and SIGBUS would be the answer.

use std::ops::Range;

use super::Segment;
use super::layout::SLOTS;
use crate::sys;

impl Segment {
    /// Asks for pages on the node where the calling thread runs, for everything that `rank` owns.
    pub(crate) fn place_near(&self, rank: usize) {
        if !sys::has_several_nodes() {
            return;
        }
        let Some(node) = sys::current_node() else { return };
        for part in self.parts_of(rank) {
            // SAFETY: the layout keeps the parts inside the mapping.
            unsafe { sys::prefer_node(self.at(part.start), part.len(), node) };
        }
    }

    /// What `rank` writes, in whole pages: per slot its rings and staging, and its arena.
    fn parts_of(&self, rank: usize) -> Vec<Range<usize>> {
        let layout = self.layout();
        let of = |start: usize, bytes: usize| start..start + bytes;
        let rings = |slot| of(layout.ring(slot, rank, 0), layout.ring_bytes * layout.ranks);
        let staging = |slot| of(layout.staging(slot, rank), layout.staging_bytes);
        let arena = of(layout.arena(rank), layout.arena_bytes);
        let parts = (0..SLOTS).flat_map(|slot| [rings(slot), staging(slot)]).chain([arena]);
        parts.filter(|part| !part.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::layout::{DEFAULT_BYTES, MAX_RANKS};

    #[test]
    fn the_parts_of_all_ranks_are_whole_pages_and_nobody_elses() {
        for ranks in [1, 2, 7, MAX_RANKS] {
            let segment = Segment::create(DEFAULT_BYTES, ranks).unwrap();
            let mut parts: Vec<_> = (0..ranks).flat_map(|rank| segment.parts_of(rank)).collect();
            parts.sort_by_key(|part| part.start);
            assert!(parts.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(parts.iter().all(|part| part.start % 4096 == 0 && part.len() % 4096 == 0));
            assert!(parts.last().unwrap().end <= segment.layout().bytes);
        }
    }

    #[test]
    fn a_preference_counts_for_the_file_and_so_for_its_other_mappings() {
        let segment = Segment::create(8 << 20, 2).unwrap();
        let node = sys::current_node().unwrap();
        let part = segment.parts_of(1).pop().unwrap();
        // SAFETY: a part of the mapping.
        if !unsafe { sys::prefer_node(segment.at(part.start), part.len(), node) } {
            return println!("SKIP: no mbind on this kernel");
        }
        let copy = segment.descriptor().unwrap().try_clone_to_owned().unwrap();
        let other = Segment::from_descriptor(copy, 2).unwrap();
        assert_eq!(sys::preferred_node(other.at(part.start)), Some(node));
        assert_eq!(sys::preferred_node(other.at(segment.parts_of(0)[0].start)), None);
    }
}
