//! Slurm jobs that use a mount, each found once per open file by the cgroup of who opened it.
//!
//! There are never more than [`MOST`] of them: readers of further jobs count for the one called `other`, those of no job for
//! `none`. A job disappears when its cgroup did and none of its files is open.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::mounts::Root;

/// A node runs far fewer jobs at once than this.
const MOST: usize = 64;
/// For this long a process is taken for one of the same job. Programs open many files at once, and asking takes longer than
/// opening a local file.
const SAME_JOB: Duration = Duration::from_secs(1);

/// What a job did on one mount.
#[derive(Debug, Default)]
pub struct Job {
    /// Its number, or `none`, or `other`.
    pub id: String,
    cgroup: Option<PathBuf>,
    /// Bytes read that the cache had.
    pub hit_bytes: AtomicU64,
    /// Bytes of those that were read at the backend.
    pub split_bytes: AtomicU64,
    /// Bytes read that the cache had not.
    pub miss_bytes: AtomicU64,
}

impl Job {
    pub(crate) fn add_hit(&self, len: u32, split: u32) {
        self.hit_bytes.fetch_add(len.into(), Ordering::Relaxed);
        self.split_bytes.fetch_add(split.into(), Ordering::Relaxed);
    }

    pub(crate) fn add_miss(&self, bytes: u64) {
        self.miss_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The jobs of one mount.
#[derive(Debug, Default)]
pub struct Jobs {
    root: Root,
    known: Mutex<BTreeMap<String, Arc<Job>>>,
    asked: Mutex<Asked>,
}

/// Processes that were asked for since some time.
#[derive(Debug, Default)]
struct Asked {
    since: Option<Instant>,
    jobs: HashMap<u32, Weak<Job>>,
}

impl Asked {
    /// Forgets all when the first of them is too long ago.
    fn at(&mut self, now: Instant) -> &mut HashMap<u32, Weak<Job>> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SAME_JOB) {
            *self = Self { since: Some(now), jobs: HashMap::new() };
        }
        &mut self.jobs
    }
}

impl Jobs {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Job>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job of a process, as it was at some time in the last second. A process that is gone, or lives where we cannot see it,
    /// is of none.
    pub fn of(&self, pid: u32) -> Arc<Job> {
        self.of_at(pid, Instant::now())
    }

    fn of_at(&self, pid: u32, now: Instant) -> Arc<Job> {
        let asked = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = asked().at(now).get(&pid).and_then(Weak::upgrade) {
            return job;
        }
        let job = self.ask(pid);
        asked().at(now).insert(pid, Arc::downgrade(&job));
        job
    }

    fn ask(&self, pid: u32) -> Arc<Job> {
        let table = std::fs::read_to_string(self.root.at(&format!("proc/{pid}/cgroup")));
        match table.ok().as_deref().and_then(slurm_job) {
            Some((id, cgroup)) => self.get(&id, Some(self.root.at(&cgroup))),
            None => self.get("none", None),
        }
    }

    fn get(&self, id: &str, cgroup: Option<PathBuf>) -> Arc<Job> {
        let mut known = self.known();
        if let Some(job) = known.get(id) {
            return Arc::clone(job);
        }
        let full = cgroup.is_some() && known.values().filter(|j| j.cgroup.is_some()).count() >= MOST;
        let (id, cgroup) = if full { ("other", None) } else { (id, cgroup) };
        let new = || Arc::new(Job { id: id.to_owned(), cgroup, ..Job::default() });
        Arc::clone(known.entry(id.to_owned()).or_insert_with(new))
    }

    /// All that are there.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.known().values().cloned().collect()
    }

    /// Forgets jobs that ended.
    pub fn forget_ended(&self) {
        self.known().retain(|_, job| {
            Arc::strong_count(job) > 1 || job.cgroup.as_ref().is_none_or(|dir| dir.exists())
        });
    }
}

/// Number and cgroup directory of the Slurm job in a `/proc/PID/cgroup`: `…/job_4711/step_0/…` in either version
/// (cgroups(7); Slurm, cgroup/v1 and cgroup/v2 plugins).
fn slurm_job(table: &str) -> Option<(String, String)> {
    table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let at = path.find("/job_")?;
        let name = path[at + 1..].split('/').next()?;
        let id = name.strip_prefix("job_").filter(|id| !id.is_empty())?;
        // slurmd gives numbers; what is no number is somebody else's.
        id.bytes().all(|b| b.is_ascii_digit()).then(|| {
            let end = at + 1 + name.len();
            let hierarchy = controllers.strip_prefix("name=").unwrap_or(controllers);
            (id.to_owned(), format!("sys/fs/cgroup/{hierarchy}{}", &path[..end]))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_found_in_both_versions_of_cgroups() {
        let v1 = "12:memory:/slurm/uid_1000/job_4711/step_batch\n1:name=systemd:/system.slice\n";
        let expected = ("4711".into(), "sys/fs/cgroup/memory/slurm/uid_1000/job_4711".into());
        assert_eq!(slurm_job(v1), Some(expected));
        let v2 = "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n";
        let expected = ("42".into(), "sys/fs/cgroup//system.slice/slurmstepd.scope/job_42".into());
        assert_eq!(slurm_job(v2), Some(expected));
        for other in ["", "0::/", "0::/user.slice/job_", "0::/job_x/y", "nonsense", "1:a"] {
            assert_eq!(slurm_job(other), None, "{other:?}");
        }
    }

    fn process(root: &Root, pid: u32, job: u32) {
        std::fs::create_dir_all(root.at(&format!("proc/{pid}"))).unwrap();
        let path = format!("/system.slice/slurmstepd.scope/job_{job}");
        std::fs::write(root.at(&format!("proc/{pid}/cgroup")), format!("0::{path}/step_0\n")).unwrap();
        std::fs::create_dir_all(root.at(&format!("sys/fs/cgroup{path}"))).unwrap();
    }

    #[test]
    fn a_job_disappears_when_it_ended_and_its_files_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let jobs = Jobs { root: Root(dir.path().to_owned()), ..Jobs::default() };
        process(&jobs.root, 1, 7);
        let open = jobs.of(1);
        assert_eq!((open.id.as_str(), jobs.of(2).id.as_str()), ("7", "none"));
        jobs.forget_ended();
        assert_eq!(jobs.all().len(), 2);
        std::fs::remove_dir_all(dir.path().join("sys")).unwrap();
        jobs.forget_ended();
        assert_eq!(jobs.all().len(), 2, "a file is still open");
        drop(open);
        jobs.forget_ended();
        let left: Vec<_> = jobs.all().iter().map(|j| j.id.clone()).collect();
        assert_eq!(left, ["none"]);
    }

    #[test]
    fn a_process_is_asked_for_its_job_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let jobs = Jobs { root: Root(dir.path().to_owned()), ..Jobs::default() };
        let start = Instant::now();
        process(&jobs.root, 1, 7);
        assert_eq!(jobs.of_at(1, start).id, "7");
        process(&jobs.root, 1, 8);
        assert_eq!(jobs.of_at(1, start + SAME_JOB / 2).id, "7");
        assert_eq!(jobs.of_at(1, start + SAME_JOB).id, "8");
    }

    #[test]
    fn there_are_never_more_jobs_than_the_bound_and_two() {
        let dir = tempfile::tempdir().unwrap();
        let jobs = Jobs { root: Root(dir.path().to_owned()), ..Jobs::default() };
        for pid in 1..=MOST as u32 + 20 {
            process(&jobs.root, pid, 1000 + pid);
            jobs.of(pid);
        }
        jobs.of(0);
        assert_eq!(jobs.all().len(), MOST + 2);
        assert_eq!(jobs.of(MOST as u32 + 5).id, "other");
    }
}
