//! What is measured: a remote file system, a cache device, and one sidecar with a mount per policy over one cache.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use migshare_storage::random::Random;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_migshare-storage");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rigs/remote.sh");
/// A file younger than this is not admitted to the cache.
const OLD_ENOUGH: Duration = Duration::from_millis(2500);
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory that goes when it is dropped, on a real disk.
pub(crate) struct Work(pub(crate) PathBuf);

impl Work {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let base = std::env::var_os("BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let dir = base.join(format!("migshare-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("BENCH_DIR: {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `rigs/remote.sh` for one directory; everything it started ends when this is dropped.
pub(crate) struct Remote(PathBuf);

/// Directories of rigs that are up, for [`end_with_signals`].
static UP: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From now on SIGINT and SIGTERM take the rigs down before they end the process. To be called before any thread is started.
pub(crate) fn end_with_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let _ = signals.wait();
        for dir in UP.lock().map(|up| up.clone()).unwrap_or_default() {
            drop(Remote(dir));
        }
        std::process::exit(130);
    })?;
    Ok(())
}

/// Says what is missing before anything is measured.
pub(crate) fn check(remote: bool) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "root is needed: mounts for all users, dropping of page caches"
    );
    ensure!(Path::new("/dev/fuse").exists(), "no /dev/fuse: load the fuse module");
    if remote {
        script(&["check", "nbd"])?;
        script(&["check", "cache"])?;
    }
    Ok(())
}

impl Remote {
    pub(crate) fn up(dir: &Path, kind: &str, mib: u32) -> Result<Self> {
        Self::up_by(dir, &[kind, text(dir)?, &mib.to_string()])
    }

    /// A server of nbd that the client has one connection to: it is back after an outage as a whole, and not as TCP's timers of
    /// several connections happen to stand.
    pub(crate) fn by_one_connection(dir: &Path, mib: u32) -> Result<Self> {
        Self::up_by(dir, &["nbd", text(dir)?, &mib.to_string(), "1"])
    }

    fn up_by(dir: &Path, arguments: &[&str]) -> Result<Self> {
        if let Ok(mut up) = UP.lock() {
            up.push(dir.to_owned());
        }
        let remote = Self(dir.to_owned());
        script(&[&["up"], arguments].concat())?;
        Ok(remote)
    }

    /// Adds the cache device.
    pub(crate) fn with_cache(self, mib: u32) -> Result<Self> {
        self.tell("cache", &mib.to_string())?;
        Ok(self)
    }

    /// Any of the script's commands with one argument.
    pub(crate) fn tell(&self, command: &str, argument: &str) -> Result<()> {
        script(&[command, text(&self.0)?, argument])
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.0.join("remote")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.0.join("local/cache")
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Ok(dir) = text(&self.0) {
            let _ = script(&["down", dir]);
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no UTF-8")
}

fn script(arguments: &[&str]) -> Result<()> {
    let status = Command::new(SCRIPT).args(arguments).stdin(Stdio::null()).status().context(SCRIPT)?;
    ensure!(status.success(), "rigs/remote.sh {} failed; what it says is above", arguments.join(" "));
    Ok(())
}

/// A mount of the sidecar.
#[derive(Clone)]
pub(crate) struct Mount {
    pub(crate) policy: String,
    pub(crate) at: PathBuf,
}

/// The sidecar: one process, one cache, one mount per policy.
pub(crate) struct Sidecar {
    child: Child,
    pub(crate) mounts: Vec<Mount>,
}

impl Sidecar {
    /// `profile`: rates of cache and backend in 64 KiB reads per second, for the published policy.
    pub(crate) fn start(
        work: &Path,
        backend: &Path,
        cache: &Path,
        mib: u32,
        policies: &[&str],
        profile: Option<(f64, f64)>,
    ) -> Result<Self> {
        let mut config = format!("[cache]\ndir = \"{}\"\nsize = \"{mib}M\"\n", cache.display());
        let mut mounts = Vec::new();
        for policy in policies {
            let at = work.join(format!("at-{policy}"));
            fs::create_dir_all(&at)?;
            config += &format!(
                "[[mount]]\nbackend = \"{}\"\nat = \"{}\"\npolicy = \"{policy}\"\n",
                backend.display(),
                at.display()
            );
            if let (&"netcas", Some((cache, backend))) = (policy, profile) {
                let file = work.join("profile.csv");
                fs::write(&file, format!("iodepth,numjobs,split100,split0\n16,1,{cache:.0},{backend:.0}\n"))?;
                config += &format!("profile = \"{}\"\n", file.display());
            }
            mounts.push(Mount { policy: (*policy).to_owned(), at });
        }
        let file = work.join("sidecar.toml");
        fs::write(&file, config)?;
        let log = fs::File::create(work.join("sidecar.log"))?;
        let child = Command::new(BINARY).args(["serve", "--config"]).arg(&file).stderr(log).spawn()?;
        let mut sidecar = Self { child, mounts };
        sidecar.wait_until_mounted(work)?;
        Ok(sidecar)
    }

    fn wait_until_mounted(&mut self, work: &Path) -> Result<()> {
        let start = Instant::now();
        while !self.mounts.iter().all(|m| getxattr(&m.at, "user.migshare.policy", &mut [0; 64][..]).is_ok()) {
            if self.child.try_wait()?.is_some() || start.elapsed() > DEADLINE {
                bail!("the sidecar did not mount: {}", fs::read_to_string(work.join("sidecar.log"))?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn mount(&self, policy: &str) -> Result<&Mount> {
        self.mounts.iter().find(|m| m.policy == policy).with_context(|| format!("no mount with {policy}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads a file until all of it is cached.
    pub(crate) fn warm(&self, file: &str) -> Result<()> {
        let path = self.mounts[0].at.join(file);
        let out = Command::new(BINARY).args(["warm", "--json"]).arg(&path).output()?;
        let told: Value = serde_json::from_slice(&out.stdout)
            .with_context(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
        ensure!(told["cached_bytes"] == told["bytes"], "{} is not wholly cached: {told}", path.display());
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Mount {
    fn attribute(&self, below: &str, name: &str) -> Result<Value> {
        let mut value = vec![0; 64 << 10];
        let len = getxattr(self.at.join(below), format!("user.migshare.{name}"), &mut value[..])?;
        Ok(serde_json::from_slice(&value[..len])?)
    }

    pub(crate) fn set_policy(&self, policy: &str) -> Result<()> {
        Ok(setxattr(&self.at, "user.migshare.policy", policy.as_bytes(), XattrFlags::empty())?)
    }

    /// Whether `window` still tries levels for reads of this size.
    pub(crate) fn is_exploring(&self, file: &str, block: u64) -> Result<bool> {
        let window = &self.attribute(file, "explain")?["split"]["window"];
        let class = window["class_bounds"].as_array().map_or(0, |bounds| {
            bounds.iter().position(|b| b.as_u64().is_some_and(|b| block <= b)).unwrap_or(bounds.len())
        });
        Ok(window["exploring"][class] == true)
    }

    /// A counter of `stats`.
    pub(crate) fn counter(&self, name: &str) -> Result<u64> {
        self.attribute("", "stats")?[name].as_u64().with_context(|| format!("no counter {name}"))
    }
}

/// Lets the kernel drop the pages that it holds of a file, so that reads of the bare mount cross the network.
pub(crate) fn forget_pages(path: &Path) -> Result<()> {
    let file = fs::File::open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Makes a file of bytes that do not compress, and waits until it is old enough to be cached.
pub(crate) fn put(dir: &Path, name: &str, mib: u64) -> Result<()> {
    let mut file = fs::File::create(dir.join(name))?;
    let mut random = Random(0);
    let mut chunk = vec![0u8; 1 << 20];
    for _ in 0..mib {
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&random.draw().to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    std::thread::sleep(OLD_ENOUGH);
    Ok(())
}
