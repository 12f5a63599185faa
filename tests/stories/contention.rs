//! More jobs than leaves: they queue, all of them run, and no leaf is ever used by two.

use migshare_harness::{Result, Site, ensure, story};

#[test]
fn jobs_queue_for_leaves_and_all_of_them_run() {
    story(Site::TWO_NODES, |cluster| {
        let user = cluster.user();
        // 24 jobs of five leaves; two fit on a node of fourteen.
        let jobs = (0..24)
            .map(|_| user.sbatch("-n5 --mem=1 --gres=mig:5 --mig-share", "srun alone"))
            .collect::<Result<Vec<_>>>()?;
        for job in &jobs {
            job.until_completed()?;
            let output = job.output();
            ensure(output.matches("was alone").count() == 5, || output)?;
        }
        Ok(())
    });
}

#[test]
fn jobs_of_many_sizes_share_a_node() {
    story(Site::ONE_NODE, |cluster| {
        let user = cluster.user();
        let submit = |n: usize| user.sbatch(&format!("-n{n} --mem=1 --mig-share={n}"), "srun alone");
        let jobs =
            [1, 7, 2, 14, 3, 5, 1, 9, 4, 6, 2, 8].map(submit).into_iter().collect::<Result<Vec<_>>>()?;
        jobs.iter().try_for_each(|job| job.until_completed())?;
        let clash = jobs.iter().find(|job| job.output().contains("CLASH"));
        ensure(clash.is_none(), || clash.map(|job| job.output()).unwrap_or_default())
    });
}
