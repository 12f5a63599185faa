//! Readers of one file in a closed loop: `depth` reads are under way at any time, past the page cache.
//!
//! They run on the sidecar's own read engine, in this process: io_uring, so that 64 reads need no 64 threads. The bare
//! mounts are read by the same code.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migshare_storage::io::{Buffer, Engine, Job};
use rustix::fs::{Mode, OFlags, open};

/// Length of a bucket of [`Outcome::buckets`].
pub(crate) const BUCKET: Duration = Duration::from_millis(100);
/// A read that takes longer than this ends the run with an error.
const STUCK: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Random,
    Sequential,
}

/// What is read, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) block: u64,
    pub(crate) depth: u32,
    pub(crate) pattern: Pattern,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes per second.
    pub(crate) rate: f64,
    pub(crate) reads: u64,
    /// Bytes that ended in each [`BUCKET`] since the start.
    pub(crate) buckets: Vec<u64>,
}

struct Readers {
    engine: Engine,
    file: Arc<File>,
    load: Load,
    blocks: u64,
    next: AtomicU64,
    over: AtomicBool,
    tally: Mutex<Tally>,
    ended: Condvar,
}

struct Tally {
    under_way: u32,
    /// Reads that are not counted because the queue only fills.
    ramp: u32,
    /// Since when reads are counted.
    since: Instant,
    reads: u64,
    bytes: u64,
    buckets: Vec<u64>,
    failed: Option<std::io::Error>,
}

impl Tally {
    fn new(under_way: u32, ramp: u32) -> Self {
        Self { under_way, ramp, since: Instant::now(), reads: 0, bytes: 0, buckets: Vec::new(), failed: None }
    }

    fn count(&mut self, got: u64) {
        if self.ramp > 0 {
            self.ramp -= 1;
            self.since = Instant::now();
            return;
        }
        let bucket = (self.since.elapsed().as_nanos() / BUCKET.as_nanos()) as usize;
        self.reads += 1;
        self.bytes += got;
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += got;
    }
}

/// Opens a file past the page cache.
pub(crate) fn open_direct(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty()).with_context(|| path.display().to_string())?))
}

/// Reads for `time` from when as many reads have ended as are under way at once; twice as many where they are large and
/// queue: all begin together, so that when the first ones have ended more of the others is done than at the end of the run. Those
/// that are under way then are waited for and not counted: as many as were under way at its beginning.
pub(crate) fn run(path: &Path, load: Load, time: Duration) -> Result<Outcome> {
    let turns = if load.block >= 1 << 20 && load.depth >= 16 { 2 } else { 1 };
    readers(path, load, time, load.depth * turns, || Ok(()))
}

/// Reads for `time` from the first read on, with something to do meanwhile, in this thread.
pub(crate) fn run_with(
    path: &Path,
    load: Load,
    time: Duration,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    readers(path, load, time, 0, meanwhile)
}

fn readers(
    path: &Path,
    load: Load,
    time: Duration,
    ramp: u32,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    let file = open_direct(path)?;
    let blocks = file.metadata()?.len() / load.block;
    ensure!(blocks > 0, "{} is shorter than one read", path.display());
    let readers = Arc::new(Readers {
        engine: Engine::start(load.depth as usize)?,
        file: Arc::new(file),
        load,
        blocks,
        next: AtomicU64::new(u64::from(std::process::id())),
        over: AtomicBool::new(false),
        tally: Mutex::new(Tally::new(load.depth, ramp)),
        ended: Condvar::new(),
    });
    (0..load.depth).for_each(|_| readers.read());
    let done = meanwhile();
    let (tally, late) = readers
        .ended
        .wait_timeout_while(readers.lock(), STUCK, |t| t.ramp > 0 && t.failed.is_none())
        .unwrap_or_else(PoisonError::into_inner);
    ensure!(!late.timed_out(), "a read of {} hangs", path.display());
    let since = tally.since;
    drop(tally);
    std::thread::sleep(time.saturating_sub(since.elapsed()));
    let outcome = {
        let tally = readers.lock();
        let seconds = since.elapsed().as_secs_f64();
        Outcome { rate: tally.bytes as f64 / seconds, reads: tally.reads, buckets: tally.buckets.clone() }
    };
    readers.over.store(true, Ordering::Release);
    let tally = readers.lock();
    let (tally, late) = readers
        .ended
        .wait_timeout_while(tally, STUCK, |t| t.under_way > 0)
        .unwrap_or_else(PoisonError::into_inner);
    ensure!(!late.timed_out(), "a read of {} hangs", path.display());
    done?;
    match &tally.failed {
        Some(error) => anyhow::bail!("a read of {} failed: {error}", path.display()),
        None => Ok(outcome),
    }
}

impl Readers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(self: &Arc<Self>) {
        let ours = Arc::clone(self);
        let done = Box::new(move |result, buffer| {
            drop(buffer);
            if ours.ended(result) {
                ours.read();
            }
        });
        let (offset, len) = (self.place() * self.load.block, self.load.block as usize);
        self.engine.submit(Job::one(Arc::clone(&self.file), offset, Buffer::ordinary(len), done));
    }

    /// Which block comes next.
    fn place(&self) -> u64 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let n = match self.load.pattern {
            Pattern::Sequential => n,
            // The finaliser of SplitMix64: a bijection, so that no block is preferred.
            Pattern::Random => {
                let z = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66).rotate_left(31);
                let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z ^ (z >> 27)
            }
        };
        n % self.blocks
    }

    /// Counts a read; returns whether another one is to follow.
    fn ended(&self, result: std::io::Result<usize>) -> bool {
        let mut tally = self.lock();
        match result {
            Ok(got) => tally.count(got as u64),
            Err(error) => tally.failed = Some(error),
        }
        if tally.ramp == 0 && tally.reads == 0 {
            self.ended.notify_all();
        }
        let on = !self.over.load(Ordering::Acquire) && tally.failed.is_none();
        if !on {
            tally.under_way -= 1;
            self.ended.notify_all();
        }
        on
    }
}
