//! The command: replays a trace, or generated jobs, three times and prints the three outcomes side by side.

use anyhow::{Context, bail};
use clap::Parser;
use migshare_policy::placement::Direction;
use migshare_sim::dynamic::Dynamic;
use migshare_sim::fixed::Fixed;
use migshare_sim::leaves::Leaves;
use migshare_sim::replay::{Outcome, replay};
use migshare_sim::speed::Overhead;
use migshare_sim::trace::{Job, Mix, generate, parse};
use std::path::PathBuf;

/// Replays jobs on GPUs shared one-to-many, by a static layout, and by cutting drained GPUs anew.
#[derive(Debug, Parser)]
struct Args {
    /// Comma-separated trace with the columns arrival_s, duration_s, num_gpu and gpu_milli
    #[arg(long, conflicts_with = "mix")]
    trace: Option<PathBuf>,
    /// Generated jobs: small, even or profiles
    #[arg(long, default_value = "even")]
    mix: String,
    /// Number of jobs; of a trace, the last so many
    #[arg(long, default_value_t = 2000)]
    jobs: usize,
    /// Mean seconds between generated arrivals
    #[arg(long, default_value_t = 60.0)]
    gap: f64,
    /// Seed of the generated jobs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes
    #[arg(long, default_value_t = 4)]
    nodes: u32,
    /// GPUs of each node
    #[arg(long, default_value_t = 4)]
    gpus: u32,
    /// Seconds to cut a drained GPU anew
    #[arg(long, default_value_t = 60.0)]
    cut: f64,
    /// Share of its time that a job of several leaves loses
    #[arg(long, default_value_t = Overhead::default().several)]
    several: f64,
    /// Share that it loses in addition on several GPUs
    #[arg(long, default_value_t = Overhead::default().across)]
    across: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.nodes == 0 || args.gpus == 0 {
        bail!("--nodes and --gpus must be at least 1");
    }
    let jobs = jobs(&args)?;
    let overhead = Overhead { several: args.several, across: args.across };
    let layouts: Vec<&[u32]> = (0..args.gpus).map(|gpu| STATIC[gpu as usize % STATIC.len()]).collect();
    let many = replay(&jobs, &mut Leaves::new(args.nodes, args.gpus, Direction::Pack, overhead));
    let fixed = replay(&jobs, &mut Fixed::new(args.nodes, &layouts));
    let dynamic = replay(&jobs, &mut Dynamic::new(args.nodes, args.gpus, args.cut));
    println!(
        "{:<12} {:>6} {:>10} {:>12} {:>12} {:>14}",
        "", "ran", "impossible", "makespan s", "wait s", "turnaround s"
    );
    for (name, outcome) in [("one-to-many", &many), ("static", &fixed), ("dynamic", &dynamic)] {
        row(name, outcome);
    }
    println!(
        "RESULT {{\"makespan_static_over_many\": {:.3}, \"makespan_dynamic_over_many\": {:.3}, \
         \"turnaround_static_over_many\": {:.3}, \"turnaround_dynamic_over_many\": {:.3}}}",
        fixed.makespan / many.makespan,
        dynamic.makespan / many.makespan,
        fixed.mean_turnaround / many.mean_turnaround,
        dynamic.mean_turnaround / many.mean_turnaround
    );
    Ok(())
}

/// Layouts of the static GPUs, in turn: half of them whole, so that every job of one GPU can run.
const STATIC: [&[u32]; 2] = [&[7], &[4, 2, 1]];

fn jobs(args: &Args) -> anyhow::Result<Vec<Job>> {
    let Some(path) = &args.trace else {
        let mix = match args.mix.as_str() {
            "small" => Mix::SMALL,
            "even" => Mix::EVEN,
            "profiles" => Mix::PROFILES,
            other => bail!("--mix {other}: it must be small, even or profiles"),
        };
        return Ok(generate(mix, args.jobs, args.gap, args.seed));
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let jobs = parse(&text).with_context(|| format!("in {}", path.display()))?;
    Ok(jobs[jobs.len().saturating_sub(args.jobs)..].to_vec())
}

fn row(name: &str, outcome: &Outcome) {
    let Outcome { ran, impossible, makespan, mean_wait, mean_turnaround } = outcome;
    println!(
        "{name:<12} {ran:>6} {impossible:>10} {makespan:>12.0} {mean_wait:>12.0} {mean_turnaround:>14.0}"
    );
}
