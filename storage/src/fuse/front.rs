//! What every request goes through: a ticket for the one answer, a worker thread for what may block, and what is undone when
//! nobody waits for the result any more.

use std::io;
use std::sync::Arc;

use fuser::{
    Errno, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
};

use super::MountOptions;
use super::convert::file_attr;
use super::locking::Parked;
use crate::config::LockMode;
use crate::fs::{Attr, Caller, Fs, Opened};
use crate::io::Workers;
use crate::waiting::{Ticket, Waiting};

/// Operations that may block at once.
const WORKERS: usize = 128;
/// Closes of written or locked files that may, and of descriptors for which nobody waits. Each have threads of their own: what
/// hangs among the others, however much, keeps nobody from closing a file.
const FLUSHERS: usize = 32;
const CLOSERS: usize = 16;

/// The file system as the FUSE crate sees it.
pub(super) struct Front {
    pub(super) fs: Arc<Fs>,
    pub(super) workers: Workers,
    pub(super) flushers: Workers,
    pub(super) closers: Workers,
    pub(super) waiting: Arc<Waiting>,
    pub(super) parked: Arc<Parked>,
    pub(super) options: MountOptions,
    pub(super) direct: bool,
    /// Whether files past the page cache can be mapped shared.
    pub(super) direct_maps: bool,
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

/// A reply that can carry an error.
pub(super) trait Answer: Send + 'static {
    fn fail(self, errno: i32);
}

macro_rules! answers {
    ($($reply:ty),*) => {
        $(impl Answer for $reply {
            fn fail(self, errno: i32) {
                self.error(Errno::from_i32(errno));
            }
        })*
    };
}

answers!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

pub(super) fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl Front {
    pub(super) fn new(fs: Arc<Fs>, options: MountOptions) -> io::Result<Self> {
        let workers = Workers::start("operation", WORKERS)?;
        Ok(Self {
            fs,
            parked: Parked::start(workers.clone())?,
            workers,
            flushers: Workers::start("flush", FLUSHERS)?,
            closers: Workers::start("close", CLOSERS)?,
            waiting: Waiting::start(options.soft)?,
            direct: options.direct,
            direct_maps: false,
            options,
        })
    }

    pub(super) fn enter<R: Answer>(&self, req: &Request, reply: R) -> Ticket<R> {
        self.waiting.enter(req.pid(), reply, R::fail)
    }

    /// Runs `work` on a worker thread and answers; `undo` when nobody waits for the result any more.
    pub(super) fn run_or_undo<R: Answer, T: 'static>(
        &self,
        req: &Request,
        reply: R,
        work: impl FnOnce(&Fs) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
        undo: impl FnOnce(&Fs, T) + Send + 'static,
    ) {
        self.run_or_undo_on(&self.workers, (req, reply), work, answer, undo);
    }

    fn run_or_undo_on<R: Answer, T: 'static>(
        &self,
        workers: &Workers,
        (req, reply): (&Request, R),
        work: impl FnOnce(&Fs) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
        undo: impl FnOnce(&Fs, T) + Send + 'static,
    ) {
        let ticket = self.enter(req, reply);
        let fs = Arc::clone(&self.fs);
        workers.run(Box::new(move || {
            let result = work(&fs);
            match (ticket.take(), result) {
                (Some(reply), Ok(value)) => answer(reply, value),
                (Some(reply), Err(error)) => reply.fail(number(&error)),
                (None, Ok(value)) => undo(&fs, value),
                (None, Err(_)) => {}
            }
        }));
    }

    pub(super) fn run<R: Answer, T: 'static>(
        &self,
        req: &Request,
        reply: R,
        work: impl FnOnce(&Fs) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        self.run_or_undo(req, reply, work, answer, |_, _| {});
    }

    /// The same on other threads.
    pub(super) fn run_on<R: Answer, T: 'static>(
        &self,
        workers: &Workers,
        req: &Request,
        reply: R,
        work: impl FnOnce(&Fs) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        self.run_or_undo_on(workers, (req, reply), work, answer, |_, _| {});
    }

    /// For operations whose answer gives the kernel a reference to a node.
    pub(super) fn run_entry(
        &self,
        req: &Request,
        reply: ReplyEntry,
        work: impl FnOnce(&Fs) -> io::Result<Attr> + Send + 'static,
    ) {
        let ttl = self.options.attribute_timeout;
        let answer = move |reply: ReplyEntry, attr: Attr| reply.entry(&ttl, &file_attr(&attr), Generation(0));
        self.run_or_undo(req, reply, work, answer, |fs, attr| fs.forget(attr.id, 1));
    }

    pub(super) fn open_flags(&self, flags: i32, opened: Opened) -> FopenFlags {
        let asked = flags & libc::O_DIRECT != 0;
        // Without it, O_DIRECT alone takes reads past the page cache, and the file can still be mapped.
        if self.direct || (asked && self.direct_maps) {
            FopenFlags::FOPEN_DIRECT_IO
        } else if opened.keep_pages {
            FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        }
    }

    /// Whether the kernel need not tell of a descriptor that is closed: nothing was written through it, and no locks of its
    /// process at the backend end with it. Saves small files one trip in three.
    pub(super) fn flush_flags(&self, flags: i32) -> FopenFlags {
        let locks = matches!(self.options.locks, LockMode::Fcntl | LockMode::Backend);
        let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
        if reads && !locks { FopenFlags::FOPEN_NOFLUSH } else { FopenFlags::empty() }
    }
}
