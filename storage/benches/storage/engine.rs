//! Figure 1: the engine on a plain fast disk. Full hits past the page cache against the bare file and against a bare
//! pass-through FUSE of others (bindfs, where it is installed), with the CPU that a read costs; cold misses, small files and
//! re-reads from the page cache against the bare directory.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::load::{self, Load, Pattern};
use super::rig::{Sidecar, Work, put};
use super::{Plan, axes, cpu, paired, plot};

const MIB: u64 = 256;
const SMALL_FILES: u32 = 500;
const SEQUENTIAL: Load = Load { block: 1 << 20, depth: 4, pattern: Pattern::Sequential };
const RANDOM: Load = Load { block: 4 << 10, depth: 16, pattern: Pattern::Random };

/// One file, seen through something.
struct Arm {
    name: &'static str,
    file: PathBuf,
    /// The process that serves it.
    server: Option<u32>,
}

/// Rates and CPU of the arms.
struct Shown {
    rates: Vec<Vec<f64>>,
    /// CPU microseconds per read, reader and server together.
    cpu: Vec<Vec<f64>>,
}

pub(crate) fn run(plan: &Plan) -> Result<Map<String, Value>> {
    let work = Work::new("engine")?;
    let backend = work.0.join("backend");
    fs::create_dir_all(backend.join("tree"))?;
    for i in 0..SMALL_FILES {
        fs::write(backend.join("tree").join(i.to_string()), format!("{i}\n").repeat(100))?;
    }
    put(&backend, "data", MIB)?;
    let sidecar = Sidecar::start(&work.0, &backend, &work.0.join("cache"), 1024, &["cache-only"], None)?;
    sidecar.warm("data")?;
    let mount = sidecar.mounts[0].at.clone();
    let passthrough = Passthrough::start(&work.0, &backend);
    let mut arms = vec![
        Arm { name: "sidecar", file: mount.join("data"), server: Some(sidecar.pid()) },
        Arm { name: "raw", file: backend.join("data"), server: None },
        Arm { name: "raw again", file: backend.join("data"), server: None },
    ];
    match &passthrough {
        Ok(other) => {
            arms.push(Arm { name: "bindfs", file: other.at.join("data"), server: Some(other.child.id()) })
        }
        Err(why) => println!("no bare pass-through FUSE to compare with: {why:#}"),
    }
    let mut found = Map::new();
    for (key, load) in [("seq", SEQUENTIAL), ("rand", RANDOM)] {
        eprintln!("engine: {key}");
        let shown = measure(plan, &arms, load)?;
        print(key, &arms, &shown);
        found.insert(format!("{key}_over_raw"), json!(paired::ratio(&shown.rates[0], &shown.rates[1])));
        found.insert(format!("{key}_noise_floor"), json!(paired::ratio(&shown.rates[2], &shown.rates[1])));
        for (arm, cpu) in arms.iter().zip(&shown.cpu).filter(|(a, _)| a.name != "raw again") {
            found.insert(format!("{key}_cpu_us_{}", arm.name), json!(paired::median(cpu.clone())));
        }
        draw(plan, key, &arms, &shown)?;
    }
    drop(passthrough);
    eprintln!("engine: cold misses, small files, page cache");
    let ratios = |ours: &dyn Fn() -> Result<f64>, theirs: &dyn Fn() -> Result<f64>| -> Result<f64> {
        let values = paired::blocks(plan.blocks, &[ours, theirs], |arm| arm())?;
        Ok(paired::ratio(&values[0], &values[1]))
    };
    let cold = ratios(&|| cold_mount(&mount.join("data")), &|| cold_rate(&backend.join("data")))?;
    found.insert("cold_miss_over_backend".into(), json!(cold));
    let small = ratios(&|| tree_rate(&mount.join("tree")), &|| tree_rate(&backend.join("tree")))?;
    found.insert("metadata_over_backend".into(), json!(small));
    let again = ratios(&|| read_again(&mount.join("data")), &|| read_again(&backend.join("data")))?;
    found.insert("page_cache_over_backend".into(), json!(again));
    Ok(found)
}

fn measure(plan: &Plan, arms: &[Arm], load: Load) -> Result<Shown> {
    let mut cpu_per_read = vec![Vec::new(); arms.len()];
    let places: Vec<usize> = (0..arms.len()).collect();
    let rates = paired::blocks(plan.blocks.max(5), &places, |place| {
        let arm = &arms[*place];
        let used = || cpu::used(arm.server);
        let before = used()?;
        let outcome = load::run(&arm.file, load, plan.run)?;
        cpu_per_read[*place].push((used()? - before) * 1e6 / outcome.reads.max(1) as f64);
        Ok(outcome.rate)
    })?;
    Ok(Shown { rates, cpu: cpu_per_read })
}

fn print(key: &str, arms: &[Arm], shown: &Shown) {
    for ((arm, rates), cpu) in arms.iter().zip(&shown.rates).zip(&shown.cpu) {
        let mb: Vec<String> = rates.iter().map(|r| format!("{:.0}", r / 1e6)).collect();
        println!(
            "{key:5} {:10} {:>40} MB/s   cpu {:.1} us per read",
            arm.name,
            mb.join(" "),
            paired::median(cpu.clone())
        );
    }
}

fn draw(plan: &Plan, key: &str, arms: &[Arm], shown: &Shown) -> Result<()> {
    let line = |rates: &Vec<f64>| rates.iter().enumerate().map(|(i, r)| (i as f64, r / 1e6)).collect();
    let series = arms.iter().zip(&shown.rates).map(|(a, r)| (a.name, line(r))).collect();
    plot(plan, &format!("engine-{key}"), axes("Full hits on a plain disk", "block", "MB/s"), series)
}

/// Forgets what the kernel holds of files and names. The machine is the benchmark's alone.
fn drop_kernel_caches() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches")
}

/// Bytes per second of one buffered sequential read.
fn read_rate(path: &Path) -> Result<f64> {
    let start = Instant::now();
    let mut file = fs::File::open(path)?;
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes as f64 / start.elapsed().as_secs_f64()),
            n => bytes += n,
        }
    }
}

fn cold_rate(path: &Path) -> Result<f64> {
    drop_kernel_caches()?;
    read_rate(path)
}

fn cold_mount(path: &Path) -> Result<f64> {
    use rustix::fs::{XattrFlags, setxattr};
    setxattr(path, "user.migshare.forget", b"1", XattrFlags::empty())?;
    cold_rate(path)
}

fn read_again(path: &Path) -> Result<f64> {
    read_rate(path)?;
    read_rate(path)
}

/// Files per second: names, attributes and contents of a directory of small files.
fn tree_rate(dir: &Path) -> Result<f64> {
    drop_kernel_caches()?;
    let start = Instant::now();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        entry.metadata()?;
        fs::read(entry.path())?;
    }
    Ok(f64::from(SMALL_FILES) / start.elapsed().as_secs_f64())
}

/// bindfs over the backend.
struct Passthrough {
    at: PathBuf,
    child: Child,
}

impl Passthrough {
    fn start(work: &Path, backend: &Path) -> Result<Self> {
        let at = work.join("bindfs");
        fs::create_dir_all(&at)?;
        let child = Command::new("bindfs")
            .args(["-f", "--multithreaded", "--forward-odirect=4096"])
            .args([backend, &at])
            .stderr(Stdio::null())
            .spawn()
            .context("bindfs (Debian package bindfs)")?;
        let this = Self { at, child };
        let start = Instant::now();
        while !this.at.join("data").exists() {
            anyhow::ensure!(start.elapsed().as_secs() < 10, "bindfs did not mount");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(this)
    }
}

impl Drop for Passthrough {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
