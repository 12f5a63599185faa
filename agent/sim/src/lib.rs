//! Replays job traces in virtual time against three ways to share GPUs that can do MIG:
//!
//! - **one-to-many**: every GPU is cut to leaves for good and a job takes as many as it needs, by the very policy that the
//!   agent runs;
//! - **static**: every GPU has one fixed layout of mixed instances, a job runs on one instance;
//! - **dynamic**: a job runs on one instance, and a GPU is cut anew for the queue when it is empty, which takes a while
//!   (the whole GPU has to be drained first).
//!
//! The queue is the same for all: first come first served, and a job may overtake only what it does not delay by taking
//! what the head of the queue cannot use yet. Nothing here measures GPUs: how fast a job runs is a stated model
//! ([`speed`]), and results are ratios between the three under that model, never predictions of seconds.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod dynamic;
pub mod fixed;
pub mod fleet;
pub mod leaves;
pub mod model;
pub mod replay;
pub mod speed;
pub mod trace;
