use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

const SECTOR: u64 = 512;

/// A store in memory that keeps what was synced apart from what was not, by sector.
#[derive(Debug, Default)]
struct Lossy {
    index: Mutex<Device>,
    data: Mutex<Device>,
}

#[derive(Clone, Debug, Default)]
struct Device {
    durable: HashMap<u64, [u8; SECTOR as usize]>,
    unsynced: HashMap<u64, [u8; SECTOR as usize]>,
}

impl Device {
    fn read(&self, offset: u64, into: &mut [u8]) {
        for (i, chunk) in into.chunks_exact_mut(SECTOR as usize).enumerate() {
            let at = offset / SECTOR + i as u64;
            let sector = self.unsynced.get(&at).or_else(|| self.durable.get(&at));
            chunk.copy_from_slice(sector.unwrap_or(&[0; SECTOR as usize]));
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            self.unsynced.insert(offset / SECTOR + i as u64, chunk.try_into().unwrap());
        }
    }

    fn sync(&mut self) {
        self.durable.extend(self.unsynced.drain());
    }

    /// Power loss: of the unsynced sectors only those survive that `survives` names.
    fn lose(&mut self, mut survives: impl FnMut() -> bool) {
        self.unsynced.retain(|_, _| survives());
        self.sync();
    }
}

impl Lossy {
    fn read_data(&self, offset: u64, into: &mut [u8]) {
        self.data.lock().unwrap().read(offset, into);
    }
}

impl Sectors for Lossy {
    fn read_index(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.index.lock().unwrap().read(offset, into);
        Ok(())
    }
    fn write_index(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.index.lock().unwrap().write(offset, bytes);
        Ok(())
    }
    fn write_data(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.lock().unwrap().write(offset, bytes);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.data.lock().unwrap().sync();
        self.index.lock().unwrap().sync();
        Ok(())
    }
}

fn key(inode: u64) -> FileKey {
    FileKey { backend: 1, inode }
}

fn version(n: i64) -> Version {
    Version { size: 4 * EXTENT, mtime: n, ctime: n, btime: 1, ..Version::default() }
}

/// The bytes that block `block` of file `inode` has in version `v`: the oracle.
fn content(inode: u64, v: i64, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&(inode << 48 | (v as u64) << 32 | block << 16 | i as u64).to_le_bytes());
    }
    bytes
}

fn put(cache: &Cache<Lossy>, inode: u64, v: i64, block: u64, count: u64) -> bool {
    let data: Vec<u8> = (block..block + count).flat_map(|b| content(inode, v, b)).collect();
    cache.insert(key(inode), &version(v), block * BLOCK, &data, || true)
}

/// Reads a block through the cache as the daemon does: whatever passes the checksum must be the oracle's.
fn get(cache: &Cache<Lossy>, inode: u64, v: i64, block: u64) -> bool {
    let Some(parts) = cache.lookup(key(inode), &version(v), block * BLOCK, BLOCK) else { return false };
    let mut data = vec![0; BLOCK as usize];
    cache.store().read_data(parts[0].store_offset, &mut data);
    let good = parts[0].matches(&data);
    if good {
        assert_eq!(data, content(inode, v, block), "wrong bytes for inode {inode} version {v} block {block}");
    } else {
        cache.corrupt(&parts[0]);
    }
    cache.unpin(&parts[0]);
    good
}

#[test]
fn what_was_stored_is_found_and_another_version_is_not() {
    let cache = Cache::load(Lossy::default(), 64);
    assert!(put(&cache, 1, 1, 3, 2));
    assert!(get(&cache, 1, 1, 3) && get(&cache, 1, 1, 4));
    assert!(!get(&cache, 1, 1, 5) && !get(&cache, 1, 2, 3) && !get(&cache, 2, 1, 3));
    assert_eq!(cache.missing(key(1), &version(1), 0), [(0, 3 * BLOCK), (5 * BLOCK, 59 * BLOCK)]);
}

#[test]
fn a_fill_that_became_invalid_keeps_nothing() {
    let cache = Cache::load(Lossy::default(), 64);
    assert!(!cache.insert(key(1), &version(1), 0, &content(1, 1, 0), || false));
    assert!(!get(&cache, 1, 1, 0));
    cache.index().check();
}

#[test]
fn a_new_version_replaces_the_old_one() {
    let cache = Cache::load(Lossy::default(), 64);
    put(&cache, 1, 1, 0, 64);
    put(&cache, 1, 2, 0, 1);
    assert!(get(&cache, 1, 2, 0) && !get(&cache, 1, 1, 0) && !get(&cache, 1, 2, 1));
    cache.retain_version(key(1), &version(3));
    assert!(!get(&cache, 1, 2, 0));
    cache.index().check();
}

#[test]
fn adjacent_slots_are_one_read() {
    let cache = Cache::load(Lossy::default(), 64);
    (0..4).for_each(|e| assert!(put(&cache, 1, 1, e * BLOCKS, BLOCKS)));
    let parts = cache.lookup(key(1), &version(1), 100, 4 * EXTENT - 200).unwrap();
    assert_eq!((parts.len(), parts[0].len), (1, 4 * EXTENT));
}

#[test]
fn a_scan_does_not_evict_what_is_read_again() {
    let cache = Cache::load(Lossy::default(), 100);
    for inode in 0..50 {
        put(&cache, inode, 1, 0, 1);
        assert!(get(&cache, inode, 1, 0));
    }
    (1000..3000).for_each(|inode| assert!(put(&cache, inode, 1, 0, 1)));
    let left = (0..50).filter(|inode| get(&cache, *inode, 1, 0)).count();
    assert!(left >= 45, "{left} of 50 hot extents survived the scan");
}

#[test]
fn pinned_files_and_slots_being_read_are_not_evicted() {
    let cache = Cache::load(Lossy::default(), 64);
    put(&cache, 1, 1, 0, 1);
    put(&cache, 2, 1, 0, 1);
    assert!(cache.pin_file(key(1), 1));
    let held = cache.lookup(key(2), &version(1), 0, 1).unwrap();
    (100..400).for_each(|inode| assert!(put(&cache, inode, 1, 0, 1)));
    assert!(get(&cache, 1, 1, 0) && get(&cache, 2, 1, 0));
    cache.unpin(&held[0]);
    cache.index().check();
}

#[test]
fn what_is_pinned_takes_no_more_than_half_of_the_cache() {
    let cache = Cache::load(Lossy::default(), 64);
    for inode in 1..=32 {
        assert!(cache.pin_file(key(inode), 1), "{inode}");
        assert!(cache.pin_file(key(inode), EXTENT), "a second time is no second share");
        put(&cache, inode, 1, 0, 1);
    }
    assert!(!cache.pin_file(key(33), 1));
    assert_eq!(cache.pinned_slots(), 32);
    cache.unpin_file(key(1));
    assert!(cache.pin_file(key(33), 1) && !cache.pin_file(key(34), 1));
    // The second file grows.
    (1..200).for_each(|number| assert!(put(&cache, 2, 1, number * EXTENT, 1)));
    // More than its share is kept no better than anything else that was cached.
    for _ in 0..10 {
        (100..164).for_each(|inode| assert!(get(&cache, inode, 1, 0) || put(&cache, inode, 1, 0, 1)));
    }
    assert!(cache.pinned_slots() <= 32, "{} slots", cache.pinned_slots());
    cache.forget(key(2));
    cache.index().check();
}

#[test]
fn a_corrupt_block_is_dropped_and_never_served() {
    let cache = Cache::load(Lossy::default(), 64);
    put(&cache, 1, 1, 0, 1);
    let at = cache.lookup(key(1), &version(1), 0, 1).unwrap()[0].store_offset;
    cache.store().write_data(at + SECTOR, &[7; SECTOR as usize]).unwrap();
    assert!(!get(&cache, 1, 1, 0));
    assert!(cache.lookup(key(1), &version(1), 0, 1).is_none());
    assert_eq!(cache.counters.corrupt_blocks.load(Ordering::Relaxed), 1);
}

#[test]
fn synced_extents_are_found_at_once_after_a_restart() {
    let cache = Cache::load(Lossy::default(), 64);
    (0..8).for_each(|inode| assert!(put(&cache, inode, 1, 0, 64)));
    cache.sync().unwrap();
    let Cache { mut store, .. } = cache;
    store.data.get_mut().unwrap().lose(|| false);
    store.index.get_mut().unwrap().lose(|| false);
    let cache = Cache::load(store, 64);
    assert!((0..8).all(|inode| (0..64).all(|block| get(&cache, inode, 1, block))));
}

#[test]
fn a_dropped_record_is_erased_later_and_one_that_took_its_place_is_not() {
    let cache = Cache::load(Lossy::default(), 64);
    (0..2).for_each(|inode| assert!(put(&cache, inode, 1, 0, 1)));
    (0..2).for_each(|inode| assert_eq!(cache.forget(key(inode)), EXTENT));
    // The last one that was freed is the first one that is given away.
    assert!(put(&cache, 2, 1, 0, 1));
    cache.sync().unwrap();
    let Cache { store, .. } = cache;
    let cache = Cache::load(store, 64);
    assert!(!get(&cache, 0, 1, 0) && !get(&cache, 1, 1, 0) && get(&cache, 2, 1, 0));
}

#[derive(Clone, Debug)]
enum Op {
    Put { inode: u64, block: u64, count: u64 },
    Get { inode: u64, block: u64 },
    NewVersion { inode: u64 },
    Forget { inode: u64 },
    Sync,
    PowerLoss { seed: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let inode = 0..12u64;
    prop_oneof![
        6 => (inode.clone(), 0..4u64, 0..64u64, 1..64u64).prop_map(|(inode, extent, first, count)| Op::Put {
            inode,
            block: extent * BLOCKS + first,
            count: count.min(BLOCKS - first),
        }),
        6 => (inode.clone(), 0..256u64).prop_map(|(inode, block)| Op::Get { inode, block }),
        1 => inode.clone().prop_map(|inode| Op::NewVersion { inode }),
        1 => inode.prop_map(|inode| Op::Forget { inode }),
        1 => Just(Op::Sync),
        1 => any::<u64>().prop_map(|seed| Op::PowerLoss { seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever is done, and whichever unsynced sectors a power loss takes, no wrong byte is ever served.
    #[test]
    fn no_sequence_with_power_losses_serves_wrong_bytes(ops in prop::collection::vec(op(), 1..120)) {
        let mut cache = Cache::load(Lossy::default(), 20);
        let mut versions = [1i64; 12];
        for op in ops {
            match op {
                Op::Put { inode, block, count } => {
                    prop_assert!(put(&cache, inode, versions[inode as usize], block, count));
                    prop_assert!(get(&cache, inode, versions[inode as usize], block));
                }
                Op::Get { inode, block } => {
                    get(&cache, inode, versions[inode as usize], block);
                }
                Op::NewVersion { inode } => {
                    versions[inode as usize] += 1;
                    cache.retain_version(key(inode), &version(versions[inode as usize]));
                }
                Op::Forget { inode } => {
                    cache.forget(key(inode));
                    prop_assert_eq!(cache.cached_blocks(key(inode), &version(versions[inode as usize])), 0);
                }
                Op::Sync => cache.sync().unwrap(),
                Op::PowerLoss { mut seed } => {
                    let Cache { mut store, .. } = cache;
                    let mut survives = || {
                        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        seed >> 63 == 1
                    };
                    store.data.get_mut().unwrap().lose(&mut survives);
                    store.index.get_mut().unwrap().lose(&mut survives);
                    cache = Cache::load(store, 20);
                }
            }
            cache.index().check();
        }
    }
}
