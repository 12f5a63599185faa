//! A GPU is taken out of service while the queue is full: running jobs go on, Slurm sends no more, none fails, and the
//! node is back when the GPU is.

use migshare_harness::{Cluster, Result, Site, ensure, slurm, story, wait};

#[test]
fn no_job_fails_because_a_gpu_is_cordoned() {
    story(Site::ONE_NODE, |cluster| {
        let user = cluster.user();
        let running = user.sbatch("-n1 --mem=1 --gres=mig:7 --mig-share=pack", "srun hold gpu")?;
        running.until_printed(1, "holding gpu")?;
        let busy = cluster.nodes[0].status()?;
        let busy = busy.gpus.iter().find(|g| g.leaves.iter().any(|l| l.job.is_some())).map(|g| g.index);
        let busy = busy.unwrap_or_default();
        // Seven leaves are free: these come and go while the other jobs' GPU is cordoned.
        let submit = |n: usize| user.sbatch(&format!("-n1 --mem=1 --gres=mig:{}", 1 + n % 7), "srun alone");
        let before = (0..10).map(submit).collect::<Result<Vec<_>>>()?;
        ensure(migshare(cluster, &format!("cordon {busy} --note fan"))?.starts_with("done\n"), || {
            "cordon".to_owned()
        })?;
        let node = slurm::until_node(cluster, "n1", &["draining", "drained"])?;
        ensure(node.reason.contains(&format!("gpu {busy} is cordoned: fan")), || format!("{node:?}"))?;
        let shown = migshare(cluster, "status")?;
        ensure(shown.contains("cordoned: fan"), || shown)?;
        let after = (0..3).map(submit).collect::<Result<Vec<_>>>()?;
        for job in &after {
            ensure(job.field("JobState")? == "PENDING", || format!("job {} was sent to the node", job.id))?;
        }
        cluster.release("gpu")?;
        running.until_completed()?;
        ensure(migshare(cluster, &format!("uncordon {busy}"))?.starts_with("done\n"), || {
            "uncordon".to_owned()
        })?;
        slurm::until_node(cluster, "n1", &["idle", "mixed", "allocated"])?;
        for job in before.iter().chain(&after) {
            job.until_completed_after_requeue()?;
            ensure(job.output().contains("was alone"), || job.output())?;
        }
        Ok(())
    });
}

fn migshare(cluster: &Cluster, words: &str) -> Result<String> {
    let socket = cluster.nodes[0].home.socket();
    Ok(cluster.root().run(&format!("migshare --socket {} {words}", socket.display()))?.stdout)
}

/// An srun that Slurm sent here before it knew cannot be queued again: it is served, the others wait for the GPU.
#[test]
fn no_srun_fails_because_a_gpu_is_cordoned_while_it_starts() {
    story(Site::ONE_NODE, |cluster| {
        let user = cluster.user();
        let all = || user.start("srun -n1 --mem=1 --gres=mig:14 alone");
        let mut sruns = (0..4).map(|_| all()).collect::<Result<Vec<_>>>()?;
        migshare(cluster, "cordon 0 --note fan")?;
        sruns.extend((0..4).map(|_| all()).collect::<Result<Vec<_>>>()?);
        slurm::until_node(cluster, "n1", &["draining", "drained"])?;
        // Those that had a node have it to their end.
        wait::until("only waiting jobs", || {
            let queue = slurm::queue(cluster)?;
            let runs = queue.iter().find(|job| job.state != "PENDING");
            runs.map_or(Ok(()), |job| Err(format!("{job:?}")))
        })?;
        migshare(cluster, "uncordon 0")?;
        for srun in sruns {
            srun.wait()?.ok()?;
        }
        Ok(())
    });
}
