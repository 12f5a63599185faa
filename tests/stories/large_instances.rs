//! Ranks that need more than a leaf: instances made for the job from idle places, paid for in leaves.

use migshare_harness::{Site, ensure, slurm, story, wait};

#[test]
fn each_rank_gets_an_instance_of_its_size_and_the_leaves_come_back() {
    story(Site::ONE_NODE, |cluster| {
        let seen =
            cluster.user().run("srun --gres=mig:4 --mig-share=size=2g -n2 leaf-witness")?.ok()?.sights()?;
        ensure(seen.len() == 2, || format!("{} tasks", seen.len()))?;
        for task in &seen {
            task.has_leaves(1)?;
            ensure(task.leaves[0].name.contains("2g."), || format!("{:?}", task.leaves[0]))?;
        }
        let node = cluster.node("n1");
        wait::until("all leaves back", || {
            let status = node.status().map_err(|e| e.to_string())?;
            let leaves = status.gpus.iter().flat_map(|gpu| &gpu.leaves);
            let small = leaves.filter(|leaf| leaf.profile.starts_with("1g.")).count();
            if small == 14 { Ok(()) } else { Err(format!("{small} leaves")) }
        })
    });
}

#[test]
fn a_count_that_does_not_pay_for_whole_instances_is_refused_with_the_price() {
    story(Site::ONE_NODE, |cluster| {
        let refused =
            cluster.user().run("srun --gres=mig:3 --mig-share=size=2g -n1 leaf-witness")?.refused()?;
        refused.says(&["charged 2 leaves", "mig:2 or 4"])?;
        slurm::until_node(cluster, "n1", &["idle"]).map(drop)
    });
}
