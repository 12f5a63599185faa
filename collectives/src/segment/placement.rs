//! On which NUMA node the pages of a rank's parts of the segment are.
//!
//! Each rank writes its rings, staging and board itself, so the first touch places them where it runs; but its user buffers
//! may be written first by a peer (an all-reduce between buffers in the segment stores to everybody's target), and a rank that is
//! bound to no node may be elsewhere later. The policy that is set here belongs to the shared file (mbind(2)) and holds for all who
//! touch a page first: the node of the rank's leaf, if the rank may run there, otherwise the one where it runs. It prefers a node
//! and does not bind to it: memory elsewhere is better than none. Where there is one node, or no such call, nothing happens.
//!
//! Huge pages are transparent ones (`sys::map_shared`), unless the site has the agent take them from the pool. Parts of two
//! ranks can lie in one page of the pool; the kernel then refuses the policy, and the first touch decides.

use std::ops::Range;

use super::Segment;
use super::layout::SLOTS;
use crate::sys;

/// NUMA node of the GPU of this rank's leaf, where the plugin knows.
const NODE_VARIABLE: &str = "MIGSHARE_NUMA_NODE";

/// The node for this rank's memory.
fn node() -> Option<u32> {
    let leaf = std::env::var(NODE_VARIABLE).ok().and_then(|text| text.parse().ok());
    let cpus = |node| sys::cpus_of_node(node).as_deref().map(cpu_set).unwrap_or_default();
    choose(leaf, cpus, &sys::allowed_cpus()).or_else(sys::current_node)
}

/// The leaf's node, if this rank may run on one of its CPUs: it then does sooner or later, or is bound there.
fn choose(leaf: Option<u32>, cpus: impl Fn(u32) -> [u64; 8], allowed: &[u64; 8]) -> Option<u32> {
    let near = |node: &u32| cpus(*node).iter().zip(allowed).any(|(there, here)| there & here != 0);
    leaf.filter(|node| *node < u64::BITS).filter(near)
}

/// The set that a list such as `0-3,8` names; what is beyond 512 or no list is left out.
fn cpu_set(list: &str) -> [u64; 8] {
    let mut set = [0; 8];
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
        (first..=last.min(511)).for_each(|cpu| set[cpu / 64] |= 1 << (cpu % 64));
    }
    set
}

impl Segment {
    /// Asks for pages near this rank for everything that it owns.
    pub(crate) fn place_near(&self, rank: usize) {
        if !sys::has_several_nodes() {
            return;
        }
        let Some(node) = node() else { return };
        for part in self.parts_of(rank) {
            // SAFETY: the layout keeps the parts inside the mapping.
            unsafe { sys::prefer_node(self.at(part.start), part.len(), node) };
        }
    }

    /// What `rank` writes, in whole pages: per slot its rings and staging, and its arena.
    fn parts_of(&self, rank: usize) -> Vec<Range<usize>> {
        let layout = self.layout();
        let of = |start: usize, bytes: usize| start..start + bytes;
        let rings =
            |slot| of(layout.ring(slot, rank, 0), (layout.ring_bytes + layout.relay_bytes) * layout.ranks);
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
    fn the_leafs_node_is_taken_where_the_rank_may_run() {
        let cpus = |node| cpu_set(if node == 0 { "0-63,128\n" } else { "64-127\n" });
        assert_eq!(choose(Some(1), cpus, &cpu_set("0-127")), Some(1), "bound to neither");
        assert_eq!(choose(Some(0), cpus, &cpu_set("128")), Some(0));
        assert_eq!(choose(Some(1), cpus, &cpu_set("3")), None, "bound to the other node");
        assert_eq!(choose(Some(64), cpus, &cpu_set("0-127")), None);
        assert_eq!(choose(None, cpus, &cpu_set("0-127")), None);
        assert_eq!(cpu_set("nonsense,7-x,600-700"), [0; 8]);
    }

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
