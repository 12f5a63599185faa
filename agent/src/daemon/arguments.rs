//! The command line of `migshared`, from which its manual page is made, too.

use crate::config::DEFAULT_PATH;
use crate::logging::LogFormat;
use clap::Parser;
use std::path::PathBuf;

/// The node agent of migshare: cuts idle GPUs into MIG instances, keeps the leases of Slurm jobs on them, and answers the SPANK
/// plugin at a socket. Runs as root, one per node.
#[derive(Parser)]
#[command(version, name = "migshared")]
pub struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Form of the log; without it the systemd journal where stdout goes there, otherwise text
    #[arg(long, value_name = "FORM")]
    pub log: Option<LogFormat>,
    /// Read the configuration, say whether it is usable, and end
    #[arg(long)]
    pub check: bool,
}
