//! The io_uring engine: one thread, one ring, woken by an eventfd that is read through the ring itself.
//!
//! ```text
//!   submit: queue the job, write the eventfd
//!   thread: take all queued jobs -> SQEs -> submit_and_wait(1) -> completions -> done(), or the rest of a short read
//! ```
//! A job's buffer and file belong to the table of flying jobs until its completion was seen, whatever becomes of
//! the reader; a read that never completes keeps its buffer for ever, as it must.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use io_uring::{IoUring, opcode, types};
use rustix::event::{EventfdFlags, eventfd};

use super::{Done, Job};

const ENTRIES: u32 = 1024;
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
}

struct Flying {
    job: Job,
    got: usize,
}

impl Uring {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel has no io_uring or forbids it.
    pub(super) fn start() -> io::Result<Self> {
        let ring: IoUring = IoUring::builder().setup_clamp().build(ENTRIES)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
            awake: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            let (flying, counter) = (HashMap::new(), Box::new(0));
            let mut engine = Loop { ring, shared: ours, flying, next: 0, counter, waking: false };
            if let Err(error) = engine.run() {
                tracing::error!("the io_uring engine ended: {error}; reads will hang until a restart");
                // The kernel may still write into what is in flight: that memory is never given back.
                std::mem::forget(engine);
            }
        })?;
        Ok(Self { shared })
    }

    /// Queues a job.
    pub(super) fn submit(&self, job: Job) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        self.shared.wake();
    }
}

#[cfg(test)]
impl Uring {
    /// Dangles once the handle is dropped and the thread has ended.
    pub(super) fn ended(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // Whatever `awake` says: the thread ends only after this write has ended its read.
        self.shared.ring_the_bell();
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
    flying: HashMap<u64, Flying>,
    next: u64,
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
            let jobs = std::mem::take(&mut *self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner));
            for job in jobs {
                self.start(Flying { job, got: 0 })?;
            }
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

    fn wait_for_the_bell(&mut self) -> io::Result<()> {
        let bell = types::Fd(self.shared.wake.as_raw_fd());
        let read = opcode::Read::new(bell, (&raw mut *self.counter).cast(), 8);
        self.waking = true;
        self.push(&read.build().user_data(WAKE))
    }

    fn reap(&mut self) -> io::Result<()> {
        let ended: Vec<(u64, i32)> = self.ring.completion().map(|c| (c.user_data(), c.result())).collect();
        for (id, result) in ended {
            if id == WAKE {
                self.waking = false;
            } else if let Some(flying) = self.flying.remove(&id) {
                self.ended(flying, result)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, mut flying: Flying, result: i32) -> io::Result<()> {
        let result = match result {
            n if n < 0 => {
                let error = io::Error::from_raw_os_error(-n);
                if error.kind() == io::ErrorKind::Interrupted || -n == libc::EAGAIN {
                    return self.start(flying);
                }
                Err(error)
            }
            0 => Ok(flying.got),
            n => {
                flying.got += n.unsigned_abs() as usize;
                // An odd end is the end of the file; asking again under O_DIRECT would be refused as unaligned.
                if flying.got < flying.job.buffer.len() && flying.got.is_multiple_of(512) {
                    return self.start(flying);
                }
                Ok(flying.got)
            }
        };
        let Job { buffer, done, .. } = flying.job;
        finish(done, result, buffer);
        Ok(())
    }

    fn start(&mut self, mut flying: Flying) -> io::Result<()> {
        let id = self.next;
        self.next += 1;
        let rest = &mut flying.job.buffer[flying.got..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let read = opcode::Read::new(types::Fd(flying.job.file.as_raw_fd()), rest.as_mut_ptr(), len)
            .offset(flying.job.offset + flying.got as u64)
            .build()
            .user_data(id);
        self.flying.insert(id, flying);
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

/// A panic in an answer must not end the engine.
fn finish(done: Done, result: io::Result<usize>, buffer: super::Buffer) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || done(result, buffer)));
}
