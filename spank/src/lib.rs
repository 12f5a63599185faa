//! The logic of the SPANK plugin: options, leases, task environment and device filter.
//!
//! Slurm itself is behind the [`slurm::Slurm`] trait: `spank_migshare.so` (the crate in `shim/`) implements it
//! over Slurm's C interface, the tests implement it over a table. This crate therefore links without Slurm.
//!
//! One hook is one method of [`Plugin`]; one Slurm context is one module:
//!
//! ```text
//! srun, sbatch, salloc            init, option, init_post_opt                            local, submit
//! slurmstepd spank prolog|epilog  job_prolog, job_epilog                                 job_script
//! slurmstepd (a step)             init, option, init_post_opt, task_*, exit              remote
//! slurmd                          init (checks the configuration line, nothing else)     plugin
//! ```
//!
//! No thread, no standard output, a deadline on every socket call. A job that did not ask for leaves never opens
//! the socket. Nothing here returns an error to Slurm from a hook whose error would drain the node or lose the
//! job's exit code; see [`remote`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod caps;
pub mod config;
pub mod filter;
pub mod gres;
pub mod job_script;
pub mod local;
pub mod marker;
pub mod option;
pub mod plugin;
pub mod remote;
pub mod slurm;
pub mod submit;
pub mod task_env;

pub use plugin::Plugin;
