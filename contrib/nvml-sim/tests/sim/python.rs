//! Programs that know nothing of this library accept it: NVIDIA's `nvidia-ml-py` and the monitor `nvitop`.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nvidia_ml::config::Config;
use nvidia_ml::store::Store;

use crate::node::{Node, Sleeper, shared_object, skip};

/// The virtual environment is made once: tests of one run wait for each other.
static ENVIRONMENT: Mutex<()> = Mutex::new(());
/// Exit status of the script where there is no environment to be had.
const CANNOT: i32 = 77;

fn run(node: &Node, test: &str, variables: &[(&str, String)]) {
    let libraries = node.path("lib");
    let library = shared_object();
    node.sim(&["lib-dir", "--dir", libraries.to_str().unwrap(), "--library", library.to_str().unwrap()]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/run.sh");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let _one = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    // Under a runner with a process per test the lock is this file's.
    let guard = std::fs::File::create(venv.with_extension("lock")).unwrap();
    let _guard = nix::fcntl::Flock::lock(guard, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut command = node.command(script);
    command.arg(venv).arg(libraries).arg(test).envs(variables.iter().map(|(k, v)| (k, v)));
    let done = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.code() == Some(CANNOT) {
        return skip(&format!("no Python environment: {said}"));
    }
    assert!(done.status.success() && said.contains(": ok"), "{said}");
}

#[test]
fn nvidia_ml_py_drives_mode_create_list_info_and_destroy() {
    let node = Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"");
    node.sim(&["init"]);
    run(&node, "drive.py", &[]);
    assert_eq!(node.machine().gpus[0].instances, []);
}

#[test]
fn nvitop_reads_gpus_leaves_and_processes() {
    let node =
        Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\nmig = true\n[[gpu]]\nmodel = \"a30\"\nmig = true");
    let store = Store::open(Config::locate(Some(&node.config())).unwrap()).unwrap();
    for start in [0, 1] {
        let made = store.update(|machine| {
            let gi = machine.create_gpu_instance(0, 19, Some((start, 1)))?;
            machine.create_compute_instance(0, gi, 0, None)
        });
        made.unwrap().unwrap();
    }
    let computing = Sleeper::new();
    let pid = computing.pid();
    node.sim(&["process", "add", "--at", "0:7:0", "--pid", &pid, "--memory", "512"]);
    run(&node, "monitor.py", &[("COMPUTING", pid)]);
}
