//! Requests that cannot be served: the user learns why and what to ask for, and no node is drained for it.

use migshare_harness::{Site, ensure, slurm, story};

#[test]
fn fewer_leaves_than_tasks_is_refused_with_the_way_out() {
    story(Site::ONE_NODE, |cluster| {
        let refused = cluster.user().run("srun --gres=mig:2 --mig-share -n3 leaf-witness")?.refused()?;
        refused.says(&["migshare", "3 tasks", "2 leaves", "mig:3"])?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}

#[test]
fn a_batch_job_that_is_refused_fails_and_the_node_stays() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch("-n3 --gres=mig:2 --mig-share", "srun -n3 leaf-witness")?;
        job.until_state("FAILED")?;
        ensure(job.output().contains("migshare"), || job.output())?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}

#[test]
fn more_leaves_than_a_node_has_is_refused_by_slurm() {
    story(Site::ONE_NODE, |cluster| {
        let refused = cluster.user().run("srun --gres=mig:15 --mig-share -n1 leaf-witness")?.refused()?;
        refused.says(&["Requested node configuration is not available"])?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}

#[test]
fn the_next_job_runs_after_many_refusals() {
    story(Site::ONE_NODE, |cluster| {
        for _ in 0..5 {
            cluster.user().run("srun --gres=mig:1 -n2 true")?.refused()?;
        }
        cluster.user().run("srun --gres=mig:14 -n14 true")?.ok().map(drop)
    });
}
