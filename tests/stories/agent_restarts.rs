//! The agent is killed while jobs run: they go on, and the next agent knows everything that was promised.

use migshare_harness::{Cluster, Result, Site, ensure, sight, story, wait};

#[test]
fn a_new_agent_knows_the_leases_of_the_old_one() {
    story(Site::ONE_NODE, |cluster| {
        let user = cluster.user();
        let first = user.start("srun --gres=mig:6 --mig-share -n6 hold first")?;
        first.until_printed(6, "holding")?;
        cluster.node("n1").kill_agent();
        let status = cluster.node("n1").start_agent()?;
        ensure(status.leases.len() == 1 && status.leases[0].leaves == 6, || format!("{:?}", status.leases))?;
        let second = cluster.user().start("srun --gres=mig:8 --mig-share -n8 hold second")?;
        second.until_printed(8, "holding")?;
        cluster.release("first")?;
        cluster.release("second")?;
        let mut seen = first.wait()?.ok()?.sights()?;
        seen.extend(second.wait()?.ok()?.sights()?);
        sight::each_has_own(&seen, 14, 1)
    });
}

#[test]
fn a_job_that_ended_while_no_agent_ran_is_cleaned_up() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().start("srun --gres=mig:5 --mig-share -n5 hold it")?;
        job.until_printed(5, "holding")?;
        cluster.node("n1").kill_agent();
        cluster.release("it")?;
        job.wait()?.ok()?;
        cluster.node("n1").start_agent()?;
        wait_for_leases(cluster, 0)
    });
}

#[test]
fn an_agent_that_is_stopped_in_order_forgets_nothing_either() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().start("srun --gres=mig:3 --mig-share -n3 hold it")?;
        job.until_printed(3, "holding")?;
        cluster.node("n1").stop_agent()?;
        let status = cluster.node("n1").start_agent()?;
        ensure(status.leases.len() == 1, || format!("{:?}", status.leases))?;
        cluster.release("it")?;
        sight::each_has_own(&job.wait()?.ok()?.sights()?, 3, 1)
    });
}

#[test]
fn a_step_that_starts_after_the_restart_gets_the_leaves_of_its_job() {
    story(Site::ONE_NODE, |cluster| {
        let script = "hold script; srun -n2 leaf-witness";
        let job = cluster.user().sbatch("-n2 --gres=mig:2 --mig-share", script)?;
        job.until_printed(1, "holding script")?;
        cluster.node("n1").kill_agent();
        cluster.node("n1").start_agent()?;
        cluster.release("script")?;
        job.until_completed()?;
        let seen = job.sights()?;
        let script = seen.iter().find(|s| s.leaves.len() == 2);
        let steps: Vec<_> = seen.iter().filter(|s| s.leaves.len() == 1).cloned().collect();
        sight::each_has_own(&steps, 2, 1)?;
        ensure(script.is_some_and(|s| steps.iter().all(|t| s.uuids().contains(&t.uuids()[0]))), || {
            format!("{seen:?}")
        })
    });
}

fn wait_for_leases(cluster: &Cluster, leaves: usize) -> Result {
    wait::until(&format!("{leaves} leaves leased"), || match cluster.nodes[0].leased() {
        Ok(n) if n == leaves => Ok(()),
        other => Err(format!("{other:?}")),
    })
}
