//! The short way for reads of local files past the page cache: whoever asks submits, and the interrupt that ends the read wakes
//! the thread that answers.
//!
//! ```text
//!   submit: io_submit, without waiting     --refused--> the ring
//!   thread: io_getevents -> done()         --not whole--> the ring
//! ```
//! io_uring completes a read on the thread that submitted it, so a read by the ring costs one more wake-up: of the ring's thread,
//! to submit. Linux AIO completes in the interrupt. It can do less (no waiting for a busy device, no reads of several ranges), so
//! whatever it does not do at once is given to the ring, which also says what an error is.
//!
//! Some devices end many reads with one interrupt. Who was answered first waits for this core then, until the last one was
//! answered, and the device has nothing to do: the thread lets such readers go on in between ([`Courtesy`]).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;

use super::uring::Uring;
use super::{Job, finish};

/// Reads under way at most, and events taken at once.
const ENTRIES: libc::c_long = 1024;
const EVENTS: usize = 32;
/// So many of them are worth letting others go on in between.
const MANY: usize = 8;
/// How often the thread looks whether it is still needed.
const IDLE: libc::timespec = libc::timespec { tv_sec: 1, tv_nsec: 0 };

const IOCB_CMD_PREAD: u16 = 0;
const RWF_NOWAIT: i32 = 8;

/// `struct iocb` of linux/aio_abi.h, as little-endian machines have it.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    iocb: u64,
    result: i64,
    result2: i64,
}

/// Handle of the thread that answers. Dropping it lets the thread end after the last job.
pub struct Aio {
    shared: Arc<Shared>,
}

struct Shared {
    context: Context,
    flying: Mutex<Slab<Job>>,
    ring: Arc<Uring>,
    /// Files here cannot be read without waiting.
    useless: AtomicBool,
    closed: AtomicBool,
}

impl Aio {
    /// Starts the thread, beside a ring that does the rest.
    ///
    /// # Errors
    /// When the kernel has no Linux AIO or too much of it is in use.
    pub(super) fn start(ring: Arc<Uring>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            context: Context::new()?,
            flying: Mutex::default(),
            ring,
            useless: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        std::thread::Builder::new().name("answer".into()).spawn(move || ours.run())?;
        Ok(Self { shared })
    }

    /// Starts a read.
    pub(super) fn submit(&self, job: Job) {
        let shared = &self.shared;
        let [range] = job.ranges[..] else { return shared.ring.submit(job) };
        if shared.useless.load(Ordering::Relaxed) || range.len > job.buffer.len() || range.len == 0 {
            return shared.ring.submit(job);
        }
        let (id, mut iocb) = {
            let mut flying = shared.flying();
            let id = flying.insert(job);
            let Job { file, buffer, .. } = &mut flying[id];
            let iocb = Iocb {
                data: id as u64,
                rw_flags: RWF_NOWAIT,
                opcode: IOCB_CMD_PREAD,
                file: file.as_raw_fd().cast_unsigned(),
                buffer: buffer.as_mut_ptr() as u64,
                len: range.len as u64,
                offset: range.offset.cast_signed(),
                ..Iocb::default()
            };
            (id, iocb)
        };
        // The job stays in the table until its event was taken, or until it was refused here.
        if let Err(error) = shared.context.submit(&mut iocb) {
            let refused = shared.flying().remove(id);
            if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
                shared.useless.store(true, Ordering::Relaxed);
            }
            shared.ring.submit(refused);
        }
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl Shared {
    fn flying(&self) -> MutexGuard<'_, Slab<Job>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let (mut events, mut courtesy) = ([Event::default(); EVENTS], Courtesy::default());
        loop {
            let closing = self.closed.load(Ordering::Acquire);
            match self.context.wait(&mut events) {
                Ok(events) => {
                    for (answered, event) in (1_usize..).zip(events) {
                        self.ended(event);
                        if events.len() >= MANY && answered < events.len() && answered.is_power_of_two() {
                            courtesy.give_way();
                        }
                    }
                }
                Err(error) => {
                    // What is under way is answered by nobody now; every hit has another copy.
                    tracing::error!("Linux AIO ended: {error}; the ring reads alone");
                    return self.useless.store(true, Ordering::Relaxed);
                }
            }
            if closing && self.flying().is_empty() {
                return;
            }
        }
    }

    fn ended(&self, event: &Event) {
        let job = self.flying().try_remove(event.data as usize);
        let Some(job) = job else { return };
        let wanted = job.ranges.first().map_or(0, |range| range.len);
        if event.result == wanted as i64 {
            finish(job.done, Ok(wanted), job.buffer);
        } else {
            if event.result == -i64::from(libc::EOPNOTSUPP) {
                self.useless.store(true, Ordering::Relaxed);
            }
            self.ring.submit(job);
        }
    }
}

/// Gives the core to readers who were just answered: they ask again within microseconds, and the device has work while the others
/// are answered. Who computes instead keeps the core for milliseconds, while answers wait: then it is not given for a while.
#[derive(Default)]
struct Courtesy {
    refrain_until: Option<Instant>,
}

impl Courtesy {
    /// A turn of others that took longer was none of readers who ask again.
    const SHORT: Duration = Duration::from_micros(600);
    /// What one such turn costs is a small part of the time, this many times as long, until the next one.
    const REFRAIN: u32 = 160;

    fn give_way(&mut self) {
        let start = Instant::now();
        if self.is_given(start) {
            std::thread::yield_now();
            self.took(start, Instant::now());
        }
    }

    fn is_given(&self, now: Instant) -> bool {
        self.refrain_until.is_none_or(|until| now >= until)
    }

    fn took(&mut self, start: Instant, end: Instant) {
        let took = end - start;
        self.refrain_until = (took > Self::SHORT).then_some(end + took * Self::REFRAIN);
    }
}

/// An AIO context of the kernel.
struct Context(libc::c_ulong);

impl Context {
    fn new() -> io::Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut context = 0;
        // SAFETY: the kernel writes the context's number there, and nothing else.
        match unsafe { libc::syscall(libc::SYS_io_setup, ENTRIES, &raw mut context) } {
            0 => Ok(Self(context)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn submit(&self, iocb: &mut Iocb) -> io::Result<()> {
        let mut list = [&raw mut *iocb];
        // SAFETY: the kernel copies the control block. Its buffer is the heap memory of a `Buffer` and its file an `Arc<File>` of
        // a job that stays in the table of flying jobs until the event of this read was taken; moving the job does not move
        // that memory.
        match unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, list.as_mut_ptr()) } {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for events, at most for [`IDLE`].
    fn wait<'a>(&self, events: &'a mut [Event; EVENTS]) -> io::Result<&'a [Event]> {
        let (mut most, place) = (IDLE, events.as_mut_ptr());
        // SAFETY: the kernel writes at most as many events as there is room for.
        let got = unsafe { libc::syscall(libc::SYS_io_getevents, self.0, 1, EVENTS, place, &raw mut most) };
        match usize::try_from(got) {
            Ok(got) => Ok(&events[..got]),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
                error => Err(error),
            },
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the number is of a context that nobody uses any more; the kernel waits for what is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_is_given_until_somebody_keeps_it() {
        let (mut courtesy, start) = (Courtesy::default(), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        assert!(courtesy.is_given(at(0)));
        courtesy.took(at(0), at(100));
        assert!(courtesy.is_given(at(100)), "readers asked again and waited");
        courtesy.took(at(100), at(3_100));
        assert!(!courtesy.is_given(at(3_100)) && !courtesy.is_given(at(480_000)), "somebody computes");
        assert!(courtesy.is_given(at(483_100)));
    }
}
