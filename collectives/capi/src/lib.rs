//! The C ABI of the collectives, as `migshare.h` declares it.
//!
//! ```text
//!   C caller ─▶ extern "C" fn ─▶ guard(): panic → MIGSHARE_INTERNAL, error → status + text per thread
//!                                  └▶ handle (comm behind a busy flag) ─▶ migshare-collectives
//! ```
//! Nothing is computed here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod comm;
mod guard;
mod handle;
mod operations;
mod segment;

pub use comm::*;
pub use guard::{migshare_abi_version, migshare_last_error, migshare_status_name};
pub use handle::{CommHandle, SegmentHandle};
pub use operations::*;
pub use segment::*;
