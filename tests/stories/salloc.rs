//! An allocation that a user works in.

use migshare_harness::{Site, ensure, sight, story};

#[test]
fn steps_in_an_allocation_get_its_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let script = "srun -n4 leaf-witness && srun -n1 --gres=mig:1 leaf-witness";
        let seen =
            cluster.user().run_script("salloc -n4 --gres=mig:4 --mig-share", script)?.ok()?.sights()?;
        let (last, first): (Vec<_>, Vec<_>) = seen.into_iter().partition(|s| s.env("MIGSHARE_SIZE") == "1");
        sight::each_has_own(&first, 4, 1)?;
        sight::each_has_own(&last, 1, 1)
    });
}

#[test]
fn the_interactive_step_sees_all_leaves_of_the_job() {
    story(Site::ONE_NODE, |cluster| {
        let script = "srun --interactive leaf-witness";
        let seen =
            cluster.user().run_script("salloc -n1 --gres=mig:4 --mig-share", script)?.ok()?.sights()?;
        sight::each_has_own(&seen, 1, 4)
    });
}

#[test]
fn a_count_in_the_option_of_salloc_asks_for_leaves() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster
            .user()
            .run_script("salloc -n2 --mig-share=2,spread", "srun leaf-witness")?
            .ok()?
            .sights()?;
        sight::each_has_own(&seen, 2, 1)?;
        ensure(sight::gpus(&seen) == 2, || format!("{seen:?}"))
    });
}
