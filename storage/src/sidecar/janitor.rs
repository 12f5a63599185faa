//! Mount points after a daemon that could not clean up.
//!
//! ```text
//!   daemon ----pipe----> janitor (own session)      the daemon dies, however: end of file -> unmount what is left -> exit
//! ```
//! A user's daemon is not restarted by anybody, so it posts a janitor. It outlives SIGKILL to the daemon and to its process
//! group. Nothing of a user outlives a killed cgroup: what is left then is a dead mount, which the next start clears
//! ([`clear_dead`]); or the job runs in a mount namespace of its own, which the kernel clears.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use crate::fuse::detach;

/// Holds the pipe whose end wakes the janitor.
pub(super) struct Janitor {
    _pipe: Option<ChildStdin>,
}

impl Janitor {
    /// Posts one for these mounts, given with the minor numbers of their devices.
    pub(super) fn post<'a>(mounts: impl Iterator<Item = (u32, &'a Path)>) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("migshare-storage").arg("janitor");
        for (device, at) in mounts {
            command.arg(device.to_string()).arg(at);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        Ok(Self { _pipe: child.stdin.take() })
    }
}

/// The janitor itself: waits for the end of its standard input, then unmounts what is still mounted. `mounts`: device and
/// mount point in turn.
///
/// # Errors
/// When the session cannot be left or the pipe fails.
pub fn wait_and_clean(mounts: &[OsString]) -> io::Result<()> {
    // What ends the job's process group or its terminal must not end us.
    nix::unistd::setsid()?;
    super::block_signals()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    for pair in mounts.chunks_exact(2) {
        let (device, at) = (pair[0].to_str().and_then(|d| d.parse().ok()), Path::new(&pair[1]));
        if table()?.iter().any(|m| Some(m.device) == device) {
            detach(at);
        }
    }
    Ok(())
}

/// Unmounts a dead mount of an earlier daemon at `at`, so that a new one can take its place.
pub(super) fn clear_dead(at: &Path) {
    let Some(real) = real(at) else { return };
    if !table().is_ok_and(|table| table.iter().any(|m| m.at == real)) {
        return;
    }
    // Not stat: the kernel may still answer that from what it knows.
    if rustix::fs::statfs(&real).is_err_and(|e| e == rustix::io::Errno::NOTCONN) {
        tracing::info!("{} is the dead mount of an earlier sidecar: unmounted", at.display());
        detach(&real);
    }
}

/// The path without links; its last component cannot be looked at.
fn real(at: &Path) -> Option<PathBuf> {
    let at = std::path::absolute(at).ok()?;
    Some(at.parent()?.canonicalize().ok()?.join(at.file_name()?))
}

/// Minor device number of the mount of ours at `at`, a path without links. The mount itself is not asked: its backend may be
/// silent.
pub(crate) fn device_of(at: &Path) -> Option<u32> {
    table().ok()?.into_iter().rfind(|m| m.at == at).map(|m| m.device)
}

/// A mount of some sidecar.
struct Entry {
    device: u32,
    at: PathBuf,
}

fn table() -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(entry).collect())
}

/// One line of mountinfo (proc_pid_mountinfo(5)), if it is a mount of ours.
fn entry(line: &str) -> Option<Entry> {
    let (head, tail) = line.split_once(" - ")?;
    // Without a subtype where root mounted it without fusermount3.
    if !["fuse.migshare ", "fuse "].iter().any(|kind| tail.starts_with(kind)) {
        return None;
    }
    let mut fields = head.split(' ').skip(2);
    let device = fields.next()?.strip_prefix("0:")?.parse().ok()?;
    Some(Entry { device, at: unescape(fields.nth(1)?) })
}

/// Spaces, tabs, newlines and backslashes stand there as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let escaped = digits.filter(|_| *first == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &more[3..] } else { more };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_ours_are_found_and_their_paths_are_read() {
        let ours =
            r"36 25 0:41 / /tmp/a\040b\134c rw,nosuid,nodev shared:7 - fuse.migshare /lustre/x rw,user_id=1";
        let entry = entry(ours).unwrap();
        assert_eq!((entry.device, entry.at), (41, PathBuf::from(r"/tmp/a b\c")));
        for other in
            ["36 25 0:41 / /x rw - fuse.sshfs h:/ rw", "36 25 0:41 / /x rw", "", " - fuse.migshare x"]
        {
            assert!(super::entry(other).is_none(), "{other}");
        }
    }
}
