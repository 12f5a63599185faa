//! Bad text in the option is refused before anything is queued, with the option's name and what is allowed.

use migshare_harness::{Site, ensure, slurm, story};

const BAD: &[&str] = &[
    "0",
    "-1",
    "+3",
    "3.5",
    "x",
    "3x",
    "0x3",
    "3,",
    ",3",
    "3,,pack",
    "3,4",
    "pack,spread",
    "pack,pack",
    "PACK",
    "packs",
    "99999999999999999999",
    "3;id",
    "3=pack",
    "%n",
    "$(id)",
    "٣",
];

#[test]
fn bad_text_is_refused_with_the_options_name_and_what_is_allowed() {
    story(Site::ONE_NODE, |cluster| {
        for text in BAD {
            let refused = cluster.user().run(&format!("srun --mig-share={text} -n1 true"))?.refused()?;
            refused.says(&["--mig-share", "pack", "spread"])?;
        }
        let queued = slurm::queue(cluster);
        ensure(queued.as_ref().is_ok_and(Vec::is_empty), || format!("{queued:?}"))?;
        // The first job of this cluster comes only now: none of the refused ones took a number.
        let job = cluster.user().sbatch("", "true")?;
        ensure(job.id == cluster.first_job(), || format!("job {}", job.id))?;
        job.until_completed()
    });
}

#[test]
fn sbatch_and_salloc_refuse_it_too() {
    story(Site::ONE_NODE, |cluster| {
        let user = cluster.user();
        user.run("sbatch --mig-share=0 --wrap=true")?.refused()?.says(&["--mig-share"])?;
        user.run("salloc --mig-share=none true")?.refused()?.says(&["--mig-share"])?;
        let script = user.work_file("directive.sh");
        migshare_harness::artifacts::write(&script, "#!/bin/sh\n#SBATCH --mig-share=many\ntrue\n")?;
        user.run(&format!("sbatch {}", script.display()))?.refused()?.says(&["--mig-share"])?;
        Ok(())
    });
}

#[test]
fn the_option_is_in_the_help_text() {
    story(Site::ONE_NODE, |cluster| {
        let help = cluster.user().run("srun --help")?.ok()?.stdout;
        ensure(help.contains("--mig-share"), || help)
    });
}
