//! Jobs to replay: from a file, or generated.

use std::str::FromStr;

/// A job of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// When it is submitted, seconds.
    pub arrival: f64,
    /// How long it runs on what it asks for, seconds.
    pub seconds: f64,
    /// What it asks for, in sevenths of a GPU.
    pub slices: u32,
}

/// Why a line is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The header lacks a column.
    #[error("no column {0} in the header")]
    NoColumn(&'static str),
    /// A field is missing or no number.
    #[error("line {line}: {column} is no number")]
    NoNumber {
        /// Line, from 1.
        line: usize,
        /// Column.
        column: &'static str,
    },
}

/// Reads the columns `arrival_s`, `duration_s`, `num_gpu` and `gpu_milli` (thousandths of a GPU, for jobs of one GPU) of
/// comma-separated text, as in traces derived from Alibaba's cluster-trace-gpu-v2023. A fraction becomes the sevenths that
/// hold it; jobs that take no time are left out. Sorted by arrival.
pub fn parse(text: &str) -> Result<Vec<Job>, TraceError> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().map_or_else(Vec::new, |(_, line)| line.split(',').collect());
    let columns = ["arrival_s", "duration_s", "num_gpu", "gpu_milli"];
    let mut at = [0; 4];
    for (slot, name) in at.iter_mut().zip(columns) {
        *slot = header.iter().position(|h| *h == name).ok_or(TraceError::NoColumn(name))?;
    }
    let mut jobs = Vec::new();
    for (i, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let row = Row { line: i + 1, fields: &fields };
        let gpus: u32 = row.number(at[2], columns[2])?;
        let milli: u32 = row.number(at[3], columns[3])?;
        let slices = if gpus > 1 { gpus.saturating_mul(7) } else { milli.saturating_mul(7).div_ceil(1000) };
        let (arrival, seconds) = (row.number(at[0], columns[0])?, row.number(at[1], columns[1])?);
        jobs.push(Job { arrival, seconds, slices });
    }
    jobs.retain(|job| job.seconds > 0.0 && job.slices > 0);
    jobs.sort_by(|a, b| a.arrival.total_cmp(&b.arrival));
    Ok(jobs)
}

struct Row<'a> {
    line: usize,
    fields: &'a [&'a str],
}

impl Row<'_> {
    fn number<T: FromStr>(&self, at: usize, column: &'static str) -> Result<T, TraceError> {
        let field = self.fields.get(at).and_then(|field| field.parse().ok());
        field.ok_or(TraceError::NoNumber { line: self.line, column })
    }
}

/// How many of a hundred generated jobs ask for 1 to 7 sevenths of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix(pub [u32; 7]);

impl Mix {
    /// Mostly small jobs.
    pub const SMALL: Mix = Mix([40, 25, 15, 10, 4, 2, 4]);
    /// All sizes alike, those without a MIG profile (five and six sevenths) included.
    pub const EVEN: Mix = Mix([15, 15, 14, 14, 14, 14, 14]);
    /// Only sizes that one MIG profile has.
    pub const PROFILES: Mix = Mix([30, 25, 20, 15, 0, 0, 10]);
}

/// Generates `count` jobs: exponential gaps between arrivals, log-uniform durations from one minute to two hours. The
/// same seed gives the same jobs.
pub fn generate(mix: Mix, count: usize, mean_gap: f64, seed: u64) -> Vec<Job> {
    let mut random = Random(seed);
    let mut arrival = 0.0;
    let jobs = (0..count).map(|_| {
        arrival -= mean_gap * (1.0 - random.unit()).ln();
        let seconds = 60.0 * (random.unit() * 120f64.ln()).exp();
        Job { arrival, seconds, slices: size(mix, random.unit()) }
    });
    jobs.collect()
}

fn size(mix: Mix, unit: f64) -> u32 {
    let total: u32 = mix.0.iter().sum();
    let mut left = unit * f64::from(total);
    for (slices, share) in (1..).zip(mix.0) {
        left -= f64::from(share);
        if left < 0.0 {
            return slices;
        }
    }
    7
}

/// Splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_become_sevenths_and_several_gpus_whole_ones() {
        let text =
            "job_id,arrival_s,duration_s,num_gpu,gpu_milli\nb,9,60,1,460\na,5,10,2,1000\nc,9,0,1,100\n";
        let job = |arrival, seconds, slices| Job { arrival, seconds, slices };
        assert_eq!(parse(text), Ok(vec![job(5.0, 10.0, 14), job(9.0, 60.0, 4)]));
    }

    #[test]
    fn bad_lines_are_named() {
        assert_eq!(parse("arrival_s,num_gpu\n"), Err(TraceError::NoColumn("duration_s")));
        let text = "arrival_s,duration_s,num_gpu,gpu_milli\n1,2,x,4\n";
        assert_eq!(parse(text), Err(TraceError::NoNumber { line: 2, column: "num_gpu" }));
        assert!(parse("").is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_jobs_and_the_mix_is_kept() {
        let jobs = generate(Mix::PROFILES, 2000, 10.0, 7);
        assert_eq!(jobs, generate(Mix::PROFILES, 2000, 10.0, 7));
        assert!(jobs.iter().all(|job| !matches!(job.slices, 5 | 6)));
        let ones = jobs.iter().filter(|job| job.slices == 1).count();
        assert!((500..700).contains(&ones), "{ones}");
        assert!(jobs.iter().all(|job| (60.0..7201.0).contains(&job.seconds)));
    }
}
