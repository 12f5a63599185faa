//! The ranks of a step share memory, and nobody else reaches it.

use migshare_harness::{Cluster, Result, Running, Site, ensure, story, wait};

const LINE: &str = "srun --mig-share=2 -n2";

/// Waits until two ranks have seen each other's names.
fn until_shared(step: &mut Running) -> Result {
    wait::until("two ranks that share memory", || {
        let seen = step.stdout();
        if seen.matches("bytes: ").count() == 2 { Ok(()) } else { Err(seen) }
    })
}

/// Whether each rank has shown both names of the step.
fn ensure_both(printed: &str, ranks: usize) -> Result {
    let lines: Vec<&str> = printed.lines().filter(|l| l.starts_with("rank ")).collect();
    let whole = lines.iter().all(|line| line.contains(".0.0 ") && line.trim_end().ends_with(".0.1"));
    ensure(lines.len() == ranks && whole, || printed.to_owned())
}

/// What the agent of the first node has on its list.
fn listed(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.nodes[0].home.agent_state().join("segments.json")).unwrap_or_default()
}

#[test]
fn ranks_share_bytes_and_another_job_of_the_same_user_is_refused() {
    story(Site::ONE_NODE, |cluster| {
        let mut step = cluster.user().start(&format!("{LINE} segment-rank shared"))?;
        until_shared(&mut step)?;
        let other = "MIGSHARE_RANK=0 MIGSHARE_SIZE=2 MIGSHARE_SEGMENT_SOCKET=";
        let script = format!(
            "{other}{} segment-rank",
            cluster.nodes[0].home.socket().with_file_name("segment.sock").display()
        );
        let said = cluster.user().run_script("srun --mig-share=1 -n1", &script)?.refused()?.stdout;
        ensure(said.contains("refused: step") && said.contains("has no segment"), || said.clone())?;
        // A step of another user asks as such a step; who is in none is told so, root too.
        let said = cluster.root().run_script("srun --mig-share=1 -n1", &script)?.refused()?.stdout;
        ensure(said.contains("refused: step") && said.contains("has no segment"), || said.clone())?;
        let said = cluster.user().run_script("env", &script)?.refused()?.stdout;
        ensure(said.contains("in no job step that has leaves"), || said.clone())?;
        let said = cluster.root().run_script("env", &script)?.refused()?.stdout;
        ensure(said.contains("in no job step that has leaves"), || said.clone())?;
        cluster.release("shared")?;
        let printed = step.wait()?.ok()?.stdout;
        ensure_both(&printed, 2)?;
        wait::until("given back", || {
            let list = listed(cluster);
            if list.contains("\"segments\":[]") { Ok(()) } else { Err(list) }
        })
    });
}

#[test]
fn two_jobs_of_one_user_have_memory_of_their_own() {
    story(Site::ONE_NODE, |cluster| {
        let mut one = cluster.user().start(&format!("{LINE} segment-rank both"))?;
        let mut two = cluster.user().start(&format!("{LINE} segment-rank both"))?;
        until_shared(&mut one)?;
        until_shared(&mut two)?;
        cluster.release("both")?;
        let (one, two) = (one.wait()?.ok()?.stdout, two.wait()?.ok()?.stdout);
        ensure_both(&one, 2)?;
        ensure_both(&two, 2)?;
        let job = |printed: &str| {
            printed.split("bytes: ").nth(1).and_then(|n| n.split('.').next()).map(str::to_owned)
        };
        let alone =
            |own: &str, other: &str| job(other).is_some_and(|job| !own.contains(&format!("{job}.0.")));
        ensure(alone(&one, &two) && alone(&two, &one), || format!("{one}\n{two}"))
    });
}

#[test]
fn slurms_own_cgroups_are_as_good() {
    story(Site { contain: true, ..Site::ONE_NODE }, |cluster| {
        let printed = cluster.user().run(&format!("{LINE} segment-rank"))?.ok()?.stdout;
        ensure_both(&printed, 2)
    });
}

#[test]
fn a_launcher_and_a_private_dev_shm_make_no_difference() {
    story(Site::ONE_NODE, |cluster| {
        let launched = "setsid sh -c 'segment-rank & wait $!'";
        let printed = cluster.user().run_script(LINE, launched)?.ok()?.stdout;
        ensure_both(&printed, 2)?;
        let private =
            "unshare --map-root-user --mount sh -c 'mount -t tmpfs none /dev/shm && exec segment-rank'";
        let printed = cluster.user().run_script(LINE, private)?.ok()?.stdout;
        ensure_both(&printed, 2)?;
        // A launcher in the batch script itself: all of its ranks are in the batch step.
        let script = "for rank in 0 1; do MIGSHARE_RANK=$rank MIGSHARE_SIZE=2 SLURM_STEP_ID=0 segment-rank & done; wait";
        let job = cluster.user().sbatch("-n1 --gres=mig:2 --mig-share", script)?;
        job.until_completed()?;
        ensure_both(&job.output(), 2)
    });
}

#[test]
fn a_restart_of_the_agent_keeps_the_memory() {
    story(Site::ONE_NODE, |cluster| {
        let mut step = cluster.user().start(&format!("{LINE} segment-rank kept"))?;
        until_shared(&mut step)?;
        cluster.node("n1").kill_agent();
        cluster.node("n1").start_agent()?;
        cluster.release("kept")?;
        let printed = step.wait()?.ok()?.stdout;
        let again =
            printed.lines().filter(|l| l.starts_with("again ") && l.contains(".0.0 ") && l.ends_with(".0.1"));
        ensure(again.count() == 2, || printed.clone())
    });
}

#[test]
fn the_size_is_the_users_within_the_sites_limit() {
    story(Site::ONE_NODE, |cluster| {
        let line = "srun --mig-share=2,segment=32M -n2 segment-rank";
        let printed = cluster.user().run(line)?.ok()?.stdout;
        ensure_both(&printed, 2)?;
        ensure(printed.contains(&format!("{} bytes", 32 << 20)), || printed.clone())?;
        let refused = cluster.user().run("srun --mig-share=2,segment=1T -n2 segment-rank")?.refused()?;
        refused.says(&["migshare", "a segment of 1T", "segments.max"])?;
        let without = cluster.user().run("srun --mig-share=2,segment=off -n2 segment-rank")?.refused()?;
        without.says(&["MIGSHARE_SEGMENT_SOCKET"]).map(drop)
    });
}
