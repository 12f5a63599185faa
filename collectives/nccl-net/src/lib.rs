//! `libnccl-net-migshare.so`: NCCL's net transport between processes of one node over host shared memory.
//!
//! For stacks whose NCCL cannot use several MIG instances of one GPU itself. NCCL hands host pointers to
//! the plugin and treats every rank as a node of its own; each connection is a two-rank communicator of
//! `migshare-collectives`.
//!
//! ```text
//!   NCCL ─▶ ncclNetPlugin_v6 · v8 · v10 · v12 (tables) ─▶ guard ─▶ connect / channel ─▶ Comm
//! ```
//! Jobs on several nodes are refused in `init`, before they start, with a message; NCCL then goes on to its
//! next network unless `NCCL_NET=migshare` was forced. Nothing here was run on a GPU: the ABI, the
//! data path and the faults are tested without NCCL.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod abi;
mod channel;
mod connect;
mod device;
mod guard;
mod tables;

pub use tables::{ncclNetPlugin_v6, ncclNetPlugin_v8, ncclNetPlugin_v10, ncclNetPlugin_v12};
