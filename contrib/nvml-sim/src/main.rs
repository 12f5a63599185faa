//! `nvml-sim`: sets up, shows and disturbs the simulated hardware of a node.
//!
//! The hand of the administrator and of chance: what NVML itself can do is done through NVML.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use nvidia_ml::config::Config;
use nvidia_ml::store::Store;

/// Simulated NVIDIA GPUs with MIG, at NVML's C ABI.
#[derive(Debug, Parser)]
#[command(name = "nvml-sim", version)]
struct Arguments {
    /// Configuration file; %n in it is the node name [default: $NVML_SIM_CONFIG, else /etc/nvml-sim.toml]
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the GPU models, their profiles, where the figures are from and what is inferred
    Models {
        /// Also list profiles and sources
        #[arg(long)]
        long: bool,
    },
    /// Make the state and the capability files, if they are not there yet
    Init,
    /// Show GPUs, instances, processes, holders and faults
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Reboot the node: instances and faults go, the configuration is read again
    Reboot,
    /// Reset a GPU: its instances go, a pending MIG mode comes into force
    Reset {
        /// NVML index or UUID
        gpu: String,
        /// Minor number that it has afterwards
        #[arg(long)]
        minor: Option<u32>,
    },
    /// Let a GPU fall off the bus; `reset` or `reboot` brings it back
    Lose {
        /// NVML index or UUID
        gpu: String,
    },
    /// Let a client hold a GPU open, as a monitoring agent does: changes fail with IN_USE
    Hold {
        /// NVML index or UUID
        gpu: String,
        /// Hold for as long as this process lives instead of until `release`
        #[arg(long)]
        pid: Option<u32>,
        /// What it is
        #[arg(long, default_value = "monitoring client")]
        note: String,
    },
    /// End every hold on a GPU
    Release {
        /// NVML index or UUID
        gpu: String,
    },
    /// Processes that compute
    #[command(subcommand)]
    Process(cli::process::Command),
    /// Calls that fail, take time or kill their caller
    #[command(subcommand)]
    Fault(cli::fault::Command),
    /// Make a directory with libnvidia-ml.so.1 and libnvidia-ml.so for LD_LIBRARY_PATH
    LibDir {
        /// The directory
        #[arg(long)]
        dir: PathBuf,
        /// The library [default: beside this program, or in ../lib/migshare]
        #[arg(long)]
        library: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("nvml-sim: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let open = || -> anyhow::Result<Store> {
        let config = Config::locate(arguments.config.as_deref())?;
        Store::open(config).context("the simulated hardware cannot be used")
    };
    match arguments.command {
        Command::Models { long } => cli::models::list(long),
        Command::Init => cli::hardware::init(&open()?)?,
        Command::Status { json } => cli::status::show(&open()?, json)?,
        Command::Reboot => cli::hardware::reboot(&open()?)?,
        Command::Reset { gpu, minor } => cli::hardware::reset(&open()?, &gpu, minor)?,
        Command::Lose { gpu } => cli::hardware::lose(&open()?, &gpu)?,
        Command::Hold { gpu, pid, note } => cli::hardware::hold(&open()?, &gpu, pid, note)?,
        Command::Release { gpu } => cli::hardware::release(&open()?, &gpu)?,
        Command::Process(command) => cli::process::run(&open()?, command)?,
        Command::Fault(command) => cli::fault::run(&open()?, command)?,
        Command::LibDir { dir, library } => cli::library::link(&dir, library)?,
    }
    Ok(())
}
