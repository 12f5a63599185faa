//! Eviction judged by traces: hit ratios beside those of LRU over the same accesses.

use std::collections::{BTreeMap, HashMap};

use super::index::Index;
use super::record::{Extent, FileKey, Version};
use super::*;
use crate::random::Random;

const SLOTS: u32 = 1000;
const VERSION: Version =
    Version { size: u64::MAX >> 1, mtime: 1, ctime: 1, btime: 1, generation: 1, data_version: 0 };

/// Rank with a probability that falls as 1/rank, nearly: the exponential of an even draw.
fn zipf(random: &mut Random, n: u64) -> u64 {
    let even = random.below(1 << 20) as f64 / f64::from(1 << 20);
    (n as f64).powf(even) as u64
}

fn file() -> FileKey {
    FileKey { backend: 1, inode: 7 }
}

/// Reads the first block of an extent and caches it if it was not; whether it was.
fn access(index: &mut Index, number: u64) -> bool {
    let extent = Extent { file: file(), number };
    if let Some(hits) = index.pin(file(), &VERSION, number * EXTENT, number * EXTENT + BLOCK) {
        hits.iter().for_each(|hit| index.unpin(hit.slot));
        return true;
    }
    let (slot, _) = index.reserve(extent, &VERSION).unwrap();
    index.commit(slot, extent, &VERSION, Some((0, &[0])));
    false
}

#[derive(Default)]
struct Lru {
    last: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
    clock: u64,
}

impl Lru {
    fn access(&mut self, number: u64) -> bool {
        self.clock += 1;
        let before = self.last.insert(number, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, number);
        if self.order.len() > SLOTS as usize
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
        before.is_some()
    }
}

/// Hit ratios of the cache and of LRU over the accesses that `counts` names.
fn ratios(trace: &[u64], counts: impl Fn(u64) -> bool) -> (f64, f64) {
    let (mut index, mut lru) = (Index::new(SLOTS), Lru::default());
    index.finish_restore();
    let (mut ours, mut theirs, mut all) = (0, 0, 0);
    for number in trace {
        let (hit, lru_hit) = (access(&mut index, *number), lru.access(*number));
        if counts(*number) {
            (ours, theirs, all) = (ours + u32::from(hit), theirs + u32::from(lru_hit), all + 1);
        }
    }
    index.check();
    (f64::from(ours) / f64::from(all), f64::from(theirs) / f64::from(all))
}

#[test]
fn a_scan_leaves_what_is_read_again_and_again_in_the_cache() {
    let mut random = Random(1);
    let hot = 600;
    let mut trace: Vec<u64> = (0..20).flat_map(|_| 0..hot).collect();
    // Every third access belongs to an endless scan.
    let scan = (0..30_000).flat_map(|i| [random.below(hot), random.below(hot), 1_000_000 + i]);
    trace.extend(scan);
    let (ours, lru) = ratios(&trace, |n| n < hot);
    assert!(ours > 0.98, "{ours} of the hot reads hit (LRU {lru})");
}

#[test]
fn a_scan_in_one_go_costs_lru_everything_and_this_cache_little() {
    let rounds = (0..10).flat_map(|round| {
        (0..3).flat_map(|_| 0..800).chain(10_000 * (round + 1)..10_000 * (round + 1) + 2000)
    });
    let trace: Vec<u64> = rounds.collect();
    let (ours, lru) = ratios(&trace, |n| n < 800);
    assert!(ours > 0.9 && ours > lru + 0.1, "{ours}, LRU {lru}");
}

#[test]
fn popular_extents_among_many_that_are_read_once_hit_more_often_than_with_lru() {
    let mut random = Random(3);
    let trace: Vec<u64> = (0..60_000).map(|_| zipf(&mut random, 100_000)).collect();
    let (ours, lru) = ratios(&trace, |_| true);
    assert!(ours > lru + 0.01, "{ours}, LRU {lru}");
}

#[test]
fn a_file_that_is_dropped_and_read_again_for_ever_leaves_no_clutter() {
    let mut index = Index::new(SLOTS);
    index.finish_restore();
    for _ in 0..100 {
        (0..100).for_each(|number| {
            access(&mut index, number);
        });
        index.drop_file(file(), None);
        assert!(index.places() <= 2 * SLOTS as usize + 1, "{} places for {SLOTS} slots", index.places());
    }
    index.check();
}

#[test]
fn pinned_files_survive_any_scan_and_go_when_they_are_let_go() {
    let mut index = Index::new(SLOTS);
    index.finish_restore();
    let pinned = FileKey { backend: 1, inode: 9 };
    for number in 0..500 {
        let extent = Extent { file: pinned, number };
        let (slot, _) = index.reserve(extent, &VERSION).unwrap();
        index.commit(slot, extent, &VERSION, Some((0, &[0])));
    }
    assert!(index.pin_file(pinned, 500));
    (0..10_000).for_each(|number| {
        access(&mut index, number);
    });
    assert_eq!(index.cached_blocks(pinned, &VERSION), 500);
    index.check();
    index.unpin_file(pinned);
    (0..10).flat_map(|_| 20_000..20_800).for_each(|number| {
        access(&mut index, number);
    });
    assert!(index.cached_blocks(pinned, &VERSION) <= 200, "what was let go keeps others out");
}
