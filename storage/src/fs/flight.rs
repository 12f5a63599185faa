//! One hit under way: its parts, and the other copy when a side fails or is silent.
//!
//! ```text
//!   part: chosen side --ok--> done
//!            | error, wrong bytes, or silent for too long
//!            v
//!         other side too --first good answer--> done     (both failed: the backend's plain read decides)
//! ```
//! A reply is sent once; what comes later is dropped.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::OpenFile;
use super::reads::{ReadPath, Reply, Telling};
use super::version::Current;
use crate::cache::{BLOCK, Part};
use crate::io::{Buffer, Job, Range};
use crate::policy::{Role, Route, Side};

/// One read all of whose blocks are cached.
pub(super) struct Hit {
    path: Arc<ReadPath>,
    open: Arc<OpenFile>,
    current: Current,
    offset: u64,
    len: u32,
    reply: Mutex<Option<Reply>>,
    segments: Mutex<Vec<Option<Buffer>>>,
    striped: bool,
}

/// A part of a hit that one side was chosen for.
pub(super) struct Segment {
    hit: Arc<Hit>,
    index: usize,
    /// Block-aligned range of the file.
    start: u64,
    len: u32,
    done: AtomicBool,
    asked_cache: AtomicBool,
    asked_backend: AtomicBool,
    failures: AtomicU32,
}

impl Hit {
    /// Decides and starts.
    pub(super) fn start(
        path: &Arc<ReadPath>,
        open: &Arc<OpenFile>,
        current: Current,
        (offset, len): (u64, u32),
        parts: Vec<Part>,
        reply: Reply,
    ) {
        // Until the file is open past the page cache, its bytes at the backend would come from memory, or fill it.
        let route = match current.fresh && path.is_direct(open) {
            true => path.splitter().route(path.now(), open.ask(offset, len)),
            false => Route::One(Side::Cache),
        };
        let start = offset / BLOCK * BLOCK;
        let all = ((offset + u64::from(len)).next_multiple_of(BLOCK) - start) as u32;
        let cut = match route {
            Route::Stripe { cache } if cache < all => Some(cache),
            _ => None,
        };
        let hit = Arc::new(Self {
            path: Arc::clone(path),
            open: Arc::clone(open),
            current,
            offset,
            len,
            reply: Mutex::new(Some(reply)),
            segments: Mutex::new(if cut.is_some() { vec![None, None] } else { vec![None] }),
            striped: cut.is_some(),
        });
        let split = match (route, cut) {
            (_, Some(cache)) => all - cache,
            (Route::One(Side::Backend), _) => len,
            _ => 0,
        };
        path.stats().add_hit(len, split);
        open.job.add_hit(len, split);
        if route != Route::Probe {
            path.stats().add_saved(len.saturating_sub(split));
        }
        match (cut, route) {
            (Some(cache), _) => {
                parts.iter().for_each(|part| path.cache().unpin(part));
                Segment::new(&hit, 0, start, cache).ask(Side::Cache);
                Segment::new(&hit, 1, start + u64::from(cache), all - cache).ask(Side::Backend);
            }
            (None, Route::One(Side::Backend)) => {
                parts.iter().for_each(|part| path.cache().unpin(part));
                Segment::new(&hit, 0, start, all).ask(Side::Backend);
            }
            (None, _) => {
                let segment = Segment::new(&hit, 0, start, all);
                segment.asked_cache.store(true, Ordering::Release);
                segment.read_cache(parts);
                if route == Route::Probe {
                    path.stats().add_probe();
                    let file = open.past_the_page_cache();
                    path.read_backend(
                        file,
                        open.ask(start, all),
                        start,
                        Role::Duplicate,
                        Box::new(|_, _| {}),
                    );
                }
            }
        }
    }

    fn take_reply(&self) -> Option<Reply> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A segment has its bytes; the last one answers.
    fn complete(&self, index: usize, buffer: Buffer) {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        segments[index] = Some(buffer);
        if segments.iter().any(Option::is_none) {
            return;
        }
        let buffers: Vec<Buffer> = segments.drain(..).flatten().collect();
        drop(segments);
        let Some(reply) = self.take_reply() else { return };
        let skip = (self.offset % BLOCK) as usize;
        match &buffers[..] {
            [one] => reply(Ok(&one[skip..skip + self.len as usize])),
            many => {
                let joined: Vec<u8> = many.iter().flat_map(|b| b.iter().copied()).collect();
                reply(Ok(&joined[skip..skip + self.len as usize]));
            }
        }
    }

    /// Neither copy could be had as a hit: what the backend says to a plain read counts.
    fn give_up(&self) {
        if let Some(reply) = self.take_reply() {
            self.path.miss(&self.open, None, self.offset, self.len, reply);
        }
    }
}

impl Segment {
    fn new(hit: &Arc<Hit>, index: usize, start: u64, len: u32) -> Arc<Self> {
        let segment = Arc::new(Self {
            hit: Arc::clone(hit),
            index,
            start,
            len,
            done: AtomicBool::new(false),
            asked_cache: AtomicBool::new(false),
            asked_backend: AtomicBool::new(false),
            failures: AtomicU32::new(0),
        });
        hit.path.watch.add(&segment);
        segment
    }

    /// Asks a side, once.
    fn ask(self: &Arc<Self>, side: Side) {
        let asked = match side {
            Side::Cache => &self.asked_cache,
            Side::Backend => &self.asked_backend,
        };
        if asked.swap(true, Ordering::AcqRel) {
            return;
        }
        match side {
            Side::Backend => self.read_backend(),
            Side::Cache => {
                let (key, version) = (self.hit.open.node.state().key(), &self.hit.current.version);
                match self.hit.path.cache().lookup(key, version, self.start, self.len.into()) {
                    Some(parts) => self.read_cache(parts),
                    None => self.failed(Side::Cache),
                }
            }
        }
    }

    fn read_backend(self: &Arc<Self>) {
        let (path, open) = (&self.hit.path, &self.hit.open);
        let tell = Telling::begin(path, Side::Backend, open.ask(self.start, self.len));
        let ours = Arc::clone(self);
        let done = Box::new(move |result: io::Result<usize>, buffer| {
            // Shorter than the version says: the file changed, and the version is no longer to be believed.
            let inside = ours.hit.current.version.size.saturating_sub(ours.start).min(ours.len.into());
            let whole = matches!(result, Ok(got) if got as u64 >= inside);
            ours.ended(tell, Side::Backend, result.is_ok(), whole.then_some(buffer));
        });
        let (file, buffer) = (open.past_the_page_cache(), Buffer::new(self.len as usize));
        path.engine(Side::Backend).submit(Job::one(file, self.start, buffer, done));
    }

    fn read_cache(self: &Arc<Self>, parts: Vec<Part>) {
        let path = &self.hit.path;
        let ask = self.hit.open.ask(self.start, self.len);
        let tell = Telling::begin(path, Side::Cache, ask);
        let range = |part: &Part| Range { offset: part.store_offset, len: part.len as usize };
        let ranges = parts.iter().map(range).collect();
        let ours = Arc::clone(self);
        let done = Box::new(move |result: io::Result<usize>, buffer: Buffer| {
            let good = matches!(result, Ok(got) if got == buffer.len()) && ours.check(&parts, &buffer);
            parts.iter().for_each(|part| ours.hit.path.cache().unpin(part));
            ours.ended(tell, Side::Cache, good, good.then_some(buffer));
        });
        path.engine(Side::Cache).submit(Job {
            file: path.cache().store().data_for_reads(),
            ranges,
            buffer: Buffer::new(self.len as usize),
            done,
        });
    }

    /// Whether the parts, one after another in `bytes`, are what was stored. A part that is not is dropped from the cache.
    fn check(&self, parts: &[Part], bytes: &[u8]) -> bool {
        let (mut good, mut rest) = (true, bytes);
        for part in parts {
            let (mine, others) = rest.split_at(part.len as usize);
            rest = others;
            if !part.matches(mine) {
                tracing::warn!(
                    "the cache returned wrong bytes at {} (+{}); dropped",
                    part.store_offset,
                    part.len
                );
                self.hit.path.cache().corrupt(part);
                good = false;
            }
        }
        good
    }

    /// A side has answered; the first good answer counts.
    fn ended(self: &Arc<Self>, tell: Telling, side: Side, answered: bool, good: Option<Buffer>) {
        let outrun = good.is_some() && self.done.swap(true, Ordering::AcqRel);
        let role = match (outrun, self.hit.striped) {
            (true, _) => Role::Outrun,
            (false, true) => Role::Striped,
            (false, false) => Role::Whole,
        };
        tell.end(role, answered);
        match good {
            Some(buffer) if !outrun => self.hit.complete(self.index, buffer),
            Some(_) => {}
            None => self.failed(side),
        }
    }

    fn failed(self: &Arc<Self>, side: Side) {
        if self.done.load(Ordering::Acquire) {
            return;
        }
        if self.failures.fetch_add(1, Ordering::AcqRel) > 0 {
            self.hit.give_up();
        } else {
            self.rescue(side);
        }
    }

    /// Asks the other side than `side` too.
    fn rescue(self: &Arc<Self>, side: Side) {
        self.hit.path.stats().add_rescue();
        self.ask(side.other());
    }

    /// The only side that was asked, while there is no answer.
    fn waits_for(&self) -> Option<Side> {
        let (cache, backend) =
            (self.asked_cache.load(Ordering::Acquire), self.asked_backend.load(Ordering::Acquire));
        let waits = !self.done.load(Ordering::Acquire) && cache != backend;
        waits.then_some(if cache { Side::Cache } else { Side::Backend })
    }

    /// Nobody answered in time. Returns whether that is settled: it is not while the side is busy with others, and this one may
    /// just be queueing.
    fn overdue(self: &Arc<Self>, age: Duration) -> bool {
        let Some(side) = self.waits_for() else { return true };
        let target = self.hit.open.ask(self.start, self.len).target;
        let patience = self.hit.path.splitter().patience(side, target, self.len);
        let lost = age.as_nanos() >= patience.into();
        if lost {
            if self.hit.striped {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                self.hit.path.splitter().part_is_late(side, self.len, age);
            }
            self.rescue(side);
        }
        lost
    }

    /// Asks the other side too if this one is later than nearly all, and the budget allows it.
    fn hedge(self: &Arc<Self>, age: Duration) {
        let path = &self.hit.path;
        let Some(side) = self.waits_for() else { return };
        let hedged = {
            let mut splitter = path.splitter();
            let deadline = splitter.deadline(side, self.len);
            let target = self.hit.open.ask(self.start, self.len).target;
            deadline.is_some_and(|d| age.as_nanos() > d.into()) && splitter.hedge(side, target)
        };
        if hedged {
            path.stats().add_hedge();
            self.ask(side.other());
        }
    }
}

/// Finds segments that got no answer in time, and lets the splitter notice a silent backend.
pub(super) struct Watch {
    after: Duration,
    hedging: bool,
    flying: Mutex<VecDeque<(Instant, Weak<Segment>)>>,
    /// Told, for hedging, that something is under way again.
    departure: Condvar,
    closed: AtomicBool,
}

fn drop_ended(flying: &mut VecDeque<(Instant, Weak<Segment>)>) {
    while flying.front().is_some_and(|(_, segment)| segment.strong_count() == 0) {
        flying.pop_front();
    }
}

const TICK: Duration = Duration::from_millis(25);
/// A hedge is of use only for reads that are later than this.
const HEDGE_TICK: Duration = Duration::from_millis(2);

impl Watch {
    pub(super) fn new(after: Duration, hedging: bool) -> Self {
        Self {
            after,
            hedging,
            flying: Mutex::default(),
            departure: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    fn add(&self, segment: &Arc<Segment>) {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        // Those in front that are over need not wait for the tick.
        drop_ended(&mut flying);
        if self.hedging && flying.is_empty() {
            self.departure.notify_one();
        }
        flying.push_back((Instant::now(), Arc::downgrade(segment)));
    }

    /// The time until the next look: short only while there is something to hedge.
    fn pause(&self) {
        if !self.hedging {
            return std::thread::sleep(TICK);
        }
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        drop_ended(&mut flying);
        let (flying, _) = self
            .departure
            .wait_timeout_while(flying, TICK, |f| f.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        drop(flying);
        std::thread::sleep(HEDGE_TICK);
    }

    /// Starts the thread, which ends with the read path.
    pub(super) fn start(path: &Arc<ReadPath>) -> io::Result<()> {
        let path = Arc::downgrade(path);
        let tick = move || {
            let mut looked: Option<Instant> = None;
            while let Some(path) = path.upgrade().filter(|p| !p.watch.closed.load(Ordering::Acquire)) {
                if looked.is_none_or(|at| at.elapsed() >= TICK) {
                    looked = Some(Instant::now());
                    path.watch.look();
                    path.tick();
                }
                path.watch.hedge();
                path.watch.pause();
            }
        };
        std::thread::Builder::new().name("watch".into()).spawn(tick).map(drop)
    }

    fn look(&self) {
        let overdue: Vec<_> = {
            let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
            let late = flying.partition_point(|(since, _)| since.elapsed() >= self.after);
            flying.drain(..late).collect()
        };
        // Rescues are asked for without the lock: what they ask for may answer at once.
        let patient = overdue.into_iter().filter(|(since, segment)| {
            segment.upgrade().is_some_and(|segment| !segment.overdue(since.elapsed()))
        });
        let patient: Vec<_> = patient.collect();
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        patient.into_iter().rev().for_each(|entry| flying.push_front(entry));
    }

    fn hedge(&self) {
        if !self.hedging {
            return;
        }
        let waiting: Vec<_> = {
            let flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
            let old = flying.iter().take_while(|(since, _)| since.elapsed() >= HEDGE_TICK);
            old.filter_map(|(since, segment)| Some((*since, segment.upgrade()?))).collect()
        };
        for (since, segment) in waiting {
            segment.hedge(since.elapsed());
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
