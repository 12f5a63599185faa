//! Topology, placement and lease life cycle as pure functions of values: no IO, no clock, no thread.
//!
//! The daemon and the simulator run this same code.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod topology;
