//! Measures the two ends of a Perf Profile through a running mount: 64 KiB random reads past the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migshare_storage::io::Buffer;
use migshare_storage::policy::PolicyName;
use rustix::fs::{Mode, OFlags, open};

use super::{get, get_text, number, set};

const READ: u64 = 64 << 10;
/// Queue depths and jobs that are measured.
const DEPTHS: [u32; 3] = [1, 4, 16];
const JOBS: [u32; 2] = [1, 4];
const BAR: usize = 40;

/// See the module.
pub(crate) fn profile(file: &Path, out: &Path, seconds: u64) -> Result<()> {
    let known = get(file, "explain")?;
    let size = number(&known, "size_bytes");
    ensure!(size >= 256 * READ, "{} is too small: give a file of at least 16 MiB", file.display());
    ensure!(
        number(&known, "cached_bytes") == size,
        "{} is not wholly cached: run `warm` first",
        file.display()
    );
    let mount = mount_of(file)?;
    let before = get_text(&mount, "policy")?;
    let mut table = String::from("iodepth,numjobs,split100,split0\n");
    let mut rows = Vec::new();
    let result = (|| -> Result<()> {
        for depth in DEPTHS {
            for jobs in JOBS {
                let mut rates = [0.0; 2];
                for (rate, policy) in rates.iter_mut().zip([PolicyName::CacheOnly, PolicyName::BackendOnly]) {
                    eprintln!("depth {depth}, {jobs} jobs, {policy} …");
                    set(&mount, "policy", &policy.to_string())?;
                    *rate = measure(file, size, depth * jobs, Duration::from_secs(seconds))?;
                }
                table += &format!("{depth},{jobs},{:.0},{:.0}\n", rates[0], rates[1]);
                rows.push((depth, jobs, rates));
            }
        }
        Ok(())
    })();
    set(&mount, "policy", &before)?;
    result?;
    std::fs::write(out, table).with_context(|| format!("--out {}", out.display()))?;
    plot(&rows);
    Ok(())
}

fn mount_of(file: &Path) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let file = file.canonicalize()?;
    let device = file.metadata()?.dev();
    let same = |p: &&Path| p.metadata().is_ok_and(|m| m.dev() == device);
    let top = file.ancestors().take_while(same).last().context("the file has no mount")?;
    Ok(top.to_owned())
}

/// Reads per second with `threads` readers.
fn measure(path: &Path, size: u64, threads: u32, time: Duration) -> Result<f64> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let blocks = size / READ;
    let start = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..threads)
            .map(|seed| {
                let (file, over, count) = (&file, &over, &count);
                scope.spawn(move || -> std::io::Result<()> {
                    let mut buffer = Buffer::new(READ as usize);
                    let mut random = u64::from(seed) + 1;
                    while !over.load(Ordering::Relaxed) {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        file.read_exact_at(&mut buffer, (random >> 33) % blocks * READ)?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        Ok(())
    })?;
    Ok(count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

fn plot(rows: &[(u32, u32, [f64; 2])]) {
    let most = rows.iter().flat_map(|r| r.2).fold(1.0, f64::max);
    for (depth, jobs, rates) in rows {
        for (name, rate) in ["cache", "backend"].iter().zip(rates) {
            let bar = "█".repeat((rate / most * BAR as f64) as usize);
            println!("{depth:>3} x {jobs:<2} {name:8} {rate:>9.0}/s {bar}");
        }
    }
}
