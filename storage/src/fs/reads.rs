//! Reading: hits from either side, misses from the backend, fills behind them.
//!
//! ```text
//!   read -> version known? -> all blocks cached? -> validated within 1 s? -> Splitter -> cache | backend | both
//!             no: miss          no: miss              no: cache
//!   miss -> backend -> reply -> fill in the background, if the version is still the same
//! ```
//! Every hit has two copies, so a side that fails or is silent for [`ReadSettings::rescue_after`] is replaced by the
//! other one (`flight`). A miss has one copy and waits. Nothing here blocks the calling thread.

mod statistics;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};

pub use statistics::{METRICS, Metric, Statistics};

use super::flight::{Hit, Watch};
use super::version::{Current, Seen};
use super::{Node, OpenFile};
use crate::cache::{BLOCK, Cache, EXTENT, FileStore, Part, Version};
use crate::feedback::{Report, Standing};
use crate::io::{Buffer, Engine, Job, Workers};
use crate::metrics::Jobs;
use crate::policy::{
    Ask, Completion, Nanos, Netcas, Outstanding, Policy, PolicyName, Profile, Role, Side, Splitter, Window,
    WindowConfig,
};

/// Answers a read.
pub type Reply = Box<dyn FnOnce(io::Result<&[u8]>) + Send>;

/// Bytes that may wait to be written to the cache; more are not cached.
const MOST_FILL_BYTES: u64 = 64 << 20;
/// Cache reads in flight at which fills step aside, how long at most, and in which steps.
const BUSY_READS: u32 = 8;
const STEP_ASIDE: Duration = Duration::from_millis(5);
const MOST_STEPS: u32 = 20;

/// What an administrator sets.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// Policy for clean hits.
    pub policy: PolicyName,
    /// Settings of the `window` policy.
    pub window: WindowConfig,
    /// Profile of the `netcas` policy, with the row in use.
    pub profile: Option<(Profile, u32, u32)>,
    /// A side that is silent this long on a hit is replaced by the other one; one that answers others has four times what its
    /// reads usually take.
    pub rescue_after: Duration,
    /// Most hits that are read at both sides because the first one is late, in percent; 0: none.
    pub hedge_percent: u8,
    /// Whether misses fill the cache.
    pub admit: bool,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self {
            policy: PolicyName::default(),
            window: WindowConfig::default(),
            profile: None,
            rescue_after: Duration::from_millis(300),
            hedge_percent: 0,
            admit: true,
        }
    }
}

/// One engine per side. They are apart because a read of a hung backend may block already while it is submitted (a FUSE
/// file system that asks for attributes first does that), and hits must not wait behind it.
pub struct Engines {
    /// Reads the cache.
    pub cache: Engine,
    /// Reads the backend.
    pub backend: Engine,
}

/// The read path of one mount.
pub struct ReadPath {
    cache: Arc<Cache<FileStore>>,
    engines: Engines,
    splitter: Mutex<Splitter>,
    policy: Mutex<PolicyName>,
    settings: ReadSettings,
    backend_id: u64,
    start: Instant,
    fills: Workers,
    fill_bytes: AtomicU64,
    /// The cache is silent and the backend is not: hits are read there, as misses are.
    without_cache: AtomicBool,
    validations: Workers,
    pub(super) watch: Watch,
    stats: Statistics,
    backend: Standing,
    jobs: Jobs,
}

impl ReadPath {
    /// A read path over a cache; `backend_id` tells this backend's files in the shared cache from others.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(
        cache: Arc<Cache<FileStore>>,
        engines: Engines,
        settings: ReadSettings,
        backend_id: u64,
    ) -> io::Result<Arc<Self>> {
        let path = Arc::new(Self {
            cache,
            engines,
            splitter: Mutex::new(
                Splitter::new(make_policy(settings.policy, &settings)).hedging(settings.hedge_percent),
            ),
            policy: Mutex::new(settings.policy),
            backend_id,
            start: Instant::now(),
            fills: Workers::start("fill", 2)?,
            fill_bytes: AtomicU64::new(0),
            without_cache: AtomicBool::new(false),
            validations: Workers::start("validate", 4)?,
            watch: Watch::new(settings.rescue_after, settings.hedge_percent > 0),
            settings,
            stats: Statistics::default(),
            backend: Standing::default(),
            jobs: Jobs::default(),
        });
        Watch::start(&path)?;
        Ok(path)
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<Cache<FileStore>> {
        &self.cache
    }

    /// See [`Self::new`].
    pub fn backend_id(&self) -> u64 {
        self.backend_id
    }

    /// Statistics since the start.
    pub fn stats(&self) -> &Statistics {
        &self.stats
    }

    /// The same as JSON, with how often the backend was left and for what.
    pub fn stats_json(&self) -> serde_json::Value {
        let mut stats = self.stats.to_json();
        let left: serde_json::Map<_, _> =
            self.backend.left().map(|(source, times)| (source.as_str().to_owned(), times.into())).collect();
        stats["backend_left_total"] = left.into();
        stats
    }

    /// Policy in force.
    pub fn policy_name(&self) -> PolicyName {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a measured profile for the `netcas` policy.
    pub fn has_profile(&self) -> bool {
        self.settings.profile.is_some()
    }

    /// Changes the policy for reads from now on; the new one starts without knowledge. Reads in flight stay counted.
    pub fn set_policy(&self, name: PolicyName) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = name;
        self.splitter().replace(make_policy(name, &self.settings));
    }

    /// Why reads go where they go.
    pub fn explain(&self) -> serde_json::Value {
        let splitter = self.splitter();
        let window = match splitter.policy() {
            Policy::Window(window) => serde_json::to_value(window.snapshot()).ok(),
            _ => None,
        };
        serde_json::json!({
            "policy": self.policy_name(),
            "engine": self.engines.cache.name(),
            "backend_live": splitter.backend_live(),
            "cache_live": splitter.cache_live(),
            "backend": self.backend.now(),
            "in_flight": splitter.outstanding(),
            "window": window,
        })
    }

    /// Jobs that have read through this mount.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// What is in flight.
    pub fn in_flight(&self) -> Outstanding {
        self.splitter().outstanding()
    }

    /// The windows of the `window` policy, by size class.
    pub fn windows(&self) -> Option<[(&'static str, u64); 3]> {
        match self.splitter().policy() {
            Policy::Window(window) => Some(window.snapshot().windows()),
            _ => None,
        }
    }

    /// How the backend stands, by signals and by our own timing.
    pub fn backend(&self) -> &Standing {
        &self.backend
    }

    /// Signals about the backend changed.
    pub fn backend_reported(&self, report: Report) {
        self.splitter().backend_reported(self.now(), report.state);
        self.backend.reported(report);
    }

    /// Lets time pass: notices a backend that went silent.
    pub(super) fn tick(&self) {
        let answers = {
            let mut splitter = self.splitter();
            splitter.tick(self.now());
            self.without_cache.store(!splitter.cache_live() && splitter.backend_live(), Ordering::Relaxed);
            splitter.backend_answers()
        };
        self.backend.answers(answers);
    }

    pub(super) fn engine(&self, side: Side) -> &Engine {
        match side {
            Side::Cache => &self.engines.cache,
            Side::Backend => &self.engines.backend,
        }
    }

    pub(super) fn splitter(&self) -> MutexGuard<'_, Splitter> {
        self.splitter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// Looks at the backend's version of a file; may block. Extents of other versions go.
    pub(super) fn look(&self, node: &Node, file: &File, opening: bool) -> io::Result<Seen> {
        let changes = node.state().changes();
        let version = node.state().ask(file)?;
        let seen = node.state().seen(&version, changes, opening);
        if seen.changed {
            self.cache.retain_version(node.state().key(), &version);
        }
        Ok(seen)
    }

    /// Reads; the reply comes from another thread.
    pub fn read(self: &Arc<Self>, open: &Arc<OpenFile>, offset: u64, len: u32, reply: Reply) {
        let state = open.node.state();
        if state.wants_validation() {
            self.validate_later(open);
        }
        let Some(current) = state.current() else { return self.miss(open, None, offset, len, reply) };
        if offset >= current.version.size || len == 0 {
            // The end, as far as is known: a file that grew elsewhere is seen with the next validation.
            return reply(Ok(&[]));
        }
        let inside = u64::from(len).min(current.version.size - offset);
        match self.cache.lookup(state.key(), &current.version, offset, inside) {
            Some(parts) if self.without_cache.load(Ordering::Relaxed) => {
                self.ask_cache(open, parts);
                self.miss(open, None, offset, len, reply);
            }
            Some(parts) => Hit::start(self, open, current, (offset, inside as u32), parts, reply),
            None => self.miss(open, Some(current), offset, len, reply),
        }
    }

    /// A read at a cache that is silent, for which nobody waits: its answer brings the cache back.
    fn ask_cache(self: &Arc<Self>, open: &OpenFile, parts: Vec<Part>) {
        if !self.splitter().cache_wants_question(self.now()) {
            return parts.iter().for_each(|part| self.cache.unpin(part));
        }
        // A block of it: what hangs holds memory.
        let Some((from, at)) = parts.first().map(|p| (p.file_offset, p.store_offset)) else { return };
        let tell = Telling::begin(self, Side::Cache, open.ask(from, BLOCK as u32));
        let path = Arc::clone(self);
        let done = Box::new(move |result: io::Result<usize>, _: Buffer| {
            parts.iter().for_each(|part| path.cache.unpin(part));
            tell.end(Role::Duplicate, result.is_ok());
        });
        let (file, buffer) = (self.cache.store().data_for_reads(), Buffer::new(BLOCK as usize));
        self.engine(Side::Cache).submit(Job::one(file, at, buffer, done));
    }

    fn validate_later(self: &Arc<Self>, open: &Arc<OpenFile>) {
        let (path, open) = (Arc::clone(self), Arc::clone(open));
        self.validations.run(Box::new(move || {
            if path.look(&open.node, &open.file, false).is_err() {
                open.node.state().validation_failed();
            }
        }));
    }

    /// Reads at the backend and answers; fills behind the answer when the version is known.
    pub(super) fn miss(
        self: &Arc<Self>,
        open: &Arc<OpenFile>,
        current: Option<Current>,
        offset: u64,
        len: u32,
        reply: Reply,
    ) {
        let start = offset / BLOCK * BLOCK;
        let end = (offset + u64::from(len)).next_multiple_of(BLOCK);
        let (path, ours) = (Arc::clone(self), Arc::clone(open));
        let changes = open.node.state().changes();
        let then = Box::new(move |result: io::Result<usize>, buffer: Buffer| {
            let got = match result {
                Ok(got) => got,
                Err(error) => return reply(Err(error)),
            };
            let from = ((offset - start) as usize).min(got);
            let to = ((offset - start) as usize + len as usize).min(got);
            reply(Ok(&buffer[from..to]));
            path.stats.add_miss((to - from) as u64);
            ours.job.add_miss((to - from) as u64);
            if let Some(current) = current {
                path.fill_later(ours, Fill { version: current.version, changes, start, got, buffer });
            }
        });
        let ask = open.ask(start, (end - start) as u32);
        self.read_backend(Arc::clone(&open.file), ask, start, Role::Miss, then);
    }

    /// One read at the backend, told to the splitter.
    pub(super) fn read_backend(
        self: &Arc<Self>,
        file: Arc<File>,
        ask: Ask,
        offset: u64,
        role: Role,
        then: Box<dyn FnOnce(io::Result<usize>, Buffer) + Send>,
    ) {
        let tell = Telling::begin(self, Side::Backend, ask);
        let done = Box::new(move |result: io::Result<usize>, buffer| {
            tell.end(role, result.is_ok());
            then(result, buffer);
        });
        let buffer = Buffer::new(ask.len as usize);
        self.engine(Side::Backend).submit(Job::one(file, offset, buffer, done));
    }

    fn fill_later(self: &Arc<Self>, open: Arc<OpenFile>, fill: Fill) {
        let bytes = fill.buffer.len() as u64;
        let waiting = self.fill_bytes.fetch_add(bytes, Ordering::AcqRel);
        if !self.settings.admit || waiting + bytes > MOST_FILL_BYTES {
            self.fill_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.stats.add_skipped_fill();
            return;
        }
        let path = Arc::clone(self);
        self.fills.run(Box::new(move || {
            path.fill(&open, fill);
            path.fill_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }));
    }

    fn fill(&self, open: &OpenFile, mut fill: Fill) {
        self.step_aside();
        let state = open.node.state();
        // Asked after the bytes were read: had they been of a newer version, it would show now.
        if !state.ask(&open.file).is_ok_and(|v| v == fill.version) {
            return;
        }
        let end = fill.whole_blocks();
        let mut at = fill.start;
        while at < end {
            let until = ((at / EXTENT + 1) * EXTENT).min(end);
            let gaps = self.cache.missing(state.key(), &fill.version, at);
            if gaps.iter().any(|(gap, len)| *gap < until && gap + len > at) {
                let data = &fill.buffer[(at - fill.start) as usize..(until - fill.start) as usize];
                let valid = || state.still(fill.changes, &fill.version);
                self.cache.insert(state.key(), &fill.version, at, data, valid);
                if until - at < EXTENT && is_random(&gaps, at, &fill.version) {
                    self.complete(&open.node, &open.file, (&fill.version, fill.changes), at);
                }
            }
            at = until;
        }
    }

    /// The second miss in an extent that is not read in order: fetches the rest of it.
    fn complete(&self, node: &Node, file: &File, (version, changes): (&Version, u64), at: u64) {
        use std::os::unix::fs::FileExt;
        let state = node.state();
        for (gap, len) in self.cache.missing(state.key(), version, at) {
            let mut buffer = Buffer::new(len as usize);
            let inside = len.min(version.size.saturating_sub(gap)) as usize;
            if file.read_exact_at(&mut buffer[..inside], gap).is_err() {
                return;
            }
            buffer[inside..].fill(0);
            let same = || state.ask(file).is_ok_and(|v| v == *version) && state.still(changes, version);
            if !self.cache.insert(state.key(), version, gap, &buffer, same) {
                return;
            }
        }
    }

    /// Reads all of a file into the cache, if it is quiet and takes no more than an eighth of it. Returns `false` if it is
    /// not quiet.
    pub(super) fn refill(&self, node: &Node, file: &File) -> bool {
        let changes = node.state().changes();
        if self.look(node, file, false).is_err() {
            return true;
        }
        let Some(Current { version, .. }) = node.state().current() else { return false };
        let (_, slots) = self.cache.usage();
        if version.size <= u64::from(slots) * EXTENT / 8 {
            for extent in 0..version.size.div_ceil(EXTENT) {
                self.step_aside();
                self.complete(node, file, (&version, changes), extent * EXTENT);
            }
        }
        true
    }

    /// Readers of the cache go first.
    fn step_aside(&self) {
        for _ in 0..MOST_STEPS {
            if self.splitter().outstanding().cache.reads < BUSY_READS {
                return;
            }
            std::thread::sleep(STEP_ASIDE);
        }
    }

    /// Whether it is known how the file can be read past the page cache. Who asks for the second time lets it be opened so: many
    /// small files are opened for one read. It may block, so nobody waits for it.
    pub(super) fn is_direct(self: &Arc<Self>, open: &Arc<OpenFile>) -> bool {
        let known = open.direct.get().is_some();
        if !known && open.direct_asked.fetch_add(1, Ordering::AcqRel) == 1 {
            let ours = Arc::clone(open);
            self.validations.run(Box::new(move || {
                let _ = ours.direct.set(open_direct(&ours));
            }));
        }
        known
    }

    /// Ends the background threads once they have nothing left to do.
    pub fn close(&self) {
        self.watch.close();
        self.fills.close();
        self.validations.close();
    }
}

fn open_direct(open: &OpenFile) -> Option<Arc<File>> {
    // With our own rights: the caller's were checked when it opened the file for reading.
    let path = format!("/proc/self/fd/{}", open.node.fd_name());
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, path, flags, Mode::empty()).ok().map(|fd| Arc::new(File::from(fd)))
}

/// Bytes on their way into the cache.
struct Fill {
    version: Version,
    changes: u64,
    start: u64,
    got: usize,
    buffer: Buffer,
}

impl Fill {
    /// Pads the file's last block with zeros; returns where the whole blocks end.
    fn whole_blocks(&mut self) -> u64 {
        let got = self.start + self.got as u64;
        if got == self.version.size {
            let padded = self.got.next_multiple_of(BLOCK as usize).min(self.buffer.len());
            self.buffer[self.got..padded].fill(0);
            self.start + padded as u64
        } else {
            got / BLOCK * BLOCK
        }
    }
}

/// Whether an extent with these gaps already has blocks, but not the one just before `at`.
fn is_random(gaps: &[(u64, u64)], at: u64, version: &Version) -> bool {
    let first = at / EXTENT * EXTENT;
    let inside = version.size.saturating_sub(first).min(EXTENT).next_multiple_of(BLOCK);
    let missing: u64 = gaps.iter().map(|g| g.1).sum();
    let before_is_missing = gaps.iter().any(|(gap, len)| *gap < at && gap + len >= at);
    missing < inside && (at == first || before_is_missing)
}

fn make_policy(name: PolicyName, settings: &ReadSettings) -> Policy {
    match name {
        PolicyName::CacheOnly => Policy::CacheOnly,
        PolicyName::BackendOnly => Policy::BackendOnly,
        PolicyName::Fixed(percent) => Policy::fixed(percent),
        PolicyName::Orthus => Policy::Orthus(Box::default()),
        PolicyName::Window => Policy::Window(Box::new(Window::new(settings.window.clone()))),
        PolicyName::Netcas => {
            let row = settings.profile.as_ref().and_then(|(p, depth, jobs)| p.row(*depth, *jobs));
            // Without a profile the published formula has nothing to go by but equal sides.
            let (cache, backend) = row.map_or((1.0, 1.0), |r| (r.cache_only(), r.backend_only()));
            Policy::Netcas(Box::new(Netcas::new(cache, backend)))
        }
    }
}

/// One read as the splitter and the statistics see it.
pub(super) struct Telling {
    path: Arc<ReadPath>,
    side: Side,
    ask: Ask,
    began: Nanos,
}

impl Telling {
    pub(super) fn begin(path: &Arc<ReadPath>, side: Side, ask: Ask) -> Self {
        let began = path.now();
        path.splitter().issued(began, side, ask);
        Self { path: Arc::clone(path), side, ask, began }
    }

    pub(super) fn end(self, role: Role, ok: bool) {
        let now = self.path.now();
        let latency = now.saturating_sub(self.began);
        let Self { path, side, ask: Ask { stream, target, len }, .. } = self;
        path.stats.add_read(side, len, latency, ok);
        let done = Completion { stream, target, side, len, latency, ok, role };
        path.splitter().completed(now, done);
    }
}
