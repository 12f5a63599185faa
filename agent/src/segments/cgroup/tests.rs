use super::*;

const HYBRID: &str = "\
25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
29 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";
const UNIFIED: &str = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

fn on(mountinfo: &str, cgroups: &str) -> Home {
    judge(cgroups, &mounts(mountinfo), "n1", |_| true)
}

fn step(job: u32, step: u32) -> Home {
    Home::Step(job, StepId(step))
}

#[test]
fn slurms_names_of_v1_are_known_with_and_without_the_nodes_name() {
    assert_eq!(on(HYBRID, "4:freezer:/slurm/uid_1000/job_7/step_0/task_1\n0::/\n"), step(7, 0));
    assert_eq!(on(HYBRID, "4:freezer:/slurm_n1/uid_1000/job_7/step_12\n0::/\n"), step(7, 12));
    let batch = on(HYBRID, "9:cpu,cpuacct:/slurm/uid_0/job_7/step_batch/task_0\n");
    assert_eq!(batch, Home::Step(7, StepId::BATCH));
}

#[test]
fn slurms_names_of_v2_are_known_with_and_without_the_nodes_name() {
    let scope = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_1\n";
    assert_eq!(on(UNIFIED, scope), step(7, 0));
    assert_eq!(
        on(UNIFIED, "0::/system.slice/n1_slurmstepd.scope/job_7/step_3/user/task_special\n"),
        step(7, 3)
    );
    let inter = on(UNIFIED, "0::/system.slice/slurmstepd.scope/job_7/step_interactive/user\n");
    assert_eq!(inter, Home::Step(7, StepId::INTERACTIVE));
}

#[test]
fn the_device_filters_names_are_known() {
    assert_eq!(on(HYBRID, "4:freezer:/\n0::/migshare_n1_7.0.3\n"), step(7, 0));
    assert_eq!(on(UNIFIED, "0::/system.slice/slurmd.service/migshare_n1_7.batch.0/made/inside\n"), {
        Home::Step(7, StepId::BATCH)
    });
}

#[test]
fn another_node_on_the_same_host_is_elsewhere() {
    for path in
        ["/slurm_n2/uid_1/job_7/step_0", "/x/n2_slurmstepd.scope/job_7/step_0/user", "/migshare_n2_7.0.0"]
    {
        assert_eq!(on(UNIFIED, &format!("0::{path}\n")), Home::Elsewhere, "{path}");
    }
}

#[test]
fn names_that_only_look_alike_name_nothing() {
    for path in [
        "/",
        "/job_7/step_0",
        "/user.slice/job_7/step_0",
        "/slurm/uid_1000/job_7",
        "/slurm/uid_1000/job_7/x/step_0",
        "/slurm/uid_1000/job_x/step_0",
        "/slurm/uid_1000/job_7/step_0x",
        "/slurmish/uid_1000/job_7x/step_0",
        "/migshare_n1_7.0",
        "/migshare_n1_7.0.0.0",
        "/../slurm/uid_1/job_7/step_0",
    ] {
        assert_eq!(on(UNIFIED, &format!("0::{path}\n")), Home::Unnamed, "{path}");
    }
    assert_eq!(on(UNIFIED, "garbage\n\n0:\n"), Home::Unnamed);
    assert_eq!(
        on("", "0::/slurm/uid_1/job_7/step_0\n"),
        Home::Unnamed,
        "what is not mounted is not believed"
    );
}

#[test]
fn two_hierarchies_have_to_agree() {
    let same = "4:freezer:/slurm_n1/uid_1/job_7/step_0/task_0\n0::/migshare_n1_7.0.0\n";
    assert_eq!(on(HYBRID, same), step(7, 0));
    let other = "4:freezer:/slurm_n1/uid_1/job_8/step_0/task_0\n0::/migshare_n1_7.0.0\n";
    assert_eq!(on(HYBRID, other), Home::Elsewhere);
}

#[test]
fn a_directory_below_one_of_a_users_is_not_believed() {
    let users = |owned: &'static str| {
        move |dir: &Path| !dir.ends_with(owned) && !dir.to_string_lossy().contains("user@1000.service")
    };
    let forged = "0::/user.slice/user@1000.service/app/slurmstepd.scope/job_8/step_0\n";
    assert_eq!(judge(forged, &mounts(UNIFIED), "n1", users("none")), Home::Unnamed);
    let forged = "0::/user.slice/user@1000.service/migshare_n1_8.0.0\n";
    assert_eq!(judge(forged, &mounts(UNIFIED), "n1", users("none")), Home::Unnamed);
    // Slurm gives the step's own directory to the user on v1; what is above it stays root's.
    let own = "4:freezer:/slurm/uid_1000/job_7/step_0/mine\n";
    assert_eq!(judge(own, &mounts(HYBRID), "n1", users("step_0")), step(7, 0));
    let own = "4:freezer:/slurm/uid_1000/job_7/step_0/slurm/uid_1000/job_8/step_0\n";
    assert_eq!(judge(own, &mounts(HYBRID), "n1", users("step_0")), step(7, 0), "the first name counts");
}
