//! Operations in progress: polled by whoever calls in, never by a thread of their own.
//!
//! ```text
//!   lane "collectives"   │ op 7 │ op 8 │ …      in the order of the calls
//!   lane "send to 1"     │ isend │ …            each lane polls its head, and behind a
//!   lane "receive from 2"│ irecv │ …            send that is only to be read, the next
//! ```
//! A blocking call is the same future, polled in place; while it waits, the lanes move on.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::wait::{Pause, Watch};

/// Names a non-blocking operation of one communicator. Worth nothing once waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request(pub(crate) u64);

impl Request {
    /// The number that stands for the request in the C ABI; never zero.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The request with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// What may run beside what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Collective,
    Send(usize),
    Receive(usize),
}

/// A started operation; its result is a number of bytes, or 0.
pub(crate) type Task = Pin<Box<dyn Future<Output = Result<u64>>>>;

/// The operations of one lane, in order.
struct Queue {
    lane: Lane,
    tasks: VecDeque<(u64, Task)>,
    watch: Watch,
}

impl Queue {
    fn has(&self, request: Request) -> bool {
        self.tasks.iter().any(|(number, _)| *number == request.0)
    }
}

/// Right of the number of the communicator in that of a request.
const REQUEST_BITS: u32 = 40;
/// Communicators that this process has made.
static ENGINES: AtomicU64 = AtomicU64::new(0);

/// The operations of one communicator that are not yet waited for.
pub(crate) struct Engine {
    lanes: Vec<Queue>,
    finished: HashMap<u64, Result<u64>>,
    /// Requests of two communicators have different numbers: a request that is taken to the wrong one is unknown there.
    last: u64,
    pause: Pause,
}

impl Default for Engine {
    fn default() -> Self {
        let last = ENGINES.fetch_add(1, Ordering::Relaxed) << REQUEST_BITS;
        Self { lanes: Vec::new(), finished: HashMap::new(), last, pause: Pause::default() }
    }
}

impl Engine {
    /// Whether `lane` has unfinished operations.
    pub(crate) fn is_busy(&self, lane: Lane) -> bool {
        self.lanes.iter().any(|queue| queue.lane == lane && !queue.tasks.is_empty())
    }

    /// Whether peers may still be told to read from buffers that unfinished operations were given.
    pub(crate) fn lends(&self) -> bool {
        self.lanes.iter().any(|queue| !matches!(queue.lane, Lane::Receive(_)) && !queue.tasks.is_empty())
    }

    /// Queues `task` and lets it begin if its lane is free.
    pub(crate) fn start(&mut self, core: &Core, lane: Lane, task: Task) -> Request {
        self.last += 1;
        let index = self.lanes.iter().position(|queue| queue.lane == lane).unwrap_or_else(|| {
            self.lanes.push(Queue { lane, tasks: VecDeque::new(), watch: Watch::default() });
            self.lanes.len() - 1
        });
        self.lanes[index].tasks.push_back((self.last, task));
        self.progress(core);
        Request(self.last)
    }

    /// Polls the head of every lane until nothing moves. A fault in one lane ends what is left in all.
    pub(crate) fn progress(&mut self, core: &Core) {
        if let Some(fault) = self.poll_lanes(core) {
            self.abandon(core, &fault);
        }
    }

    /// The polls of [`Engine::progress`]; the fault that one of them ended with.
    fn poll_lanes(&mut self, core: &Core) -> Option<Error> {
        let mut failed = None;
        let mut context = Context::from_waker(Waker::noop());
        for Queue { lane, tasks, watch } in &mut self.lanes {
            let (mut next, ticks) = (0, core.ticks());
            while let Some((number, task)) = tasks.get_mut(next) {
                match task.as_mut().poll(&mut context) {
                    Poll::Ready(result) => {
                        if let Err(fault) = &result {
                            core.fail(fault);
                            failed = failed.or_else(|| fault.is_fatal().then(|| fault.clone()));
                        }
                        self.finished.insert(*number, result);
                        tasks.remove(next);
                        watch.done();
                    }
                    // What is only waiting to be read does not hold up the sends behind it.
                    Poll::Pending if matches!(lane, Lane::Send(peer) if core.pair(*peer).handed_over()) => {
                        next += 1
                    }
                    Poll::Pending => break,
                }
            }
            if !tasks.is_empty() {
                watch.polled(core, ticks);
            }
        }
        failed
    }

    /// The result of a request if it has one.
    ///
    /// # Errors
    /// `Invalid` for a request that was waited for already, otherwise what ended the operation.
    pub(crate) fn test(&mut self, core: &Core, request: Request) -> Result<Option<u64>> {
        self.progress(core);
        if let Some(result) = self.finished.remove(&request.0) {
            return Self::report(core, result).map(Some);
        }
        if !self.lanes.iter().any(|queue| queue.has(request)) {
            return Err(Error::Invalid("no such request"));
        }
        match self.glance(core) {
            Ok(()) => Ok(None),
            Err(fault) => self.last_look(core, request, fault).map(Some),
        }
    }

    /// What `test` does instead of waiting: never yields or sleeps, but notices faults.
    fn glance(&mut self, core: &Core) -> Result<()> {
        let now = Instant::now();
        if self.pause.audit_is_due(now) { self.audit(core, now) } else { Ok(()) }
    }

    /// Looks for a reason to give up: in the words of all peers, and at whom each lane waits for.
    fn audit(&mut self, core: &Core, now: Instant) -> Result<()> {
        core.audit_words()?;
        let waiting = self.lanes.iter_mut().filter(|queue| !queue.tasks.is_empty());
        for queue in waiting {
            queue.watch.audit(core, now)?;
        }
        Ok(())
    }

    fn report(core: &Core, result: Result<u64>) -> Result<u64> {
        // What was given up for a fault that nobody has been told of tells of it.
        let told = |error| {
            if let Error::Ended { .. } = error { core.check_fault().err().unwrap_or(error) } else { error }
        };
        result.map_err(told).inspect_err(|fault| {
            if fault.is_fatal() {
                core.fault_was_reported();
            }
        })
    }

    /// Waits for a request.
    ///
    /// # Errors
    /// As [`Engine::test`].
    pub(crate) fn wait(&mut self, core: &Core, request: Request) -> Result<u64> {
        loop {
            if let Some(result) = self.wait_for(core, request, Duration::MAX)? {
                return Ok(result);
            }
        }
    }

    /// Waits for a request, but not much longer than `limit`.
    ///
    /// # Errors
    /// As [`Engine::test`].
    pub(crate) fn wait_for(&mut self, core: &Core, request: Request, limit: Duration) -> Result<Option<u64>> {
        let (mut pause, mut begin) = (Pause::default(), None);
        loop {
            self.progress(core);
            if let Some(result) = self.finished.remove(&request.0) {
                return Self::report(core, result).map(Some);
            }
            if !self.lanes.iter().any(|queue| queue.has(request)) {
                return Err(Error::Invalid("no such request"));
            }
            match self.turn(core, &mut pause, None) {
                Ok(None) => {}
                Ok(Some(now)) if now - *begin.get_or_insert(now) >= limit => return Ok(None),
                Ok(Some(_)) => {}
                Err(fault) => return self.last_look(core, request, fault).map(Some),
            }
        }
    }

    /// What a peer did before it gave up or died still counts: everything that can end well does.
    fn last_look(&mut self, core: &Core, request: Request, fault: Error) -> Result<u64> {
        self.poll_lanes(core);
        let result = self.finished.remove(&request.0);
        self.abandon(core, &fault);
        self.finished.remove(&request.0);
        // After a good end the fault is still news for the next call.
        Self::report(core, result.unwrap_or(Err(fault)))
    }

    /// One turn of a wait; `own` belongs to an operation that is in no lane. The time, when it was looked at.
    #[inline]
    fn turn(&mut self, core: &Core, pause: &mut Pause, own: Option<&mut Watch>) -> Result<Option<Instant>> {
        let Some(now) = pause.turn(core)? else { return Ok(None) };
        if let Some(own) = own {
            own.audit(core, now)?;
        }
        self.audit(core, now)?;
        pause.nap(core, now);
        Ok(Some(now))
    }

    /// Runs one operation to its end while the others move on.
    #[inline]
    pub(crate) fn block_on<T>(&mut self, core: &Core, task: impl Future<Output = Result<T>>) -> Result<T> {
        let mut task = std::pin::pin!(task);
        let mut context = Context::from_waker(Waker::noop());
        let (mut pause, mut watch) = (Pause::default(), Watch::default());
        loop {
            let ticks = core.ticks();
            if let Poll::Ready(result) = task.as_mut().poll(&mut context) {
                if let Err(fault) = &result
                    && fault.is_fatal()
                {
                    self.abandon(core, fault);
                    core.fault_was_reported();
                }
                return result;
            }
            watch.polled(core, ticks);
            if !self.lanes.is_empty() {
                self.progress(core);
            }
            if let Err(fault) = self.turn(core, &mut pause, Some(&mut watch)) {
                let result = task.as_mut().poll(&mut context);
                self.poll_lanes(core);
                self.abandon(core, &fault);
                if let Poll::Ready(Ok(value)) = result {
                    return Ok(value); // the fault is news for the next call
                }
                core.fault_was_reported();
                return Err(fault);
            }
        }
    }

    /// Ends everything after a fault; later polls must not touch user buffers any more.
    pub(crate) fn abandon(&mut self, core: &Core, fault: &Error) {
        core.fail(fault);
        for queue in &mut self.lanes {
            for (number, _) in queue.tasks.drain(..) {
                self.finished.insert(number, Err(Error::Ended { cause: fault.status() }));
            }
        }
    }
}
