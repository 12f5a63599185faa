//! No agent answers on a node: the job is told so, the node is taken out of scheduling, and comes back by itself.

use migshare_harness::{Site, ensure, sight, slurm, story};

#[test]
fn a_job_is_told_and_the_node_is_drained_until_the_agent_is_back() {
    story(Site::ONE_NODE, |cluster| {
        cluster.node("n1").kill_agent();
        let failed = cluster.user().run("srun --gres=mig:1 --mig-share -n1 leaf-witness")?;
        failed.refused()?.says(&["migshare", "agent"])?;
        let node = slurm::until_node(cluster, "n1", &["drained", "drained*"])?;
        ensure(node.reason.starts_with("migshare: "), || format!("{node:?}"))?;
        cluster.node("n1").start_agent()?;
        slurm::until_node(cluster, "n1", &["idle"])?;
        let seen = cluster.user().run("srun --gres=mig:1 --mig-share -n1 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 1, 1)
    });
}

#[test]
fn a_running_job_goes_on_and_a_step_in_it_is_told() {
    story(Site::ONE_NODE, |cluster| {
        let script = "hold script; srun -n1 leaf-witness && echo unexpected; echo after";
        let job = cluster.user().sbatch("-n1 --gres=mig:2 --mig-share", script)?;
        job.until_printed(1, "holding script")?;
        cluster.node("n1").kill_agent();
        cluster.release("script")?;
        job.until_printed(1, "after")?;
        let output = job.output();
        ensure(output.contains("migshare") && !output.contains("unexpected"), || output)?;
        cluster.node("n1").start_agent().map(drop)
    });
}

#[test]
fn a_drain_by_somebody_else_is_left_alone() {
    story(Site::ONE_NODE, |cluster| {
        cluster.root().run("scontrol update nodename=n1 state=drain reason=cleaning")?.ok()?;
        cluster.node("n1").kill_agent();
        cluster.node("n1").start_agent()?;
        let node = slurm::until_node(cluster, "n1", &["drained"])?;
        ensure(node.reason == "cleaning", || format!("{node:?}"))?;
        cluster.root().run("scontrol update nodename=n1 state=resume")?.ok().map(drop)
    });
}
