//! One file per job that has leaves on this node: `<run>/jobs/<job id>`.
//!
//! The prolog writes it, the epilog removes it, and every step in between learns from it, without asking slurmctld
//! or the agent, whether its job has leaves. An epilog that did not reach the agent moves it to `<run>/ended/<job id>`
//! instead, and the next prolog ends that lease first: slurmctld gives a job's leaves away when its epilog is over.
//!
//! The directories are root's alone and on a file system that a reboot empties. They are not the truth about leases,
//! the agent's journal is.

use crate::gres::{self, Asked};
use crate::slurm::Job;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is known of a job on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Leaves on this node and when the run started; `None` where slurmctld did not answer the prolog.
    pub known: Option<Known>,
}

/// What slurmctld said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Leaves on this node, at least one.
    pub leaves: u32,
    /// Start of the run, seconds since the epoch.
    pub start: i64,
    /// The user that owns the job.
    pub uid: u32,
    /// Whether the job asked for leaves. One with `--exclusive` holds them all and may never use them: no lease is
    /// opened until a step of it asks.
    pub asked: bool,
}

impl Known {
    /// From slurmctld's record; `None` where the job holds no leaf here.
    pub fn of(job: &Job) -> Option<Known> {
        let leaves = gres::given(job.gres.as_deref().unwrap_or_default());
        let asked = matches!(gres::asked(&job.asked), Asked::Leaves(_));
        (leaves > 0).then_some(Known { leaves, start: job.start, uid: job.uid, asked })
    }
}

/// The directories of markers.
#[derive(Debug)]
pub struct Markers {
    jobs: PathBuf,
    ended: PathBuf,
}

impl Markers {
    /// The markers below a run directory. Nothing is made before the first marker.
    pub fn below(run: &Path) -> Markers {
        Markers { jobs: run.join("jobs"), ended: run.join("ended") }
    }

    /// Writes or replaces a job's marker, whole or not at all.
    pub fn write(&self, job: u32, marker: &Marker) -> io::Result<()> {
        private(&self.jobs)?;
        let next = self.jobs.join(format!(".{job}"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec(marker)?)?;
        fs::rename(next, self.jobs.join(job.to_string()))
    }

    /// A job's marker; `None` where there is none. One that cannot be read counts as "unknown".
    pub fn read(&self, job: u32) -> Option<Marker> {
        read(&self.jobs.join(job.to_string()))
    }

    /// Removes a job's marker; one that is not there is no error.
    pub fn remove(&self, job: u32) -> io::Result<()> {
        remove(&self.jobs.join(job.to_string()))
    }

    /// Remembers that a job has ended and its lease has not.
    pub fn end(&self, job: u32) -> io::Result<()> {
        private(&self.ended)?;
        fs::rename(self.jobs.join(job.to_string()), self.ended.join(job.to_string()))
    }

    /// Jobs that have ended while the agent was away.
    pub fn ended(&self) -> Vec<(u32, Marker)> {
        let entries = fs::read_dir(&self.ended).into_iter().flatten().flatten();
        let marker = |e: fs::DirEntry| Some((e.file_name().to_str()?.parse().ok()?, read(&e.path())?));
        entries.filter_map(marker).collect()
    }

    /// Forgets a job that had ended: its lease has, too.
    pub fn settle(&self, job: u32) -> io::Result<()> {
        remove(&self.ended.join(job.to_string()))
    }
}

/// Makes a directory that only its owner enters.
fn private(dir: &Path) -> io::Result<()> {
    if let Some(run) = dir.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(run)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn read(path: &Path) -> Option<Marker> {
    match fs::read(path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or(Marker { known: None })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Marker { known: None }),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KNOWN: Marker =
        Marker { known: Some(Known { leaves: 3, start: 1_700_000_000, uid: 1000, asked: true }) };

    #[test]
    fn a_marker_is_read_back_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let markers = Markers::below(&dir.path().join("run/n1"));
        assert_eq!(markers.read(7), None);
        markers.write(7, &Marker { known: None }).unwrap();
        markers.write(7, &KNOWN).unwrap();
        assert_eq!(markers.read(7), Some(KNOWN));
        assert_eq!(markers.read(8), None);
        markers.remove(7).unwrap();
        markers.remove(7).unwrap();
        assert_eq!(markers.read(7), None);
    }

    #[test]
    fn an_ended_job_is_remembered_until_settled_and_its_next_run_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let markers = Markers::below(dir.path());
        assert_eq!(markers.ended(), []);
        markers.write(7, &KNOWN).unwrap();
        markers.end(7).unwrap();
        assert_eq!(markers.read(7), None);
        markers.write(7, &Marker { known: None }).unwrap();
        assert_eq!(markers.ended(), [(7, KNOWN)]);
        markers.settle(7).unwrap();
        assert_eq!(markers.ended(), []);
        assert_eq!(markers.read(7), Some(Marker { known: None }));
    }

    #[test]
    fn only_the_owner_reaches_the_markers() {
        let dir = tempfile::tempdir().unwrap();
        Markers::below(dir.path()).write(7, &KNOWN).unwrap();
        let mode = |p: &str| dir.path().join(p).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("jobs"), mode("jobs/7")), (0o700, 0o600));
    }

    #[test]
    fn a_marker_that_makes_no_sense_is_unknown_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let markers = Markers::below(dir.path());
        markers.write(7, &KNOWN).unwrap();
        for bytes in [&b""[..], b"{\"known\":{\"leaves\":3", b"\xff\xff", b"null"] {
            fs::write(dir.path().join("jobs/7"), bytes).unwrap();
            assert_eq!(markers.read(7), Some(Marker { known: None }));
        }
    }
}
