//! The demo: a two-node Slurm cluster with two simulated H100 per node, and what migshare does on it.
//!
//! Each scene shows a command, what came out of it, and what was checked. What a task has is never taken from a
//! variable: `leaf-witness` asks NVML through NVIDIA's Python binding and tries the device files. The last line
//! says what was checked; anything that differed ends the demo with a failure, and nothing is left running.
#![forbid(unsafe_code)]

mod scenes;
mod storage;
mod training;

use migshare_harness::{Cluster, Result, Site, interrupt};
use std::process::ExitCode;

/// A scene returns what it checked.
type Scene = fn(&mut Cluster) -> Result<String>;

const SCENES: &[(&str, Scene)] = &[
    ("three tasks on three leaves", scenes::three_tasks),
    ("nine leaves across two GPUs", scenes::nine_leaves),
    ("a batch job with two concurrent steps, and `migshare status` meanwhile", scenes::two_steps),
    ("a request that is refused, with its reason", scenes::refusal),
    ("data-parallel training over leaves of two GPUs", training::data_parallel),
    ("a rank that is killed in the middle of it", training::killed_rank),
    ("a data set behind a contended link, read from cache and network at once", storage::contended_link),
];

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the demo needs root: it starts a Slurm cluster and loads device filters");
        return ExitCode::FAILURE;
    }
    match interrupt::watch().and_then(|()| play()) {
        Ok(checked) => {
            println!("\ndemo passed; checked: {}", checked.join("; "));
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("\ndemo FAILED: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Result<Vec<String>> {
    println!("starting munge, slurmctld and two nodes with two simulated H100, an agent and a slurmd each …");
    let mut cluster = Cluster::prepare(Site::TWO_NODES)?;
    cluster.bring_up()?;
    let mut checked = Vec::new();
    for (number, (title, scene)) in (1..).zip(SCENES) {
        println!("\n== {number} of {}: {title}", SCENES.len());
        checked.push(scene(&mut cluster)?);
    }
    println!("\nstopping …");
    cluster.settle()?;
    cluster.bring_down()?;
    checked.push("afterwards no leaf leased, no process left, no node drained".to_owned());
    Ok(checked)
}
