//! Jobs that did not ask for leaves: they get none, and cost nothing.

use migshare_harness::{Site, Trouble, ensure, story};
use std::os::unix::net::UnixListener;

#[test]
fn a_job_that_did_not_ask_has_no_leaf() {
    story(Site::ONE_NODE, |cluster| {
        let seen = cluster.user().run("srun -n2 leaf-witness")?.ok()?.sights()?;
        ensure(seen.len() == 2, || format!("{seen:?}"))?;
        seen.iter().try_for_each(migshare_harness::Sight::has_nothing)
    });
}

#[test]
fn variables_from_outside_do_not_reach_its_tasks() {
    story(Site::ONE_NODE, |cluster| {
        let line = "env CUDA_VISIBLE_DEVICES=MIG-1 NVIDIA_VISIBLE_DEVICES=MIG-1 MIGSHARE_LEAVES=MIG-1 srun -n1 leaf-witness";
        let seen = cluster.user().run(line)?.ok()?.sights()?;
        ensure(seen.len() == 1, || format!("{seen:?}"))?;
        seen[0].has_nothing()
    });
}

#[test]
fn it_never_opens_the_agents_socket() {
    story(Site::ONE_NODE, |cluster| {
        cluster.node("n1").stop_agent()?;
        let socket = cluster.nodes[0].home.socket();
        let cannot = |cause| Trouble::File { what: socket.display().to_string(), cause };
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        cluster.user().run("srun -n2 true")?.ok()?;
        cluster.user().sbatch("-n1", "srun true")?.until_completed()?;
        cluster.until_idle()?;
        ensure(listener.accept().is_err(), || "somebody called the agent".to_owned())?;
        drop(listener);
        std::fs::remove_file(&socket).map_err(cannot)?;
        cluster.node("n1").start_agent().map(drop)
    });
}
