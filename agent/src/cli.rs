//! The command line `migshare`: what it takes and how it ends. Each command has a file of its own.

mod health;
mod paint;
mod status;

use clap::{Parser, Subcommand};
use migshare_proto::message::StatusQuery;
use migshare_proto::status::Status;
use migshare_proto::{Client, ClientError, Reply, Request};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How a command ended. These numbers are an interface: scripts test them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and all is well.
    Well = 0,
    /// Something failed: the message says what.
    Failed = 1,
    /// The command line makes no sense (clap's own code).
    Usage = 2,
    /// The agent works and says no.
    Refused = 3,
    /// No agent answers.
    Away = 4,
    /// The answer came, and the node has a problem.
    Unwell = 5,
}

/// Looks after the MIG instances that Slurm jobs share on this node.
///
/// migshared, the agent, cuts idle GPUs into MIG instances ("leaves") and leases them to Slurm jobs. This command shows what is leased to
/// whom.
///
/// Exit codes: 0 well, 1 failed, 2 wrong usage, 3 refused by the agent, 4 no agent answers, 5 the node has a problem.
#[derive(Parser)]
#[command(version, name = "migshare", after_help = EXAMPLES)]
pub struct Arguments {
    /// The agent's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MIGSHARE_SOCKET",
        default_value = "/run/migshare/agent.sock"
    )]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  migshare status              GPUs, leaves, and which jobs hold them
  migshare status --json       the same for programs
  migshare health              for Slurm's HealthCheckProgram";

#[derive(Subcommand)]
enum Command {
    /// Show the GPUs of this node, their leaves and who holds them
    Status(status::Options),
    /// Check the agent; drain this node in Slurm while no agent answers, and put it back when one does
    Health(health::Options),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let agent = Agent { socket: arguments.socket };
    let done = match arguments.command {
        Command::Status(options) => status::run(&agent, &options),
        Command::Health(options) => health::run(&agent, &options),
    };
    let exit = done.unwrap_or_else(|e| {
        eprintln!("migshare: {e:#}");
        exit_of(&e)
    });
    ExitCode::from(exit as u8)
}

fn exit_of(e: &anyhow::Error) -> Exit {
    match e.downcast_ref::<ClientError>() {
        Some(ClientError::Away { .. }) => Exit::Away,
        Some(ClientError::Refused(_)) => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// The agent as commands reach it.
struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// Asks one thing.
    fn ask(&self, request: &Request, patience: Duration) -> Result<Reply, ClientError> {
        let program = concat!("migshare ", env!("CARGO_PKG_VERSION"));
        Client::connect(&self.socket, program, patience)?.ask(request)
    }

    /// The picture of the node.
    fn status(&self, patience: Duration) -> Result<Box<Status>, ClientError> {
        match self.ask(&Request::Status(StatusQuery {}), patience)? {
            Reply::Status(status) => Ok(status),
            other => Err(ClientError::Nonsense(format!("{other:?} to status"))),
        }
    }
}
