//! NCCL's network plugin reaches one node: a step on several is refused before it starts, and never led astray.

use migshare_harness::{Site, collectives, ensure, story};

#[test]
fn a_step_on_several_nodes_that_asks_for_our_network_is_refused_before_its_tasks_start() {
    story(Site::TWO_NODES, |cluster| {
        let plugin = collectives::install_network(cluster)?;
        let init = format!("nccl-net-init {}", plugin.display());
        let (asked, two) = ("env NCCL_NET=migshare", "srun -N2 -n2 --mig-share=2");
        let refused = cluster.user().run_script(&format!("{asked} {two}"), "echo started")?.refused()?;
        ensure(!refused.stdout.contains("started"), || refused.stdout.clone())?;
        refused.says(&["migshare: NCCL_NET=migshare carries data within one node", "2 nodes", "-N1"])?;
        // A program that asks for it by itself is refused by the plugin, and NCCL's log says why (5 is ncclInvalidUsage).
        let said = cluster.user().run_script(two, &init)?.ok()?.stdout;
        let refusals = said.lines().filter(|line| {
            line.contains("init answered 5: NET/migshare: the job runs on 2 nodes (SLURM_STEP_NUM_NODES)")
        });
        ensure(refusals.count() == 2, || said.clone())?;
        // One node of a job on two serves.
        let options = "-N2 --gres=mig:2 --mig-share --export=ALL,NCCL_NET=migshare";
        let script =
            cluster.user().sbatch(options, &format!("srun -N1 -n1 --gres=mig:2 --mig-share {init}"))?;
        script.until_completed()?;
        let said = script.output();
        ensure(said.contains("init answered 0: NET/migshare: host shared memory, one node"), || said.clone())
    });
}
