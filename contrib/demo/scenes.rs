//! The scenes of the demo, in order. Each types what a user would type, and fails when something differs.

use migshare_harness::{Cluster, Outcome, Result, Sight, ensure, sight};

/// One leaf for each of three tasks.
pub(crate) fn three_tasks(cluster: &mut Cluster) -> Result<String> {
    let seen = show_run(cluster, "srun --gres=mig:3 --mig-share -n3 leaf-witness")?;
    sight::each_has_own(&seen, 3, 1)?;
    Ok("three tasks had one leaf each, all different".to_owned())
}

/// More leaves than one GPU has.
pub(crate) fn nine_leaves(cluster: &mut Cluster) -> Result<String> {
    let line = "srun -N1 --gres=mig:9 --mig-share -n9 hold nine";
    println!("$ {line}        # each task shows what it has, then waits");
    let running = cluster.user().start(line)?;
    running.until_printed(9, "holding nine")?;
    let seen = Sight::read_all(&running.stdout())?;
    show(&seen);
    sight::each_has_own(&seen, 9, 1)?;
    show_status(cluster, &seen[0].node, 9)?;
    cluster.release("nine")?;
    running.wait()?.ok()?;
    ensure(sight::gpus(&seen) == 2, || format!("nine leaves on {} GPUs", sight::gpus(&seen)))?;
    Ok("nine tasks had nine leaves on two GPUs and `migshare status` showed them".to_owned())
}

/// Two steps of one job run at the same time; the agent's picture is shown while they do.
pub(crate) fn two_steps(cluster: &mut Cluster) -> Result<String> {
    let options = "-N1 -n4 --gres=mig:4 --mig-share";
    let script =
        "srun --exact -n2 --gres=mig:2 hold steps &\nsrun --exact -n2 --gres=mig:2 hold steps &\nwait";
    println!("$ sbatch {options} <<'EOF'\n{script}\nEOF");
    let job = cluster.user().sbatch(options, script)?;
    job.until_printed(4, "holding steps")?;
    show_status(cluster, &job.field("NodeList")?, 4)?;
    cluster.release("steps")?;
    job.until_completed()?;
    let seen = job.sights()?;
    show(&seen);
    sight::each_has_own(&seen, 4, 1)?;
    Ok("two concurrent steps of one job had two leaves each, none shared, and `migshare status` showed the job".to_owned())
}

/// Fewer leaves than tasks.
pub(crate) fn refusal(cluster: &mut Cluster) -> Result<String> {
    let line = "srun --gres=mig:2 --mig-share -n3 leaf-witness";
    println!("$ {line}");
    let refused = cluster.user().run(line)?.refused()?.says(&["migshare", "3 tasks", "2 leaves", "mig:3"])?;
    print!("{}", refused.stderr);
    Ok("three tasks on two leaves were refused with the way out".to_owned())
}

fn show_run(cluster: &Cluster, line: &str) -> Result<Vec<Sight>> {
    println!("$ {line}");
    let seen = cluster.user().run(line)?.ok()?.sights()?;
    show(&seen);
    Ok(seen)
}

pub(crate) fn show(seen: &[Sight]) {
    for task in seen {
        let (step, number) = (task.step.unwrap_or_default(), task.task.unwrap_or_default());
        for leaf in &task.leaves {
            let gpu = leaf.gpu.get(..12).unwrap_or(&leaf.gpu);
            println!(
                "  {} step {step} task {number}: NVML shows {} {}, {} MiB, of {gpu}…",
                task.node, leaf.uuid, leaf.name, leaf.memory_mib
            );
        }
    }
}

/// The status of a node as an admin sees it, and whether it knows the job's leaves.
fn show_status(cluster: &mut Cluster, node: &str, leaves: usize) -> Result {
    let socket = cluster.node(node).home.socket();
    let Outcome { stdout, .. } =
        cluster.root().run(&format!("migshare --socket {} status", socket.display()))?.ok()?;
    println!("$ migshare status        # on {node}, meanwhile\n{}", stdout.trim_end());
    let leased = cluster.node(node).leased()?;
    ensure(leased == leaves, || format!("{leased} leaves leased on {node}, not {leaves}"))
}
