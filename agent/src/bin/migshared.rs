//! `migshared`: the node agent.
#![forbid(unsafe_code)]

use clap::Parser;
use migshare_agent::config::{Config, DEFAULT_PATH};
use migshare_agent::logging::{self, LogFormat};
use std::path::PathBuf;

/// The node agent of migshare: cuts idle GPUs into MIG instances, keeps the leases of Slurm jobs on them, and answers the SPANK
/// plugin at a socket. Runs as root, one per node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Form of the log; without it the systemd journal where stdout goes there, otherwise text
    #[arg(long, value_name = "FORM")]
    log: Option<LogFormat>,
    /// Read the configuration, say whether it is usable, and end
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    logging::start(arguments.log);
    let config = Config::read(&arguments.config)?;
    if arguments.check {
        println!("{}: usable", arguments.config.display());
        return Ok(());
    }
    migshare_agent::daemon::run(config)
}
