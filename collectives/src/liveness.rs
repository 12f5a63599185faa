//! Whether the processes of the peers still exist, by pidfd: no heartbeat, no guess.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::error::Result;
use crate::sys;

/// One peer's process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    descriptor: OwnedFd,
}

impl Process {
    /// Watches `pid`, if it is still the process that started at `start` clock ticks.
    pub(crate) fn watch(pid: i32, start: u64) -> Result<Option<Self>> {
        let Ok(descriptor) = sys::pidfd_open(pid) else { return Ok(None) };
        // The descriptor pins the pid: if the start time fits now, it names the right process for ever.
        let process = Self { pid, descriptor };
        Ok((sys::start_time(pid) == Some(start) && !process.is_gone()).then_some(process))
    }

    /// Whether the process has ended, reaped or not.
    pub(crate) fn is_gone(&self) -> bool {
        sys::poll_readable(&mut [self.watch_entry()], Duration::ZERO).is_some()
    }

    fn watch_entry(&self) -> libc::pollfd {
        libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 }
    }
}

/// Sleeps up to `timeout`, but returns at once when `process` ends.
pub(crate) fn sleep_watching(process: &Process, timeout: Duration) {
    sys::poll_readable(&mut [process.watch_entry()], timeout);
}
