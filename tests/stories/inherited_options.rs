//! Steps inherit the option of their job through the environment: it must not change what they ask for themselves.

use migshare_harness::{Site, ensure, sight, story};

#[test]
fn an_inherited_count_does_not_override_what_a_step_asks_for() {
    story(Site::ONE_NODE, |cluster| {
        let script = "srun -n4 leaf-witness; echo ---; srun -n1 --gres=mig:1 leaf-witness; echo ---\n\
                      srun -n1 --gres=none leaf-witness; echo ---; srun -n2 --gres=mig:4 leaf-witness";
        let job = cluster.user().sbatch("-n4 --mig-share=4", script)?;
        job.until_completed()?;
        let output = job.output();
        let steps =
            output.split("---").map(migshare_harness::Sight::read_all).collect::<Result<Vec<_>, _>>()?;
        ensure(steps.len() == 4 && steps[2].len() == 1, || output.clone())?;
        sight::each_has_own(&steps[0], 4, 1)?;
        sight::each_has_own(&steps[1], 1, 1)?;
        steps[2][0].has_nothing()?;
        sight::each_has_own(&steps[3], 2, 2)
    });
}

#[test]
fn concurrent_steps_are_not_serialised_by_an_inherited_count() {
    story(Site::ONE_NODE, |cluster| {
        // srun writes a long line in parts: what two of them write to one file is put together line by line.
        let step = "srun --exact -n1 --gres=mig:2 hold both | sed -u p -n";
        let job = cluster.user().sbatch("-n2 --mig-share=4", &format!("{step} & {step} & wait"))?;
        job.until_printed(2, "holding both")?;
        cluster.release("both")?;
        job.until_completed()?;
        sight::each_has_own(&job.sights()?, 2, 2)
    });
}

#[test]
fn a_bare_option_reaches_the_steps_of_the_script() {
    story(Site::ONE_NODE, |cluster| {
        let job = cluster.user().sbatch("-n2 --gres=mig:2 --mig-share", "srun leaf-witness")?;
        job.until_completed()?;
        sight::each_has_own(&job.sights()?, 2, 1)
    });
}

#[test]
fn an_explicit_gres_that_agrees_wins_and_one_that_disagrees_is_refused() {
    story(Site::ONE_NODE, |cluster| {
        let user = cluster.user();
        let seen = user.run("srun --gres=mig:3 --mig-share=3 -n3 leaf-witness")?.ok()?.sights()?;
        sight::each_has_own(&seen, 3, 1)?;
        let refused = user.run("srun --gres=mig:2 --mig-share=3 -n2 leaf-witness")?.refused()?;
        refused.says(&["--mig-share", "--gres"]).map(drop)
    });
}
