//! The list of segments on disk, for the next agent. It holds only what /proc cannot tell; the memory itself is with the
//! ranks and the service manager ([`super::adopt`]).
//!
//! It is written anew as a whole, by rename(2), and not synced: it has to survive the agent, not the machine, after whose
//! fall there is no segment left to find. A list of another boot is empty.

use super::account::{Promise, StepKey};
use super::memory::FileId;
use migshare_policy::record::Holder;
use migshare_proto::{JobKey, StepId};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The file.
#[derive(Debug)]
pub(super) struct Register {
    path: PathBuf,
    boot: String,
}

/// A segment that an earlier agent promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: StepKey,
    pub(super) promise: Promise,
    /// Its memory, where a rank has asked for it already.
    pub(super) file: Option<FileId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskList {
    boot: String,
    segments: Vec<DiskEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskEntry {
    job: JobKey,
    step: StepId,
    bytes: u64,
    pid: u32,
    born: u64,
    file: Option<FileId>,
}

impl Register {
    pub(super) fn new(state_dir: &Path, boot: &str) -> Register {
        Register { path: state_dir.join("segments.json"), boot: boot.to_owned() }
    }

    /// What is in the list. One that cannot be read costs the steps of now their next rank, and nothing else.
    pub(super) fn read(&self) -> Vec<Entry> {
        let list = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice::<DiskList>(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => Err(error),
        };
        match list {
            Ok(list) if list.boot == self.boot => list.segments.into_iter().map(Entry::from).collect(),
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the list of segments cannot be read");
                Vec::new()
            }
        }
    }

    /// Writes the list.
    pub(super) fn write(&self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
        let list = DiskList { boot: self.boot.clone(), segments: entries.map(DiskEntry::from).collect() };
        let next = self.path.with_extension("json.new");
        std::fs::write(&next, serde_json::to_vec(&list)?)?;
        std::fs::rename(next, &self.path)
    }
}

impl From<DiskEntry> for Entry {
    fn from(disk: DiskEntry) -> Entry {
        let DiskEntry { job, step, bytes, pid, born, file } = disk;
        let promise = Promise { job, bytes, holder: Holder { pid, born } };
        Entry { key: (job.job, step), promise, file }
    }
}

impl From<Entry> for DiskEntry {
    fn from(Entry { key, promise: Promise { job, bytes, holder }, file }: Entry) -> DiskEntry {
        DiskEntry { job, step: key.1, bytes, pid: holder.pid, born: holder.born, file }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(job: u32) -> Entry {
        let key = JobKey { job, start: 9, uid: 1000 };
        let promise = Promise { job: key, bytes: 2 << 20, holder: Holder { pid: 4, born: 5 } };
        let file = serde_json::from_str("{\"dev\":1,\"ino\":77}").unwrap();
        Entry { key: (job, StepId::BATCH), promise, file: (job == 7).then_some(file) }
    }

    #[test]
    fn what_was_written_is_read_in_the_same_boot_alone() {
        let dir = tempfile::tempdir().unwrap();
        let register = Register::new(dir.path(), "boot");
        assert_eq!(register.read(), []);
        register.write([entry(7), entry(8)].into_iter()).unwrap();
        assert_eq!(register.read(), [entry(7), entry(8)]);
        assert_eq!(Register::new(dir.path(), "later").read(), []);
    }

    #[test]
    fn garbage_is_an_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("segments.json"), "{\"boot\":").unwrap();
        assert_eq!(Register::new(dir.path(), "boot").read(), []);
    }
}
