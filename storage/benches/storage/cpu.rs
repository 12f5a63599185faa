//! CPU time and memory of processes, from /proc.

use anyhow::{Context, Result};

/// Clock ticks per second of /proc (USER_HZ, the same on every Linux port that Rust knows).
const TICKS: f64 = 100.0;

/// CPU seconds of this process and of another one, so far, time in the kernel included.
pub(crate) fn used(other: Option<u32>) -> Result<f64> {
    let mut sum = of("self")?;
    if let Some(pid) = other {
        sum += of(&pid.to_string())?;
    }
    Ok(sum)
}

fn of(process: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit(')').next().context("no name in stat")?;
    let field = |i: usize| after_name.split_whitespace().nth(i).and_then(|f| f.parse::<f64>().ok());
    // Fields 14 and 15 of proc(5); the first after the name is number 3.
    Ok((field(11).context("no utime")? + field(12).context("no stime")?) / TICKS)
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
