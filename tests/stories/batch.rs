//! Batch jobs: the script itself sees all leaves of its job, the steps in it get theirs.

use migshare_harness::{Site, ensure, sight, story};

#[test]
fn the_script_sees_all_leaves_of_its_job() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch("--gres=mig:4 --mig-share", "leaf-witness")?;
        job.until_completed()?;
        sight::each_has_own(&job.sights()?, 1, 4)
    });
}

#[test]
fn the_script_sees_its_leaves_while_a_step_uses_some() {
    story(Site::ONE_NODE, |cluster| {
        let script = "srun -n1 --exact --gres=mig:2 hold step & until [ -e $HOME/look ]; do sleep 0.05; done\n\
                      leaf-witness; wait";
        let job = cluster.user().sbatch("-n2 --gres=mig:3 --mig-share", script)?;
        job.until_printed(1, "holding step")?;
        migshare_harness::artifacts::write(&cluster.work().join("look"), "")?;
        migshare_harness::wait::until("a look by the script", || match job.sights() {
            Ok(seen) if seen.len() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        cluster.release("step")?;
        job.until_completed()?;
        let mut counts: Vec<usize> = job.sights()?.iter().map(|s| s.leaves.len()).collect();
        counts.sort_unstable();
        ensure(counts == [2, 3], || format!("{counts:?}"))
    });
}

#[test]
fn directives_in_the_script_are_options() {
    story(Site::ONE_NODE, |cluster| {
        let script = "#SBATCH --mig-share=3,spread\n#SBATCH -n3\nsrun leaf-witness";
        let job = cluster.user().sbatch("", script)?;
        job.until_completed()?;
        let seen = job.sights()?;
        sight::each_has_own(&seen, 3, 1)?;
        ensure(sight::gpus(&seen) == 2, || format!("on {} GPUs", sight::gpus(&seen)))
    });
}

#[test]
fn a_job_without_its_users_environment_gets_its_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let script = "echo script=$MIGSHARE_LEAF_COUNT; srun -n2 /bin/sh -c 'echo task=$MIGSHARE_LEAF_COUNT'";
        let job = cluster.user().sbatch("--export=NONE -n2 --mig-share=2", script)?;
        job.until_completed()?;
        let output = job.output();
        ensure(output.contains("script=2") && output.matches("task=1").count() == 2, || output)
    });
}

#[test]
fn every_task_of_an_array_is_a_job_of_its_own() {
    story(Site::ONE_NODE, |cluster| {
        let job =
            cluster.user().sbatch("--array=1-4 --open-mode=append --gres=mig:3 --mig-share", "hold all")?;
        job.until_printed(4, "holding all")?;
        cluster.release("all")?;
        cluster.until_idle()?;
        sight::each_has_own(&job.sights()?, 4, 3)
    });
}

/// The recipe of the storage sidecar, which unmounts and flushes when it is told to end. Without a trap, what a script leaves
/// running is killed where jobs are cgroups, and lives on elsewhere.
#[test]
fn what_a_script_started_beside_is_ended_in_order_by_its_trap() {
    story(Site::ONE_NODE, |cluster| {
        let up = "$HOME/up-$SLURM_JOB_ID";
        let beside = format!(
            "( trap 'sleep 0.5; echo in order; exit' TERM; touch {up}; while :; do sleep 0.1; done ) & beside=$!\n\
             until [ -e {up} ]; do sleep 0.05; done; echo beside\n"
        );
        let trap = "trap 'kill \"$beside\"; wait \"$beside\"' EXIT\n";
        let ended = cluster.user().sbatch("", &format!("{beside}{trap}"))?;
        ended.until_completed()?;
        ended.until_printed(1, "in order")?;
        // Not bash, which would run the other trap by itself.
        let script = format!("{beside}{trap}trap 'exit 143' TERM\necho works; sleep 600");
        let cancelled = cluster.user().sbatch("", &script)?;
        cancelled.until_printed(1, "works")?;
        cancelled.cancel()?;
        cancelled.until_state("CANCELLED")?;
        cancelled.until_printed(1, "in order")
    });
}
