//! A task tries a leaf that is not its own: the device filter keeps it out, whatever the environment says.

use migshare_harness::{Site, ensure, sight, story};

#[test]
fn a_task_cannot_open_the_leaf_of_another_job() {
    story(Site::ONE_NODE, |cluster| {
        let victim = cluster.user().start("srun --gres=mig:1 --mig-share -n1 hold victim")?;
        victim.until_printed(1, "holding victim")?;
        let held = &migshare_harness::Sight::read_all(&victim.stdout())?[0];
        let script = format!("CUDA_VISIBLE_DEVICES={} leaf-witness", held.leaves[0].uuid);
        let seen = cluster.user().run_script("srun --gres=mig:1 --mig-share -n1", &script)?.ok()?.sights()?;
        let intruder = &seen[0];
        ensure(held.caps.iter().all(|cap| intruder.denied.contains(cap)), || format!("{intruder:?}"))?;
        ensure(intruder.leaves.len() == 1 && intruder.leaves[0] != held.leaves[0], || {
            format!("{intruder:?}")
        })?;
        cluster.release("victim")?;
        sight::each_has_own(&victim.wait()?.ok()?.sights()?, 1, 1)
    });
}

#[test]
fn tasks_of_one_step_cannot_open_each_others_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:4 --mig-share -n4 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 4, 1)?;
        let apart = seen.iter().all(|a| {
            seen.iter().filter(|b| b.task != a.task).all(|b| b.caps.iter().all(|cap| a.denied.contains(cap)))
        });
        ensure(apart, || format!("{seen:?}"))
    });
}

#[test]
fn a_device_file_of_roots_own_making_opens_nothing_either() {
    story(Site::ONE_NODE, |cluster| {
        let victim = cluster.user().start("srun --gres=mig:1 --mig-share -n1 hold victim")?;
        victim.until_printed(1, "holding victim")?;
        let held = &migshare_harness::Sight::read_all(&victim.stdout())?[0];
        let made = cluster.work().join("made");
        let make = format!("mknod {} c 235 {}", made.display(), held.caps[0]);
        let look = format!("cat {}", made.display());
        let job = "srun --gres=mig:1 -n1";
        cluster.root().run(&format!("{job} {make}"))?.refused()?.says(&["Operation not permitted"])?;
        // Outside of the filter it can be made, and fails to open only because no driver stands behind it.
        cluster.root().run(&make)?.ok()?;
        cluster.root().run(&look)?.refused()?.says(&["No such device or address"])?;
        cluster.root().run(&format!("{job} {look}"))?.refused()?.says(&["Operation not permitted"])?;
        cluster.release("victim")?;
        victim.wait()?.ok().map(drop)
    });
}
