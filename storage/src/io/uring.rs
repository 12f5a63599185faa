//! The io_uring engine: one thread, one ring, woken by an eventfd that is read through the ring itself.
//!
//! ```text
//!   submit: queue the job, write the eventfd
//!   thread: take all queued jobs -> SQEs -> submit_and_wait(1) -> completions -> done(), or the rest of a short read
//! ```
//! A job's buffer and file belong to the table of flying jobs until all its completions were seen, whatever becomes of
//! the reader; a read that never completes keeps its buffer for ever, as it must. The ring belongs to the thread alone
//! (SINGLE_ISSUER), so that the kernel hands over completions when it is asked for them and never interrupts it
//! (DEFER_TASKRUN, Linux 6.1).
//!
//! A ring that fails is given up: threads do what was under way once more, into other buffers, and all that comes after it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use io_uring::{IoUring, opcode, types};
use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use super::{Buffer, Job, Workers, finish, pool};

const ENTRIES: u32 = 1024;
/// Threads that read instead of a ring that failed.
const INSTEAD: usize = 64;
/// Bytes answered after which new jobs are looked for: about 60 us of checksums and copies.
const LOOK_AFTER: usize = 256 << 10;
/// User data of the read that waits for the eventfd.
const WAKE: u64 = u64::MAX;

/// Handle of the engine's thread. Dropping it lets the thread end after the last job.
pub struct Uring {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Vec<Job>>,
    wake: OwnedFd,
    /// Set while the thread is about to look at the queue anyway: saves the write.
    awake: AtomicBool,
    closed: AtomicBool,
    /// Who reads since the ring failed. Set while the queue is locked, so that nothing is queued after it.
    instead: OnceLock<Workers>,
    #[cfg(test)]
    ring: std::sync::atomic::AtomicI32,
}

/// A job with reads under way.
struct Flying {
    job: Job,
    /// What each range got.
    got: Vec<usize>,
    left: usize,
    failed: Option<io::Error>,
}

/// Names a range of a flying job in the ring: the job's place in the table, and the range's in the job.
const RANGE_BITS: u32 = 16;

impl Uring {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel has no io_uring or forbids it.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
            awake: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            instead: OnceLock::new(),
            #[cfg(test)]
            ring: std::sync::atomic::AtomicI32::new(-1),
        });
        let ours = Arc::clone(&shared);
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            // Built by the thread that it belongs to.
            let ring = match ring() {
                Ok(ring) => ring,
                Err(error) => return drop(tell.send(Err(error))),
            };
            #[cfg(test)]
            ours.ring.store(ring.as_raw_fd(), Ordering::Release);
            let _ = tell.send(Ok(()));
            let (flying, counter) = (Slab::new(), Box::new(0));
            let mut engine = Loop { ring, shared: ours, flying, counter, waking: false };
            if let Err(error) = engine.run() {
                tracing::error!("io_uring failed: {error}; threads read from now on");
                engine.give_up();
            }
        })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self { shared })
    }

    /// Queues a job.
    pub(super) fn submit(&self, job: Job) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(workers) = self.shared.instead.get() {
            drop(queue);
            return workers.run(Box::new(move || pool::read(job)));
        }
        queue.push(job);
        drop(queue);
        self.shared.wake();
    }

    /// Whether threads read since the ring failed.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.instead.get().is_some()
    }
}

fn ring() -> io::Result<IoUring> {
    let alone = IoUring::builder().setup_clamp().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
    // Kernels before 6.1 do not know these.
    alone.or_else(|_| IoUring::builder().setup_clamp().build(ENTRIES))
}

#[cfg(test)]
impl Uring {
    /// Dangles once the handle is dropped and the thread has ended.
    pub(super) fn ended(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }

    /// From now on the kernel refuses what the ring asks for.
    pub(super) fn lose_the_ring(&self) {
        let elsewhere = std::fs::File::open("/dev/null").expect("there is always /dev/null");
        let ring = self.shared.ring.load(Ordering::Acquire);
        // SAFETY: the number stays open and the loop's, which closes it once at most; nobody else uses it.
        unsafe { libc::dup2(elsewhere.as_raw_fd(), ring) };
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // Whatever `awake` says: the thread ends only after this write has ended its read.
        self.shared.ring_the_bell();
        self.shared.instead.get().into_iter().for_each(Workers::close);
    }
}

impl Shared {
    fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.ring_the_bell();
        }
    }

    fn ring_the_bell(&self) {
        // An eventfd refuses only when its counter would overflow, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

struct Loop {
    ring: IoUring,
    shared: Arc<Shared>,
    flying: Slab<Flying>,
    /// The kernel writes the eventfd's counter here while `waking`.
    counter: Box<u64>,
    /// Whether the eventfd's read is in flight. The thread does not end before: the memory is the kernel's until then.
    waking: bool,
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.shared.awake.store(false, Ordering::Release);
            // Before the queue is taken: nothing is queued after the handle was dropped.
            let closing = self.shared.closed.load(Ordering::Acquire);
            self.take_in()?;
            if closing && self.flying.is_empty() && !self.waking {
                return Ok(());
            }
            if !closing && !self.waking {
                self.wait_for_the_bell()?;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(e) => return Err(e),
            }
            self.shared.awake.store(true, Ordering::Release);
            self.reap()?;
        }
    }

    fn take_in(&mut self) -> io::Result<bool> {
        let jobs = std::mem::take(&mut *self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner));
        let some = !jobs.is_empty();
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            if let Err(error) = self.start(job) {
                self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).extend(jobs);
                return Err(error);
            }
        }
        Ok(some)
    }

    /// See the module.
    fn give_up(mut self) {
        let workers = match Workers::start("read", INSTEAD) {
            Ok(workers) => workers,
            Err(error) => {
                tracing::error!("no threads to read with either: {error}; reads hang until a restart");
                return std::mem::forget(self);
            }
        };
        let queued = {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = self.shared.instead.set(workers.clone());
            std::mem::take(&mut *queue)
        };
        if self.shared.closed.load(Ordering::Acquire) {
            workers.close();
        }
        let flying = std::mem::take(&mut self.flying);
        // The kernel may still write into what is in flight: that memory is never given back.
        std::mem::forget(self);
        let again = flying.into_iter().map(|(_, Flying { job: Job { file, ranges, buffer, done }, .. })| {
            let fresh = Buffer::new(buffer.len());
            std::mem::forget(buffer);
            Job { file, ranges, buffer: fresh, done }
        });
        again.chain(queued).for_each(|job| workers.run(Box::new(move || pool::read(job))));
    }

    fn wait_for_the_bell(&mut self) -> io::Result<()> {
        let bell = types::Fd(self.shared.wake.as_raw_fd());
        let read = opcode::Read::new(bell, (&raw mut *self.counter).cast(), 8);
        self.waking = true;
        self.push(&read.build().user_data(WAKE))
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut answered = 0;
        // One after another: what an answer does must not wait for the answers after it.
        while let Some((id, result)) = self.next_completion() {
            if id == WAKE {
                self.waking = false;
                continue;
            }
            answered +=
                self.ended((id >> RANGE_BITS) as usize, (id & ((1 << RANGE_BITS) - 1)) as usize, result)?;
            // The device must not idle while large answers are checked and copied: who got theirs asks again meanwhile.
            if answered >= LOOK_AFTER {
                answered = 0;
                if self.take_in()? {
                    self.ring.submit()?;
                }
            }
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|c| (c.user_data(), c.result()))
    }

    /// A read of one range ended. Returns the length of the answer if that was the last one of its job.
    fn ended(&mut self, job: usize, range: usize, result: i32) -> io::Result<usize> {
        let Some(flying) = self.flying.get_mut(job) else { return Ok(0) };
        match result {
            n if n < 0 => {
                let error = io::Error::from_raw_os_error(-n);
                if error.kind() == io::ErrorKind::Interrupted || -n == libc::EAGAIN {
                    return self.read(job, range).map(|()| 0);
                }
                flying.failed = Some(error);
            }
            n => {
                let got = &mut flying.got[range];
                *got += n.unsigned_abs() as usize;
                // An odd end is the end of the file; asking again under O_DIRECT would be refused as unaligned.
                if n > 0 && *got < flying.job.ranges[range].len && got.is_multiple_of(512) {
                    return self.read(job, range).map(|()| 0);
                }
            }
        }
        flying.left -= 1;
        if flying.left > 0 {
            return Ok(0);
        }
        let Flying { job: Job { buffer, done, .. }, got, failed, .. } = self.flying.remove(job);
        let len = buffer.len();
        finish(done, failed.map_or_else(|| Ok(got.iter().sum()), Err), buffer);
        Ok(len)
    }

    fn start(&mut self, job: Job) -> io::Result<()> {
        let ranges = job.ranges.len();
        let all: usize = job.ranges.iter().map(|r| r.len).sum();
        if ranges == 0 || ranges > 1 << RANGE_BITS || all > job.buffer.len() {
            let odd = io::Error::new(io::ErrorKind::InvalidInput, "ranges that do not fit the buffer");
            finish(job.done, Err(odd), job.buffer);
            return Ok(());
        }
        let id = self.flying.insert(Flying { job, got: vec![0; ranges], left: ranges, failed: None });
        (0..ranges).try_for_each(|range| self.read(id, range))
    }

    /// Asks for what is missing of a range.
    fn read(&mut self, id: usize, range: usize) -> io::Result<()> {
        let Flying { job, got, .. } = &mut self.flying[id];
        let before: usize = job.ranges[..range].iter().map(|r| r.len).sum();
        let got = got[range];
        let wanted = job.ranges[range];
        let rest = &mut job.buffer[before + got..before + wanted.len];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let read = opcode::Read::new(types::Fd(job.file.as_raw_fd()), rest.as_mut_ptr(), len)
            .offset(wanted.offset + got as u64)
            .build()
            .user_data((id as u64) << RANGE_BITS | range as u64);
        self.push(&read)
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the entry's buffer is the heap memory of a `Buffer` (or the boxed counter) and its file an
            // `Arc<File>` (or the eventfd); this loop owns them until this id's completion was taken, moving it does not
            // move that memory, and it is forgotten, not dropped, when it ends before that.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}
