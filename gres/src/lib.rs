//! What Slurm must be told about a node with leaves: the text for gres.conf, slurm.conf, plugstack.conf and the price table, and how
//! it differs from what is installed.
//!
//! One number matters: Slurm counts leaves and never learns which ones. The count is constant while the agent changes
//! how GPUs are cut, so nothing here has to be repeated after a change of layout.
//!
//! This crate reads configuration files the way Slurm does as far as these settings go. It writes none, starts
//! nothing and asks slurmctld nothing.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod check;
pub mod conf;
pub mod installed;
pub mod inventory;
pub mod render;
