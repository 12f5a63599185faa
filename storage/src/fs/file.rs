//! Open files: everything but reading.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, openat};

use super::ahead::Stream;
use super::caller::set_umask;
use super::layout::Layout;
use super::{Attr, Caller, Fs, Node, errno};
use crate::metrics::Job;
use crate::policy::{Ask, StreamId};

/// An open file of the backend.
#[derive(Debug)]
pub struct OpenFile {
    /// Its node.
    pub node: Arc<Node>,
    /// The descriptor that the caller's rights opened.
    pub file: Arc<File>,
    /// The same, past the page cache; made when the first hit is read.
    pub(super) direct: OnceLock<Option<Arc<File>>>,
    pub(super) direct_asked: AtomicBool,
    /// Whether something was written through it that no flush has followed yet.
    written: AtomicBool,
    /// Whether a flock was ever asked for through it.
    pub(super) flocked: AtomicBool,
    /// Errors of flushes that it has reported.
    pub(super) errors_seen: AtomicU64,
    /// Which part of the backend holds which bytes.
    layout: Layout,
    /// Its handle; also the stream that its reads belong to.
    pub handle: u64,
    /// Opened with O_DIRECT: its requests are its reader's own.
    pub(super) past_pages: bool,
    /// What is read ahead of its reader.
    pub(super) stream: Stream,
    /// The job of who opened it.
    pub(super) job: Arc<Job>,
}

/// Answer to an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Handle.
    pub handle: u64,
    /// Whether pages that the kernel holds from before are still good.
    pub keep_pages: bool,
}

/// Flags that belong to the open call on the mount and not to the one on the backend.
const OURS: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::DIRECT);

impl OpenFile {
    /// A read as the splitter sees it.
    pub(super) fn ask(&self, offset: u64, len: u32) -> Ask {
        Ask { stream: StreamId(self.handle), target: self.layout.target(offset), len }
    }

    /// The file past the page cache, where the backend has O_DIRECT and it was opened so by now.
    pub(super) fn past_the_page_cache(&self) -> Arc<File> {
        Arc::clone(self.direct.get().and_then(Option::as_ref).unwrap_or(&self.file))
    }

    /// Closes a copy of the descriptor, so that the backend says what it kept back; nothing for a file that was only read,
    /// which needs no backend to be closed.
    pub(super) fn close_once(&self) -> io::Result<()> {
        use std::os::fd::IntoRawFd;
        if !self.written.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        Ok(nix::unistd::close(self.file.try_clone()?.into_raw_fd())?)
    }
}

impl Fs {
    /// Opens a file.
    ///
    /// # Errors
    /// As the backend gives them; this holds for all operations here.
    pub fn open(&self, caller: &Caller, id: u64, flags: i32) -> io::Result<Opened> {
        let node = self.node(id)?;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let past_pages = flags.contains(OFlags::DIRECT);
        let flags = self.at_backend(flags.difference(OURS));
        let truncate = flags.contains(OFlags::TRUNC);
        let file = self.act(caller, || self.reopen(&node, flags.difference(OFlags::TRUNC)))?;
        let opened = self.opened(caller, Arc::clone(&node), file, past_pages)?;
        if truncate && let Err(error) = self.truncate(caller, &node, Some(opened.handle), 0) {
            self.release(opened.handle);
            return Err(error);
        }
        Ok(opened)
    }

    /// Makes and opens a file.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: (u32, u32),
        flags: i32,
    ) -> io::Result<(Attr, Opened)> {
        let parent = self.node(parent)?;
        let flags =
            OFlags::from_bits_retain(flags.cast_unsigned()).difference(OFlags::DIRECT.union(OFlags::TRUNC));
        let flags = self.at_backend(flags) | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mode, umask) = mode;
        let (attr, file) = self.act(caller, || {
            set_umask(umask)?;
            let file = File::from(openat(parent.fd(), name, flags, Mode::from_raw_mode(mode))?);
            Ok((self.enter_open(&parent, name, &file)?, file))
        })?;
        let node = self.node(attr.id)?;
        Ok((attr, self.opened(caller, node, file, false)?))
    }

    /// Dirty bytes are written where they belong: O_APPEND would put them elsewhere.
    fn at_backend(&self, flags: OFlags) -> OFlags {
        if self.back().is_some() { flags.difference(OFlags::APPEND) } else { flags }
    }

    fn opened(&self, caller: &Caller, node: Arc<Node>, file: File, past_pages: bool) -> io::Result<Opened> {
        let keep_pages = self.reads.look(&node, &file, true)?.keep_pages;
        self.after_open(&node);
        let handle = self.handle();
        let open = OpenFile {
            errors_seen: node.writing.errors(),
            layout: node.state().marks().layout(&file),
            node,
            file: Arc::new(file),
            direct: OnceLock::new(),
            direct_asked: AtomicBool::new(false),
            written: AtomicBool::new(false),
            flocked: AtomicBool::new(false),
            handle,
            past_pages,
            stream: Stream::default(),
            job: self.reads.jobs().of(caller.pid),
        };
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(open));
        Ok(Opened { handle, keep_pages })
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        let open = self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
        if let Some(open) = open {
            self.drop_handle(&open);
            self.after_release(&open);
        }
    }

    /// Opens a node to change its size, with the rights of the current thread.
    pub(super) fn reopen_for_writing(&self, node: &Node) -> io::Result<File> {
        self.reopen(node, OFlags::WRONLY | OFlags::NONBLOCK)
    }

    /// Writes at the backend, with the caller's rights, so that quotas count.
    pub(super) fn write_backend(
        &self,
        caller: &Caller,
        open: &OpenFile,
        offset: u64,
        data: &[u8],
    ) -> io::Result<usize> {
        open.written.store(true, Ordering::Release);
        self.act(caller, || open.file.write_all_at(data, offset).map(|()| data.len()))
    }

    /// Reserves, frees or moves space.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn fallocate(
        &self,
        caller: &Caller,
        handle: u64,
        mode: i32,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        let open = self.file(handle)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let work = || Ok(rustix::fs::fallocate(&open.file, mode, offset, len)?);
        self.change(&open.node, || self.act(caller, work))
    }

    /// Finds data or a hole.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn lseek(&self, handle: u64, offset: i64, whence: i32) -> io::Result<u64> {
        let at = u64::try_from(offset).map_err(|_| errno(libc::ENXIO))?;
        let from = match whence {
            libc::SEEK_DATA => SeekFrom::Data(at),
            libc::SEEK_HOLE => SeekFrom::Hole(at),
            _ => return Err(errno(libc::EINVAL)),
        };
        let open = self.file(handle)?;
        self.settle(&open.node)?;
        Ok(rustix::fs::seek(&open.file, from)?)
    }

    /// Copies inside the backend.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn copy_file_range(
        &self,
        caller: &Caller,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
    ) -> io::Result<usize> {
        let (source, target) = (self.file(from.0)?, self.file(to.0)?);
        self.settle(&source.node)?;
        let (mut from, mut to) = (from.1, to.1);
        let len = usize::try_from(len.min(1 << 30)).unwrap_or(usize::MAX);
        let mut copy = || {
            Ok(rustix::fs::copy_file_range(&source.file, Some(&mut from), &target.file, Some(&mut to), len)?)
        };
        target.written.store(true, Ordering::Release);
        self.change(&target.node, || self.act(caller, &mut copy))
    }
}
