//! Finds the memory that an earlier agent made: handed back by the service manager, or else in the hands of the ranks.
//!
//! The service manager passes kept files from descriptor 3 on and names them in the environment (sd_listen_fds(3)). Where
//! there is none, or it keeps no files, a rank that shares the memory has it among its own descriptors or mappings
//! (`/proc/PID/fd`, `/proc/PID/map_files`, proc(5)). Nothing is taken by its name, which anybody could give to a file of
//! his own: device and inode number are those that the earlier agent wrote down.

use super::memory::{FileId, Memory};
use super::register::Entry;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// First descriptor that a service manager passes (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// What our kept files are called: the step follows.
const PREFIX: &str = "migshare-segment-";

/// The name under which a service manager keeps the memory of a step.
pub(super) fn name((job, step): super::account::StepKey) -> String {
    format!("{PREFIX}{job}.{step}")
}

/// Files that a service manager has passed to this process.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<(String, i32)>);

impl Passed {
    /// Ours among those that the environment announces, if it speaks to this process.
    pub(super) fn from_env() -> Passed {
        let var = |name| std::env::var(name).unwrap_or_default();
        if var("LISTEN_PID") != std::process::id().to_string() {
            return Passed::default();
        }
        let count = var("LISTEN_FDS").parse().unwrap_or(0);
        let names = var("LISTEN_FDNAMES");
        let ours = names.split(':').map(str::to_owned).zip(FIRST..).take(count);
        Passed(ours.filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }

    /// The memory of a segment, if it is among them.
    pub(super) fn find(&self, entry: &Entry) -> Option<Memory> {
        let (id, named) = (entry.file?, name(entry.key));
        let mut found = self.0.iter().filter(|(name, _)| *name == named);
        found.find_map(|(_, fd)| {
            Memory::find(Path::new(&format!("/proc/self/fd/{fd}")), id, entry.promise.bytes)
        })
    }

    /// Closes what was passed: what is needed was opened once more. Returns the names that no segment has.
    pub(super) fn close(self, known: impl Fn(&str) -> bool) -> Vec<String> {
        for (_, fd) in &self.0 {
            if let Err(error) = nix::unistd::close(*fd) {
                tracing::warn!(fd, %error, "a passed file cannot be closed");
            }
        }
        self.0.into_iter().map(|(name, _)| name).filter(|name| !known(name)).collect()
    }
}

/// The memory of a segment in the hands of a process of its user. None when nobody has it any more: then nobody misses it.
pub(super) fn among_ranks(entry: &Entry) -> Option<Memory> {
    let id = entry.file?;
    processes_of(entry.promise.job.uid).find_map(|pid| {
        ["fd", "map_files"].iter().find_map(|table| among(pid, table, id, entry.promise.bytes))
    })
}

/// The memory in one table of a process.
fn among(pid: u32, table: &str, id: FileId, bytes: u64) -> Option<Memory> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/{table}")).ok()?;
    entries.flatten().find_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        // Only to save the look at other files: the name proves nothing.
        let likely = target.to_string_lossy().starts_with(&format!("/memfd:{PREFIX}"));
        likely.then(|| Memory::find(&entry.path(), id, bytes)).flatten()
    })
}

/// Processes of a user.
fn processes_of(uid: u32) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (entry.metadata().ok()?.uid() == uid).then_some(pid)
    })
}
