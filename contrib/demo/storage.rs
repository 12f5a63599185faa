//! The scene with the storage sidecar: a data set on a remote file system behind a contended link, read from the cache alone,
//! over the network alone, and from both at once.
//!
//! Network, contention and cache device are `storage/rigs/remote.sh`: real traffic in network namespaces, a device with a
//! rate. Where the machine cannot have them, the scene says why and is left out.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use migshare_harness::artifacts::{Artifacts, make_dir, write};
use migshare_harness::{Cluster, Result, Trouble, ensure, interrupt, process};

/// MB/s of the network, which is shared with one other flow, and of the cache device.
const NETWORK: &str = "60";
const CACHE: &str = "60";
const READERS: u64 = 16;
const READ: usize = 64 << 10;
const DATA: usize = 96 << 20;
/// A way to read, how the graph calls it, and its colour in the terminal.
const WAYS: [(&str, &str, u8); 3] =
    [("cache-only", "cache only", 34), ("backend-only", "network only", 31), ("window", "split", 32)];
const STEP: Duration = Duration::from_millis(250);
const STEPS: usize = 16;
/// The sidecar does not cache what changed a moment ago.
const SETTLED: Duration = Duration::from_millis(2500);

/// Reads the data set in three ways and draws what came.
pub(crate) fn contended_link(cluster: &mut Cluster) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../storage/rigs/remote.sh");
    for part in ["nbd", "cache"] {
        let check = Command::new(&script).args(["check", part]).output();
        let why = check.map(|out| (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned()));
        let (able, why) = why.unwrap_or_else(|cause| (false, cause.to_string()));
        if !able {
            println!("  left out: {}", why.trim());
            return Ok("the storage scene was left out, because this machine lacks something".to_owned());
        }
    }
    let dir = cluster.path("storage");
    make_dir(&dir, 0o755)?;
    let rig = Rig { script, dir, sidecar: None };
    play(rig)
}

fn play(mut rig: Rig) -> Result<String> {
    rig.up()?;
    println!(
        "  link: {NETWORK} MB/s, shared with another flow; cache device: {CACHE} MB/s; {READERS} readers of 64 KiB"
    );
    let mut means = Vec::new();
    let mut table = String::new();
    for (policy, name, colour) in WAYS {
        rig.policy(policy)?;
        let rates = read(&rig.mount().join("data"), name, colour)?;
        // The first half is for finding the split.
        let late = &rates[STEPS / 2..];
        means.push(late.iter().sum::<f64>() / late.len() as f64);
        table += &format!("{name}\t{}\n", rates.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    }
    let built = Artifacts::find()?;
    let (png, rates) = (built.demo()?.join("storage.png"), rig.dir.join("rates"));
    write(&rates, &table)?;
    let mut draw = Command::new(built.python());
    draw.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/demo/draw-rates"))
        .arg(&png)
        .arg(&rates);
    process::run(draw)?.ok()?;
    println!("  drawn: {}", png.display());
    let [cache, network, split] = means[..] else { unreachable!("three ways") };
    ensure(split > cache.max(network), || {
        format!("split read {split:.0} MB/s, the cache {cache:.0} and the network {network:.0}")
    })?;
    Ok(format!(
        "the data set came with {split:.0} MB/s from both sides, {cache:.0} from the cache and {network:.0} over the network"
    ))
}

/// Reads at random places until the time is over; draws as it goes, and returns MB/s for each step.
fn read(path: &Path, name: &str, colour: u8) -> Result<Vec<f64>> {
    let file = File::open(path).map_err(|e| trouble(path, e))?;
    let (bytes, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut rates = Vec::new();
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (file, bytes, over) = (&file, &bytes, &over);
            scope.spawn(move || {
                let (mut buffer, mut place) = (vec![0; READ], reader.wrapping_mul(0x9E37_79B9));
                while !over.load(Ordering::Relaxed) {
                    place =
                        place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let block = (place >> 33) % (DATA / READ) as u64;
                    match file.read_at(&mut buffer, block * READ as u64) {
                        Ok(got) => bytes.fetch_add(got as u64, Ordering::Relaxed),
                        Err(_) => return,
                    };
                }
            });
        }
        for _ in 0..STEPS {
            let (start, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
            std::thread::sleep(STEP);
            let got = bytes.load(Ordering::Relaxed) - before;
            let rate = got as f64 / 1e6 / start.elapsed().as_secs_f64();
            println!(
                "  {name:12} {rate:>6.1} MB/s \x1b[{colour}m{}\x1b[0m",
                "█".repeat((rate / 2.5) as usize)
            );
            rates.push(rate);
            if interrupt::asked() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    if interrupt::asked() { Err(Trouble::Interrupted("the reads".to_owned())) } else { Ok(rates) }
}

fn trouble(what: &Path, cause: impl std::fmt::Display) -> Trouble {
    Trouble::Unexpected(format!("{}: {cause}", what.display()))
}

/// The remote file system, the cache device and the sidecar; gone when dropped.
struct Rig {
    script: PathBuf,
    dir: PathBuf,
    sidecar: Option<Child>,
}

impl Rig {
    fn tell(&self, words: &[&str], after: &[&str]) -> Result {
        let mut command = Command::new(&self.script);
        command.args(words).arg(&self.dir).args(after).stdin(Stdio::null());
        process::run(command)?.ok()?;
        Ok(())
    }

    fn mount(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    fn up(&mut self) -> Result {
        self.tell(&["up", "nbd"], &["160"])?;
        self.tell(&["cache"], &["160"])?;
        let data: Vec<u8> = (0..DATA).map(|i| (i ^ (i >> 11)) as u8).collect();
        let (remote, mount) = (self.dir.join("remote"), self.mount());
        let options = &mut fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o644).open(remote.join("data"));
        let file = file.map_err(|e| trouble(&remote, e))?;
        file.write_all_at(&data, 0).and_then(|()| file.sync_all()).map_err(|e| trouble(&remote, e))?;
        std::thread::sleep(SETTLED);
        make_dir(&mount, 0o755)?;
        let program = Artifacts::find()?.get("migshare-storage")?;
        println!("$ migshare-storage mount {} {} --cache … --direct", remote.display(), mount.display());
        let mut start = Command::new(&program);
        start.arg("mount").arg(&remote).arg(&mount).arg("--cache").arg(self.dir.join("local/cache"));
        start.args(["--size", "128M", "--direct"]).env("MIGSHARE_LOG", "error");
        self.sidecar = Some(start.spawn().map_err(|e| trouble(&program, e))?);
        let asked = Instant::now();
        while !mount.join("data").exists() {
            ensure(asked.elapsed() < Duration::from_secs(30), || "the sidecar did not mount".to_owned())?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut warm = Command::new(&program);
        warm.arg("warm").arg(mount.join("data"));
        process::run(warm)?.ok()?;
        self.tell(&["rate"], &[NETWORK])?;
        self.tell(&["cache-rate"], &[CACHE])?;
        self.tell(&["flows"], &["1"])
    }

    fn policy(&self, policy: &str) -> Result {
        println!("$ migshare-storage policy {} {policy}", self.mount().display());
        let mut tell = Command::new(Artifacts::find()?.get("migshare-storage")?);
        tell.arg("policy").arg(self.mount()).arg(policy);
        process::run(tell)?.ok()?;
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut sidecar) = self.sidecar.take() {
            let pid = nix::unistd::Pid::from_raw(sidecar.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = sidecar.wait();
        }
        let _ = interrupt::despite(|| self.tell(&["down"], &[]));
    }
}
