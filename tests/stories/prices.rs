//! Instances whose price is not the same everywhere: refused before they are queued, and paid for where it is certain.

use migshare_harness::{Cluster, Result, Sight, Site, ensure, slurm, story};

/// A node of H100 and a node of H200.
const TWO_KINDS: Site = Site { models: &["h100-sxm-80", "h200"], ..Site::TWO_NODES };

#[test]
fn a_price_that_differs_between_the_nodes_is_refused_at_submit_with_the_way_out() {
    story(TWO_KINDS, |cluster| {
        let user = cluster.user();
        for line in ["srun --gres=mig:4 --mig-share=mem=30G -n1 true", "srun --mig-share=mem=30G -n1 true"] {
            let refused = user.run(line)?.refused()?;
            refused.says(&[
                "4 leaves on NVIDIA H100",
                "2 leaves on NVIDIA H200",
                "--constraint=h100-sxm-80",
            ])?;
        }
        let queued = slurm::queue(cluster);
        ensure(queued.as_ref().is_ok_and(Vec::is_empty), || format!("{queued:?}"))?;
        // Each of the ways that the refusal names.
        let on = |line: &str, node: &str, profile: &str| {
            let seen =
                user.run(&format!("srun --mig-share=mem=30G {line} -n1 leaf-witness"))?.ok()?.sights()?;
            have(&seen, 1, &[node], profile)
        };
        on("--constraint=h100-sxm-80", "n1", "3g.")?;
        on("--constraint=h200 --gres=mig:2", "n2", "1g.35gb")?;
        on("-w n2", "n2", "1g.35gb")?;
        // What does not differ is not refused, and a job of leaves alone is not looked at.
        let seen = user.run("srun --mig-share=size=2g -n1 leaf-witness")?.ok()?.sights()?;
        have(&seen, 1, &["n1", "n2"], "2g.")?;
        user.run("srun --mig-share=2 -n2 leaf-witness")?.ok().map(drop)
    });
}

#[test]
fn a_size_alone_asks_for_the_leaves_of_its_tasks() {
    story(Site::TWO_NODES, |cluster| {
        let user = cluster.user();
        let seen = user.run("srun --mig-share=size=2g -n3 leaf-witness")?.ok()?.sights()?;
        have(&seen, 3, &["n1"], "2g.")?;
        let seen = user.run("srun --mig-share=size=3g -N2 -n4 leaf-witness")?.ok()?.sights()?;
        have(&seen, 4, &["n1", "n2"], "3g.")?;
        let on_first = seen.iter().filter(|task| task.node == "n1").count();
        ensure(on_first == 2, || format!("{on_first} of 4 tasks on n1"))?;
        let job = user.sbatch("--mig-share=size=2g --ntasks-per-node=2 -N2", "srun leaf-witness")?;
        job.until_completed()?;
        have(&job.sights()?, 4, &["n1", "n2"], "2g.")?;
        user.run("srun --mig-share=size=7g -n3 true")?.refused()?.says(&["21 leaves", "more than 14"])?;
        user.run("srun --mig-share=size=2g -N2 -n3 true")?.refused()?.says(&["do not lie evenly"]).map(drop)
    });
}

#[test]
fn without_a_price_table_jobs_go_on() {
    story(Site::ONE_NODE, |cluster| {
        std::fs::remove_file(cluster.path("etc/prices")).map_err(|e| cannot(&e))?;
        let user = cluster.user();
        user.run("srun --mig-share=2 -n2 leaf-witness")?.ok()?;
        user.run("srun --gres=mig:2 --mig-share=size=2g -n1 leaf-witness")?.ok()?;
        user.run("srun --mig-share=size=2g -n1 true")?.refused()?.says(&["etc/prices", "--gres=mig:N"])?;
        idle(cluster)
    });
}

fn have(seen: &[Sight], tasks: usize, nodes: &[&str], profile: &str) -> Result {
    ensure(seen.len() == tasks, || format!("{} tasks instead of {tasks}", seen.len()))?;
    for task in seen {
        task.has_leaves(1)?;
        ensure(nodes.contains(&task.node.as_str()), || format!("a task on {}", task.node))?;
        ensure(task.leaves[0].name.contains(profile), || format!("no {profile}: {:?}", task.leaves[0]))?;
    }
    Ok(())
}

fn idle(cluster: &Cluster) -> Result {
    slurm::until_node(cluster, "n1", &["idle"]).map(drop)
}

fn cannot(e: &std::io::Error) -> migshare_harness::Trouble {
    migshare_harness::Trouble::Program(e.to_string())
}
