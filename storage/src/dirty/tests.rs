use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::disk::{Disk, Segment};
use super::ledger::{LEAST, Recorded};
use super::*;

const SECTOR: usize = 512;
const FILES: u64 = 4;
const LARGEST_FILE: u64 = 300_000;

/// A disk in memory that knows, by sector and by name, what was synced and what was not.
#[derive(Clone, Default)]
struct Lossy(Arc<Mutex<Names>>);

#[derive(Clone, Default)]
struct Names {
    durable: BTreeMap<u64, Arc<LossySegment>>,
    now: BTreeMap<u64, Arc<LossySegment>>,
    full: bool,
    failing: bool,
}

#[derive(Default)]
struct LossySegment {
    size: u64,
    durable: Mutex<HashMap<u64, [u8; SECTOR]>>,
    /// Still in the page cache after a failed sync, and told to nobody again: the next sync succeeds without them.
    stranded: Mutex<HashMap<u64, [u8; SECTOR]>>,
    unsynced: Mutex<HashMap<u64, [u8; SECTOR]>>,
    disk: Lossy,
}

impl Lossy {
    /// Power loss: of unsynced sectors, creations and removals only those survive that `survives` names.
    fn lose(&self, mut survives: impl FnMut() -> bool) {
        let mut names = self.0.lock().unwrap();
        let all: BTreeMap<u64, Arc<LossySegment>> =
            names.durable.iter().chain(&names.now).map(|(n, s)| (*n, Arc::clone(s))).collect();
        for (number, segment) in all {
            let (before, after) = (names.durable.contains_key(&number), names.now.contains_key(&number));
            let exists = if before == after { before } else { survives() == after };
            let mut unsynced = std::mem::take(&mut *segment.unsynced.lock().unwrap());
            unsynced.retain(|_, _| survives());
            segment.stranded.lock().unwrap().clear();
            segment.durable.lock().unwrap().extend(unsynced);
            if exists {
                names.now.insert(number, segment);
            } else {
                names.now.remove(&number);
            }
        }
        names.durable = names.now.clone();
    }

    fn set(&self, full: bool, failing: bool) {
        let mut names = self.0.lock().unwrap();
        (names.full, names.failing) = (full, failing);
    }

    fn fail(&self) -> io::Result<()> {
        if self.0.lock().unwrap().failing { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

impl Disk for Lossy {
    type Segment = Arc<LossySegment>;
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().unwrap().now.keys().copied().collect())
    }
    fn create(&self, number: u64, size: u64) -> io::Result<Self::Segment> {
        self.fail()?;
        let mut names = self.0.lock().unwrap();
        if names.full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let segment = Arc::new(LossySegment { size, disk: self.clone(), ..LossySegment::default() });
        assert!(names.now.insert(number, Arc::clone(&segment)).is_none(), "segment {number} made twice");
        Ok(segment)
    }
    fn open(&self, number: u64) -> io::Result<Self::Segment> {
        Ok(Arc::clone(&self.0.lock().unwrap().now[&number]))
    }
    fn remove(&self, number: u64) -> io::Result<()> {
        self.fail()?;
        self.0.lock().unwrap().now.remove(&number);
        Ok(())
    }
    fn sync_names(&self) -> io::Result<()> {
        self.fail()?;
        let mut names = self.0.lock().unwrap();
        names.durable = names.now.clone();
        Ok(())
    }
}

impl Segment for Arc<LossySegment> {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let (durable, stranded, unsynced) =
            (self.durable.lock().unwrap(), self.stranded.lock().unwrap(), self.unsynced.lock().unwrap());
        for (i, chunk) in into.chunks_exact_mut(SECTOR).enumerate() {
            let sector = at / SECTOR as u64 + i as u64;
            let found =
                unsynced.get(&sector).or_else(|| stranded.get(&sector)).or_else(|| durable.get(&sector));
            chunk.copy_from_slice(found.unwrap_or(&[0; SECTOR]));
        }
        Ok(())
    }
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.fail()?;
        assert!(at + bytes.len() as u64 <= self.size, "a write past the segment's end");
        let mut unsynced = self.unsynced.lock().unwrap();
        for (i, chunk) in bytes.chunks_exact(SECTOR).enumerate() {
            unsynced.insert(at / SECTOR as u64 + i as u64, chunk.try_into().unwrap());
        }
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock().unwrap());
        let failed = self.disk.fail();
        let mut stranded = self.stranded.lock().unwrap();
        if failed.is_ok() {
            stranded.retain(|sector, _| !unsynced.contains_key(sector));
            self.durable.lock().unwrap().extend(unsynced);
        } else {
            stranded.extend(unsynced);
        }
        failed
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

fn key(inode: u64) -> FileKey {
    FileKey { backend: 1, inode }
}

fn origin(inode: u64) -> Origin {
    Origin { key: key(inode), btime: 1, paths: vec![], uid: 0, gid: 0, groups: vec![], unlinking: false }
}

/// A file at the backend, and the clock that stamps it.
#[derive(Clone, Default)]
struct Backend {
    files: BTreeMap<u64, (Vec<u8>, i64)>,
    clock: i64,
}

impl Backend {
    fn base(&self, inode: u64) -> Base {
        let (bytes, mtime) = &self.files[&inode];
        Base { size: bytes.len() as u64, mtime: *mtime }
    }

    fn change(&mut self, inode: u64, work: impl FnOnce(&mut Vec<u8>)) {
        self.clock += 1;
        let file = self.files.get_mut(&inode).unwrap();
        work(&mut file.0);
        file.1 = self.clock;
    }
}

fn carry_out(file: &mut Vec<u8>, change: &Change, bytes: &[u8]) {
    match change {
        Change::Write { offset } => splice(file, *offset, bytes),
        Change::Cut { size } => file.resize(*size as usize, 0),
        _ => {}
    }
}

fn splice(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset as usize..end].copy_from_slice(bytes);
}

/// The daemon as far as dirty data goes, over a backend and a disk that outlive it.
struct World {
    disk: Lossy,
    ledger: Ledger<Lossy>,
    backend: Backend,
    /// The files after each acknowledged operation; the last one is now.
    history: Vec<Vec<Vec<u8>>>,
    /// What is promised to survive a power loss: this one of `history`, or a later one.
    durable: usize,
    /// The device failed or was full since the start: what it holds may be older than what the daemon knew. The daemon would
    /// keep both copies then.
    tainted: bool,
    seed: u64,
}

impl World {
    fn new() -> Self {
        let disk = Lossy::default();
        let backend =
            Backend { files: (0..FILES).map(|i| (i, (vec![7; 1000], 0))).collect(), ..Backend::default() };
        let ledger = Ledger::open(disk.clone(), LEAST).unwrap();
        let history = vec![(0..FILES).map(|_| vec![7; 1000]).collect()];
        Self { disk, ledger, backend, history, durable: 0, tainted: false, seed: 1 }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let fill = self.random() as u8;
        (0..len).map(|i| (i / 7) as u8 ^ fill).collect()
    }

    fn record(&mut self, inode: u64, change: &Change, bytes: &[u8]) -> io::Result<Recorded> {
        // Never the same twice, also not after a restart: a flush gives it to the file, and it tells contents apart.
        self.backend.clock += 1;
        let time = self.backend.clock;
        let base = self.backend.base(inode);
        let begin = || Ok(Some(Change::Begin { origin: origin(inode), base }));
        self.ledger.record(key(inode), time, (change, bytes), begin, |_| {})
    }

    fn acknowledge(&mut self, inode: u64, work: impl FnOnce(&mut Vec<u8>)) {
        let mut next = self.history.last().unwrap().clone();
        work(&mut next[inode as usize]);
        self.history.push(next);
    }

    /// A write or cut; past the journal when that has no room or fails, as the daemon does.
    fn change(&mut self, inode: u64, change: &Change, bytes: &[u8]) {
        let apply = |file: &mut Vec<u8>| carry_out(file, change, bytes);
        match self.record(inode, change, bytes) {
            Ok(Recorded::Kept(_)) => self.acknowledge(inode, apply),
            Ok(Recorded::Full | Recorded::Nameless) | Err(_) => {
                while self.flush(inode, usize::MAX) {}
                self.backend.change(inode, apply);
                self.acknowledge(inode, apply);
                // The backend is durable at once, so that the journal has to be too for the files to be in one state.
                self.tainted |= self.ledger.sync().is_err();
                self.durable = self.history.len() - 1;
            }
        }
    }

    /// One that comes while the file is being flushed: without room it would wait for that.
    fn change_in_flush(&mut self, inode: u64, change: &Change, bytes: &[u8]) {
        if matches!(self.record(inode, change, bytes), Ok(Recorded::Kept(_))) {
            self.acknowledge(inode, |file| carry_out(file, change, bytes));
        }
    }

    /// One round, given up after `steps` steps. Returns whether the file was dirty.
    fn flush(&mut self, inode: u64, steps: usize) -> bool {
        self.flush_around(inode, steps, &[])
    }

    /// The same, with changes before its end.
    fn flush_around(&mut self, inode: u64, steps: usize, changes: &[(Change, Vec<u8>)]) -> bool {
        let Some((id, plan)) = self.ledger.dirty().find(key(inode)).map(|(id, f)| (id, f.plan(1 << 20)))
        else {
            return false;
        };
        assert!(plan.fits(self.backend.base(inode)), "a conflict out of nothing");
        self.ledger.note_anyway(id, 0, &Change::Flushing, || {});
        if self.ledger.sync().is_ok() {
            self.durable = self.history.len() - 1;
        }
        let mut left = steps;
        let mut step = || {
            left = left.saturating_sub(1);
            left > 0
        };
        if let Some(cut) = plan.cut {
            self.backend.change(inode, |f| f.truncate(cut as usize));
        }
        for piece in &plan.pieces {
            if !step() {
                return true;
            }
            let bytes = self.ledger.read(piece).unwrap();
            self.backend.change(inode, |f| splice(f, piece.offset, &bytes));
        }
        if let Some((size, mtime)) = plan.end {
            self.backend.change(inode, |f| f.resize(size as usize, 0));
            self.backend.files.get_mut(&inode).unwrap().1 = mtime;
        }
        changes.iter().for_each(|(change, bytes)| self.change_in_flush(inode, change, bytes));
        if !step() {
            return true;
        }
        self.ledger.note_anyway(id, 0, &plan.done(self.backend.base(inode)), || {});
        let _ = self.ledger.sync();
        let _ = self.ledger.trim();
        true
    }

    /// What a reader of the mount sees.
    fn view(&self, inode: u64) -> Vec<u8> {
        let mut bytes = self.backend.files[&inode].0.clone();
        let dirty = self.ledger.dirty();
        if let Some((_, file)) = dirty.find(key(inode)) {
            let (pieces, valid) = file.overlay(0, file.size());
            bytes.truncate(valid.min(1 << 40) as usize);
            bytes.resize(file.size() as usize, 0);
            for piece in pieces {
                splice(&mut bytes, piece.offset, &self.ledger.read(&piece).unwrap());
            }
        }
        bytes
    }

    fn views(&self) -> Vec<Vec<u8>> {
        (0..FILES).map(|inode| self.view(inode)).collect()
    }

    fn check(&self) {
        for (_, file) in self.ledger.dirty().files() {
            assert!(file.oldest_seq() <= file.newest_seq(), "who brings it to the backend ends too early");
        }
        assert!(self.views() == *self.history.last().unwrap(), "readers see something else");
        assert!(self.ledger.space() <= LEAST + (4 << 20), "the bound is passed");
    }

    fn restart(&mut self, power: bool) {
        let mut seed = self.random();
        self.disk.set(false, false);
        if power {
            self.disk.lose(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                seed >> 63 == 1
            });
        }
        self.ledger = Ledger::open(self.disk.clone(), LEAST).unwrap();
        let found = self.views();
        let allowed = if power { self.durable } else { self.history.len() - 1 };
        let state = self.history[allowed..].iter().rposition(|state| *state == found);
        let fits = |inode: usize| self.history.iter().map(|h| h[inode] == found[inode]).collect::<Vec<_>>();
        assert!(
            state.is_some() || self.tainted,
            "found what was never acknowledged, or older than {allowed}: {:?}",
            (0..FILES as usize).map(fits).collect::<Vec<_>>()
        );
        for inode in 0..FILES {
            let dirty = self.ledger.dirty();
            let goes_on = dirty.find(key(inode)).filter(|(_, f)| !f.is_flushing());
            if goes_on.is_some_and(|(_, f)| f.base() == self.backend.base(inode)) {
                assert!(
                    fits(inode as usize).contains(&true),
                    "what would be flushed is no state of file {inode}"
                );
            }
        }
        let known = (0..FILES).filter(|inode| self.ledger.dirty().find(key(*inode)).is_some()).count();
        assert_eq!(known, self.ledger.dirty().len(), "a file is dirty twice");
        self.history = vec![found];
        self.durable = 0;
        self.tainted = false;
        for inode in 0..FILES {
            // As recovery does with a file that the backend has in another version: it is kept aside.
            let base = self.backend.base(inode);
            let known = self.ledger.dirty().find(key(inode)).map(|(id, f)| (id, f.plan(0).fits(base)));
            if let Some((id, false)) = known {
                self.ledger.note_anyway(id, 0, &Change::Gone, || {});
            }
        }
        // From here on the oracle starts anew.
        self.ledger.sync().unwrap();
        self.history = vec![self.views()];
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        inode: u64,
        offset: u64,
        len: usize,
    },
    Cut {
        inode: u64,
        size: u64,
    },
    Sync,
    Flush {
        inode: u64,
    },
    /// Changes come before it ends: cuts to a size, and writes of a length.
    ChangeInFlush {
        inode: u64,
        changes: Vec<(u64, Option<usize>)>,
    },
    CrashInFlush {
        inode: u64,
        steps: usize,
        power: bool,
    },
    Kill,
    PowerLoss,
    Device {
        full: bool,
        failing: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let inode = 0..FILES;
    let offset = 0..LARGEST_FILE;
    prop_oneof![
        12 => (inode.clone(), offset.clone(), prop_oneof![1..5000usize, 1..400_000usize])
            .prop_map(|(inode, offset, len)| Op::Write { inode, offset, len }),
        3 => (inode.clone(), offset.clone()).prop_map(|(inode, size)| Op::Cut { inode, size }),
        4 => (inode.clone(), prop::collection::vec((offset, prop::option::of(1..5000usize)), 1..4))
            .prop_map(|(inode, changes)| Op::ChangeInFlush { inode, changes }),
        2 => Just(Op::Sync),
        4 => inode.clone().prop_map(|inode| Op::Flush { inode }),
        2 => (inode, 1..6usize, any::<bool>())
            .prop_map(|(inode, steps, power)| Op::CrashInFlush { inode, steps, power }),
        1 => Just(Op::Kill),
        2 => Just(Op::PowerLoss),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(full, failing)| Op::Device { full, failing }),
    ]
}

fn run(ops: Vec<Op>, seed: u64) {
    let mut world = World::new();
    world.seed = seed;
    for op in ops {
        match op {
            Op::Write { inode, offset, len } => {
                let bytes = world.bytes(len);
                world.change(inode, &Change::Write { offset }, &bytes);
            }
            Op::Cut { inode, size } => world.change(inode, &Change::Cut { size }, &[]),
            Op::ChangeInFlush { inode, changes } => {
                let change = |(at, len): (u64, Option<usize>)| match len {
                    Some(len) => (Change::Write { offset: at }, world.bytes(len)),
                    None => (Change::Cut { size: at }, Vec::new()),
                };
                let changes: Vec<_> = changes.into_iter().map(change).collect();
                world.flush_around(inode, usize::MAX, &changes);
            }
            Op::Sync => {
                if world.ledger.sync().is_ok() {
                    world.durable = world.history.len() - 1;
                }
            }
            Op::Flush { inode } => {
                world.flush(inode, usize::MAX);
            }
            Op::CrashInFlush { inode, steps, power } => {
                world.flush(inode, steps);
                world.restart(power);
            }
            Op::Kill => world.restart(false),
            Op::PowerLoss => world.restart(true),
            Op::Device { full, failing } => {
                world.tainted |= failing || full;
                world.disk.set(full, failing);
            }
        }
        world.check();
    }
    world.disk.set(false, false);
    for inode in 0..FILES {
        while world.flush(inode, usize::MAX) {}
    }
    world.check();
    world.ledger.trim().unwrap();
    assert!(world.ledger.dirty().is_empty() && world.ledger.space() == 0, "a clean journal takes space");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 50,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Whatever is written, cut, flushed and interrupted, and whichever unsynced sectors and names a power loss takes: readers
    /// see what was acknowledged, kill -9 loses nothing, and a power loss nothing that was synced.
    #[test]
    fn no_sequence_of_crashes_loses_what_was_promised(ops in prop::collection::vec(op(), 1..80), seed: u64) {
        run(ops, seed);
    }
}

/// A device that failed while the last flush was told, and is back: the journal must not go on behind what it does not know.
#[test]
fn a_journal_that_missed_a_record_is_not_continued() {
    let write = Op::Write { inode: 0, offset: 0, len: 1 };
    run(
        vec![
            write.clone(),
            // The next record needs a new segment, so that the device is asked for one.
            Op::Kill,
            Op::Device { full: false, failing: true },
            write.clone(),
            Op::Device { full: false, failing: false },
            write,
            Op::CrashInFlush { inode: 0, steps: 1, power: false },
        ],
        6_161_992_662_582,
    );
}

/// As before, but the flush that was not told had been interrupted before, and the file grew at the backend since: that is
/// no part of a flush, and must not be mixed with what the journal has.
#[test]
fn an_interrupted_flush_is_told_from_a_longer_file() {
    let write = |inode, offset, len| Op::Write { inode, offset, len };
    run(
        vec![
            write(0, 0, 1),
            write(3, 0, 1),
            write(0, 0, 1),
            Op::CrashInFlush { inode: 3, steps: 1, power: false },
            Op::Device { full: false, failing: true },
            write(3, 0, 1001),
            Op::CrashInFlush { inode: 0, steps: 1, power: false },
            write(3, 1001, 1),
        ],
        0,
    );
}

/// A failed sync is told once, and the next one succeeds without what was lost: neither may the same daemon call it durable,
/// nor one that was started on the same page cache.
/// Who brings a file to the backend goes on until its oldest change is newer than what it had to bring.
#[test]
fn what_is_changed_in_the_middle_of_a_flush_is_older_than_its_end() {
    for later in [Change::Cut { size: 1 }, Change::Touch { mtime: 7 }] {
        let (mut dirty, file) = (Dirty::default(), FileId(1));
        let place = Place { segment: 1, at: 512, len: 4, sums: Arc::new([0]) };
        dirty.apply(1, 1, file, &Change::Begin { origin: origin(1), base: Base::default() }, None);
        dirty.apply(2, 2, file, &Change::Write { offset: 0 }, Some(&place));
        let plan = dirty.get(file).unwrap().plan(u64::MAX);
        dirty.apply(3, 3, file, &Change::Flushing, None);
        dirty.apply(4, 4, file, &later, None);
        dirty.apply(5, 5, file, &plan.done(Base { size: 4, mtime: 2 }), None);
        let left = dirty.get(file).expect("the later change is not flushed");
        assert!(left.oldest_seq() <= left.newest_seq(), "{later:?}: {left:?}");
        let plan = left.plan(u64::MAX);
        dirty.apply(6, 6, file, &plan.done(Base { size: 1, mtime: 4 }), None);
        assert!(dirty.is_empty(), "{later:?}");
    }
}

/// What a flush has brought to the backend behind a cut that it has carried out counts, whatever is cut later.
#[test]
fn a_cut_in_the_middle_of_a_flush_does_not_repeat_an_earlier_one() {
    for (later, size, valid) in [(900, 1000, 900), (1500, 1500, u64::MAX), (300, 1000, 300)] {
        let (mut dirty, file) = (Dirty::default(), FileId(1));
        let base = Base { size: 2000, mtime: 1 };
        let place = Place { segment: 1, at: 512, len: 1000, sums: Arc::new([0]) };
        dirty.apply(1, 1, file, &Change::Begin { origin: origin(1), base }, None);
        dirty.apply(2, 2, file, &Change::Cut { size: 500 }, None);
        dirty.apply(3, 3, file, &Change::Write { offset: 0 }, Some(&place));
        let plan = dirty.get(file).unwrap().plan(u64::MAX);
        dirty.apply(4, 4, file, &Change::Flushing, None);
        dirty.apply(5, 5, file, &Change::Cut { size: later }, None);
        // Also as a start finds it behind the head of a segment.
        let mut restarted = Dirty::default();
        restarted.apply(6, 6, file, &dirty.get(file).unwrap().snapshot(), None);
        for dirty in [&mut dirty, &mut restarted] {
            dirty.apply(7, 7, file, &plan.done(Base { size: 1000, mtime: 3 }), None);
            let (pieces, counts) = dirty.get(file).unwrap().overlay(0, size);
            assert_eq!((pieces.len(), counts), (0, valid), "cut to {later}");
        }
    }
}

/// A plan whose bytes were written anew, and whose segment went with another file's flush, is told from a device that fails.
#[test]
fn a_plan_that_the_journal_has_overtaken_is_outdated_and_the_next_one_is_not() {
    let ledger = Ledger::open(Lossy::default(), LEAST).unwrap();
    let write = |bytes: &[u8]| {
        let begin = || Ok(Some(Change::Begin { origin: origin(1), base: Base::default() }));
        ledger.record(key(1), 1, (&Change::Write { offset: 0 }, bytes), begin, |_| {}).unwrap()
    };
    write(&[1; 1000]);
    let plan = || ledger.dirty().find(key(1)).unwrap().1.plan(u64::MAX);
    let old = plan();
    // Over the end of the first segment.
    for _ in 0..3 {
        write(&vec![2; 1 << 20]);
    }
    ledger.trim().unwrap();
    let error = ledger.read(&old.pieces[0]).unwrap_err();
    assert!(is_outdated(&error), "{error}");
    assert_eq!(ledger.read(&plan().pieces[0]).unwrap(), vec![2; 1 << 20]);
}

#[test]
fn a_cut_in_the_journal_of_an_earlier_version_counts() {
    let (mut dirty, file) = (Dirty::default(), FileId(1));
    dirty.apply(1, 1, file, &Change::Begin { origin: origin(1), base: Base { size: 2000, mtime: 1 } }, None);
    dirty.apply(2, 2, file, &Change::Cut { size: 500 }, None);
    let mut state = serde_json::to_value(dirty.get(file).unwrap().snapshot()).unwrap();
    assert!(state["state"]["meta"].as_object_mut().unwrap().remove("cuts").is_some());
    let mut found = Dirty::default();
    found.apply(3, 3, file, &serde_json::from_value(state).unwrap(), None);
    assert_eq!(found.get(file).unwrap().plan(0).cut, Some(500));
}

#[test]
fn a_failed_sync_is_not_mended_by_the_next_one() {
    let write = || Op::Write { inode: 0, offset: 0, len: 1 };
    let device = |failing| Op::Device { full: false, failing };
    run(vec![write(), device(true), Op::Sync, Op::Kill, Op::PowerLoss], 0);
    let (fails, works) = ([write(), device(true), Op::Sync], [device(false), Op::Sync, write(), Op::Sync]);
    run([&[write(), Op::Sync], &fails[..], &works[..], &[Op::PowerLoss]].concat(), 0);
}

#[test]
fn syncs_of_many_at_once_cover_what_each_has_recorded() {
    let disk = Lossy::default();
    let ledger = Ledger::open(disk.clone(), LEAST).unwrap();
    std::thread::scope(|threads| {
        for inode in 0..8 {
            let ledger = &ledger;
            threads.spawn(move || {
                let begin = || Ok(Some(Change::Begin { origin: origin(inode), base: Base::default() }));
                for offset in 0..50 {
                    let change = Change::Write { offset: offset * 512 };
                    ledger.record(key(inode), 1, (&change, &[inode as u8; 512]), begin, |_| {}).unwrap();
                    ledger.sync().unwrap();
                }
            });
        }
    });
    disk.lose(|| false);
    drop(ledger);
    let found = Ledger::open(disk, LEAST).unwrap();
    assert_eq!((found.dirty().len(), found.dirty().bytes()), (8, 8 * 50 * 512));
}

#[test]
fn a_file_that_is_renamed_again_and_again_remembers_its_newest_names() {
    let ledger = Ledger::open(Lossy::default(), LEAST).unwrap();
    let begin = || Ok(Some(Change::Begin { origin: origin(1), base: Base::default() }));
    ledger.record(key(1), 1, (&Change::Write { offset: 0 }, b"x"), begin, |_| {}).unwrap();
    let file = ledger.dirty().find(key(1)).unwrap().0;
    for name in 0..1000 {
        ledger.note(file, 1, &Change::Named { path: format!("name-{name}").into() }).unwrap();
    }
    let names = ledger.dirty().get(file).unwrap().origin.paths.clone();
    assert_eq!((names.len(), names.last().unwrap().as_slice()), (8, &b"name-999"[..]));
}
