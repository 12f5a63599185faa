//! A backend directory, a cache directory, and a sidecar between them.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, XattrFlags, getxattr, open, setxattr};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_migshare-storage");
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether mounts can be made here.
pub(crate) fn can_mount() -> bool {
    let able = rustix::process::geteuid().is_root() && File::open("/dev/fuse").is_ok();
    if !able {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs root and /dev/fuse");
        println!("SKIP: needs root and /dev/fuse");
    }
    able
}

/// Waits until something is true.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// States of a process's threads, as in /proc/PID/stat.
fn threads(pid: u32) -> impl Iterator<Item = char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next())
}

pub(crate) struct Rig {
    dir: TempDir,
    daemon: Option<Child>,
    backend: PathBuf,
    cache: PathBuf,
    arguments: Vec<String>,
    /// A command that runs the sidecar.
    through: Vec<String>,
    /// The sidecar below, or the one that is its cache device, which a test may have stopped.
    lower: Option<u32>,
}

impl Rig {
    /// A sidecar over an empty directory.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = dir.path().join("backend");
        fs::create_dir(&backend).unwrap();
        Self::over_in(dir, backend, arguments)
    }

    /// A sidecar over another one's mount: a backend that can be stopped and continued.
    pub(crate) fn over(lower: &Self, arguments: &[&str]) -> Self {
        let mut rig = Self::over_in(tempfile::tempdir().unwrap(), lower.mount(), arguments);
        rig.lower = lower.daemon.as_ref().map(Child::id);
        rig
    }

    /// A sidecar over a directory of the test's.
    pub(crate) fn over_directory(backend: &Path) -> Self {
        Self::over_in(tempfile::tempdir().unwrap(), backend.to_owned(), &[])
    }

    /// Another node: a second sidecar over the same backend.
    pub(crate) fn beside(other: &Self, arguments: &[&str]) -> Self {
        Self::at(&other.backend(), arguments)
    }

    /// A sidecar over a directory that somebody else made.
    pub(crate) fn at(backend: &Path, arguments: &[&str]) -> Self {
        Self::over_in(tempfile::tempdir().unwrap(), backend.to_owned(), arguments)
    }

    /// A sidecar over any directory.
    pub(crate) fn above(backend: PathBuf, arguments: &[&str]) -> Self {
        Self::over_in(tempfile::tempdir().unwrap(), backend, arguments)
    }

    fn over_in(dir: TempDir, backend: PathBuf, arguments: &[&str]) -> Self {
        // Readable for all, so that tests can act as other users.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("mount")).unwrap();
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let cache = dir.path().join("cache");
        let mut rig = Self { dir, daemon: None, backend, cache, arguments, through: Vec::new(), lower: None };
        rig.start();
        rig
    }

    /// The same sidecar from now on run by another command, such as one that sets limits.
    pub(crate) fn run_through(&mut self, command: &[&str]) {
        self.stop();
        self.through = command.iter().map(|a| (*a).to_owned()).collect();
        self.start();
    }

    pub(crate) fn start(&mut self) {
        let words: Vec<&str> = self.through.iter().map(String::as_str).chain([BINARY]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.arg("mount").arg(&self.backend).arg(self.mount()).arg("--cache").arg(self.cache());
        command.args(["--size", "32M", "--attributes-ms", "0"]).args(&self.arguments);
        self.daemon = Some(command.stderr(Stdio::inherit()).spawn().unwrap());
        let above = self.dir.path().metadata().unwrap().dev();
        let mount = self.mount();
        wait_for("the mount", || mount.metadata().is_ok_and(|m| m.dev() != above));
    }

    /// Other arguments from the next start on.
    pub(crate) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    }

    /// A start that is refused: what it says.
    pub(crate) fn refusal(&self) -> String {
        let mut command = Command::new(BINARY);
        command.arg("mount").arg(&self.backend).arg(self.mount()).arg("--cache").arg(self.cache());
        let output = command.args(["--size", "32M"]).args(&self.arguments).output().unwrap();
        assert!(!output.status.success(), "the start was not refused");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn backend(&self) -> PathBuf {
        self.backend.clone()
    }

    pub(crate) fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.cache.clone()
    }

    /// A sidecar whose cache is on a device of the test's.
    pub(crate) fn caching_at(cache: PathBuf, arguments: &[&str]) -> Self {
        let mut rig = Self::new(arguments);
        rig.stop();
        rig.cache = cache;
        rig.start();
        rig
    }

    /// A sidecar whose cache is in another one's mount: a device that can be stopped and continued.
    pub(crate) fn caching_over(device: &Self, arguments: &[&str]) -> Self {
        let mut rig = Self::caching_at(device.mount().join("cache"), arguments);
        rig.lower = device.daemon.as_ref().map(Child::id);
        rig
    }

    /// Whether its main thread has ended; others may wait in the kernel for what was stopped.
    pub(crate) fn main_has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.as_ref().unwrap().id())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z')
    }

    /// Threads of the sidecar with this name.
    pub(crate) fn threads_named(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon.as_ref().unwrap().id())).unwrap();
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|found| found.trim() == name).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.daemon.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        if signal == Signal::SIGSTOP {
            // Until then a thread may still take a request, whose caller nobody could kill.
            wait_for("all threads stopped", || threads(pid).all(|state| state == 'T'));
        }
    }

    /// Ends the sidecar as a crash does, and cleans the mount point up.
    pub(crate) fn crash(&mut self) {
        // A thread that waits in a stopped backend cannot die.
        if let Some(lower) = self.lower {
            let _ = kill(Pid::from_raw(lower.cast_signed()), Signal::SIGCONT);
        }
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            wait_for("the daemon is dead", || daemon.try_wait().unwrap().is_some());
        }
        let _ = nix::mount::umount2(&self.mount(), nix::mount::MntFlags::MNT_DETACH);
    }

    /// Ends the sidecar in order.
    pub(crate) fn stop(&mut self) {
        assert!(self.end().success());
    }

    /// Tells the sidecar to end; how it did.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let mut daemon = self.daemon.take().unwrap();
        let mut status = None;
        wait_for("the daemon ends", || {
            status = daemon.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn stats(&self, name: &str) -> u64 {
        self.attribute(&self.mount(), "stats")[name].as_u64().unwrap()
    }

    pub(crate) fn attribute(&self, path: &Path, name: &str) -> Value {
        let mut value = vec![0; 64 << 10];
        let len = getxattr(path, format!("user.migshare.{name}"), &mut value[..]).unwrap();
        serde_json::from_slice(&value[..len]).unwrap()
    }

    pub(crate) fn set_policy(&self, policy: &str) {
        setxattr(self.mount(), "user.migshare.policy", policy.as_bytes(), XattrFlags::empty()).unwrap();
    }

    /// A file at the backend.
    pub(crate) fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.backend.join(name), content).unwrap();
        self.mount().join(name)
    }

    /// The program where other users may run it too, who cannot walk to every build directory.
    pub(crate) fn program(&self) -> PathBuf {
        let program = self.dir.path().join("program");
        if !program.exists() {
            fs::copy(BINARY, &program).unwrap();
        }
        program
    }

    /// Reads a file on the mount until all of it is cached.
    pub(crate) fn warm(&self, path: &Path) {
        wait_for("the file in the cache", || {
            read(path);
            let known = self.attribute(path, "explain");
            known["cached_bytes"] == known["size_bytes"]
        });
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Bytes that differ from place to place.
pub(crate) fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 512) as u8 ^ (i as u8).wrapping_mul(31) ^ seed).collect()
}

/// Opens past the page cache.
pub(crate) fn direct(path: &Path) -> File {
    let fd: OwnedFd = open(path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).unwrap();
    File::from(fd)
}

/// The whole file, past the page cache.
pub(crate) fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    direct(path).read_to_end(&mut bytes).unwrap();
    bytes
}
