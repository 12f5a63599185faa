//! A throw-away Slurm cluster on loopback: munge, slurmctld, several slurmd and, for each node, simulated GPUs
//! and a `migshared` of its own. The cluster stories and the demo are written with it.
//!
//! Everything real is real: Slurm, munge, the plugin, the agent, the device filter. Only NVML is simulated.
//! Each cluster has its own directory, ports and processes, so several can run beside each other; nothing of it
//! outlives its [`Cluster`], also when a test panics or is killed.
//!
//! The crate does not judge what a job did: it starts things, waits for conditions and reports what was seen.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod artifacts;
pub mod cluster;
pub mod collectives;
pub mod config;
pub mod daemon;
pub mod interrupt;
pub mod leftovers;
pub mod login;
pub mod node;
pub mod ports;
pub mod process;
pub mod require;
pub mod sight;
pub mod site;
pub mod slurm;
pub mod story;
pub mod wait;

pub use cluster::Cluster;
pub use login::Login;
pub use process::{Outcome, Running};
pub use sight::Sight;
pub use site::Site;
pub use story::story;

/// Why a cluster did not do what it was told. A test fails with it.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A file of the cluster could not be made or read.
    #[error("{what}: {cause}")]
    File {
        /// The file and what was to be done with it.
        what: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A program could not be started, or ended when it should not.
    #[error("{0}")]
    Program(String),
    /// A condition did not come true in time.
    #[error("after {seconds} s still not {what}; last seen: {seen}")]
    Deadline {
        /// The condition.
        what: String,
        /// Patience in seconds.
        seconds: u64,
        /// What was seen instead.
        seen: String,
    },
    /// Somebody pressed Ctrl-C while this was waited for.
    #[error("interrupted, not yet {0}")]
    Interrupted(String),
    /// Something was seen that must not be.
    #[error("{0}")]
    Unexpected(String),
}

/// What most of the harness returns.
pub type Result<T = ()> = std::result::Result<T, Trouble>;

/// Fails with a text unless the condition holds: for conditions that are checked in code shared by stories and demo.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(Trouble::Unexpected(what())) }
}
