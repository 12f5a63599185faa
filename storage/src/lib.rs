//! A caching file-system sidecar that splits reads between cache and backend.
//!
//! ```text
//!   policy    which side serves a clean hit: pure, time passed in
//!   feedback  what the way to the backend says of itself: controllers, connections, ports, imports
//!   metrics   what Prometheus is told
//!   mounts    the mount table
//!   cache     extents with checksums on local storage
//!   dirty     what is newer here than at the backend: state, journal, what a crash leaves behind
//!   fs        operations of the file system as plain Rust, reads among them
//!   fuse      the FUSE front end;  waiting: requests under way, and who may stop waiting
//!   sidecar   puts the above together;  config  what an administrator writes
//!   io        reads without a thread per read: io_uring, or a bounded pool
//!   random    reproducible numbers
//!   plot      line charts as SVG
//!   emulate   device pairs in virtual time that run the same policy code
//! ```
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cache;
pub mod config;
pub mod dirty;
pub mod emulate;
pub mod feedback;
pub mod fs;
pub mod fuse;
pub mod io;
pub mod metrics;
pub mod mounts;
pub mod plot;
pub mod policy;
pub mod random;
pub mod sidecar;
pub mod waiting;
