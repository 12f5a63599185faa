//! A node that cannot serve stands beside a good one while the queue is full: the good one runs the jobs, the
//! broken one must not eat them.

use migshare_harness::{Cluster, Result, Site, ensure, slurm, story};

const JOBS: usize = 30;

#[test]
fn a_node_without_agent_does_not_eat_the_queue() {
    story(Site::TWO_NODES, |cluster| {
        cluster.node("n1").kill_agent();
        all_run_on(cluster, "n2")?;
        let node = slurm::until_node(cluster, "n1", &["drained"])?;
        ensure(node.reason.starts_with("migshare: "), || format!("{node:?}"))?;
        cluster.node("n1").start_agent()?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}

#[test]
fn a_node_with_a_lost_gpu_does_not_eat_the_queue() {
    story(Site::TWO_NODES, |cluster| {
        cluster.node("n1").nvml_sim(&["lose", "0"])?;
        let node = slurm::until_node(cluster, "n1", &["drained"])?;
        ensure(node.reason.starts_with("migshare: "), || format!("{node:?}"))?;
        all_run_on(cluster, "n2")?;
        cluster.node("n1").nvml_sim(&["reset", "0"])?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}

fn all_run_on(cluster: &Cluster, good: &str) -> Result {
    let user = cluster.user();
    let submit = |_| user.sbatch("-n2 --mem=1 --gres=mig:2 --mig-share", "srun alone");
    let jobs = (0..JOBS).map(submit).collect::<Result<Vec<_>>>()?;
    for job in &jobs {
        job.until_completed_after_requeue()?;
        ensure(job.field("NodeList")? == good, || format!("job {} did not run on {good}", job.id))?;
        ensure(job.output().matches("was alone").count() == 2, || job.output())?;
    }
    Ok(())
}
