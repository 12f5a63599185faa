//! A job is launched: each task has a leaf of its own, proven by NVML and by the device files.

use migshare_harness::{Cluster, Result, Sight, Site, ensure, sight, story};

#[test]
fn three_tasks_get_a_leaf_each() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:3 --mig-share -n3 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 3, 1)
    });
}

#[test]
fn nine_leaves_span_two_gpus() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:9 --mig-share -n9 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 9, 1)?;
        ensure(sight::gpus(&seen) == 2, || format!("on {} GPUs: {seen:?}", sight::gpus(&seen)))
    });
}

#[test]
fn a_count_in_the_option_asks_slurm_for_the_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --mig-share=3 -n3 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 3, 1)
    });
}

#[test]
fn the_gres_alone_gives_leaves_too() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:2 -n2 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 2, 1)
    });
}

#[test]
fn every_node_gives_its_own_leaves() {
    story(Site::TWO_NODES, |cluster| {
        let seen = apart(cluster, "-N2 -n6 --ntasks-per-node=3 --gres=mig:3 --mig-share")?;
        sight::each_has_own(&seen, 6, 1)?;
        let on_first = seen.iter().filter(|s| s.node == "n1").count();
        ensure(on_first == 3, || format!("{on_first} tasks on n1"))
    });
}

#[test]
fn pack_takes_one_gpu_and_spread_takes_both() {
    story(Site::ONE_NODE, |cluster| {
        for (shape, gpus) in [("pack", 1), ("spread", 2)] {
            let line = format!("srun --mig-share=4,{shape} -n4 leaf-witness");
            let seen = cluster.user().run(&line)?.ok()?.sights()?;
            sight::each_has_own(&seen, 4, 1)?;
            ensure(sight::gpus(&seen) == gpus, || format!("{shape}: {} GPUs", sight::gpus(&seen)))?;
        }
        Ok(())
    });
}

#[test]
fn the_environment_says_what_nvml_says() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:2 --mig-share -n2 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 2, 1)?;
        for (rank, task) in (0..).zip(&seen) {
            let leaf = &task.leaves[0];
            assert_eq!(task.env("MIGSHARE_LEAVES"), leaf.uuid);
            assert_eq!(task.env("MIGSHARE_LEAF_COUNT"), "1");
            assert_eq!(task.env("MIGSHARE_RANK"), format!("{rank}"));
            assert_eq!(task.env("MIGSHARE_SIZE"), "2");
            assert_eq!(task.env("MIGSHARE_MEMORY_MIB"), leaf.memory_mib.to_string());
            assert!(leaf.name.ends_with(task.env("MIGSHARE_PROFILES")), "{task:?}");
            let step: Vec<&str> = task.env("MIGSHARE_STEP_LEAVES").split(',').collect();
            assert_eq!(task.env("NVIDIA_VISIBLE_DEVICES"), step.join(","));
            assert!(step.len() == 2 && step.contains(&leaf.uuid.as_str()), "{task:?}");
        }
        Ok(())
    });
}

#[test]
fn root_is_held_to_its_leaves_as_well() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.root().run("srun --gres=mig:2 --mig-share -n2 leaf-witness")?.ok()?.sights()?;
        for task in &seen {
            // NVML shows root everything; what counts is which device files can be opened.
            ensure(task.caps.len() == 2 && task.denied.len() == 26, || format!("{task:?}"))?;
        }
        ensure(seen.len() == 2 && seen[0].caps != seen[1].caps, || format!("{seen:?}"))
    });
}

#[test]
fn an_extern_step_and_tracking_by_cgroup_change_nothing() {
    story(Site { contain: true, ..Site::TWO_NODES }, |cluster| {
        let options = "-N2 -n4 --ntasks-per-node=2 --gres=mig:2 --mig-share";
        sight::each_has_own(&apart(cluster, options)?, 4, 1)
    });
}

/// What the tasks of several nodes saw. srun mixes their output in pieces of a kibibyte, so each writes a file of its own.
fn apart(cluster: &Cluster, options: &str) -> Result<Vec<Sight>> {
    let files = cluster.user().work_file("seen").display().to_string();
    cluster.user().run(&format!("srun {options} -o {files}.%t leaf-witness"))?.ok()?;
    cluster.user().run_script("env", &format!("cat {files}.*"))?.ok()?.sights()
}
