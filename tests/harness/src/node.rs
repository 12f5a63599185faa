//! One node: its places in the cluster's directory, its simulated GPUs, its agent and its slurmd.

use crate::artifacts::{make_dir, write};
use crate::config;
use crate::daemon::{self, Daemon};
use crate::process::{self, Outcome};
use crate::site::Site;
use crate::{Result, Trouble, wait};
use migshare_proto::message::StatusQuery;
use migshare_proto::status::{LeafState, Status};
use migshare_proto::{Client, Reply, Request};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the files of one node lie.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
    name: String,
}

impl Home {
    /// The home of a node in a cluster below `cluster`.
    pub fn new(cluster: &Path, name: &str) -> Home {
        Home { dir: cluster.join("nodes").join(name), name: name.to_owned() }
    }

    /// Slurm's name of the node.
    pub fn node(&self) -> &str {
        &self.name
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// The agent's journal.
    pub fn agent_state(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// What the simulated GPUs remember.
    pub fn nvml_state(&self) -> PathBuf {
        self.dir.join("nvml")
    }

    /// The tree with the simulated driver's proc and dev files.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The plugin's own files.
    pub fn plugin_run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Description of the simulated GPUs.
    pub fn nvml_config(&self) -> PathBuf {
        self.dir.join("nvml.toml")
    }

    fn agent_config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }
}

/// The programs and files of the cluster that a node starts with.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    pub(crate) migshared: PathBuf,
    pub(crate) nvml_sim: PathBuf,
    pub(crate) gres: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) slurm_conf: PathBuf,
    pub(crate) log: PathBuf,
}

/// One node of a running cluster.
#[derive(Debug)]
pub struct Node {
    /// Where its files lie.
    pub home: Home,
    kit: Kit,
    agent: Option<Daemon>,
    slurmd: Option<Daemon>,
}

impl Node {
    /// Writes the node's files; nothing runs yet.
    pub(crate) fn prepare(home: Home, site: &Site, model: &str, kit: Kit) -> Result<Node> {
        make_dir(&home.dir, 0o755)?;
        write(&home.nvml_config(), &config::nvml_toml(&home, site, model))?;
        write(&home.agent_config(), &config::agent_toml(&home, site, &kit.slurm_conf, &kit.library))?;
        Ok(Node { home, kit, agent: None, slurmd: None })
    }

    /// Slurm's name of the node.
    pub fn name(&self) -> &str {
        self.home.node()
    }

    /// Starts the agent and waits until it serves all leaves that it counts.
    pub fn start_agent(&mut self) -> Result<Status> {
        self.launch_agent()?;
        wait::until(&format!("served by the agent of {}", self.name()), || {
            if let Some(agent) = &mut self.agent {
                agent.still_runs().map_err(|t| t.to_string())?;
            }
            let status = self.status().map_err(|t| t.to_string())?;
            let whole = status.counted > 0 && status.usable == status.counted;
            if whole { Ok(status) } else { Err(format!("{status:?}")) }
        })
    }

    /// Starts the agent without waiting for anything.
    pub fn launch_agent(&mut self) -> Result {
        let mut command = daemon::command(&self.kit.migshared);
        command.arg("--config").arg(self.home.agent_config());
        command.env("SLURM_CONF", &self.kit.slurm_conf).env("NVML_SIM_CONFIG", self.home.nvml_config());
        command.env("RUST_LOG", "debug");
        let (name, log) = (format!("migshared of {}", self.name()), self.log("migshared"));
        self.agent = Some(Daemon::start(&name, command, &log)?);
        Ok(())
    }

    /// Kills the agent as a crash would.
    pub fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// Stops the agent as an admin would.
    pub fn stop_agent(&mut self) -> Result {
        self.agent.take().map_or(Ok(()), Daemon::stop)
    }

    /// What the agent says of the node.
    pub fn status(&self) -> Result<Status> {
        let no = |e: migshare_proto::ClientError| Trouble::Program(format!("{}: {e}", self.name()));
        let mut client =
            Client::connect(&self.home.socket(), "harness", Duration::from_secs(5)).map_err(no)?;
        match client.ask(&Request::Status(StatusQuery {})).map_err(no)? {
            Reply::Status(status) => Ok(*status),
            other => Err(Trouble::Program(format!("{}: {other:?} to status", self.name()))),
        }
    }

    /// The node's line of the price table, as an admin gets it.
    pub(crate) fn price_line(&self) -> Result<String> {
        let mut command = Command::new(&self.kit.gres);
        command.args(["render", "--json", "--socket"]).arg(self.home.socket());
        let rendered = process::run(command)?.ok()?.stdout;
        let texts: serde_json::Value = serde_json::from_str(&rendered)
            .map_err(|e| Trouble::Unexpected(format!("{e} in what migshare-gres prints: {rendered}")))?;
        Ok(texts["prices"].as_str().unwrap_or_default().to_owned())
    }

    /// Number of leaves that jobs hold.
    pub fn leased(&self) -> Result<usize> {
        let status = self.status()?;
        Ok(status.gpus.iter().flat_map(|g| &g.leaves).filter(|l| l.state == LeafState::Leased).count())
    }

    /// Starts slurmd.
    pub fn start_slurmd(&mut self) -> Result {
        let mut command = daemon::command("slurmd");
        command.args(["-D", "-N", self.name(), "-f"]).arg(&self.kit.slurm_conf);
        command.env("SLURM_CONF", &self.kit.slurm_conf);
        let (name, log) = (format!("slurmd of {}", self.name()), self.log("slurmd.out"));
        self.slurmd = Some(Daemon::start(&name, command, &log)?);
        Ok(())
    }

    /// Kills slurmd; running steps go on, as they are processes of their own.
    pub fn kill_slurmd(&mut self) {
        if let Some(slurmd) = self.slurmd.take() {
            slurmd.kill();
        }
    }

    /// Stops slurmd as an admin would.
    pub fn stop_slurmd(&mut self) -> Result {
        self.slurmd.take().map_or(Ok(()), Daemon::stop)
    }

    /// The simulated driver's command line: faults, resets, what stands.
    pub fn nvml_sim(&self, args: &[&str]) -> Result<Outcome> {
        let mut command = Command::new(&self.kit.nvml_sim);
        command.args(args).env("NVML_SIM_CONFIG", self.home.nvml_config());
        process::run(command)?.ok()
    }

    /// Process ids of the node's daemons.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        self.agent.iter().chain(&self.slurmd).map(Daemon::pid).collect()
    }

    fn log(&self, program: &str) -> PathBuf {
        self.kit.log.join(format!("{program}.{}.log", self.name()))
    }
}
