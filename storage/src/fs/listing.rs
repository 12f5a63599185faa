//! Directories: names, alone or with what a lookup of each would have said.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Dir, FileType, OFlags};

use super::{Attr, Caller, Fs};

/// Bytes of entries that are collected for one answer: what every kernel takes, and what newer ones do.
const ROOM: (usize, usize) = (4096, 32 << 10);

/// One name of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Inode number at the backend.
    pub inode: u64,
    /// Cookie of the entry after it.
    pub next: u64,
    /// Kind.
    pub kind: FileType,
    /// Name.
    pub name: OsString,
}

impl DirEntry {
    /// Whether it is the directory or the one above, which are no children of it.
    pub fn is_dots(&self) -> bool {
        self.name == "." || self.name == ".."
    }
}

/// A name with its attributes; `None` where they cannot be had.
pub type Listed = (DirEntry, Option<Attr>);

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    dir: Dir,
    at: u64,
    /// Read but not delivered, because the reply was full.
    kept: Option<DirEntry>,
    /// Bytes to collect, and whether more were too many once.
    room: (usize, bool),
}

impl OpenDir {
    fn next(&mut self) -> io::Result<Option<DirEntry>> {
        if let Some(kept) = self.kept.take() {
            return Ok(Some(kept));
        }
        let entry = self.dir.read().transpose()?;
        Ok(entry.map(|entry| DirEntry {
            inode: entry.ino(),
            next: entry.offset().cast_unsigned(),
            kind: entry.file_type(),
            name: OsString::from_vec(CString::from(entry.file_name()).into_bytes()),
        }))
    }

    /// Entries from cookie `at` on, of which each takes `size` bytes and its name.
    fn collect(&mut self, at: u64, size: usize) -> io::Result<Vec<DirEntry>> {
        if self.at != at {
            self.dir.seek(at.cast_signed())?;
            self.kept = None;
            self.at = at;
        }
        let (mut entries, mut room) = (Vec::new(), self.room.0);
        while let Some(entry) = self.next()? {
            let Some(left) = room.checked_sub(size + entry.name.len()) else {
                self.kept = Some(entry);
                break;
            };
            room = left;
            self.at = entry.next;
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl Fs {
    /// Opens a directory.
    ///
    /// # Errors
    /// As the backend gives them; this holds for all operations here.
    pub fn opendir(&self, caller: &Caller, id: u64) -> io::Result<u64> {
        let node = self.node(id)?;
        let file = self.act(caller, || self.reopen(&node, OFlags::RDONLY | OFlags::DIRECTORY))?;
        let dir = OpenDir { dir: Dir::new(OwnedFd::from(file))?, at: 0, kept: None, room: (ROOM.0, false) };
        let handle = self.handle();
        self.dirs.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(Mutex::new(dir)));
        Ok(handle)
    }

    /// Some names from cookie `at` on; none at the end.
    ///
    /// # Errors
    /// See [`Self::opendir`].
    pub fn list(&self, handle: u64, at: u64) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(handle)?;
        let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
        // struct fuse_dirent, and the name padded to eight bytes.
        dir.collect(at, 24 + 8)
    }

    /// The same, each with a reference to its node, as a lookup gives it; but for the two names of dots.
    ///
    /// # Errors
    /// See [`Self::opendir`].
    pub fn list_with_attributes(
        &self,
        caller: &Caller,
        parent: u64,
        handle: u64,
        at: u64,
    ) -> io::Result<Vec<Listed>> {
        let entries = {
            let dir = self.dir(handle)?;
            let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
            // struct fuse_direntplus.
            dir.collect(at, 152 + 8)?
        };
        let parent = self.node(parent)?;
        let look = |name: &OsStr| self.enter(&parent, name);
        let found = |entry: DirEntry| {
            let attr = if entry.is_dots() { Ok(None) } else { look(&entry.name).map(Some) };
            (entry, attr)
        };
        let looked = self.act(caller, || Ok(entries.into_iter().map(found).collect::<Vec<_>>()))?;
        let known = looked.into_iter().filter_map(|(entry, attr)| match attr {
            Ok(attr) => Some((entry, attr)),
            // Removed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            // A directory that its caller may read, but not search. What we may see, the kernel shows to those who may as well.
            Err(_) => {
                let attr = look(&entry.name).ok();
                Some((entry, attr))
            }
        });
        Ok(known.collect())
    }

    /// What was listed was not taken: the references go back.
    pub fn unlist(&self, listed: impl IntoIterator<Item = Listed>) {
        listed.into_iter().filter_map(|(_, attr)| attr).for_each(|attr| self.forget(attr.id, 1));
    }

    /// Whether the last answer took all that was collected for it, so that the next one may be larger.
    pub fn took_all(&self, handle: u64, all: bool) {
        if let Ok(dir) = self.dir(handle) {
            let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
            let too_many = dir.room.1 || !all;
            dir.room = (if too_many { ROOM.0 } else { ROOM.1 }, too_many);
        }
    }

    /// Makes a directory's changes durable.
    ///
    /// # Errors
    /// See [`Self::opendir`].
    pub fn fsyncdir(&self, handle: u64) -> io::Result<()> {
        let dir = self.dir(handle)?;
        let dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rustix::fs::fsync(dir.dir.fd()?)?)
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        self.dirs.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    }
}
