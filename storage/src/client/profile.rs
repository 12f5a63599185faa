//! Measures the two ends of a Perf Profile through a running mount: 64 KiB random reads past the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migshare_storage::io::Buffer;
use migshare_storage::plot::{Chart, Series};
use migshare_storage::policy::PolicyName;
use migshare_storage::random::Random;
use rustix::fs::{Mode, OFlags, open};

use super::held::HeldPolicy;
use super::{get, number};

const READ: u64 = 64 << 10;
/// Queue depths and jobs that are measured.
const DEPTHS: [u32; 3] = [1, 4, 16];
const JOBS: [u32; 2] = [1, 4];
const BAR: usize = 40;

/// See the module.
pub(crate) fn profile(file: &Path, out: &Path, chart: Option<&Path>, seconds: u64, json: bool) -> Result<()> {
    let known = get(file, "explain")?;
    let size = number(&known, "size_bytes");
    ensure!(size >= 256 * READ, "{} is too small: give a file of at least 16 MiB", file.display());
    ensure!(
        number(&known, "cached_bytes") == size,
        "{} is not wholly cached: run `warm` first",
        file.display()
    );
    let mount = mount_of(file)?;
    let held = HeldPolicy::take(&mount)?;
    let mut table = String::from("iodepth,numjobs,split100,split0\n");
    let mut rows = Vec::new();
    for depth in DEPTHS {
        for jobs in JOBS {
            let mut rates = [0.0; 2];
            for (rate, policy) in rates.iter_mut().zip([PolicyName::CacheOnly, PolicyName::BackendOnly]) {
                let cell = rows.len() + 1;
                eprintln!(
                    "cell {cell} of {}: depth {depth}, {jobs} jobs, {policy}",
                    DEPTHS.len() * JOBS.len()
                );
                held.set(policy)?;
                *rate = measure(file, size, depth * jobs, Duration::from_secs(seconds))?;
            }
            table += &format!("{depth},{jobs},{:.0},{:.0}\n", rates[0], rates[1]);
            rows.push((depth, jobs, rates));
        }
    }
    held.give_back()?;
    std::fs::write(out, table).with_context(|| format!("--out {}", out.display()))?;
    if json {
        tell(&rows)
    } else {
        bars(&rows)
    }
    if let Some(chart) = chart {
        std::fs::write(chart, draw(&rows)).with_context(|| format!("--plot {}", chart.display()))?;
    }
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
                    let mut random = Random(u64::from(seed));
                    while !over.load(Ordering::Relaxed) {
                        file.read_exact_at(&mut buffer, random.below(blocks) * READ)?;
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

/// One row: queue depth, jobs, reads per second of cache and backend.
type Row = (u32, u32, [f64; 2]);

fn tell(rows: &[Row]) {
    let row = |(depth, jobs, rates): &Row| {
        serde_json::json!({
            "iodepth": depth, "numjobs": jobs, "cache_reads_per_s": rates[0], "backend_reads_per_s": rates[1],
        })
    };
    println!("{}", rows.iter().map(row).collect::<serde_json::Value>());
}

fn bars(rows: &[Row]) {
    let most = rows.iter().flat_map(|r| r.2).fold(1.0, f64::max);
    for (depth, jobs, rates) in rows {
        for (name, rate) in ["cache", "backend"].iter().zip(rates) {
            let bar = "█".repeat((rate / most * BAR as f64) as usize);
            println!("{depth:>3} x {jobs:<2} {name:8} {rate:>9.0}/s {bar}");
        }
    }
}

fn draw(rows: &[Row]) -> String {
    let line = |side: usize| rows.iter().enumerate().map(|(i, row)| (i as f64, row.2[side])).collect();
    let series = ["cache only", "backend only"].iter().enumerate();
    let chart = Chart {
        title: "Perf Profile".to_owned(),
        x: "depth x jobs".to_owned(),
        y: "64 KiB reads per second".to_owned(),
        places: rows.iter().map(|(depth, jobs, _)| format!("{depth} x {jobs}")).collect(),
        series: series.map(|(side, name)| Series { name: (*name).to_owned(), points: line(side) }).collect(),
        ..Chart::default()
    };
    chart.to_svg()
}
