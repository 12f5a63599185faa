//! What the agent and its clients say to each other: ids, messages, error codes, names of environment
//! variables, and a blocking client.
//!
//! This crate has no opinion: it decides nothing, stores nothing and knows neither Slurm nor NVML. It is
//! linked into the SPANK plugin, so it starts no thread and every socket call has a deadline.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod client;
pub mod codec;
mod compat;
pub mod env;
pub mod hostlist;
pub mod ids;
pub mod leaf;
pub mod message;
pub mod prices;
pub mod segment;
pub mod size;
pub mod status;

pub use client::{Client, ClientError};
pub use ids::{GpuUuid, JobKey, Placement, StepId};
pub use leaf::Leaf;
pub use message::{Reply, Request};

/// The newest protocol version that this crate speaks. What came with each is in `compat.rs`.
pub const PROTOCOL: u32 = 2;
/// The oldest protocol version that this crate still speaks.
pub const PROTOCOL_MIN: u32 = 1;
