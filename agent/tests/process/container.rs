//! A small machine whose first process is a real systemd: namespaces of its own over this machine's /usr, with the unit as it is shipped, the
//! simulated NVML as the system's, and one GPU. It takes a second to boot and ends with the test.

use crate::rig::{Ends, LONG, has, library, tied, until};
use migshare_proto::Client;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/systemd/migshared.service");
const FIRST_PROCESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/programs/first-process.sh");
const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const LIBRARY: &str = "usr/lib/migshare/libnvidia-ml.so.1";

/// What the unit needs here beside its own text: the simulated hardware, and a watchdog that a test can wait for.
const DROP_IN: &str =
    "[Service]\nEnvironment=NVML_SIM_CONFIG=/srv/sim.toml\nReadWritePaths=/srv\nWatchdogSec=2\n";

/// The machine.
pub(crate) struct Container {
    dir: tempfile::TempDir,
    first: Option<Ends>,
    cgroup: PathBuf,
    /// Process id of its systemd, as this machine counts.
    systemd: u32,
}

impl Container {
    /// A machine that boots to the agent and the journal. What is missing here to have one, otherwise.
    pub(crate) fn boot() -> Result<Container, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("it takes root to make namespaces".to_owned());
        }
        let needed = [SYSTEMD, "unshare", "nsenter", "pivot_root", "python3"];
        if let Some(missing) = needed.iter().find(|program| !has(program)) {
            return Err(format!("{missing} is not installed"));
        }
        if !fs::read_to_string("/proc/filesystems").unwrap().contains("\toverlay\n") {
            return Err("this kernel has no overlay file system".to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        // Tests may share a process, but no folder.
        let name = dir.path().file_name().unwrap().to_string_lossy();
        let cgroup = cgroup_root()?.join(format!("migshare-test-{}", name.trim_start_matches('.')));
        fs::create_dir(&cgroup).map_err(|error| format!("no cgroup can be made: {error}"))?;
        furnish(dir.path());
        let mut container = Container { dir, first: None, cgroup, systemd: 0 };
        container.start();
        Ok(container)
    }

    fn start(&mut self) {
        let enter = "echo 0 > \"$0/cgroup.procs\" && exec unshare --mount --pid --fork --kill-child --cgroup --ipc --uts --net sh \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter]).args([&self.cgroup, Path::new(FIRST_PROCESS), self.dir.path()]);
        let first = Ends::start(tied(&command).stdin(Stdio::null()));
        let children = format!("/proc/{0}/task/{0}/children", first.id());
        self.first = Some(first);
        until("a first process", || {
            let pids = fs::read_to_string(&children).unwrap_or_default();
            self.systemd = pids.trim().parse().unwrap_or(0);
            fs::read_to_string(format!("/proc/{}/comm", self.systemd)).is_ok_and(|name| name == "systemd\n")
        });
        until("at work", || self.show("ActiveState") == "active");
    }

    /// A path in it, as this machine sees it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.systemd))
    }

    /// A command that runs in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.systemd.to_string(), "--all", "--", program]);
        command
    }

    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    /// A property of the agent's service.
    pub(crate) fn show(&self, property: &str) -> String {
        let out = self.run("systemctl", &["show", "migshared", "--value", "--property", property]);
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A connection to the agent in it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.path("/run/migshare/agent.sock"), "test", LONG).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.run("journalctl", &["--no-pager"]);
            eprintln!("--- journal of the container\n{}---", String::from_utf8_lossy(&journal.stdout));
        }
        // Its first process takes all others with it.
        drop(self.first.take());
        until("empty", || empty(&self.cgroup));
    }
}

/// Where version 2 of the cgroups is mounted.
fn cgroup_root() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let found = fields.find_map(|mut f| (f.clone().nth(2) == Some("cgroup2")).then(|| f.nth(1)).flatten());
    found.map(PathBuf::from).ok_or_else(|| "cgroups of version 2 are not mounted".to_owned())
}

/// Removes a cgroup with those below it; false while a process is in one.
fn empty(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in below.filter(|path| path.is_dir()) {
        empty(&path);
    }
    let _ = fs::remove_dir(cgroup);
    !cgroup.exists()
}

/// Puts into the machine's root what differs from this machine.
fn furnish(root: &Path) {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let copy = |from: &Path, to: &str| {
        fs::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        fs::copy(from, root.join(to)).unwrap();
    };
    copy(Path::new(env!("CARGO_BIN_EXE_migshared")), "usr/sbin/migshared");
    copy(&library(), LIBRARY);
    let unit = fs::read_to_string(UNIT).unwrap();
    write("etc/systemd/system/migshared.service", &unit);
    write("etc/systemd/system/migshared.service.d/test.conf", DROP_IN);
    // The same confinement for programs that try to get out of it.
    write("etc/systemd/system/escape.service", &unit);
    let escape = "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=/bin/sh /srv/escape\n\
                  StandardOutput=append:/srv/escaped\nStandardError=append:/srv/escaped\n";
    write("etc/systemd/system/escape.service.d/test.conf", escape);
    write("etc/systemd/system/default.target", "[Unit]\nWants=migshared.service systemd-journald.service\n");
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write("etc/group", "root:x:0:\n");
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    write("etc/os-release", "");
    let agent = format!(
        "node = \"n1\"\nnvml_library = \"/{LIBRARY}\"\n[slurm]\ndrain = false\nsqueue = \"/usr/bin/true\"\n"
    );
    write("etc/migshare/agent.toml", &agent);
    let sim = "state = \"/srv/nvml\"\nroot = \"/srv/root\"\ndriver = \"550.54.15\"\ncuda = \"12.4\"\ncaps_major = 235\n\
               enforce_caps = false\n[[gpu]]\nmodel = \"h100-sxm-80\"\ngi_order = \"half-swapped\"\nmig = true\nnuma_node = 0\n\
               cpu_affinity = \"0-1\"\n";
    write("srv/sim.toml", sim);
}
