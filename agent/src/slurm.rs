//! Slurm as the agent uses it: a few commands about its own node. Each is bounded in time and off the path of any launch.
//!
//! Commands and not libslurm: the library's ABI changes with every series, and one agent serves them all.

pub mod keeper;
mod parse;

pub use parse::NodeState;

use crate::config;
use migshare_policy::node::Run;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How the reason of every drain by migshare begins; only such drains are ever lifted by it.
pub const REASON_PREFIX: &str = "migshare: ";

/// States in which a job holds its leaves on a node.
const HOLDING: &str = "RUNNING,COMPLETING,SUSPENDED,CONFIGURING,STOPPED,RESIZING,SIGNALING,STAGE_OUT";

/// Why Slurm did not answer.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The command could not be run.
    #[error("cannot run {command}")]
    Run {
        /// The command.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The command took too long, as it does when the controller is unreachable.
    #[error("{command} gave no answer within {seconds} s")]
    Late {
        /// The command.
        command: String,
        /// Its limit.
        seconds: u64,
    },
    /// The command failed.
    #[error("{command} failed: {text}")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        text: String,
    },
    /// The command's answer could not be read.
    #[error("{command} said what is not understood: {text}")]
    Nonsense {
        /// The command.
        command: String,
        /// What it said.
        text: String,
    },
}

/// Slurm, as seen from one node.
#[derive(Debug, Clone)]
pub struct Slurm {
    node: String,
    scontrol: PathBuf,
    squeue: PathBuf,
    conf: Option<PathBuf>,
    timeout: Duration,
}

impl Slurm {
    /// Slurm for a node.
    pub fn new(node: &str, config: &config::Slurm) -> Slurm {
        Slurm {
            node: node.to_owned(),
            scontrol: config.scontrol.clone(),
            squeue: config.squeue.clone(),
            conf: config.conf.clone(),
            timeout: config.timeout(),
        }
    }

    /// The node's state and its reason.
    pub async fn state(&self) -> Result<NodeState, SlurmError> {
        let text = self.run(&self.scontrol, &["show", "node", &self.node]).await?;
        parse::node_state(&text).ok_or_else(|| nonsense("scontrol show node", &text))
    }

    /// Takes the node out of scheduling; running jobs go on.
    pub async fn drain(&self, reason: &str) -> Result<(), SlurmError> {
        let (node, reason) = (format!("nodename={}", self.node), format!("reason={reason}"));
        self.run(&self.scontrol, &["update", &node, "state=drain", &reason]).await.map(drop)
    }

    /// Puts the node back into scheduling.
    pub async fn resume(&self) -> Result<(), SlurmError> {
        let node = format!("nodename={}", self.node);
        self.run(&self.scontrol, &["update", &node, "state=resume"]).await.map(drop)
    }

    /// What runs on the node, completing jobs included.
    pub async fn running(&self) -> Result<Vec<Run>, SlurmError> {
        let args = ["--noheader", "--nodelist", &self.node, "--states", HOLDING, "--format", "%A %S"];
        let text = self.run(&self.squeue, &args).await?;
        parse::runs(&text).ok_or_else(|| nonsense("squeue", &text))
    }

    /// Slurm's configuration as the controller has it, by key.
    pub async fn config(&self) -> Result<BTreeMap<String, String>, SlurmError> {
        let text = self.run(&self.scontrol, &["show", "config"]).await?;
        Ok(parse::config(&text))
    }

    async fn run(&self, program: &PathBuf, args: &[&str]) -> Result<String, SlurmError> {
        let name = || format!("{} {}", program.display(), args.join(" "));
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true).env("SLURM_TIME_FORMAT", "%s");
        if let Some(conf) = &self.conf {
            command.env("SLURM_CONF", conf);
        }
        let output = match tokio::time::timeout(self.timeout, command.output()).await {
            Ok(output) => output.map_err(|source| SlurmError::Run { command: name(), source })?,
            Err(_) => return Err(SlurmError::Late { command: name(), seconds: self.timeout.as_secs() }),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(SlurmError::Failed { command: name(), text })
    }
}

/// A text as Slurm can keep it for a reason: what `scontrol show node` prints of one ends with its first line.
pub fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn nonsense(command: &str, text: &str) -> SlurmError {
    SlurmError::Nonsense { command: command.to_owned(), text: text.chars().take(200).collect() }
}
