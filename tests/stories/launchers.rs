//! Launchers inside a step: their processes are no children of slurmstepd, and share the step's memory all the same.

use migshare_harness::{Cluster, Outcome, Result, Site, collectives, ensure, require, story};

/// One task that is a launcher, with two leaves.
const STEP: &str = "srun -n1 --mig-share=2";
/// Their output has to go through torchrun: with Python 3.11 Debian's torchrun 1.13 fails on its default, which is not to.
const TORCHRUN: &str =
    "torchrun --standalone --nproc_per_node 2 --redirects 1 --tee 1 --no_python collective-rank torch";
/// The nodes of the cluster have names that are not this machine's: Open MPI is told to start processes here and ask nobody.
const MPIRUN: &str = "mpirun.openmpi --mca plm isolated --mca ras ^slurm -n 2 collective-rank numpy";

/// Whether two ranks added 1 and 2 in the memory that the agent made for their step, and in which other memory.
fn ensure_of_the_step(outcome: Outcome, others: &str) -> Result {
    let printed = outcome.ok()?.stdout;
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains("rank ")).collect();
    let memory = format!(" of 2: sum 3, memory {others}migshare-segment-");
    let whole = |line: &&str| line.contains(&memory) && line.ends_with(".0");
    ensure(lines.len() == 2 && lines.iter().all(whole), || printed.clone())
}

fn launch(cluster: &Cluster, script: &str) -> Result<Outcome> {
    cluster.user().run_script(STEP, script)
}

#[test]
fn ranks_of_any_launcher_find_each_other_in_the_memory_of_their_step() {
    if !require::is_there("mpirun.openmpi") {
        return;
    }
    story(Site::ONE_NODE, |cluster| {
        collectives::install(cluster)?;
        ensure_of_the_step(launch(cluster, MPIRUN)?, "")?;
        ensure_of_the_step(launch(cluster, "collective-rank multiprocessing")?, "")?;
        // Open MPI keeps its sessions in /tmp by user id: a user who is root in here alone must not meet those of the real one.
        let private = format!(
            "unshare --map-root-user --mount sh -c 'mount -t tmpfs none /dev/shm && mkdir -m 700 /dev/shm/tmp && TMPDIR=/dev/shm/tmp exec {}'",
            MPIRUN.replacen("mpirun.openmpi", "mpirun.openmpi --allow-run-as-root", 1)
        );
        ensure_of_the_step(launch(cluster, &private)?, "")
    });
}

#[test]
fn torchruns_first_group_has_the_memory_of_the_step_and_later_ones_their_own() {
    if !require::is_there("torchrun") {
        return;
    }
    story(Site::ONE_NODE, |cluster| {
        collectives::install(cluster)?;
        ensure_of_the_step(launch(cluster, TORCHRUN)?, "migshare ")?;
        // Without a segment the group makes its memory itself, and says nothing: nobody asked for one.
        let without = "srun -n1 --mig-share=2,segment=off";
        let printed = cluster.user().run_script(without, TORCHRUN)?.ok()?.stdout;
        let own = printed.lines().filter(|line| line.ends_with(" of 2: sum 3, memory migshare"));
        ensure(own.count() == 2, || printed.clone())
    });
}
