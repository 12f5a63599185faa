//! Agents, slurmds and tasks are killed at random moments while jobs come and go: nothing is granted twice, and
//! nothing is left over. The moments follow from a seed, which the test's name gives.

use migshare_harness::slurm::Job;
use migshare_harness::{Cluster, Result, Site, ensure, story};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

const ROUNDS: usize = 20;

#[test]
fn nothing_leaks_with_seed_1() {
    storm(1);
}

#[test]
fn nothing_leaks_with_seed_2() {
    storm(2);
}

#[test]
fn nothing_leaks_with_seed_3() {
    storm(3);
}

fn storm(seed: u64) {
    story(Site::TWO_NODES, |cluster| {
        let mut dice = Dice(seed);
        let mut jobs: Vec<Job> = Vec::new();
        for _ in 0..ROUNDS {
            let leaves = 1 + dice.below(7);
            let line = format!("--requeue -n{leaves} --mem=1 --mig-share={leaves}");
            jobs.push(cluster.user().sbatch(&line, "srun alone; srun alone")?);
            // Not to wait for anything: a moment that nobody chose.
            std::thread::sleep(Duration::from_millis(dice.below(200)));
            strike(cluster, &mut dice)?;
        }
        // Slurm holds back or has lost what ran under a killed slurmd: nothing of it is to stay.
        cluster.root().run("scancel --user=nobody")?.ok()?;
        let clash = jobs.iter().map(Job::output).find(|output| output.contains("CLASH"));
        ensure(clash.is_none(), || clash.unwrap_or_default())
    });
}

/// Kills something of the cluster; daemons are started again at once.
fn strike(cluster: &mut Cluster, dice: &mut Dice) -> Result {
    let node = usize::from(dice.below(2) == 1);
    match dice.below(3) {
        0 => {
            cluster.nodes[node].kill_agent();
            cluster.nodes[node].launch_agent()
        }
        1 => {
            cluster.nodes[node].kill_slurmd();
            cluster.nodes[node].start_slurmd()
        }
        _ => {
            let tasks = cluster.job_processes().into_iter().filter(|p| p.command.contains("/bin/alone"));
            let tasks: Vec<_> = tasks.collect();
            if let Some(task) = tasks.get(dice.below(tasks.len().max(1) as u64) as usize) {
                let _ = kill(Pid::from_raw(task.pid.cast_signed()), Signal::SIGKILL);
            }
            Ok(())
        }
    }
}

/// The generator `SplitMix64` (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
