//! Who has the step's segment: so that two programs of one step do not become ranks of each other, nor two parts of one program
//! the same rank.
//!
//! ```text
//!   from_agent, from_env   shared lock, until the segment is dropped or the process ends, however it ends
//!   claim                  exclusive lock if nobody else has one, and at once a shared one again
//! ```
//! A program that hands a segment on to its own ranks (the torch backend: to those of one process group) claims it first and
//! takes other memory where somebody was before it. The locks are those of open file descriptions (fcntl(2), F_OFD_SETLK), which
//! work on a memfd, need no place inside the segment and are given back by the kernel. They are advice among programs of one
//! job, no protection.
//!
//! Two parts of one process that each open the segment would write to the same lines. So a process keeps a list of the ranks
//! that it is.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Backing, Segment};
use crate::error::{Error, Result};
use crate::sys::{self, Lock};

/// A claim lasts for two system calls. Who is stopped between them must not keep the others for ever.
const PATIENCE: Duration = Duration::from_secs(10);

impl Segment {
    /// Takes the segment for this process and those that it tells. It is given back when the last of them drops it.
    ///
    /// # Errors
    /// `Exhausted` when another process has it open by [`Segment::from_agent`] or [`crate::comm::segment_from_env`];
    /// `Invalid` for a named segment.
    pub fn claim(&self) -> Result<()> {
        let Backing::Memfd(fd) = &self.backing else {
            return Err(Error::Invalid("a named segment cannot be claimed"));
        };
        if !sys::lock(fd.as_fd(), Lock::Exclusive)? {
            return Err(Error::Exhausted("segments: another program of this step has it open"));
        }
        sys::lock(fd.as_fd(), Lock::Shared).map(drop)
    }
}

/// A rank that a process is: process, device and inode of the segment, rank.
type Seat = (u32, u64, u64, usize);

static TAKEN: Mutex<BTreeSet<Seat>> = Mutex::new(BTreeSet::new());

/// Keeps a rank for one [`Segment`] of this process.
#[derive(Debug)]
pub(super) struct Seated(Seat);

impl Drop for Seated {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

impl Segment {
    /// Makes this process `rank` for as long as the segment is mapped.
    ///
    /// # Errors
    /// `Invalid` when the process is that rank by another opening of the same segment, or another rank by this one.
    pub(crate) fn sit_down(&self, rank: usize) -> Result<()> {
        // Names of their own keep named segments apart; opening one twice is the programmer's affair.
        let Backing::Memfd(fd) = &self.backing else { return Ok(()) };
        if let Some(Seated(seat)) = self.seated.get() {
            return if seat.3 == rank {
                Ok(())
            } else {
                Err(Error::Invalid("this segment was joined as another rank"))
            };
        }
        let file = fd.try_clone().map(std::fs::File::from).and_then(|file| file.metadata());
        let file = file.map_err(|_| Error::last_os("fstat"))?;
        let seat = (std::process::id(), file.dev(), file.ino(), rank);
        if !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(seat) {
            let text = "this process is that rank of the segment already; split its communicator instead";
            return Err(Error::Invalid(text));
        }
        // A seat that lost against another thread's goes back at once.
        drop(self.seated.set(Seated(seat)));
        Ok(())
    }
}

/// Lets others see that this process has the segment open.
pub(super) fn announce(fd: BorrowedFd<'_>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !sys::lock(fd, Lock::Shared)? {
        if Instant::now() > deadline {
            let text = format!("a process has been claiming the segment for {} s", PATIENCE.as_secs());
            return Err(Error::Environment(text));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// An inherited descriptor, opened once more: what is inherited shares its locks with all who inherited it.
pub(super) fn reopened(descriptor: i32) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{descriptor}");
    let file = std::fs::File::options().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| Error::System {
        what: "open MIGSHARE_SEGMENT_FD",
        errno: error.raw_os_error().unwrap_or(libc::EBADF),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    /// Two openings of one segment, as two processes would have them.
    fn two() -> [Arc<Segment>; 2] {
        let made = Segment::create(8 << 20, 2).unwrap();
        let raw = made.descriptor().unwrap().as_raw_fd();
        std::array::from_fn(|_| Segment::from_inherited(raw, 2).unwrap())
    }

    #[test]
    fn a_segment_that_another_has_open_is_not_to_be_had() {
        let [one, other] = two();
        assert!(matches!(one.claim(), Err(Error::Exhausted(_))));
        drop(other);
        assert_eq!(one.claim(), Ok(()));
        assert_eq!(one.claim(), Ok(()), "its own already");
    }

    #[test]
    fn who_was_told_of_a_claimed_segment_can_open_it() {
        let [one, other] = two();
        let raw = one.descriptor().unwrap().as_raw_fd();
        drop(other);
        one.claim().unwrap();
        let told = Segment::from_inherited(raw, 2).unwrap();
        drop(one);
        assert_eq!(told.claim(), Ok(()));
    }

    #[test]
    fn a_process_is_a_rank_once() {
        let [one, other] = two();
        one.sit_down(0).unwrap();
        one.sit_down(0).unwrap();
        assert!(matches!(one.sit_down(1), Err(Error::Invalid(_))));
        assert!(matches!(other.sit_down(0), Err(Error::Invalid(text)) if text.contains("split")));
        drop(one);
        other.sit_down(0).unwrap();
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_named() {
        let said = Segment::from_inherited(9999, 2).map(drop).unwrap_err().to_string();
        assert!(said.contains("MIGSHARE_SEGMENT_FD"), "{said}");
    }
}
