//! Conflicts: the backend's content changed under dirty data. Nothing is overwritten: the backend's file stays as it is, and
//! what a flush would have made of it goes into a file beside it, named `NAME.migshare-conflict-HOST-TIME`.
//!
//! The copy is made with the writer's ids, so it can be made only where the writer may make files; where not, the bytes
//! stay in the journal and the error is reported again and again.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, openat};

use super::journaled::{Live, WriteBack};
use crate::dirty::{Change, DirtyFile, FileId, Plan};
use crate::fs::caller::Rights;

/// Conflicts of one file within a second.
const MOST_NAMES: u32 = 100;

impl WriteBack {
    /// Makes the copy and ends the dirtiness; the error is what those who have the file open are told.
    pub(super) fn keep_both(&self, live: &Live) -> io::Result<()> {
        let named = live.node().and_then(|node| self.path_of(&node).ok().flatten());
        self.keep_copy(live.id, &live.rights, named, Some(&live.sink))?;
        if let Some(node) = live.node() {
            node.writing.fail(libc::EIO);
        }
        self.end_life(live, &Change::Gone);
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// Writes a conflict file. `theirs`: the file as the backend has it now, where it is still there.
    pub(super) fn keep_copy(
        &self,
        id: FileId,
        rights: &Rights,
        named: Option<PathBuf>,
        theirs: Option<&File>,
    ) -> io::Result<()> {
        let known = self.ledger.dirty().get(id).map(|f| (f.plan(u64::MAX), last_name(f)));
        let Some((plan, last)) = known else { return Ok(()) };
        let path = named.or(last).ok_or(io::ErrorKind::NotFound)?;
        let copy = self.identity.act_with(rights, || self.make_copy(&path, &plan, theirs))?;
        self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            "conflict: {} was changed or removed elsewhere while it was dirty here; the backend's file stays, ours is {}",
            path.display(),
            copy.display()
        );
        Ok(())
    }

    fn make_copy(&self, path: &Path, plan: &Plan, theirs: Option<&File>) -> io::Result<PathBuf> {
        let dir_path = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.root, dir_path, flags, Mode::empty())?;
        let mode = theirs.and_then(|f| f.metadata().ok()).map_or(0o600, |m| {
            use std::os::unix::fs::MetadataExt;
            m.mode() & 0o777
        });
        let (name, copy) = create_beside(&dir, path, mode)?;
        let filled = self.fill_copy(&copy, plan, theirs).and_then(|()| Ok(rustix::fs::fsync(&dir)?));
        if let Err(error) = filled {
            // The next try makes another.
            let _ = rustix::fs::unlinkat(&dir, &name, rustix::fs::AtFlags::empty());
            return Err(error);
        }
        Ok(path.with_file_name(name))
    }

    /// The backend's bytes where they can be read, and ours over them.
    fn fill_copy(&self, copy: &File, plan: &Plan, theirs: Option<&File>) -> io::Result<()> {
        if let Some(theirs) = theirs {
            use std::os::fd::AsRawFd;
            let name = format!("/proc/self/fd/{}", theirs.as_raw_fd());
            if let Ok(mut readable) = File::open(name) {
                io::copy(&mut readable, &mut &*copy)?;
            }
        }
        self.carry_out(copy, plan).map(drop)
    }
}

fn last_name(file: &DirtyFile) -> Option<PathBuf> {
    Some(PathBuf::from(OsString::from_vec(file.origin.paths.last()?.clone())))
}

fn create_beside(dir: impl AsFd, path: &Path, mode: u32) -> io::Result<(OsString, File)> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Names end at 255 bytes; the tail tells more than the end of a long name.
    let stem = path.file_name().unwrap_or_default().as_bytes();
    for attempt in 0..MOST_NAMES {
        let tail = match attempt {
            0 => format!(".migshare-conflict-{}-{time}", host.trim()),
            n => format!(".migshare-conflict-{}-{time}-{n}", host.trim()),
        };
        let mut name = stem[..stem.len().min(255_usize.saturating_sub(tail.len()))].to_vec();
        name.extend(tail.bytes());
        let name = OsString::from_vec(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&dir, &name, flags, Mode::from_raw_mode(mode | 0o600)) {
            Ok(fd) => return Ok((name, File::from(fd))),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
