//! The file system's operations as plain Rust: what each one does at the backend and to the cache.
//!
//! Nothing here knows FUSE. Every operation takes the [`Caller`] on whose behalf it acts; in service mode the
//! thread takes on the caller's fsuid, fsgid and groups for the time of the call, so that the backend decides
//! about rights, quota and ownership as if the caller had come directly. Reads of data are apart
//! ([`reads`]): they are asynchronous, all else may block and runs on worker threads.

mod ahead;
mod caller;
mod crowd;
mod file;
mod flight;
mod layout;
mod listing;
mod locks;
mod marks;
mod namespace;
mod node;
pub mod reads;
mod version;
mod virtual_xattr;
pub mod writes;
mod xattr;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, Stat, openat};

pub use caller::{Caller, Identity, Rights};
pub use crowd::{Known, Surplus};
pub use file::{OpenFile, Opened};
pub use listing::{DirEntry, Listed, OpenDir};
pub(crate) use locks::no_locks;
pub use locks::{LockAsk, LockType, probe as probe_locks};
pub use marks::Marks;
pub use namespace::{SetAttr, SetTime};
pub use node::Node;
pub use reads::{Engines, ReadPath, ReadSettings};
pub use writes::{WriteBack, WriteMode, Writer, Writes};

use crate::cache::{Cache, FileStore};
use node::NodeTable;

/// Node id of the root.
pub const ROOT: u64 = 1;

/// One mounted backend.
pub struct Fs {
    identity: Identity,
    nodes: NodeTable,
    proc_fds: OwnedFd,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    dirs: RwLock<HashMap<u64, Arc<Mutex<OpenDir>>>>,
    next_handle: AtomicU64,
    locks: locks::LockTable,
    crowd: crowd::Crowd,
    ahead: ahead::Ahead,
    reads: Arc<ReadPath>,
    writes: Writes,
}

impl Fs {
    /// Opens the backend directory.
    ///
    /// # Errors
    /// When it cannot be opened, or /proc is not mounted.
    pub fn new(backend: &Path, identity: Identity, reads: Arc<ReadPath>, writes: Writes) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, backend, flags, Mode::empty())?;
        let proc_fds = openat(rustix::fs::CWD, "/proc/self/fd", flags, Mode::empty())?;
        Ok(Self {
            identity,
            nodes: NodeTable::new(root, reads.backend_id())?,
            proc_fds,
            files: RwLock::default(),
            dirs: RwLock::default(),
            next_handle: AtomicU64::new(1),
            locks: locks::LockTable::default(),
            crowd: crowd::Crowd::new(),
            ahead: ahead::Ahead::default(),
            reads,
            writes,
        })
    }

    /// The read path of this mount.
    pub fn reads(&self) -> &Arc<ReadPath> {
        &self.reads
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Arc<Cache<FileStore>> {
        self.reads.cache()
    }

    /// From now on sequential readers are read ahead of, because the kernel does so too little.
    pub fn read_ahead(&self) {
        self.ahead.turn_on();
    }

    /// A known node.
    ///
    /// # Errors
    /// ESTALE when the kernel asks for one that was never given out.
    pub fn node(&self, id: u64) -> io::Result<Arc<Node>> {
        self.nodes.get(id).ok_or_else(|| errno(libc::ESTALE))
    }

    /// The kernel dropped `count` references to a node.
    pub fn forget(&self, id: u64, count: u64) {
        self.nodes.forget(id, count);
    }

    /// Waits a while for the kernel to know too many files; returns what it should forget.
    pub fn surplus(&self) -> Surplus {
        let unlist = |id| {
            if let Some(node) = self.nodes.get(id) {
                node.listed.store(false, Ordering::Release);
            }
        };
        self.crowd.surplus(|| self.nodes.len(), unlist)
    }

    /// An open file.
    ///
    /// # Errors
    /// EBADF when there is none with this handle.
    pub fn file(&self, handle: u64) -> io::Result<Arc<OpenFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&handle).cloned().ok_or_else(|| errno(libc::EBADF))
    }

    fn dir(&self, handle: u64) -> io::Result<Arc<Mutex<OpenDir>>> {
        let dirs = self.dirs.read().unwrap_or_else(PoisonError::into_inner);
        dirs.get(&handle).cloned().ok_or_else(|| errno(libc::EBADF))
    }

    fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `work` with the caller's rights.
    fn act<T>(&self, caller: &Caller, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.identity.act(caller, work)
    }

    /// Opens a node anew with other flags, with the rights of the current thread.
    fn reopen(&self, node: &Node, flags: OFlags) -> io::Result<File> {
        let open = || Ok(openat(&self.proc_fds, node.fd_name(), flags | OFlags::CLOEXEC, Mode::empty())?);
        Ok(File::from(with_room(open)?))
    }
}

/// Opens something; where descriptors have run out, waits for the kernel to give some back.
fn with_room<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..25 {
        match open() {
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
    open()
}

/// Attributes of a node, with the id under which the kernel knows it.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    /// Node id.
    pub id: u64,
    /// What the backend says.
    pub stat: Stat,
}

/// An error by number.
pub(crate) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
