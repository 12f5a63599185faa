//! The cluster: brought up, looked at, brought down.

use crate::artifacts::{self, Artifacts, make_dir, stage, write};
use crate::daemon::{self, Daemon};
use crate::login::{Login, Who};
use crate::node::{Home, Kit, Node};
use crate::ports::Ports;
use crate::site::Site;
use crate::{Result, Trouble, config, ensure, interrupt, leftovers, slurm, wait};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A throw-away cluster. Nothing of it is left when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Daemons are dropped before the directory that they write to.
    controller: Vec<Daemon>,
    /// The nodes, in order.
    pub nodes: Vec<Node>,
    site: Site,
    ports: Ports,
    /// What another cluster with these ports left behind.
    old_filters: Vec<String>,
    dir: TempDir,
}

impl Cluster {
    /// Makes the cluster's directory and files; nothing runs yet.
    pub fn prepare(site: Site) -> Result<Cluster> {
        let dir = tempfile::Builder::new()
            .prefix("migshare-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .map_err(|e| artifacts::file("the cluster's directory", e))?;
        for part in ["bin", "lib/nvml", "lib/python", "etc", "run", "log", "slurmctld", "nodes"] {
            make_dir(&dir.path().join(part), 0o755)?;
        }
        make_dir(&dir.path().join("work"), 0o1777)?;
        let kit = furnish(dir.path())?;
        let mut nodes = Vec::new();
        for (at, name) in site.node_names().into_iter().enumerate() {
            make_dir(&dir.path().join("spool").join(&name), 0o755)?;
            nodes.push(Node::prepare(Home::new(dir.path(), &name), &site, site.model(at), kit.clone())?);
        }
        let ports = Ports::claim()?;
        let old_filters = leftovers::filters(ports.first_job());
        Ok(Cluster { controller: Vec::new(), nodes, site, ports, old_filters, dir })
    }

    /// Starts everything and waits until all nodes are idle.
    pub fn bring_up(&mut self) -> Result {
        let mut counted = Vec::new();
        for node in &mut self.nodes {
            counted.push(node.start_agent()?.counted);
        }
        ensure(counted.windows(2).all(|w| w[0] == w[1]), || format!("alike nodes count {counted:?} leaves"))?;
        self.configure(counted.first().copied().unwrap_or_default())?;
        self.start_munge()?;
        self.start_slurmctld()?;
        self.nodes.iter_mut().try_for_each(Node::start_slurmd)?;
        self.until_idle()
    }

    /// A shell on the cluster for an ordinary user.
    pub fn user(&self) -> Login {
        Login::new(self.dir.path(), Who::Nobody)
    }

    /// A shell on the cluster for root.
    pub fn root(&self) -> Login {
        Login::new(self.dir.path(), Who::Root)
    }

    /// Lets the jobs go on that run `hold NAME`.
    pub fn release(&self, name: &str) -> Result {
        write(&self.work().join(format!("release-{name}")), "")
    }

    /// The directory that every user may write to; the users' home.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// A path below the cluster's directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The node of this name.
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.name() == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Id of the first job that this cluster runs.
    pub fn first_job(&self) -> u32 {
        self.ports.first_job()
    }

    /// Waits until no job is left and every node is idle: neither drained nor down.
    pub fn until_idle(&self) -> Result {
        wait::within(wait::RECOVERY, "an idle cluster", || {
            let (jobs, nodes) = (slurm::queue(self)?, slurm::node_states(self)?);
            let idle = nodes.len() == self.nodes.len() && nodes.iter().all(|n| n.state == "idle");
            if jobs.is_empty() && idle { Ok(()) } else { Err(format!("jobs {jobs:?}, nodes {nodes:?}")) }
        })
    }

    /// What holds after every story: no job, idle nodes, no leaf leased, no process and no device filter left,
    /// and agents that lose their memory now find nothing open in their journals either.
    pub fn settle(&mut self) -> Result {
        self.until_idle()?;
        wait::until("without a lease", || self.without_leases())?;
        wait::until("without a process of a job", || {
            let left = self.job_processes();
            if left.is_empty() { Ok(()) } else { Err(leftovers::show(&left)) }
        })?;
        self.settle_filters()?;
        for node in &mut self.nodes {
            node.kill_agent();
            node.start_agent()?;
        }
        self.without_leases().map_err(Trouble::Unexpected)?;
        self.until_idle()
    }

    /// Processes of the cluster that are none of its daemons: slurmstepds and tasks. `slurmscriptd` is the part of
    /// slurmctld that runs scripts.
    pub fn job_processes(&self) -> Vec<leftovers::Process> {
        let nodes = self.nodes.iter().flat_map(Node::daemons);
        let daemons: Vec<u32> = nodes.chain(self.controller.iter().map(Daemon::pid)).collect();
        let ours = |p: &leftovers::Process| daemons.contains(&p.pid) || p.command.ends_with("slurmscriptd");
        leftovers::of(&self.slurm_conf()).into_iter().filter(|p| !ours(p)).collect()
    }

    /// Copies the logs to where they outlive the cluster.
    pub fn keep_logs(&self, to: &Path) -> Result {
        make_dir(to, 0o755)?;
        let log = self.path("log");
        let entries = std::fs::read_dir(&log).map_err(|e| artifacts::file(&log.display().to_string(), e))?;
        entries.flatten().try_for_each(|entry| stage(&entry.path(), &to.join(entry.file_name()), 0o644))
    }

    /// Stops everything and fails when a process stays that no daemon's end took along.
    pub fn bring_down(&mut self) -> Result {
        for node in &mut self.nodes {
            node.stop_slurmd()?;
            node.stop_agent()?;
        }
        while let Some(daemon) = self.controller.pop() {
            daemon.stop()?;
        }
        wait::until("stopped as a whole", || {
            let left = leftovers::of(&self.slurm_conf());
            if left.is_empty() { Ok(()) } else { Err(leftovers::show(&left)) }
        })
    }

    pub(crate) fn slurm_conf(&self) -> PathBuf {
        self.path("etc/slurm.conf")
    }

    fn configure(&self, leaves: u32) -> Result {
        let dir = self.dir.path();
        write(&self.slurm_conf(), &config::slurm_conf(dir, &self.site, &self.ports, leaves))?;
        write(&self.path("etc/gres.conf"), &config::gres_conf(&self.site, leaves))?;
        write(&self.path("etc/plugstack.conf"), &config::plugstack_conf(dir))?;
        let prices = self.nodes.iter().map(Node::price_line).collect::<Result<Vec<_>>>()?;
        write(&self.path("etc/prices"), &prices.concat())?;
        write(&self.path("etc/cgroup.conf"), config::cgroup_conf())?;
        write(&self.path("bin/health-check"), &config::health_check(dir))?;
        artifacts::set_mode(&self.path("bin/health-check"), 0o755)
    }

    fn start_munge(&mut self) -> Result {
        let (key, socket) = (self.path("etc/munge.key"), self.path("run/munge.socket"));
        write(&key, &random_key()?)?;
        artifacts::set_mode(&key, 0o400)?;
        let mut command = daemon::command("munged");
        command.args(["--foreground", "--force"]).env("SLURM_CONF", self.slurm_conf());
        for (option, file) in [
            ("key-file", &key),
            ("socket", &socket),
            ("pid-file", &self.path("run/munged.pid")),
            ("log-file", &self.path("log/munged.log")),
            ("seed-file", &self.path("run/munged.seed")),
        ] {
            command.arg(format!("--{option}={}", file.display()));
        }
        let mut munged = Daemon::start("munged", command, &self.path("log/munged.out.log"))?;
        wait::until("a socket of munge", || {
            munged.still_runs().map_err(|t| t.to_string())?;
            if socket.exists() { Ok(()) } else { Err("none".to_owned()) }
        })?;
        self.controller.push(munged);
        Ok(())
    }

    fn start_slurmctld(&mut self) -> Result {
        let mut command = daemon::command("slurmctld");
        command.args(["-D", "-f"]).arg(self.slurm_conf()).env("SLURM_CONF", self.slurm_conf());
        self.controller.push(Daemon::start("slurmctld", command, &self.path("log/slurmctld.out.log"))?);
        Ok(())
    }

    /// A device filter that was still in use when its job ended goes with the next job on the node.
    fn settle_filters(&self) -> Result {
        let left =
            || leftovers::filters(self.first_job()).into_iter().filter(|f| !self.old_filters.contains(f));
        if left().next().is_none() {
            return Ok(());
        }
        self.root().run(&format!("srun -N{} true", self.nodes.len()))?.ok()?;
        self.until_idle()?;
        wait::until("without a device filter", || {
            let left: Vec<String> = left().collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
    }

    fn without_leases(&self) -> std::result::Result<(), String> {
        for node in &self.nodes {
            let status = node.status().map_err(|t| t.to_string())?;
            let held = node.leased().map_err(|t| t.to_string())?;
            if held > 0 || !status.leases.is_empty() || !status.problems.is_empty() {
                return Err(format!(
                    "{}: {held} leased, {:?}, {:?}",
                    node.name(),
                    status.leases,
                    status.problems
                ));
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        interrupt::despite(|| {
            for node in &mut self.nodes {
                node.kill_slurmd();
                node.kill_agent();
            }
            self.controller.clear();
            if let Err(trouble) = leftovers::kill_all(&self.slurm_conf()) {
                eprintln!("{trouble}");
            }
        });
    }
}

/// Puts programs and libraries into the cluster's directory.
fn furnish(dir: &Path) -> Result<Kit> {
    let built = Artifacts::find()?;
    let library = dir.join("lib/nvml/libnvidia-ml.so.1");
    stage(&built.get("libnvidia_ml.so")?, &library, 0o755)?;
    stage(&built.get("libspank_migshare.so")?, &dir.join("lib/spank_migshare.so"), 0o755)?;
    stage(&built.get("migshare")?, &dir.join("bin/migshare"), 0o755)?;
    stage(&built.python_file("pynvml.py")?, &dir.join("lib/python/pynvml.py"), 0o644)?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    for script in [
        "../../contrib/demo/leaf-witness",
        "programs/hold",
        "programs/alone",
        "programs/segment-rank",
        "programs/collective-rank",
        "programs/nccl-net-init",
    ] {
        let name = script.rsplit('/').next().unwrap_or(script);
        stage(&sources.join(script), &dir.join("bin").join(name), 0o755)?;
    }
    Ok(Kit {
        migshared: built.get("migshared")?,
        nvml_sim: built.get("nvml-sim")?,
        gres: built.get("migshare-gres")?,
        library,
        slurm_conf: dir.join("etc/slurm.conf"),
        log: dir.join("log"),
    })
}

/// Any text that nobody else has is a key for munge.
fn random_key() -> Result<String> {
    let mut bytes = [0u8; 64];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes))
        .map_err(|e| artifacts::file("/dev/urandom", e))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
