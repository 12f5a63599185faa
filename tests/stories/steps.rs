//! Steps of one job draw on the leaves of that job.

use migshare_harness::{Site, ensure, sight, story};

#[test]
fn one_step_after_the_other_has_all_leaves_of_the_job() {
    story(Site::ONE_NODE, |cluster| {
        let job =
            cluster.user().sbatch("-n3 --gres=mig:3 --mig-share", "srun leaf-witness; srun leaf-witness")?;
        job.until_completed()?;
        let seen = job.sights()?;
        ensure(seen.len() == 6, || format!("{} tasks", seen.len()))?;
        seen.iter().try_for_each(|task| task.has_leaves(1))?;
        let mut uuids: Vec<&str> = seen.iter().flat_map(|task| task.uuids()).collect();
        uuids.sort_unstable();
        uuids.dedup();
        ensure(uuids.len() == 3, || format!("two steps on {} leaves", uuids.len()))
    });
}

#[test]
fn concurrent_steps_never_share_a_leaf() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch(
            "-n4 --gres=mig:4 --mig-share",
            "srun --exact -n2 --gres=mig:2 hold both & srun --exact -n2 --gres=mig:2 hold both & wait",
        )?;
        job.until_printed(4, "holding both")?;
        cluster.release("both")?;
        job.until_completed()?;
        sight::each_has_own(&job.sights()?, 4, 1)
    });
}

#[test]
fn a_step_waits_for_leaves_that_another_step_uses() {
    story(Site::ONE_NODE, |cluster| {
        let step = "srun --exact -n1 --gres=mig:3 alone";
        let job = cluster
            .user()
            .sbatch("-n4 --gres=mig:4 --mig-share", &format!("{step} & {step} & {step} & wait"))?;
        job.until_completed()?;
        let alone = job.output().matches("was alone").count();
        ensure(alone == 3 && !job.output().contains("CLASH"), || job.output())
    });
}

#[test]
fn overlapping_steps_share_the_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let step = "srun --overlap -n2 --gres=mig:2 hold both";
        let job =
            cluster.user().sbatch("-n2 --gres=mig:2 --mig-share", &format!("{step} & {step} & wait"))?;
        job.until_printed(4, "holding both")?;
        cluster.release("both")?;
        job.until_completed()?;
        let seen = job.sights()?;
        seen.iter().try_for_each(|task| task.has_leaves(1))?;
        let mut uuids: Vec<&str> = seen.iter().flat_map(|task| task.uuids()).collect();
        uuids.sort_unstable();
        uuids.dedup();
        ensure(uuids.len() == 2, || format!("four tasks on {} leaves", uuids.len()))
    });
}

#[test]
fn a_step_without_gres_has_nothing_and_inherits_nothing() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch("-n1 --gres=mig:2 --mig-share", "srun --gres=none leaf-witness")?;
        job.until_completed()?;
        let seen = job.sights()?;
        ensure(seen.len() == 1, || job.output())?;
        seen[0].has_nothing()
    });
}
