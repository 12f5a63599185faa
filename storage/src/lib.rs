//! A caching file-system sidecar that splits reads between cache and backend.
//!
//! ```text
//!   policy    which side serves a clean hit: pure, time passed in
//!   emulate   device pairs in virtual time that run the same policy code
//! ```
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod emulate;
pub mod policy;
