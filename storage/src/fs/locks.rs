//! File locks, forwarded to the backend so that they hold between nodes.
//!
//! flock belongs to an open file description, and every open of the mount has one of its own at the backend: the backend's
//! flock on that one is the caller's. An fcntl lock belongs to a process (or, as an OFD lock, to a description), which the
//! kernel names by a number; here every owner gets a description per file at the backend and locks it with OFD locks.
//!
//! ```text
//!   fcntl lock of owner O on node N --first--> description (N, O) --close by O, or last close of a handle it used--> gone
//! ```
//! Nothing here waits: who must wait asks again ([`crate::fuse`]). Deadlocks between waiters are not looked for, because OFD
//! locks have no owner that a backend could follow (fcntl(2), "no deadlock detection").

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::{Caller, Fs, OpenFile, errno};

/// What a caller wants of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockType {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

/// An fcntl lock that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockAsk {
    /// The open file.
    pub handle: u64,
    /// The kernel's number of the owner.
    pub owner: u64,
    /// What is wanted.
    pub kind: LockType,
    /// First byte.
    pub start: u64,
    /// Last byte; `i64::MAX` stands for the end of the file, wherever it is.
    pub end: u64,
}

/// One owner's description of one file.
#[derive(Debug)]
struct Owned {
    owner: u64,
    file: Arc<File>,
    /// Handles through which it locked; most use one.
    handles: Vec<u64>,
}

/// Descriptions by node.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    by_node: Mutex<HashMap<u64, Vec<Owned>>>,
}

impl LockTable {
    fn by_node(&self) -> MutexGuard<'_, HashMap<u64, Vec<Owned>>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, node: u64, ask: &LockAsk) -> Option<Arc<File>> {
        let mut nodes = self.by_node();
        let owned = nodes.get_mut(&node)?.iter_mut().find(|o| o.owner == ask.owner)?;
        if !owned.handles.contains(&ask.handle) {
            owned.handles.push(ask.handle);
        }
        Some(Arc::clone(&owned.file))
    }

    /// Adds a description, unless another thread of the owner was faster; returns the one in force.
    fn add(&self, node: u64, ask: &LockAsk, file: File) -> Arc<File> {
        let mut nodes = self.by_node();
        let all = nodes.entry(node).or_default();
        if let Some(owned) = all.iter().find(|o| o.owner == ask.owner) {
            return Arc::clone(&owned.file);
        }
        let file = Arc::new(file);
        all.push(Owned { owner: ask.owner, file: Arc::clone(&file), handles: vec![ask.handle] });
        file
    }

    fn has(&self, node: u64, owner: u64) -> bool {
        self.by_node().get(&node).is_some_and(|all| all.iter().any(|o| o.owner == owner))
    }

    /// Takes out the descriptions of a node that `gone` names.
    fn remove(&self, node: u64, gone: impl Fn(&Owned) -> bool) -> Vec<Arc<File>> {
        let mut nodes = self.by_node();
        let Some(all) = nodes.get_mut(&node) else { return Vec::new() };
        let files = all.extract_if(.., |o| gone(o)).map(|o| o.file).collect();
        if all.is_empty() {
            nodes.remove(&node);
        }
        files
    }
}

/// Gives up what a description has locked. Closing it is not enough where the backend is a FUSE file system itself: the
/// kernel leaves the locks of a closed description to a message that names another owner.
fn unlock_all(files: &[Arc<File>]) {
    for file in files {
        let _ = set(file, &flock_of(LockType::Unlock, 0, u64::MAX));
    }
}

fn flock_of(kind: LockType, start: u64, end: u64) -> libc::flock {
    let kind = match kind {
        LockType::Read => libc::F_RDLCK,
        LockType::Write => libc::F_WRLCK,
        LockType::Unlock => libc::F_UNLCK,
    };
    let start = i64::try_from(start).unwrap_or(i64::MAX);
    // A length of 0 reaches to the end of the file.
    let len = if end >= i64::MAX.cast_unsigned() { 0 } else { end.cast_signed() - start + 1 };
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

/// `false`: somebody else has it.
fn set(file: &File, lock: &libc::flock) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(lock)) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Fs {
    /// Locks or unlocks a whole file in the sense of flock(2); `false` when another description has it.
    ///
    /// # Errors
    /// As the backend gives them; this holds for all operations here.
    pub fn try_flock(&self, handle: u64, kind: LockType) -> io::Result<bool> {
        let open = self.file(handle)?;
        open.flocked.store(true, Ordering::Release);
        let operation = match kind {
            LockType::Read => FlockOperation::NonBlockingLockShared,
            LockType::Write => FlockOperation::NonBlockingLockExclusive,
            LockType::Unlock => FlockOperation::Unlock,
        };
        match flock(&open.file, operation) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Locks or unlocks a range in the sense of fcntl(2); `false` when another owner has a part of it.
    ///
    /// # Errors
    /// See [`Self::try_flock`].
    pub fn try_fcntl(&self, caller: &Caller, ask: &LockAsk) -> io::Result<bool> {
        let open = self.file(ask.handle)?;
        let file = match self.locks.find(open.node.id(), ask) {
            Some(file) => file,
            None if ask.kind == LockType::Unlock => return Ok(true),
            None => self.locks.add(open.node.id(), ask, self.description(caller, &open)?),
        };
        set(&file, &flock_of(ask.kind, ask.start, ask.end))
    }

    /// The lock that stands in the way of one that is asked for, as (kind, first byte, last byte).
    ///
    /// # Errors
    /// See [`Self::try_flock`].
    pub fn test_fcntl(&self, caller: &Caller, ask: &LockAsk) -> io::Result<Option<(LockType, u64, u64)>> {
        let open = self.file(ask.handle)?;
        let file = match self.locks.find(open.node.id(), ask) {
            Some(file) => file,
            None => Arc::new(self.description(caller, &open)?),
        };
        let mut lock = flock_of(ask.kind, ask.start, ask.end);
        fcntl(&*file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(io::Error::from)?;
        let kind = match i32::from(lock.l_type) {
            libc::F_UNLCK => return Ok(None),
            libc::F_RDLCK => LockType::Read,
            _ => LockType::Write,
        };
        let end = if lock.l_len == 0 { i64::MAX } else { lock.l_start + lock.l_len - 1 };
        Ok(Some((kind, lock.l_start.cast_unsigned(), end.cast_unsigned())))
    }

    /// Another description of an open file, for reading and writing where that can be had: both kinds of locks need it.
    /// No bytes go through it.
    fn description(&self, caller: &Caller, open: &OpenFile) -> io::Result<File> {
        let both = || self.reopen(&open.node, OFlags::RDWR | OFlags::NONBLOCK);
        let file = self.act(caller, both).or_else(|_| both());
        file.or_else(|_| self.act(caller, || self.reopen(&open.node, OFlags::RDONLY | OFlags::NONBLOCK)))
    }

    /// A process closed a descriptor: its fcntl locks on the file are gone, whatever other descriptors it has (POSIX).
    /// Returns whether there were any.
    pub fn drop_owner(&self, handle: u64, owner: u64) -> bool {
        let Ok(open) = self.file(handle) else { return false };
        let gone = self.locks.remove(open.node.id(), |o| o.owner == owner);
        unlock_all(&gone);
        !gone.is_empty()
    }

    /// Whether an owner has locked something of a file in the sense of fcntl(2). Does not wait.
    pub(super) fn owns_locks(&self, node: u64, owner: u64) -> bool {
        self.locks.has(node, owner)
    }

    /// A handle was closed for the last time: what was locked through it is free.
    pub(super) fn drop_handle(&self, open: &OpenFile) {
        unlock_all(&self.locks.remove(open.node.id(), |o| o.handles.contains(&open.handle)));
        // Work under way may keep the descriptor for a while. Descriptors without a lock take no harm.
        if open.flocked.load(Ordering::Acquire) {
            let _ = flock(&open.file, FlockOperation::Unlock);
        }
    }
}

/// Whether a directory's file system has both kinds of locks: tried on the directory itself.
///
/// # Errors
/// The kind that it refuses, with the reason.
pub fn probe(backend: &File) -> Result<(), (&'static str, io::Error)> {
    flock(backend, FlockOperation::NonBlockingLockShared).or_else(busy).map_err(|e| ("flock", e.into()))?;
    let _ = flock(backend, FlockOperation::Unlock);
    set(backend, &flock_of(LockType::Read, 0, 0)).map_err(|e| ("fcntl", e))?;
    let _ = set(backend, &flock_of(LockType::Unlock, 0, 0));
    Ok(())
}

fn busy(error: rustix::io::Errno) -> Result<(), rustix::io::Errno> {
    if error == rustix::io::Errno::WOULDBLOCK { Ok(()) } else { Err(error) }
}

/// For a request whose kind cannot be told.
pub(crate) fn no_locks() -> io::Error {
    errno(libc::ENOLCK)
}
