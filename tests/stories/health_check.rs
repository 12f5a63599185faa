//! Slurm's HealthCheckProgram is `migshare health`: a node whose agent died is drained before any job gets there.

use migshare_harness::{Site, ensure, slurm, story};

#[test]
fn a_node_is_drained_when_its_agent_dies_and_resumed_when_it_is_back() {
    story(Site { health_check: true, ..Site::TWO_NODES }, |cluster| {
        cluster.node("n1").kill_agent();
        let node = slurm::until_node(cluster, "n1", &["drained"])?;
        ensure(node.reason.starts_with("migshare: "), || format!("{node:?}"))?;
        let job = cluster.user().sbatch("-n2 --gres=mig:2 --mig-share", "srun alone")?;
        job.until_completed()?;
        ensure(job.field("NodeList")? == "n2" && job.field("Restarts")? == "0", || "it met n1".to_owned())?;
        cluster.node("n1").start_agent()?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}
