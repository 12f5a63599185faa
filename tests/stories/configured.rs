//! `migshare-gres` knows what Slurm must be told: it finds nothing wrong with a running cluster, and names what is.

use migshare_harness::{Cluster, Outcome, Result, Site, artifacts, ensure, process, story};
use std::process::Command;

#[test]
fn the_check_accepts_a_cluster_that_works() {
    story(Site::TWO_NODES, |cluster| check(cluster)?.ok().map(drop));
}

#[test]
fn the_check_names_a_count_that_differs() {
    story(Site::ONE_NODE, |cluster| {
        let gres = cluster.path("etc/gres.conf");
        artifacts::write(&gres, "NodeName=n1 Name=mig Count=7\n")?;
        let found = check(cluster)?;
        ensure(found.code == Some(1), || format!("{found:?}"))?;
        let text = format!("{}{}", found.stdout, found.stderr);
        ensure(text.contains("gres.conf") && text.contains('7') && text.contains("14"), || text)?;
        artifacts::write(&gres, "NodeName=n1 Name=mig Count=14\n")
    });
}

#[test]
fn the_rendered_text_is_what_the_cluster_runs_with() {
    story(Site::ONE_NODE, |cluster| {
        let text = gres(cluster, "render")?.ok()?.stdout;
        let wanted = ["GresTypes=mig", "NodeName=n1", "Name=mig Count=14", "required"];
        let missing: Vec<_> = wanted.iter().filter(|w| !text.contains(**w)).collect();
        ensure(missing.is_empty(), || format!("no {missing:?} in {text}"))
    });
}

fn check(cluster: &Cluster) -> Result<Outcome> {
    gres(cluster, "check")
}

fn gres(cluster: &Cluster, command: &str) -> Result<Outcome> {
    let mut gres = Command::new(artifacts::Artifacts::find()?.get("migshare-gres")?);
    gres.arg(command).arg("--socket").arg(cluster.nodes[0].home.socket());
    gres.env("SLURM_CONF", cluster.path("etc/slurm.conf"));
    process::run(gres)
}
