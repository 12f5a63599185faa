//! Enough leaves are free, but none of the places that a larger instance could have: the user learns who holds them, and
//! the node is never drained for it.

use migshare_harness::slurm::{self, Job};
use migshare_harness::{Cluster, Result, Site, ensure, sight, story, wait};

const REQUEUE: Site = Site { no_place: "requeue", ..Site::TWO_NODES };

/// A job that holds one leaf of each GPU of n1.
fn in_the_way(cluster: &Cluster) -> Result<Job> {
    in_the_way_on(cluster, "n1")
}

fn in_the_way_on(cluster: &Cluster, node: &str) -> Result<Job> {
    let options = format!("-w {node} -n2 --mem=1 --gres=mig:2 --mig-share=spread");
    let job = cluster.user().sbatch(&options, "srun -n1 hold places")?;
    job.until_printed(1, "holding places")?;
    Ok(job)
}

fn undrained(cluster: &Cluster) -> Result {
    let nodes = slurm::node_states(cluster);
    let ours = |n: &slurm::NodeState| n.node == "n1" && n.reason == "none";
    ensure(nodes.as_ref().is_ok_and(|all| all.iter().any(ours)), || format!("{nodes:?}"))
}

#[test]
fn a_job_fails_at_once_and_says_who_holds_the_places_and_what_would_work() {
    story(Site::ONE_NODE, |cluster| {
        let holder = in_the_way(cluster)?;
        let held = format!("held by job {}", holder.id);
        let user = cluster.user();
        let refused = user.run("srun --mem=1 --mig-share=size=7g -n1 true")?.refused()?;
        refused.says(&["refused: 1 instance of 7g.80gb", &held, "ask for up to 12 leaves without size="])?;
        let batch = user.sbatch("--mem=1 --mig-share=size=7g -n1", "true")?;
        batch.until_state("FAILED")?;
        ensure(batch.output().contains(&held), || batch.output())?;
        let told =
            cluster.root().run(&format!("migshare --socket {} explain {}", socket(cluster), batch.id))?;
        ensure(told.stdout.contains("[fragmented]"), || told.stdout.clone())?;
        undrained(cluster)?;
        cluster.release("places")?;
        holder.until_completed()?;
        cluster.user().run("srun --mig-share=size=7g -n1 leaf-witness")?.ok().map(drop)
    });
}

#[test]
fn a_batch_job_is_queued_again_away_from_the_node_where_the_site_says_so() {
    story(REQUEUE, |cluster| {
        let holder = in_the_way(cluster)?;
        // Slurm is to try n1 first.
        cluster.root().run("scontrol update nodename=n2 state=drain reason=story")?.ok()?;
        let job = cluster.user().sbatch("--mem=1 --mig-share=size=7g -n1", "srun leaf-witness")?;
        let excluded = job.until_field("ExcNodeList", "n1")?;
        ensure(excluded == "n1", || excluded)?;
        undrained(cluster)?;
        cluster.root().run("scontrol update nodename=n2 state=resume")?.ok()?;
        job.until_completed_after_requeue()?;
        ensure(job.field("NodeList")? == "n2", || "it did not run on n2".to_owned())?;
        sight::each_has_own(&job.sights()?, 1, 1)?;
        // With no node left to go to, it fails at once as elsewhere; so does what is not a batch job.
        let stuck = cluster.user().sbatch("-w n1 --mem=1 --mig-share=size=7g -n1", "true")?;
        stuck.until_state("FAILED")?;
        ensure(stuck.output().contains("held by job"), || stuck.output())?;
        cluster
            .user()
            .run("srun -w n1 --mem=1 --mig-share=size=7g -n1 true")?
            .refused()?
            .says(&["held by job"])?;
        undrained(cluster)?;
        cluster.release("places")?;
        holder.until_completed()
    });
}

/// The prologs of both nodes find no place at the same moment: each puts the job back and keeps it away from its node, and neither undoes
/// what the other has done.
#[test]
fn a_job_of_two_nodes_is_kept_away_from_both_though_their_prologs_race() {
    story(Site { nodes: 4, ..REQUEUE }, |cluster| {
        let holders = ["n1", "n2"].map(|node| in_the_way_on(cluster, node));
        let holders = holders.into_iter().collect::<Result<Vec<_>>>()?;
        cluster.root().run("scontrol update nodename=n[3-4] state=drain reason=story")?.ok()?;
        let job = cluster
            .user()
            .sbatch("-N2 -n2 --ntasks-per-node=1 --mem=1 --mig-share=size=7g", "srun leaf-witness")?;
        // Which prolog comes first decides the order; Slurm keeps it as it was written.
        wait::until("both nodes excluded", || {
            match job.field("ExcNodeList").map_err(|e| e.to_string())? {
                list if ["n[1-2]", "n1,n2", "n2,n1"].contains(&list.as_str()) => Ok(()),
                other => Err(other),
            }
        })?;
        let nodes = slurm::node_states(cluster);
        let ours = |n: &&slurm::NodeState| ["n1", "n2"].contains(&n.node.as_str()) && n.reason == "none";
        let undrained = nodes.as_ref().is_ok_and(|all| all.iter().filter(ours).count() == 2);
        ensure(undrained, || format!("{nodes:?}"))?;
        cluster.root().run("scontrol update nodename=n[3-4] state=resume")?.ok()?;
        job.until_completed_after_requeue()?;
        ensure(job.field("NodeList")? == "n[3-4]", || job.field("NodeList").unwrap_or_default())?;
        sight::each_has_own(&job.sights()?, 2, 1)?;
        cluster.release("places")?;
        holders.iter().try_for_each(Job::until_completed)
    });
}

fn socket(cluster: &Cluster) -> String {
    cluster.nodes[0].home.socket().display().to_string()
}
