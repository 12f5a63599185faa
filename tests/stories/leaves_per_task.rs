//! A step has more leaves than tasks: each task gets several.

use migshare_harness::{Site, ensure, sight, story};

#[test]
fn six_leaves_for_three_tasks_are_two_each() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:6 --mig-share -n3 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 3, 2)?;
        let counted = seen.iter().all(|task| task.env("MIGSHARE_LEAF_COUNT") == "2");
        ensure(counted, || format!("{seen:?}"))
    });
}

#[test]
fn one_task_may_have_every_leaf_of_the_node() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun --gres=mig:14 --mig-share -n1 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 1, 14)
    });
}
