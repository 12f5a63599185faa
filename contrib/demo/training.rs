//! The scenes with a training: ranks on leaves of two GPUs share memory, and reduce their gradients through it.
//!
//! Slurm, leases, device filters, segment and collectives are real; the leaves are simulated, so the network itself runs on the
//! CPU (`train-digits`).

use crate::scenes::show;
use migshare_harness::artifacts::{Artifacts, stage};
use migshare_harness::{Cluster, Outcome, Result, Sight, Trouble, collectives, ensure, process, sight};
use std::path::{Path, PathBuf};
use std::process::Command;

const STEP: &str = "srun -N1 -n4 --mig-share=4,spread";
/// Losses may differ by the order in which floating-point numbers are summed: shares first, or whole batches.
const ROUNDING: f64 = 1e-9;

/// Four ranks, and one process alone: the same losses, drawn over each other.
pub(crate) fn data_parallel(cluster: &mut Cluster) -> Result<String> {
    furnish(cluster)?;
    let (shared, alone) = (cluster.work().join("losses-4"), cluster.work().join("losses-1"));
    let outcome = train(cluster, STEP, &shared, "")?.ok()?;
    let seen = Sight::read_all(&outcome.stdout)?;
    show(&seen);
    sight::each_has_own(&seen, 4, 1)?;
    ensure(sight::gpus(&seen) == 2, || format!("four leaves on {} GPUs", sight::gpus(&seen)))?;
    show_result(&outcome)?;
    show_result(&train(cluster, "srun -N1 -n1 --mig-share=1", &alone, "--alone")?.ok()?)?;
    let (together, single) = (losses(&shared)?, losses(&alone)?);
    let difference = largest_difference(&together, &single)?;
    ensure(difference < ROUNDING, || format!("the losses differ by {difference:e}"))?;
    let falls = together.last() < together.first().map(|first| first / 10.0).as_ref();
    ensure(falls, || format!("nothing was learnt: {together:?}"))?;
    println!("  largest difference between the two runs in {} steps: {difference:.1e}", single.len());
    let png = draw(&alone, &shared)?;
    println!("  drawn: {}", png.display());
    Ok("four ranks on leaves of two GPUs trained with the losses of the single-process run".to_owned())
}

/// One of four ranks is killed; the others say so and end.
pub(crate) fn killed_rank(cluster: &mut Cluster) -> Result<String> {
    let outcome = train(cluster, STEP, &cluster.work().join("losses-killed"), "--die 2:100")?.refused()?;
    let told: Vec<&str> = outcome.stderr.lines().filter(|l| l.contains("training ended in step")).collect();
    outcome.stderr.lines().for_each(|line| println!("  {line}"));
    let ended = [0, 1, 3].iter().all(|rank| {
        told.iter().any(|line| {
            line.contains(&format!("rank {rank}: ")) && line.contains("PEER_LOST: rank 2 is gone")
        })
    });
    ensure(ended, || "not every rank was told that rank 2 is gone".to_owned())?;
    Ok("when a rank was killed in the middle the other three ended with PEER_LOST, which names it".to_owned())
}

/// Runs the training under Slurm, each rank after its witness.
fn train(cluster: &Cluster, step: &str, losses: &Path, options: &str) -> Result<Outcome> {
    let data = cluster.path("lib/digits.csv.gz");
    let script =
        format!("leaf-witness && exec train-digits {} {} {options}", data.display(), losses.display());
    println!("$ {step} train-digits digits.csv.gz {options}");
    cluster.user().run_script(step, &script)
}

/// Puts the training, its data and migshare's Python package into the cluster's directory.
fn furnish(cluster: &Cluster) -> Result {
    let built = Artifacts::find()?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    stage(&sources.join("contrib/demo/train-digits"), &cluster.path("bin/train-digits"), 0o755)?;
    let digits = built.python_file("sklearn/datasets/data/digits.csv.gz")?;
    stage(&digits, &cluster.path("lib/digits.csv.gz"), 0o644)?;
    collectives::install(cluster)
}

fn show_result(outcome: &Outcome) -> Result {
    let line = outcome.stdout.lines().find(|line| line.contains(" steps: loss "));
    let line = line.ok_or_else(|| Trouble::Unexpected(format!("no result in {}", outcome.stdout)))?;
    println!("  {line}");
    Ok(())
}

/// The losses in a file, one a line.
fn losses(path: &Path) -> Result<Vec<f64>> {
    let cannot = |cause: String| Trouble::Unexpected(format!("{}: {cause}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| cannot(e.to_string()))?;
    text.lines().map(|line| line.parse().map_err(|_| cannot(format!("{line:?} is no loss")))).collect()
}

fn largest_difference(one: &[f64], other: &[f64]) -> Result<f64> {
    ensure(one.len() == other.len() && !one.is_empty(), || {
        format!("{} steps and {} steps", one.len(), other.len())
    })?;
    Ok(one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

fn draw(alone: &Path, shared: &Path) -> Result<PathBuf> {
    let built = Artifacts::find()?;
    let png = built.demo()?.join("digits.png");
    let mut command = Command::new(built.python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/demo/draw-losses")).arg(&png);
    command.arg(format!("one process={}", alone.display()));
    command.arg(format!("four ranks on leaves of two GPUs={}", shared.display()));
    process::run(command)?.ok()?;
    Ok(png)
}
