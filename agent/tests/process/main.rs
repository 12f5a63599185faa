//! The agent as a process: the real `migshared` on the simulated NVML, killed, starved and lied to.
#![allow(clippy::unwrap_used)]

mod admin;
mod container;
mod contrib;
mod crash;
mod disk;
mod hardening;
mod hardware;
mod hostile;
mod lease;
mod log;
mod metrics;
mod node;
mod restart;
mod rig;
mod segment;
mod segment_hostile;
mod segment_restart;
mod shapes;
mod slurm;
mod step;
mod systemd;
