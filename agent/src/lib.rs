//! The node agent `migshared` and its command line `migshare`.
//!
//! Decisions about leaves are made in `migshare-policy`, hardware is called in `migshare-nvml`, messages are defined in
//! `migshare-proto`. Here are the effects: journal, threads, socket, processes, Slurm's commands.
//!
//! ```text
//! daemon     composition of migshared
//!  ├ driver     owns the node's state                        journal    what survives a crash
//!  ├ hardware   the thread that owns NVML                    holders    processes that hold grants
//!  ├ server     the socket, on the driver's thread           slurm      drain, resume, what runs here
//!  ├ metrics    Prometheus                                 hpc_jobs   job ids for dcgm-exporter
//!  ├ isolation  whether tasks can be kept from the leaves of others
//!  ├ segments   memory that the ranks of a step share, and the socket where they get it
//!  └ notify, process, config, logging
//! cli        migshare
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod hardware;
pub mod holders;
pub mod hpc_jobs;
pub mod isolation;
pub mod journal;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod process;
pub mod segments;
pub mod seldom;
pub mod server;
pub mod slurm;
pub mod wire;
