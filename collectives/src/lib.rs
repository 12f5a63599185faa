//! Collectives between the processes of one job step over host shared memory.
//!
//! A [`Segment`] is the memory that the ranks share, a [`Comm`] is a group of ranks in it. Results are
//! bit-equal on all ranks: every element is combined in rank order. Every wait has a deadline and
//! notices a dead peer; the first fault poisons the communicator for all of its members, after which
//! the contents of all buffers of the failed call are undefined.
//!
//! ```text
//!   Comm ── algorithm (by size and ranks) ── schedule (who may touch which bytes when)
//!     │          │                               │
//!     │          └ kernels (dispatch by CPU)     └ line: one word per rank, one writer each
//!     └ request (async state machines)               segment: memfd or named, layout computed, never read
//! ```
//!
//! It does not launch processes, does not cross nodes and does not touch GPU memory.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(not(loom))]
pub mod algorithm;
pub mod attendance;
#[cfg(not(loom))]
pub mod comm;
#[cfg(not(loom))]
mod core;
pub mod datatype;
pub mod error;
pub mod flow;
#[cfg(not(loom))]
mod generation;
pub mod handshake;
#[cfg(not(loom))]
mod join;
#[cfg(not(loom))]
pub mod kernels;
pub mod line;
#[cfg(not(loom))]
mod liveness;
pub mod relay;
#[cfg(not(loom))]
pub mod request;
#[cfg(not(loom))]
mod ring;
pub mod schedule;
#[cfg(not(loom))]
pub mod segment;
pub mod sync;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod wait;
pub mod word;

#[cfg(not(loom))]
pub use comm::{Comm, Options};
pub use datatype::{DataType, ReduceOp};
pub use error::{Error, Status};
#[cfg(not(loom))]
pub use request::Request;
#[cfg(not(loom))]
pub use segment::{Segment, SegmentBuffer};
#[cfg(not(loom))]
pub use sys::is_readable_from_outside;
