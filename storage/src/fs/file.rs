//! Open files: everything but reading.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, openat};
use rustix::io::{ReadWriteFlags, pwritev2};

use super::ahead::Stream;
use super::caller::{Rights, set_umask};
use super::layout::Layout;
use super::{Attr, Caller, Fs, Node, errno};
use crate::metrics::Job;
use crate::policy::{Ask, StreamId};

/// An open file of the backend.
#[derive(Debug)]
pub struct OpenFile {
    /// Its node.
    pub node: Arc<Node>,
    /// The descriptor that the caller's rights opened. Never with O_APPEND: pages of a mapping have their place in the file,
    /// and Linux's pwrite(2) would append them.
    pub file: Arc<File>,
    /// The same with O_APPEND, for calls: the backend alone knows the end, and some learn of O_APPEND at the open only.
    appender: Option<File>,
    /// Who opened it: pages of a mapping come without their writer.
    pub(super) rights: Rights,
    /// The same, past the page cache; made when the second hit is read.
    pub(super) direct: OnceLock<Option<Arc<File>>>,
    /// Hits that came before it was made.
    pub(super) direct_asked: AtomicU32,
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

/// What an open at the backend gave, and for whom.
struct Files {
    file: File,
    appender: Option<File>,
    rights: Rights,
    past_pages: bool,
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

    /// Writes at the end, wherever that is by now.
    fn append(&self, mut data: &[u8]) -> io::Result<()> {
        if let Some(file) = &self.appender {
            // The offset says nothing: see pwrite(2).
            return file.write_all_at(data, 0);
        }
        while !data.is_empty() {
            let written = pwritev2(&self.file, &[io::IoSlice::new(data)], 0, ReadWriteFlags::APPEND)?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Whether something was written through it since its last flush.
    pub(super) fn has_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
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
        let flags = flags.difference(OURS);
        let truncate = flags.contains(OFlags::TRUNC);
        let flags = flags.difference(OFlags::TRUNC);
        let rights = self.identity.rights(caller);
        let (file, appender) = self.identity.act_with(&rights, || {
            Ok((self.reopen(&node, flags.difference(OFlags::APPEND))?, self.appender(&node, flags)))
        })?;
        let opened = Files { file, appender, rights, past_pages };
        let opened = self.opened(caller, Arc::clone(&node), opened)?;
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
        let making = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mode, umask) = mode;
        let rights = self.identity.rights(caller);
        let (attr, node, files) = self.identity.act_with(&rights, || {
            set_umask(umask)?;
            let plain = flags.difference(OFlags::APPEND) | making;
            let file = File::from(openat(parent.fd(), name, plain, Mode::from_raw_mode(mode))?);
            let attr = self.enter_open(&parent, name, &file)?;
            let node = self.node(attr.id)?;
            let appender = self.appender(&node, flags.difference(OFlags::EXCL));
            Ok((attr, node, (file, appender)))
        })?;
        let files = Files { file: files.0, appender: files.1, rights, past_pages: false };
        Ok((attr, self.opened(caller, node, files)?))
    }

    /// With write-back, bytes are written where they belong. `None` also where the file's mode forbids its maker to open it
    /// again.
    fn appender(&self, node: &Node, flags: OFlags) -> Option<File> {
        let appends = flags.contains(OFlags::APPEND) && self.back().is_none();
        appends.then(|| self.reopen(node, flags).ok()).flatten()
    }

    fn opened(&self, caller: &Caller, node: Arc<Node>, files: Files) -> io::Result<Opened> {
        let Files { file, appender, rights, past_pages } = files;
        let keep_pages = self.reads.look(&node, &file, true)?.keep_pages;
        self.after_open(&node);
        let handle = self.handle();
        let open = OpenFile {
            errors_seen: node.writing.errors(),
            layout: node.state().marks().layout(&file),
            node,
            file: Arc::new(file),
            appender,
            rights,
            direct: OnceLock::new(),
            direct_asked: AtomicU32::new(0),
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

    /// Writes at the backend, with the writer's rights, so that quotas count. `offset`: `None` appends.
    pub(super) fn write_backend(
        &self,
        rights: &Rights,
        open: &OpenFile,
        offset: Option<u64>,
        data: &[u8],
    ) -> io::Result<usize> {
        open.written.store(true, Ordering::Release);
        self.identity.act_with(rights, || {
            match offset {
                Some(offset) => open.file.write_all_at(data, offset)?,
                None => open.append(data)?,
            }
            Ok(data.len())
        })
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
