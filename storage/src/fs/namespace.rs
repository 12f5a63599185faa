//! Names and attributes.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, StatVfs, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    Uid, chmodat, chownat, fstat, fstatvfs, linkat, mkdirat, mknodat, openat, readlinkat, renameat_with,
    statat, symlinkat, unlinkat, utimensat,
};

use super::caller::set_umask;
use super::{Attr, Caller, Fs, Node};
use crate::cache::FileKey;

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The backend's clock.
    Now,
    /// Seconds and nanoseconds since the epoch.
    At(i64, u32),
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

impl Fs {
    /// Looks a name up.
    ///
    /// # Errors
    /// As the backend gives them; this holds for all operations here.
    pub fn lookup(&self, caller: &Caller, parent: u64, name: &OsStr) -> io::Result<Attr> {
        let parent = self.node(parent)?;
        self.act(caller, || self.enter(&parent, name))
    }

    /// Gives a node to a name, with the rights of the current thread.
    pub(super) fn enter(&self, parent: &Node, name: &OsStr) -> io::Result<Attr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = super::with_room(|| Ok(openat(parent.fd(), name, flags, Mode::empty())?))?;
        self.take_in(fd, parent, name)
    }

    /// Gives a node to the file that was just made and opened. Not by its name, which may be another file's by now.
    pub(super) fn enter_open(&self, parent: &Node, name: &OsStr, file: &File) -> io::Result<Attr> {
        let number = file.as_raw_fd().to_string();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = super::with_room(|| Ok(openat(&self.proc_fds, &*number, flags, Mode::empty())?))?;
        self.take_in(fd, parent, name)
    }

    fn take_in(&self, fd: OwnedFd, parent: &Node, name: &OsStr) -> io::Result<Attr> {
        let stat = fstat(&fd)?;
        let node = self.nodes.adopt(fd, &stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.crowd.came(self.nodes.len());
        } else {
            self.crowd.list(&node.listed, (node.id(), parent.id(), name), self.nodes.len());
        }
        Ok(self.seen(&node, Attr { id: node.id(), stat }))
    }

    /// Attributes.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn getattr(&self, id: u64) -> io::Result<Attr> {
        let node = self.node(id)?;
        Ok(self.seen(&node, node.attr()?))
    }

    /// Sets attributes. `handle`: an open file through which the size is set.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn setattr(&self, caller: &Caller, id: u64, handle: Option<u64>, set: &SetAttr) -> io::Result<Attr> {
        let node = self.node(id)?;
        if let Some(size) = set.size {
            self.truncate(caller, &node, handle, size)?;
        }
        let set = &SetAttr { mtime: self.set_dirty_mtime(&node, set.mtime)?, ..*set };
        self.act(caller, || {
            if let Some(mode) = set.mode {
                let mode = Mode::from_raw_mode(mode);
                chmodat(&self.proc_fds, node.fd_name(), mode, AtFlags::empty())?;
            }
            if set.uid.is_some() || set.gid.is_some() {
                let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
                chownat(node.fd(), "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
            if set.atime.is_some() || set.mtime.is_some() {
                let times =
                    Timestamps { last_access: timespec(set.atime), last_modification: timespec(set.mtime) };
                utimensat(&self.proc_fds, node.fd_name(), &times, AtFlags::empty())?;
                node.writing.unsynced();
            }
            Ok(())
        })?;
        Ok(self.seen(&node, node.attr()?))
    }

    /// The modification time of a dirty file is given to the backend with its bytes. Returns what is left to be set now.
    fn set_dirty_mtime(&self, node: &Node, mtime: Option<SetTime>) -> io::Result<Option<SetTime>> {
        let (Some(back), Some(time)) = (self.back(), mtime) else { return Ok(mtime) };
        let nanos = match time {
            SetTime::Now => {
                i64::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
            }
            SetTime::At(secs, nanos) => secs.saturating_mul(1_000_000_000).saturating_add(nanos.into()),
        };
        Ok(if back.set_mtime(node.state().key(), nanos)? { None } else { mtime })
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn readlink(&self, id: u64) -> io::Result<Vec<u8>> {
        Ok(readlinkat(self.node(id)?.fd(), "", Vec::new())?.into_bytes())
    }

    /// Makes a file, FIFO, socket or device. `umask` counts only where no default ACL replaces it.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: (u32, u32),
        device: u64,
    ) -> io::Result<Attr> {
        let parent = self.node(parent)?;
        let (mode, umask) = mode;
        self.act(caller, || {
            set_umask(umask)?;
            mknodat(parent.fd(), name, FileType::from_raw_mode(mode), Mode::from_raw_mode(mode), device)?;
            self.enter(&parent, name)
        })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn mkdir(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Attr> {
        let parent = self.node(parent)?;
        self.act(caller, || {
            set_umask(umask)?;
            mkdirat(parent.fd(), name, Mode::from_raw_mode(mode))?;
            self.enter(&parent, name)
        })
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn symlink(&self, caller: &Caller, parent: u64, name: &OsStr, target: &Path) -> io::Result<Attr> {
        let parent = self.node(parent)?;
        self.act(caller, || {
            symlinkat(target, parent.fd(), name)?;
            self.enter(&parent, name)
        })
    }

    /// Makes a hard link.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn link(&self, caller: &Caller, id: u64, parent: u64, name: &OsStr) -> io::Result<Attr> {
        let (node, parent) = (self.node(id)?, self.node(parent)?);
        self.settle(&node)?;
        self.act(caller, || {
            linkat(&self.proc_fds, node.fd_name(), parent.fd(), name, AtFlags::SYMLINK_FOLLOW)?;
            self.enter(&parent, name)
        })
    }

    /// Removes a name.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn unlink(&self, caller: &Caller, parent: u64, name: &OsStr, directory: bool) -> io::Result<()> {
        let parent = self.node(parent)?;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.before_unlinking(&parent, Path::new(name))?;
        let ends = self.pinned_by_its_last_name(&parent, name);
        self.act(caller, || Ok(unlinkat(parent.fd(), name, flags)?))?;
        ends.iter().for_each(|file| self.cache().unpin_file(*file));
        Ok(())
    }

    /// The file that ends with this name, if it may be pinned: a pin ends with its file.
    fn pinned_by_its_last_name(&self, parent: &Node, name: &OsStr) -> Option<FileKey> {
        if !self.cache().has_pins() {
            return None;
        }
        let stat = statat(parent.fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (stat.st_nlink == 1).then(|| self.nodes.file_key(&stat))
    }

    /// Renames, with the flags of renameat2.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn rename(
        &self,
        caller: &Caller,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: u32,
    ) -> io::Result<()> {
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        let flags = RenameFlags::from_bits_retain(flags);
        if flags.contains(RenameFlags::EXCHANGE) {
            self.before_naming(Some((&new, Path::new(to.1))), (&old, Path::new(from.1)))?;
        }
        self.before_naming(Some((&old, Path::new(from.1))), (&new, Path::new(to.1)))?;
        let replaces = !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let ends = if replaces { self.pinned_by_its_last_name(&new, to.1) } else { None };
        self.act(caller, || Ok(renameat_with(old.fd(), from.1, new.fd(), to.1, flags)?))?;
        ends.iter().for_each(|file| self.cache().unpin_file(*file));
        Ok(())
    }

    /// Space of the backend.
    ///
    /// # Errors
    /// See [`Self::lookup`].
    pub fn statfs(&self, id: u64) -> io::Result<StatVfs> {
        Ok(fstatvfs(self.node(id)?.fd())?)
    }
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(SetTime::At(secs, nanos)) => Timespec { tv_sec: secs, tv_nsec: nanos.into() },
    }
}
