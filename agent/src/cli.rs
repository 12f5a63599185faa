//! The command line `migshare`: what it takes and how it ends. Each command has a file of its own.

/// As std's, but without its panic; see `out.rs`.
macro_rules! print {
    ($($words:tt)*) => { $crate::cli::out::write(format_args!($($words)*)) };
}

/// As std's, but without its panic; see `out.rs`.
macro_rules! println {
    ($($words:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($words)*))) };
}

mod explain;
mod health;
mod manual;
mod mig_parted;
mod out;
mod paint;
mod plan;
mod service;
mod status;
mod target;

use clap::{Parser, Subcommand};
use migshare_proto::admin::{Order, OrderRequest};
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
    /// The order was taken, and a part of it waits for jobs to end.
    Deferred = 6,
}

impl Exit {
    /// What JSON calls it.
    fn name(self) -> &'static str {
        match self {
            Exit::Well => "well",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Refused => "refused",
            Exit::Away => "away",
            Exit::Unwell => "unwell",
            Exit::Deferred => "deferred",
        }
    }
}

/// Looks after the MIG instances that Slurm jobs share on this node.
///
/// migshared, the agent, cuts idle GPUs into MIG instances ("leaves") and leases them to Slurm jobs. This command shows
/// what is leased to whom and why, plans and applies other layouts without draining the node, and takes GPUs and
/// places out of service. Looking is open to all users; the rest is root's.
///
/// Exit codes: 0 well, 1 failed, 2 wrong usage, 3 refused by the agent, 4 no agent answers, 5 the node has a problem, 6 a part
/// of the order waits for jobs to end.
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
    /// Print JSON, also of a failure: {"error": {"kind", "text"}}, and of a refusal: {"refused": {"reason", "text"}}
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  migshare status                          GPUs, leaves, and which jobs hold them
  migshare explain 812                     why job 812 got its leaves, or was refused
  migshare plan full-memory                what another layout would do, and what would have to wait
  migshare apply gpu=1 layout=2g.20gb:3    give one GPU three 2g instances; busy places follow as jobs end
  migshare cordon gpu=1 --note 'new fan'   take a GPU out of service; its jobs go on, Slurm sends no more";

#[derive(Subcommand)]
enum Command {
    /// Show the GPUs of this node, their leaves and who holds them
    Status,
    /// Tell why a job got these leaves, or was refused
    Explain(explain::Options),
    /// Show what a change of layout would do now, and what would have to wait for which job
    Plan(plan::PlanOptions),
    /// Change the layout: idle places at once, the others as their jobs end
    Apply(plan::ApplyOptions),
    /// Take a GPU out of service: its jobs go on, the node is drained until it is back
    Cordon(service::Cordon),
    /// Put a GPU back into service
    Uncordon(service::OneGpu),
    /// Keep a place out of use once its job has ended; the node is drained meanwhile
    Quarantine(service::Quarantine),
    /// Use a quarantined place again; what stands there becomes the agent's
    Release(service::OnePlace),
    /// End a job's lease although Slurm has not said that it ended
    Evict(service::Evict),
    /// No longer count a GPU that is gone for good
    Forget(service::Forget),
    /// Check the agent; drain this node in Slurm while no agent answers
    Health(health::Options),
    /// Print completions for a shell, or manual pages
    #[command(hide = true)]
    Manual(manual::Options),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let agent = Agent { socket: arguments.socket, json: arguments.json };
    let done = match arguments.command {
        Command::Status => status::run(&agent),
        Command::Explain(options) => explain::run(&agent, &options),
        Command::Plan(options) => plan::plan(&agent, &options),
        Command::Apply(options) => plan::apply(&agent, &options),
        Command::Cordon(options) => service::cordon(&agent, &options),
        Command::Uncordon(options) => service::uncordon(&agent, &options),
        Command::Quarantine(options) => service::quarantine(&agent, &options),
        Command::Release(options) => service::release(&agent, &options),
        Command::Evict(options) => service::evict(&agent, &options),
        Command::Forget(options) => service::forget(&agent, &options),
        Command::Health(options) => health::run(&agent, &options),
        Command::Manual(options) => manual::run(&options),
    };
    let exit = done.unwrap_or_else(|e| {
        if agent.json {
            println!("{}", failure(&e));
        }
        eprintln!("migshare: {e:#}");
        exit_of(&e)
    });
    ExitCode::from(exit as u8)
}

/// A failure for a script.
fn failure(e: &anyhow::Error) -> serde_json::Value {
    match e.downcast_ref() {
        Some(ClientError::Refused(refused)) => serde_json::json!({ "refused": refused }),
        _ => serde_json::json!({ "error": { "kind": exit_of(e).name(), "text": format!("{e:#}") } }),
    }
}

fn exit_of(e: &anyhow::Error) -> Exit {
    match e.downcast_ref::<ClientError>() {
        Some(ClientError::Away { .. }) => Exit::Away,
        Some(ClientError::Refused(_)) => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// Longest wait for an answer. The agent may be busy with hardware, not for long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent as commands reach it.
struct Agent {
    socket: PathBuf,
    /// Whether results, and refusals with them, are printed as JSON.
    json: bool,
}

impl Agent {
    /// Asks one thing.
    fn ask(&self, request: &Request, patience: Duration) -> Result<Reply, ClientError> {
        let program = concat!("migshare ", env!("CARGO_PKG_VERSION"));
        Client::connect(&self.socket, program, patience)?.ask(request)
    }

    /// Gives an order; whether it changed anything.
    fn order(&self, order: Order, force: bool) -> Result<bool, ClientError> {
        match self.ask(&Request::Order(OrderRequest { order, force }), PATIENCE)? {
            Reply::Done(done) => Ok(done.found),
            other => Err(ClientError::Nonsense(format!("{other:?} to an order"))),
        }
    }

    /// The picture of the node.
    fn status(&self, patience: Duration) -> Result<Status, ClientError> {
        match self.ask(&Request::Status(StatusQuery {}), patience)? {
            Reply::Status(status) => Ok(*status),
            other => Err(ClientError::Nonsense(format!("{other:?} to status"))),
        }
    }
}
