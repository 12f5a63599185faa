//! Open files: everything but reading.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, openat};

use super::caller::set_umask;
use super::{Attr, Caller, Fs, Node, errno};
use crate::metrics::Job;

/// An open file of the backend.
#[derive(Debug)]
pub struct OpenFile {
    /// Its node.
    pub node: Arc<Node>,
    /// The descriptor that the caller's rights opened.
    pub file: Arc<File>,
    /// The same, past the page cache; made at the first split read.
    pub(super) direct: OnceLock<Option<Arc<File>>>,
    pub(super) direct_asked: AtomicBool,
    /// Whether something was written through it that no flush has followed yet.
    written: AtomicBool,
    /// Whether a flock was ever asked for through it.
    pub(super) flocked: AtomicBool,
    /// Its handle; also the stream that its reads belong to.
    pub handle: u64,
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

impl Fs {
    /// Opens a file.
    ///
    /// # Errors
    /// As the backend gives them; this holds for all operations here.
    pub fn open(&self, caller: &Caller, id: u64, flags: i32) -> io::Result<Opened> {
        let node = self.node(id)?;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()).difference(OURS);
        let file = self.act(caller, || self.reopen(&node, flags))?;
        if flags.contains(OFlags::TRUNC) {
            self.changed(&node);
        }
        self.opened(caller, node, file)
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
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()).difference(OFlags::DIRECT);
        let flags = flags | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mode, umask) = mode;
        let (attr, file) = self.act(caller, || {
            set_umask(umask)?;
            let file = File::from(openat(parent.fd(), name, flags, Mode::from_raw_mode(mode))?);
            Ok((self.enter_open(&parent, name, &file)?, file))
        })?;
        let node = self.node(attr.id)?;
        Ok((attr, self.opened(caller, node, file)?))
    }

    fn opened(&self, caller: &Caller, node: Arc<Node>, file: File) -> io::Result<Opened> {
        let keep_pages = self.reads.look(&node, &file, true)?.keep_pages;
        let handle = self.handle();
        let open = OpenFile {
            node,
            file: Arc::new(file),
            direct: OnceLock::new(),
            direct_asked: AtomicBool::new(false),
            written: AtomicBool::new(false),
            flocked: AtomicBool::new(false),
            handle,
            job: self.reads.jobs().of(caller.pid),
        };
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(open));
        Ok(Opened { handle, keep_pages })
    }

    fn changed(&self, node: &Node) {
        node.state().change();
        self.cache().forget(node.state().key());
    }

    /// Runs a change of a file's content: nothing cached of it is believed from before the change until it was
    /// quiet for two seconds.
    fn change<T>(&self, node: &Node, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.changed(node);
        let result = work();
        self.changed(node);
        result
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        let open = self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
        if let Some(open) = open {
            self.drop_handle(&open);
        }
    }

    /// Writes; returns when the backend has the bytes.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn write(&self, caller: &Caller, handle: u64, offset: u64, data: &[u8]) -> io::Result<usize> {
        let open = self.file(handle)?;
        // With the caller's rights, so that quotas count.
        open.written.store(true, Ordering::Release);
        let work = || open.file.write_all_at(data, offset).map(|()| data.len());
        self.change(&open.node, || self.act(caller, work))
    }

    pub(super) fn truncate(
        &self,
        caller: &Caller,
        node: &Node,
        handle: Option<u64>,
        size: u64,
    ) -> io::Result<()> {
        let open = handle.and_then(|h| self.file(h).ok());
        self.change(node, || {
            self.act(caller, || match &open {
                Some(open) => open.file.set_len(size),
                None => self.reopen(node, OFlags::WRONLY | OFlags::NONBLOCK)?.set_len(size),
            })
        })
    }

    /// The application closed a descriptor: errors that the backend kept back come out now.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn flush(&self, handle: u64) -> io::Result<()> {
        use std::os::fd::IntoRawFd;
        let open = self.file(handle)?;
        // A file that was only read is closed without the backend, which may be silent.
        if !open.written.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        Ok(nix::unistd::close(open.file.try_clone()?.into_raw_fd())?)
    }

    /// Makes a file durable at the backend.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn fsync(&self, handle: u64, data_only: bool) -> io::Result<()> {
        let open = self.file(handle)?;
        if data_only { open.file.sync_data() } else { open.file.sync_all() }
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
        Ok(rustix::fs::seek(&self.file(handle)?.file, from)?)
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
        let (mut from, mut to) = (from.1, to.1);
        let len = usize::try_from(len.min(1 << 30)).unwrap_or(usize::MAX);
        let mut copy = || {
            Ok(rustix::fs::copy_file_range(&source.file, Some(&mut from), &target.file, Some(&mut to), len)?)
        };
        target.written.store(true, Ordering::Release);
        self.change(&target.node, || self.act(caller, &mut copy))
    }
}
