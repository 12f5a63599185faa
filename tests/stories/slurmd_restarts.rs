//! slurmd is restarted while jobs run: steps are processes of their own, and nothing about leaves depends on slurmd.

use migshare_harness::{Cluster, Result, Site, ensure, sight, slurm, story};

#[test]
fn a_restarted_slurmd_changes_nothing_for_a_running_job() {
    story(Site::ONE_NODE, |cluster| run_across(cluster, |cluster| cluster.node("n1").stop_slurmd()));
}

#[test]
fn a_killed_slurmd_changes_nothing_for_a_running_job() {
    story(Site::ONE_NODE, |cluster| {
        run_across(cluster, |cluster| {
            cluster.node("n1").kill_slurmd();
            Ok(())
        })
    });
}

/// A job runs while slurmd is stopped in this way and started again; then both it and a new job have their leaves.
fn run_across(cluster: &mut Cluster, stop: impl FnOnce(&mut Cluster) -> Result) -> Result {
    let first = cluster.user().start("srun --gres=mig:6 --mig-share -n2 hold first")?;
    first.until_printed(1, "holding first")?;
    stop(cluster)?;
    cluster.node("n1").start_slurmd()?;
    slurm::until_node(cluster, "n1", &["mixed", "allocated"])?;
    ensure(cluster.nodes[0].leased()? == 6, || "the restart cost the job its leaves".to_owned())?;
    let second = cluster.user().start("srun --gres=mig:8 --mig-share -n2 hold second")?;
    second.until_printed(1, "holding second")?;
    cluster.release("first")?;
    cluster.release("second")?;
    let mut seen = second.wait()?.ok()?.sights()?;
    sight::each_has_own(&seen, 2, 4)?;
    let earlier = first.wait()?.ok()?.sights()?;
    sight::each_has_own(&earlier, 2, 3)?;
    seen.extend(earlier);
    sight::none_shared(&seen)
}
