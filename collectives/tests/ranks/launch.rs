//! Starts ranks: the running test is executed again in child processes that find their rank in the
//! environment, and the parent looks at how they end.

use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use migshare_collectives::{Comm, Segment};

/// No test waits longer than this for a rank.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ranks of one test.
pub(crate) struct Launch {
    pub(crate) ranks: usize,
    pub(crate) bytes: u64,
    pub(crate) timeout: Duration,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Launch {
    pub(crate) fn new(ranks: usize) -> Self {
        Self { ranks, bytes: 64 << 20, timeout: Duration::from_secs(60), variables: Vec::new() }
    }

    /// In a rank: this rank's communicator.
    pub(crate) fn comm() -> Option<Comm> {
        std::env::var_os("MIGSHARE_RANK").map(|_| Comm::from_env().unwrap())
    }

    /// In the parent: starts all ranks of the test that calls it.
    pub(crate) fn start(&self) -> Running {
        let segment = Segment::create(self.bytes, self.ranks).unwrap();
        let children = (0..self.ranks).map(|rank| self.start_rank(&segment, rank)).collect();
        Running { segment, children }
    }

    fn start_rank(&self, segment: &Segment, rank: usize) -> Child {
        // SAFETY: a plain system call; the duplicate has no close-on-exec flag and so reaches the child.
        let inherited = unsafe { libc::dup(segment.descriptor().unwrap().as_raw_fd()) };
        assert!(inherited >= 0);
        let name = std::thread::current().name().unwrap().to_owned();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env("MIGSHARE_RANK", rank.to_string())
            .env("MIGSHARE_SIZE", self.ranks.to_string())
            .env("MIGSHARE_SEGMENT_FD", inherited.to_string())
            .env("MIGSHARE_TIMEOUT_MS", self.timeout.as_millis().to_string())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // SAFETY: the number is ours and used no more.
        unsafe { libc::close(inherited) };
        child
    }

    /// Runs `body` as every rank and expects all of them to succeed.
    pub(crate) fn run(&self, body: impl FnOnce(Comm)) {
        if let Some(comm) = Self::comm() {
            return body(comm);
        }
        for (rank, status) in self.start().finish().into_iter().enumerate() {
            assert!(status.success(), "rank {rank}: {status}");
        }
    }
}

/// Started ranks; dropping kills those that are left.
pub(crate) struct Running {
    pub(crate) segment: Arc<Segment>,
    pub(crate) children: Vec<Child>,
}

impl Running {
    /// Sends a signal to a rank.
    pub(crate) fn signal(&self, rank: usize, signal: i32) {
        // SAFETY: a plain system call on a child that was not reaped yet.
        let sent = unsafe { libc::kill(self.children[rank].id() as i32, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits for all ranks.
    pub(crate) fn finish(mut self) -> Vec<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        (0..self.children.len()).map(|rank| self.wait(rank, deadline)).collect()
    }

    /// Waits for one rank; a rank that hangs fails the test.
    pub(crate) fn wait(&mut self, rank: usize, deadline: Instant) -> ExitStatus {
        loop {
            if let Some(status) = self.children[rank].try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "rank {rank} hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
