//! Tests that start the real sidecar and go through its mount. They need root and /dev/fuse; without them they
//! say so and are skipped, or fail when `MIGSHARE_REQUIRE=all`.
#![allow(clippy::unwrap_used)]

#[path = "mounted/rig.rs"]
mod rig;

#[path = "mounted/arguments.rs"]
mod arguments;
#[path = "mounted/coherence.rs"]
mod coherence;
#[path = "mounted/crowds.rs"]
mod crowds;
#[path = "mounted/device.rs"]
mod device;
#[path = "mounted/faults.rs"]
mod faults;
#[path = "mounted/kept.rs"]
mod kept;
#[path = "mounted/locks.rs"]
mod locks;
#[path = "mounted/operation.rs"]
mod operation;
#[path = "mounted/posix.rs"]
mod posix;
#[path = "mounted/remote.rs"]
mod remote;
#[path = "mounted/rights.rs"]
mod rights;
#[path = "mounted/semantics.rs"]
mod semantics;
#[path = "mounted/sequences.rs"]
mod sequences;
#[path = "mounted/silence.rs"]
mod silence;
#[path = "mounted/suites.rs"]
mod suites;
#[path = "mounted/user.rs"]
mod user;
#[path = "mounted/warmed.rs"]
mod warmed;
#[path = "mounted/writeback.rs"]
mod writeback;
