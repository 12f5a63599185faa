//! What users without privilege can see and do, and that they cannot harm the rest.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use crate::library::*;
use crate::node::{Node, inside, skip};

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// A node with two leaves, and this program and the library where everybody can reach them.
struct Shared {
    node: Node,
    program: PathBuf,
}

impl Shared {
    fn new() -> Shared {
        let node = Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\nmig = true");
        node.sim(&["init"]);
        let program = node.path("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let library = crate::node::shared_object();
        std::fs::copy(&library, node.path("libnvidia_ml.so")).unwrap();
        Shared { node, program }
    }

    /// Runs a test's body as nobody.
    fn as_nobody(&self, test: &str, variables: &[(&str, &str)]) {
        let body = self.node.body(test);
        let mut command = self.node.command(&self.program);
        command.args(body.get_args()).current_dir("/");
        command.envs(body.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.envs(variables.iter().copied());
        let done = command.uid(NOBODY).gid(NOBODY).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
    }
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes two leaves through the library in a process of its own and returns nothing: the state keeps them.
fn make_leaves(node: &Node) {
    let store =
        nvidia_ml::store::Store::open(nvidia_ml::config::Config::locate(Some(&node.config())).unwrap())
            .unwrap();
    for start in [0, 1] {
        let made = store.update(|m| {
            let gi = m.create_gpu_instance(0, 19, Some((start, 1)))?;
            m.create_compute_instance(0, gi, 0, None)
        });
        made.unwrap().unwrap();
    }
}

#[test]
fn users_read_but_cannot_manage() {
    const TEST: &str = "users::users_read_but_cannot_manage";
    if let Some(nvml) = inside(TEST) {
        let gpu = nvml.gpu(0).unwrap();
        assert_eq!(nvml.mig(gpu), Ok((1, 1)));
        assert_eq!(nvml.profiles(gpu).len(), 7);
        assert_eq!(nvml.mig_uuids(gpu).len(), 2);
        assert_eq!(nvml.processes(gpu), Err(NO_PERMISSION));
        assert_eq!(nvml.processes(nvml.mig_device(gpu, 0).unwrap()), Ok(vec![]));
        assert_eq!(nvml.instances(gpu), Err(NO_PERMISSION));
        assert_eq!(nvml.placements(gpu, 19), Err(NO_PERMISSION));
        assert_eq!(nvml.remaining(gpu, 19), Err(NO_PERMISSION));
        assert_eq!(nvml.create(gpu, 19), Err(NO_PERMISSION));
        assert_eq!(nvml.set_mig(gpu, false), Err(NO_PERMISSION));
        return;
    }
    if !root() {
        return skip("becoming another user needs root");
    }
    let shared = Shared::new();
    make_leaves(&shared.node);
    let before = std::fs::read(shared.node.path("state/state.json")).unwrap();
    shared.as_nobody(TEST, &[]);
    assert_eq!(std::fs::read(shared.node.path("state/state.json")).unwrap(), before);
}

#[test]
fn a_user_sees_the_leaves_whose_nodes_may_be_opened() {
    const TEST: &str = "users::a_user_sees_the_leaves_whose_nodes_may_be_opened";
    if let Some(nvml) = inside(TEST) {
        let gpu = nvml.gpu(0).unwrap();
        let seen = nvml.mig_uuids(gpu);
        let hidden = std::env::var("NVML_SIM_TEST_HIDDEN").unwrap();
        assert_eq!(seen.len(), 1);
        assert_ne!(seen[0], hidden);
        assert_eq!(nvml.by_uuid(&hidden), Err(NOT_FOUND));
        return;
    }
    if !root() {
        return skip("becoming another user needs root");
    }
    let shared = Shared::new();
    make_leaves(&shared.node);
    let root = shared.node.path("root");
    if nvidia_ml::capfs::nodes_usable(&root) != Some(true) {
        return skip("device nodes do not work in the temporary directory");
    }
    let machine = shared.node.machine();
    for (n, hide_compute) in [(0, false), (1, true)] {
        let gi = &machine.gpus[0].instances[n];
        let (access, compute) = nvidia_ml::machine::capability_minors(0, gi.id);
        let node = nvidia_ml::capfs::node(&root, if hide_compute { compute[0] } else { access });
        std::fs::set_permissions(&node, PermissionsExt::from_mode(0o000)).unwrap();
        shared.as_nobody(TEST, &[("NVML_SIM_TEST_HIDDEN", &gi.compute[0].uuid)]);
        std::fs::set_permissions(&node, PermissionsExt::from_mode(0o444)).unwrap();
    }
}

#[test]
fn users_can_read_what_a_careful_root_has_made() {
    const TEST: &str = "users::users_can_read_what_a_careful_root_has_made";
    if let Some(nvml) = inside(TEST) {
        assert_eq!(nvml.mig_uuids(nvml.gpu(0).unwrap()).len(), 2);
        let capabilities = crate::node::own_root().join("proc/driver/nvidia/capabilities/gpu0/mig");
        for gi in std::fs::read_dir(capabilities).unwrap() {
            std::fs::read(gi.unwrap().path().join("ci0/access")).unwrap();
        }
        return;
    }
    if !root() {
        return skip("becoming another user needs root");
    }
    let shared = Shared::new();
    std::fs::remove_dir_all(shared.node.path("state")).unwrap();
    std::fs::remove_dir_all(shared.node.path("root")).unwrap();
    let create = "umask 077; exec \"$0\" --config \"$1\" init";
    let program = env!("CARGO_BIN_EXE_nvml-sim");
    let done =
        std::process::Command::new("sh").args(["-c", create, program]).arg(shared.node.config()).status();
    assert!(done.unwrap().success());
    make_leaves(&shared.node);
    shared.as_nobody(TEST, &[]);
}

#[test]
fn users_cannot_take_the_lock_or_touch_the_files() {
    if !root() {
        return skip("becoming another user needs root");
    }
    let shared = Shared::new();
    for command in [
        "flock -n state/lock true",
        "echo x > state/state.json",
        "echo x > state/state.json.new",
        "touch state/lock",
        "rm state/state.json",
        "mv state/state.json state/other",
        "echo x > root/generation",
        "mkdir root/proc/driver/nvidia/capabilities/gpu0/mig/gi1",
    ] {
        let done = std::process::Command::new("sh")
            .args(["-c", command])
            .current_dir(shared.node.path(""))
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        assert!(!done.status.success(), "{command}");
    }
    shared.node.sim(&["status"]);
}

#[test]
fn a_user_who_owns_the_directory_manages_without_root() {
    const TEST: &str = "users::a_user_who_owns_the_directory_manages_without_root";
    if let Some(nvml) = inside(TEST) {
        let gpu = nvml.gpu(0).unwrap();
        assert_eq!(nvml.set_mig(gpu, true), Ok(0));
        let ci = nvml.create_full_ci(nvml.create_at(gpu, 19, (0, 1)).unwrap()).unwrap();
        let device = nvml.ci_info(ci).unwrap().device;
        assert_eq!(nvml.mig_device(gpu, 0), Ok(device));
        assert!(
            crate::node::own_root().join("proc/driver/nvidia/capabilities/gpu0/mig/gi7/ci0/access").exists()
        );
        return;
    }
    if !root() {
        return skip("becoming another user needs root");
    }
    let shared = Shared::new();
    for (name, text) in
        [("state", None), ("root", None), ("sim.toml", Some("[[gpu]]\nmodel = \"h100-sxm-80\""))]
    {
        let path = shared.node.path(name);
        match text {
            None => std::fs::remove_dir_all(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
    }
    std::os::unix::fs::chown(shared.node.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    shared.as_nobody(TEST, &[]);
}

#[test]
fn root_stays_away_from_directories_of_others() {
    if !root() {
        return skip("giving a directory away needs root");
    }
    let node = Node::new("[[gpu]]\nmodel = \"a30\"");
    std::fs::create_dir(node.path("state")).unwrap();
    std::os::unix::fs::chown(node.path("state"), Some(NOBODY), None).unwrap();
    let said = String::from_utf8(node.try_sim(&["init"]).stderr).unwrap();
    assert!(said.contains("belongs to uid 65534"), "{said}");
}
