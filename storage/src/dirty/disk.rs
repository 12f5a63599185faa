//! Where segments are kept: files of a directory, or in tests a disk that loses what was not synced.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, mkdirat, openat, unlinkat,
};

/// One segment. Offsets and lengths are multiples of 512.
pub trait Segment: Send + Sync {
    /// Reads; what was never written is zero.
    ///
    /// # Errors
    /// When the device fails.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes.
    ///
    /// # Errors
    /// When the device fails, is full or read-only.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// When the device fails.
    fn sync(&self) -> io::Result<()>;
    /// Its size in bytes.
    ///
    /// # Errors
    /// When the device fails.
    fn size(&self) -> io::Result<u64>;
}

/// Numbered segments.
pub trait Disk: Send + Sync {
    /// A segment; it stays readable while somebody has it, also after it was removed.
    type Segment: Segment;
    /// Numbers of all segments, ascending.
    ///
    /// # Errors
    /// As all here: when the device fails.
    fn list(&self) -> io::Result<Vec<u64>>;
    /// A new segment of zeros, with space behind it. Its name is durable after [`Self::sync_names`].
    ///
    /// # Errors
    /// When the device is full, read-only or fails.
    fn create(&self, number: u64, bytes: u64) -> io::Result<Self::Segment>;
    /// An existing one.
    ///
    /// # Errors
    /// See [`Self::list`].
    fn open(&self, number: u64) -> io::Result<Self::Segment>;
    /// Removes one.
    ///
    /// # Errors
    /// See [`Self::list`].
    fn remove(&self, number: u64) -> io::Result<()>;
    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// See [`Self::list`].
    fn sync_names(&self) -> io::Result<()>;
}

/// Segments as files of a directory that belongs to us alone.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens or makes it, with mode 0700 and without following a link, for nobody else as long as it is open.
    ///
    /// # Errors
    /// When that cannot be done; ResourceBusy when somebody has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty())?;
        // Two that replay and write one journal would mix their records.
        if flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn name(number: u64) -> String {
        format!("segment-{number:016}")
    }

    fn file(&self, number: u64, more: OFlags) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        Ok(File::from(openat(&self.fd, Self::name(number), flags, Mode::RUSR | Mode::WUSR)?))
    }
}

impl Disk for Directory {
    type Segment = File;

    fn list(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            numbers.extend(name.and_then(|n| n.strip_prefix("segment-")?.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn create(&self, number: u64, bytes: u64) -> io::Result<File> {
        let file = self.file(number, OFlags::CREATE | OFlags::EXCL)?;
        let reserved = file.set_len(bytes).and_then(|()| {
            match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                // Without fallocate a full device shows at the write.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        if let Err(error) = reserved {
            let _ = self.remove(number);
            return Err(error);
        }
        Ok(file)
    }

    fn open(&self, number: u64) -> io::Result<File> {
        // A device that has become read-only still gives back what it holds.
        let read_only = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(File::from(openat(&self.fd, Self::name(number), flags, Mode::empty())?))
        };
        self.file(number, OFlags::empty()).or_else(|_| read_only())
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        Ok(unlinkat(&self.fd, Self::name(number), AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

impl Segment for File {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_open_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(&dir.path().join("dirty")).unwrap();
        let second = Directory::open(first.path()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        let path = first.path().to_owned();
        drop(first);
        Directory::open(&path).unwrap();
    }
}
