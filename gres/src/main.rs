//! `migshare-gres`: what Slurm must be told about this node, and whether it was.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use migshare_gres::check::{Difference, Weight, check};
use migshare_gres::installed::Installed;
use migshare_gres::inventory::Inventory;
use migshare_gres::render::{PLUGIN, SOCKET, text};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What Slurm must be told about a node with leaves
///
/// Exit codes: 0 all is in place (or rendered), 1 something is wrong, 2 it cannot be told.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the text for gres.conf, slurm.conf, plugstack.conf and the price table
    Render {
        #[command(flatten)]
        source: Source,
        /// The plugin, as plugstack.conf is to name it
        #[arg(long, value_name = "PATH", default_value = PLUGIN)]
        plugin: String,
        /// Print JSON with one text per file
        #[arg(long)]
        json: bool,
    },
    /// Compare with what is installed and name each difference
    Check {
        #[command(flatten)]
        source: Source,
        /// Slurm's configuration; gres.conf, plugstack.conf and cgroup.conf are looked for beside it
        #[arg(long, value_name = "FILE", env = "SLURM_CONF", default_value = "/etc/slurm/slurm.conf")]
        slurm_conf: PathBuf,
        /// Print JSON: a list of differences
        #[arg(long)]
        json: bool,
    },
}

/// Where the node's inventory is from.
#[derive(Args)]
struct Source {
    /// The agent's socket
    #[arg(long, value_name = "PATH", env = migshare_proto::env::SOCKET, default_value = SOCKET)]
    socket: PathBuf,
    /// Read what `migshare status --json` printed on the node, and ask nobody
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
}

impl Source {
    fn inventory(&self) -> anyhow::Result<Inventory> {
        match &self.inventory {
            Some(file) => Ok(Inventory::read(file)?),
            None => Inventory::ask(&self.socket).context("is migshared running? else give --inventory FILE"),
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("migshare-gres: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Render { source, plugin, json } => {
            let text = text(&source.inventory()?, &plugin, &source.socket);
            show(&if json { serde_json::to_string_pretty(&text)? + "\n" } else { text.whole() })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { source, slurm_conf, json } => {
            let inventory = source.inventory()?;
            let socket = source.inventory.is_none().then_some(source.socket.as_path());
            let found = check(&inventory, &Installed::read(&slurm_conf)?, socket);
            show(&if json {
                serde_json::to_string_pretty(&found)? + "\n"
            } else {
                table(&inventory, &found)
            })?;
            let wrong = found.iter().any(|d| d.weight == Weight::Wrong);
            Ok(ExitCode::from(u8::from(wrong)))
        }
    }
}

/// Prints. A reader that has seen enough (`| head`) is no failure; std's macros panic there.
fn show(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("cannot print"),
        _ => Ok(()),
    }
}

fn table(inventory: &Inventory, found: &[Difference]) -> String {
    let Inventory { node, leaves, .. } = inventory;
    let lines = found.iter().map(|d| {
        let word = if d.weight == Weight::Wrong { "wrong " } else { "advice" };
        format!("{word}  {}: {}\n", d.at, d.text)
    });
    let lines: String = lines.collect();
    if lines.is_empty() { format!("{node}: {leaves} leaves, Slurm is set up for them\n") } else { lines }
}
