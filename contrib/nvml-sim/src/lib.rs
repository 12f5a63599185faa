//! A MIG-true `libnvidia-ml.so.1` without hardware.
//!
//! ```text
//!   C callers ──> abi ──> session ──> store ──> machine (pure: GPUs, instances, modes)
//!   nvml-sim  ──> cli ──────────────> store ──> machine
//!                                       └─────> capfs (proc-like files, device nodes)
//! ```
//! The node's whole state is one file that every process reads without a lock and that only its owner replaces,
//! atomically and under a lock. What the hardware would do is decided in [`machine`]; what published listings
//! say about GPU models is in [`models`].
//!
//! It deliberately does not execute GPU work, and it exports nothing but NVML.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod abi;
pub mod capfs;
pub mod code;
pub mod config;
pub mod fault;
pub mod files;
pub mod machine;
pub mod models;
pub mod process;
pub mod session;
pub mod store;
