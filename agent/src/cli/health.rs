//! `migshare health`: for Slurm's `HealthCheckProgram`, which runs it as root on every node at an interval. While the agent answers, the
//! agent itself drains and resumes the node; this command is for the time when it does not.

use super::{Agent, Exit};
use crate::config::{Config, DEFAULT_PATH};
use crate::slurm::{REASON_PREFIX, Slurm, SlurmError};
use clap::Args;
use migshare_proto::ClientError;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub(super) struct Options {
    /// The agent's configuration file: node name, socket and Slurm's commands are taken from it
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Slurm kills a health check after 60 s.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(asked: &Agent, options: &Options) -> anyhow::Result<Exit> {
    let config = Config::read(&options.config)?;
    let slurm = Slurm::new(&config.node, &config.slurm);
    let agent = Agent { socket: config.socket.clone(), json: false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (problems, exit) = match agent.status(PATIENCE) {
        // What is wrong beside the agent itself, the agent acts upon.
        Ok(status) if status.problems.is_empty() => (Vec::new(), Exit::Well),
        Ok(status) => (status.problems.iter().map(ToString::to_string).collect(), Exit::Unwell),
        Err(e) => {
            if config.slurm.drain {
                runtime.block_on(drain(&slurm, &e))?;
            }
            (vec![e.to_string()], Exit::Away)
        }
    };
    if asked.json {
        println!("{}", serde_json::json!({ "problems": problems }));
    } else {
        problems.iter().for_each(|p| println!("migshare: {p}"));
    }
    Ok(exit)
}

/// Drains the node, unless somebody has done so already.
async fn drain(slurm: &Slurm, why: &ClientError) -> Result<(), SlurmError> {
    if slurm.state().await?.is_drained() {
        return Ok(());
    }
    slurm.drain(&format!("{REASON_PREFIX}agent away: {why}")).await
}
