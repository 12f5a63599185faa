//! After a crash: the files of the journal are opened anew, each with the ids of who wrote it.
//!
//! ```text
//!   a name leads to the same inode, born at the same time --> dirty again; flushed as ever
//!   no name does, we were about to remove the last one    --> forgotten
//!   no name does                                          --> a conflict file beside the last name
//! ```
//! The writer had the file open for writing, so where its rights have changed since (a file made read-only after it
//! was opened), our own are used: on that very inode and no other.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstat, openat};

use super::journaled::{Live, WriteBack, base_of, now};
use crate::dirty::{Change, FileId, Origin};
use crate::fs::caller::Rights;

/// A round of flushing takes less, also to a slow backend whose clock is a little ahead.
const LONGEST_ROUND: Duration = Duration::from_secs(600);

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Files that are dirty again.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that could not be opened, with why; they stay in the journal.
    pub failed: Vec<String>,
}

impl WriteBack {
    /// Finds the files of the journal. Nothing is flushed yet.
    pub fn recover(&self) -> Recovered {
        let files: Vec<(FileId, Origin, u64)> = {
            let dirty = self.ledger.dirty();
            dirty.files().map(|(id, f)| (id, f.origin.clone(), f.bytes())).collect()
        };
        let mut found = Recovered::default();
        for (id, origin, bytes) in files {
            match self.recover_one(id, &origin) {
                Ok(true) => {
                    found.files += 1;
                    found.bytes += bytes;
                }
                Ok(false) => {}
                Err(error) => found.failed.push(format!("{}: {error}", name(&origin).to_string_lossy())),
            }
        }
        found
    }

    /// Whether it is dirty again.
    fn recover_one(&self, id: FileId, origin: &Origin) -> io::Result<bool> {
        let rights = Rights { uid: origin.uid, gid: origin.gid, groups: origin.groups.clone() };
        let Some(fd) = self.find(origin, &rights)? else {
            if !origin.unlinking {
                self.keep_copy(id, &rights, None, None)?;
            }
            self.ledger.note_anyway(id, now(), &Change::Gone, || {});
            return Ok(false);
        };
        let reopen = || {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            File::options()
                .read(true)
                .write(true)
                .open(&path)
                .or_else(|_| File::options().write(true).open(&path))
        };
        let sink = self.identity.act_with(&rights, reopen).or_else(|_| reopen())?;
        let live = Live {
            id,
            sink: Arc::new(sink),
            rights,
            node: Mutex::default(),
            round: Mutex::default(),
            ours_until: Mutex::new(self.last_flush_ended_before()),
            retry: Mutex::default(),
        };
        self.lives().insert(id, Arc::new(live));
        Ok(true)
    }

    /// The crash came after the newest record, and the flush that it ended is not longer than this. What the backend's file
    /// changed later is not ours.
    fn last_flush_ended_before(&self) -> Option<i64> {
        let newest = self.ledger.dirty().newest();
        (newest > 0).then(|| newest.saturating_add(LONGEST_ROUND.as_nanos() as i64))
    }

    /// The file under one of its names.
    fn find(&self, origin: &Origin, rights: &Rights) -> io::Result<Option<OwnedFd>> {
        let root = fstat(&self.root)?;
        for path in origin.paths.iter().rev() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let look = || Ok(openat(&self.root, OsStr::from_bytes(path), flags, Mode::empty())?);
            // Our own rights, where the writer's way is closed by now: nothing is done but to look.
            let fd: OwnedFd = match self.identity.act_with(rights, look).or_else(|_| look()) {
                Ok(fd) => fd,
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => continue,
                Err(error) => return Err(error),
            };
            let stat = fstat(&fd)?;
            let key = (self.backend_id ^ stat.st_dev.wrapping_sub(root.st_dev), stat.st_ino);
            let born = || {
                let file = File::from(fd.try_clone()?);
                base_of(&file).map(|(_, born)| born)
            };
            if key == (origin.key.backend, origin.key.inode) && born()? == origin.btime {
                return Ok(Some(fd));
            }
        }
        Ok(None)
    }
}

fn name(origin: &Origin) -> &OsStr {
    OsStr::from_bytes(origin.paths.last().map_or(b"a file without a name", |p| &p[..]))
}
