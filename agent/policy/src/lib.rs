//! Topology, placement and lease life cycle as pure functions of values: no IO, no clock, no thread.
//!
//! The daemon and the simulator run this same code.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ask;
pub mod books;
pub mod charge;
#[cfg(test)]
mod fixture;
pub mod geometry;
pub mod layout;
pub mod node;
pub mod order;
pub mod placement;
pub mod record;
#[cfg(test)]
mod rig;
pub mod seen;
pub mod tasks;
pub mod topology;

pub use books::Books;
pub use node::Node;
