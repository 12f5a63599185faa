//! Jobs that end badly give their leaves back all the same.

use migshare_harness::{Cluster, Result, Sight, Site, ensure, sight, slurm, story, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_cancelled_job_gives_its_leaves_back() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch("-n2 --gres=mig:5 --mig-share", "srun -n1 hold ever")?;
        job.until_printed(1, "holding ever")?;
        ensure(cluster.nodes[0].leased()? == 5, || "the job holds no leaves".to_owned())?;
        job.cancel()?;
        job.until_state("CANCELLED")
    });
}

#[test]
fn a_killed_srun_gives_its_leaves_back() {
    story(Site::ONE_NODE, |cluster| {
        let running = cluster.user().start("srun --gres=mig:3 --mig-share -n3 hold ever")?;
        running.until_printed(1, "holding ever")?;
        // Dropping it kills it with a signal that it cannot catch; Slurm ends the job when the task's output breaks
        // or the job is cancelled, as an admin would do.
        drop(running);
        cluster.root().run("scancel --user=nobody")?.ok().map(drop)
    });
}

#[test]
fn a_task_killed_by_a_signal_fails_its_job_alone() {
    story(Site::ONE_NODE, |cluster| {
        let other = cluster.user().sbatch("-n1 --gres=mig:2 --mig-share", "srun hold other")?;
        other.until_printed(1, "holding other")?;
        let died = cluster.user().run_script("srun -n1 --gres=mig:2 --mig-share", "kill -9 $$")?;
        ensure(died.code != Some(0), || format!("{died:?}"))?;
        cluster.release("other")?;
        other.until_completed()
    });
}

#[test]
fn a_job_whose_slurmstepd_was_killed_gives_its_leaves_back() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch("--no-requeue -n2 --gres=mig:4 --mig-share", "srun -n2 hold ever")?;
        job.until_printed(1, "holding ever")?;
        kill_every(cluster, &format!("slurmstepd: [{}.0]", job.id))?;
        // The tasks lost their keeper: nothing but the end of the job takes them along.
        kill_every(cluster, "hold ever")?;
        job.cancel()?;
        cluster.until_idle()
    });
}

#[test]
fn a_requeued_job_runs_again_with_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster
            .user()
            .sbatch("--open-mode=append -n2 --gres=mig:2 --mig-share", "srun -n2 hold again")?;
        job.until_printed(2, "holding again")?;
        cluster.root().run(&format!("scontrol requeue {}", job.id))?.ok()?;
        job.until_state("PENDING")?;
        cluster.release("again")?;
        // Slurm lets a requeued job begin two minutes later unless it is told otherwise, and takes a start in the
        // second of the requeue for the job that it has just killed.
        cluster.root().run(&format!("scontrol update jobid={} starttime=now+2seconds", job.id))?.ok()?;
        job.until_completed()?;
        let output = job.output();
        let (first, second) = output.split_once("DUE TO JOB REQUEUE").unwrap_or_default();
        sight::each_has_own(&Sight::read_all(first)?, 2, 1)?;
        sight::each_has_own(&Sight::read_all(second)?, 2, 1)
    });
}

fn kill_every(cluster: &Cluster, command: &str) -> Result {
    let found: Vec<_> = cluster.job_processes().into_iter().filter(|p| p.command.contains(command)).collect();
    ensure(!found.is_empty(), || format!("no process `{command}`"))?;
    for process in found {
        let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
    }
    wait::until(&format!("rid of `{command}`"), || {
        let left = cluster.job_processes().iter().any(|p| p.command.contains(command));
        if left { Err(format!("{:?}", slurm::queue(cluster))) } else { Ok(()) }
    })
}
