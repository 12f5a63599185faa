//! Reads files without a thread per read: one io_uring thread, for local files with Linux AIO before it, or a bounded pool where
//! io_uring is missing.
//!
//! A read is a [`Job`]: file, ranges of it, a buffer that takes them one after another, and a closure that gets the outcome on
//! the engine's thread, and usually answers the kernel from there. It does not know what the bytes are for and retries nothing
//! but short reads.

#[expect(unsafe_code, reason = "Linux AIO takes raw pointers")]
mod aio;
mod buffer;
#[expect(unsafe_code, reason = "madvise takes a raw pointer")]
mod huge;
mod pool;
#[expect(unsafe_code, reason = "io_uring takes raw pointers; this module alone hands them out")]
mod uring;

use std::fs::File;
use std::io;
use std::sync::Arc;

pub use buffer::Buffer;
pub use pool::Workers;

/// Called with the bytes read of all ranges, which may be fewer than asked for at the end of the file only.
pub type Done = Box<dyn FnOnce(io::Result<usize>, Buffer) + Send>;

/// One read.
pub struct Job {
    /// The file.
    pub file: Arc<File>,
    /// Where in it, in the order of the buffer.
    pub ranges: Vec<Range>,
    /// Where to: as long as all ranges together.
    pub buffer: Buffer,
    /// What comes after.
    pub done: Done,
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: usize,
}

impl Job {
    /// One range, as long as the buffer.
    pub fn one(file: Arc<File>, offset: u64, buffer: Buffer, done: Done) -> Self {
        Self { file, ranges: vec![Range { offset, len: buffer.len() }], buffer, done }
    }
}

/// An engine.
pub enum Engine {
    /// The kernel queues and completes.
    Uring(Arc<uring::Uring>),
    /// The same for local files: who asks submits.
    Aio(aio::Aio),
    /// Threads block.
    Pool(Workers),
}

impl Engine {
    /// The io_uring engine, or `threads` blocking threads where the kernel has none.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        match uring::Uring::start() {
            Ok(uring) => Ok(Self::Uring(Arc::new(uring))),
            Err(_) => Self::blocking(threads),
        }
    }

    /// An engine for local files past the page cache: as above, with fewer wake-ups where the kernel has Linux AIO. Not for files
    /// whose reads may block while they are submitted.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn local(threads: usize) -> io::Result<Self> {
        let Self::Uring(ring) = Self::start(threads)? else { return Self::blocking(threads) };
        Ok(aio::Aio::start(Arc::clone(&ring)).map_or(Self::Uring(ring), Self::Aio))
    }

    /// The blocking engine.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn blocking(threads: usize) -> io::Result<Self> {
        Ok(Self::Pool(Workers::start("read", threads)?))
    }

    /// Name for the log and `stats`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring(uring) if uring.has_failed() => "threads",
            Self::Uring(_) => "io_uring",
            Self::Aio(_) => "aio",
            Self::Pool(_) => "threads",
        }
    }

    /// Starts a read.
    pub fn submit(&self, job: Job) {
        match self {
            Self::Uring(uring) => uring.submit(job),
            Self::Aio(aio) => aio.submit(job),
            Self::Pool(workers) => workers.run(Box::new(move || pool::read(job))),
        }
    }
}

/// A panic in an answer must not end the engine.
fn finish(done: Done, result: io::Result<usize>, buffer: Buffer) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || done(result, buffer)));
}

#[cfg(test)]
mod tests;
