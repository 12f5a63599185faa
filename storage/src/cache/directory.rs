//! The cache directory: made safely, locked, sized.
//!
//! Only a directory that is new, empty, or carries our mark is used: everything in it is ours to overwrite.
//!
//! It holds bytes of files that their owners may have protected, so it belongs to us, has mode 0700, and no
//! link is followed on the way in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, fstat, mkdirat, openat};
use thiserror::Error;

use super::EXTENT;
use super::record::Record;

/// Least size of a cache: below this the queues make no sense.
const LEAST: u64 = 64 * EXTENT;

/// Why a cache directory cannot be used.
#[derive(Debug, Error)]
pub enum CacheDirError {
    /// An operation on it failed.
    #[error("cache directory {dir}: cannot {what}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("--cache {dir} belongs to uid {owner}, not to uid {us}: give a directory of your own")]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Another process uses it.
    #[error("--cache {dir} is in use by another migshare-storage: give another directory")]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// It holds something else.
    #[error(
        "--cache {dir} holds {name:?} and is no cache: give a new or empty directory (nothing was changed in this one)"
    )]
    NotACache {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        name: String,
    },
    /// It has no mark and looks like a cache of a version that made none.
    #[error(
        "--cache {dir} has no mark and looks like the cache of an older migshare-storage: if it is one, go on with it after \
         `touch {dir}/{MARK}`; if not, give a new or empty directory (nothing was changed in this one)"
    )]
    Unmarked {
        /// The directory.
        dir: PathBuf,
    },
    /// The device is too small.
    #[error(
        "--size {size} does not fit at --cache {dir}, where {free} bytes are free: give less, or make room"
    )]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// The size asked for.
        size: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The size is too small.
    #[error("--size {size} is too small: give at least {LEAST} bytes (16 MiB)")]
    TooSmall {
        /// The size asked for.
        size: u64,
    },
}

/// An open, locked cache directory.
#[derive(Debug)]
pub struct CacheDir {
    pub(super) data: File,
    pub(super) direct: Arc<File>,
    pub(super) is_direct: bool,
    pub(super) index: File,
    slots: u32,
    _lock: OwnedFd,
}

impl CacheDir {
    /// Whether [`Self::open`] would take this directory, as far as that shows without making or changing anything.
    ///
    /// # Errors
    /// See [`CacheDirError`].
    pub fn check(dir: &Path, size: u64) -> Result<(), CacheDirError> {
        is_enough(size)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(rustix::fs::CWD, dir, flags, Mode::empty()) {
            Ok(fd) => is_usable(dir, &fd),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(dir, "open it as a directory")(error.into())),
        }
    }

    /// Makes the directory if needed and opens its files for `size` bytes of data.
    ///
    /// # Errors
    /// See [`CacheDirError`].
    pub fn open(dir: &Path, size: u64) -> Result<Self, CacheDirError> {
        is_enough(size)?;
        let failed = |what| failed(dir, what);
        let fd = open_dir(dir).map_err(failed("open it as a directory"))?;
        is_usable(dir, &fd)?;
        rustix::fs::fchmod(&fd, Mode::RWXU).map_err(|e| failed("set mode 0700")(e.into()))?;
        mark(&fd).map_err(failed("mark it as a cache"))?;
        let index = open_file(&fd, "index", OFlags::empty()).map_err(failed("open its index"))?;
        if flock(&index, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(CacheDirError::Busy { dir: dir.to_owned() });
        }
        let data = open_file(&fd, "data", OFlags::empty()).map_err(failed("open its data"))?;
        let slots = u32::try_from(size / EXTENT).unwrap_or(u32::MAX);
        let before = data.metadata().map_err(failed("look at its data"))?.size();
        let reserved = resize(&data, u64::from(slots) * EXTENT)
            .and_then(|()| resize(&index, u64::from(slots) * Record::BYTES as u64));
        if let Err(error) = reserved {
            // What was reserved would fill the device for nothing.
            data.set_len(before).map_err(failed("give its space back"))?;
            return Err(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    CacheDirError::NoSpace { dir: dir.to_owned(), size, free: free(&fd) }
                }
                _ => failed("reserve the space of --size on")(error),
            });
        }
        let direct = open_file(&fd, "data", OFlags::DIRECT);
        let is_direct = direct.is_ok();
        let direct = direct.or_else(|_| data.try_clone()).map_err(failed("open its data for reads"))?;
        Ok(Self { data, direct: Arc::new(direct), is_direct, index, slots, _lock: fd })
    }

    /// Slots that fit.
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

fn failed(dir: &Path, what: &'static str) -> impl Fn(io::Error) -> CacheDirError {
    move |source| CacheDirError::Io { dir: dir.to_owned(), what, source }
}

fn is_enough(size: u64) -> Result<(), CacheDirError> {
    if size < LEAST { Err(CacheDirError::TooSmall { size }) } else { Ok(()) }
}

/// Whether a directory is ours, and a cache or to become one.
fn is_usable(dir: &Path, fd: &OwnedFd) -> Result<(), CacheDirError> {
    let stat = fstat(fd).map_err(|e| failed(dir, "read its owner")(e.into()))?;
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid != us {
        return Err(CacheDirError::NotOurs { dir: dir.to_owned(), owner: stat.st_uid, us });
    }
    let names = names(fd).map_err(failed(dir, "list it"))?;
    let (dir, has) = (dir.to_owned(), |wanted: &str| names.iter().any(|name| name == wanted));
    let strange = names.iter().find(|name| !is_ours(name));
    let Some(name) = strange.or(names.first()).filter(|_| !has(MARK)) else { return Ok(()) };
    if strange.is_none() && has("index") && has("data") {
        return Err(CacheDirError::Unmarked { dir });
    }
    Err(CacheDirError::NotACache { dir, name: name.clone() })
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    match mkdirat(rustix::fs::CWD, dir, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, dir, flags, Mode::empty())?)
}

fn open_file(dir: &OwnedFd, name: &str, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    Ok(File::from(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Says that a directory is ours.
const MARK: &str = "migshare-storage-cache";
const MEANING: &[u8] = b"A cache of migshare-storage. What else is here belongs to it.\n";

/// What is in a directory; `lost+found` belongs to the root of a file system of its own.
fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        match entry?.file_name().to_string_lossy().as_ref() {
            "." | ".." | "lost+found" => {}
            name => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

/// Whether a cache has something of this name, journals of dirty data among it.
fn is_ours(name: &str) -> bool {
    matches!(name, MARK | "index" | "data") || name.starts_with("dirty-")
}

/// Before anything else is made: a crash leaves the mark alone, and not a cache without it.
fn mark(dir: &OwnedFd) -> io::Result<()> {
    let mut file = open_file(dir, MARK, OFlags::empty())?;
    match file.metadata()?.size() {
        0 => io::Write::write_all(&mut file, MEANING),
        _ => Ok(()),
    }
}

/// Bytes that we may still take on its file system; 0 when it does not say.
fn free(dir: &OwnedFd) -> u64 {
    rustix::fs::fstatvfs(dir).map_or(0, |s| s.f_bavail * s.f_frsize)
}

/// Gives the file exactly `len` bytes, with space behind them.
fn resize(file: &File, len: u64) -> io::Result<()> {
    if file.metadata()?.size() != len {
        file.set_len(len)?;
    }
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        // File systems without fallocate (some network ones) find out at the first write.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}
