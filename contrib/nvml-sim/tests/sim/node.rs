//! A simulated node of one test, and the process that the test's body runs in.
//!
//! The configuration is found by an environment variable, so each body gets a process of its own: the test starts
//! its own program again, for itself alone, with the variable set.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::library::Nvml;

const BODY: &str = "NVML_SIM_TEST_BODY";

/// A node in a temporary directory.
pub(crate) struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    /// A node with this `[[gpu]]` text; driver, major and directories are set.
    pub(crate) fn new(gpus: &str) -> Node {
        Node::with("driver = \"550.54.15\"", gpus)
    }

    /// A node with further settings.
    pub(crate) fn with(settings: &str, gpus: &str) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("state = \"state\"\nroot = \"root\"\n{settings}\n{gpus}");
        std::fs::write(dir.path().join("sim.toml"), text).unwrap();
        // Other users look in, too.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Node { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("sim.toml")
    }

    /// Runs `nvml-sim`, which must succeed, and returns what it printed.
    pub(crate) fn sim(&self, arguments: &[&str]) -> String {
        let done = self.try_sim(arguments);
        assert!(done.status.success(), "nvml-sim {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub(crate) fn try_sim(&self, arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_nvml-sim");
        Command::new(program).arg("--config").arg(self.config()).args(arguments).output().unwrap()
    }

    /// The machine as `status --json` shows it.
    pub(crate) fn machine(&self) -> nvidia_ml::machine::Machine {
        serde_json::from_str(&self.sim(&["status", "--json"])).unwrap()
    }

    /// A command with this node's configuration in its environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("NVML_SIM_CONFIG", self.config());
        command
    }

    /// This test program again, for one test's body alone.
    pub(crate) fn body(&self, test: &str) -> Command {
        let mut command = self.command(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(BODY, test);
        command
    }
}

/// Runs `body` with NVML loaded in a process of its own on the node that `node` makes. `test` is the path of the calling
/// test, which must do nothing else.
pub(crate) fn on(test: &str, node: impl FnOnce() -> Node, body: impl FnOnce(&Nvml)) {
    if let Some(nvml) = inside(test) {
        body(&nvml);
        return;
    }
    let node = node();
    node.sim(&["init"]);
    let done = node.body(test).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the body of {test} did not run: {said}");
}

/// NVML, where this process is the body of `test`.
pub(crate) fn inside(test: &str) -> Option<Nvml> {
    (std::env::var(BODY).as_deref() == Ok(test)).then(|| Nvml::load(&shared_object()))
}

/// The simulated node of the process that a body runs in.
pub(crate) fn own_root() -> PathBuf {
    Path::new(&std::env::var_os("NVML_SIM_CONFIG").unwrap()).parent().unwrap().join("root")
}

/// `nvml-sim` on the node of the process that a body runs in.
pub(crate) fn own_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvml-sim")).args(arguments).output().unwrap()
}

/// A process that does nothing until it is dropped.
pub(crate) struct Sleeper(std::process::Child);

impl Sleeper {
    pub(crate) fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The library, beside the test program.
pub(crate) fn shared_object() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libnvidia_ml.so")
}

/// Says why a test cannot run here; where everything is required, that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var("MIGSHARE_REQUIRE").as_deref() != Ok("all"), "cannot run: {reason}");
    println!("SKIP: {reason}");
}
