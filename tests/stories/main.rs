//! What happens on a real cluster, told as stories: one file each, each test on a cluster of its own.
//!
//! After every story no leaf is leased, no journal entry open, no process left and no node drained; the frame in
//! `migshare_harness::story` checks it.
#![forbid(unsafe_code)]

mod agent_away;
mod agent_restarts;
mod bad_options;
mod batch;
mod broken_node;
mod bystanders;
mod configured;
mod contention;
mod cordon;
mod health_check;
mod inherited_options;
mod installed;
mod killed_jobs;
mod large_instances;
mod launch;
mod launchers;
mod leaves_per_task;
mod networks;
mod no_place;
mod prices;
mod random_kills;
mod refused_requests;
mod salloc;
mod segments;
mod slurmd_restarts;
mod steps;
mod trespass;
