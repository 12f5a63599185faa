//! Starts ranks: the running test is executed again in child processes that find their rank in the
//! environment, and the parent looks at how they end.

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use migshare_collectives::{Comm, Segment};

/// No test waits longer than this for a rank. It bounds a hang; no test needs a part of it on an idle machine.
const PATIENCE: Duration = Duration::from_secs(150);
/// Where a rank says that it has come where the test wants it.
const READY_VARIABLE: &str = "RANKS_READY_FD";

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
        let (ready, says_ready) = std::io::pipe().unwrap();
        let children = (0..self.ranks).map(|rank| self.start_rank(&segment, rank, &says_ready)).collect();
        Running { segment, children, ready }
    }

    fn start_rank(&self, segment: &Segment, rank: usize, ready: &impl AsFd) -> Child {
        let (segment, ready) = (inheritable(&segment.descriptor().unwrap()), inheritable(ready));
        let name = std::thread::current().name().unwrap().to_owned();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--include-ignored", "--test-threads=1"])
            .env("MIGSHARE_RANK", rank.to_string())
            .env("MIGSHARE_SIZE", self.ranks.to_string())
            .env("MIGSHARE_SEGMENT_FD", segment.as_raw_fd().to_string())
            .env(READY_VARIABLE, ready.as_raw_fd().to_string())
            .env("MIGSHARE_TIMEOUT_MS", self.timeout.as_millis().to_string())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
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

/// A duplicate that children keep over their exec.
fn inheritable(fd: &impl AsFd) -> OwnedFd {
    // SAFETY: a plain system call; the duplicate has no close-on-exec flag.
    let raw = unsafe { libc::dup(fd.as_fd().as_raw_fd()) };
    assert!(raw >= 0);
    // SAFETY: a fresh descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// In a rank: tells the parent that it has come where the test wants it, and which thread that is.
pub(crate) fn say_ready() {
    let fd: i32 = std::env::var(READY_VARIABLE).unwrap().parse().unwrap();
    // SAFETY: the kernel reads four bytes of a live value; the descriptor was inherited for this.
    let written = unsafe {
        let thread = libc::gettid();
        libc::write(fd, (&raw const thread).cast(), size_of::<i32>())
    };
    assert_eq!(written, 4);
}

/// Started ranks; dropping kills those that are left.
pub(crate) struct Running {
    pub(crate) segment: Arc<Segment>,
    pub(crate) children: Vec<Child>,
    ready: PipeReader,
}

impl Running {
    /// Waits until all ranks have said that they are ready; the threads that said so, in any order.
    pub(crate) fn until_ready(&mut self) -> Vec<i32> {
        (0..self.children.len()).map(|_| self.next_ready()).collect()
    }

    /// Waits for the next rank that says so; its thread.
    pub(crate) fn next_ready(&mut self) -> i32 {
        let mut entry = libc::pollfd { fd: self.ready.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        let found = unsafe { libc::poll(&raw mut entry, 1, PATIENCE.as_millis() as i32) };
        assert_eq!(found, 1, "a rank does not get ready");
        let mut thread = [0; 4];
        self.ready.read_exact(&mut thread).expect("a rank ended before it was ready");
        i32::from_ne_bytes(thread)
    }

    /// Sends a signal to a rank.
    pub(crate) fn signal(&self, rank: usize, signal: i32) {
        // SAFETY: a plain system call on a child that was not reaped yet.
        let sent = unsafe { libc::kill(self.children[rank].id() as i32, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits for all ranks.
    pub(crate) fn finish(mut self) -> Vec<ExitStatus> {
        (0..self.children.len()).map(|rank| self.wait(rank)).collect()
    }

    /// Waits for one rank; a rank that hangs fails the test.
    pub(crate) fn wait(&mut self, rank: usize) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
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
