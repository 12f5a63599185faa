//! Who asks, and how a thread acts for them.
//!
//! setfsuid and setgroups act on the calling thread alone when made as raw system calls; that is what is used
//! here. Rights are put back before the function returns, also when the work fails.

use std::cell::Cell;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_thread_groups};

use super::errno;

/// The process behind a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its fsuid.
    pub uid: u32,
    /// Its fsgid.
    pub gid: u32,
    /// Its thread id; 0 when it lives in a pid namespace that we cannot see.
    pub pid: u32,
}

/// With whose rights operations are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// With the caller's: the daemon is root.
    Caller,
    /// With our own: the daemon is the only user of the mount.
    Own,
}

/// Ids to act with: those of a caller, kept for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// fsuid.
    pub uid: u32,
    /// fsgid.
    pub gid: u32,
    /// Supplementary groups; not used for root.
    pub groups: Vec<u32>,
}

impl Rights {
    /// Whether they are those of a daemon that is root. Saves the eight system calls there and back.
    fn are_ours(&self) -> bool {
        (self.uid, self.gid) == (0, 0)
    }
}

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

impl Identity {
    /// Runs `work` with the right identity.
    pub(super) fn act<T>(self, caller: &Caller, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self == Self::Own {
            return work();
        }
        self.act_with(&rights_of(caller), work)
    }

    /// Runs `work` with ids that were kept.
    pub(super) fn act_with<T>(self, rights: &Rights, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self == Self::Own {
            return work();
        }
        prepare_thread()?;
        // Threads are root in between.
        let _back = (!rights.are_ours()).then(|| Assumed::new(rights)).transpose()?;
        work()
    }

    /// The ids that [`Self::act`] would use now.
    pub(super) fn rights(self, caller: &Caller) -> Rights {
        match self {
            Self::Caller => rights_of(caller),
            Self::Own => Rights {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                groups: Vec::new(),
            },
        }
    }
}

/// Sets the file mode creation mask of this thread alone.
pub(super) fn set_umask(umask: u32) -> io::Result<()> {
    prepare_thread()?;
    rustix::process::umask(Mode::from_bits_truncate(umask));
    Ok(())
}

/// Gives the thread a umask of its own, and takes the right away to ignore quotas: callers do not have it.
fn prepare_thread() -> io::Result<()> {
    if PREPARED.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_FS)?;
    let mut sets = capabilities(None)?;
    if sets.effective.contains(CapabilitySet::SYS_RESOURCE) {
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        set_capabilities(None, sets)?;
    }
    PREPARED.set(true);
    Ok(())
}

struct Assumed {
    groups: bool,
}

impl Assumed {
    fn new(caller: &Rights) -> io::Result<Self> {
        let assumed = Self { groups: caller.uid != 0 };
        if assumed.groups {
            let groups: Vec<_> = caller.groups.iter().map(|g| rustix::process::Gid::from_raw(*g)).collect();
            set_thread_groups(&groups)?;
        }
        setfsgid(Gid::from_raw(caller.gid));
        setfsuid(Uid::from_raw(caller.uid));
        // These calls report nothing; asking again returns what is in force.
        if setfsuid(Uid::from_raw(caller.uid)).as_raw() != caller.uid
            || setfsgid(Gid::from_raw(caller.gid)).as_raw() != caller.gid
        {
            return Err(errno(libc::EPERM));
        }
        Ok(assumed)
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        if self.groups && set_thread_groups(&[]).is_err() {
            tracing::error!("cannot drop a caller's groups; the thread goes on with fewer rights than root");
        }
    }
}

fn rights_of(caller: &Caller) -> Rights {
    let groups = if caller.uid == 0 { Vec::new() } else { groups_of(caller.pid) };
    Rights { uid: caller.uid, gid: caller.gid, groups }
}

/// Supplementary groups of a thread; none when it is gone or invisible.
fn groups_of(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|g| g.parse().ok()).collect()
}
