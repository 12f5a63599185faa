//! What the rules about the code look at: the files of the tree, and the crates as cargo sees them.
//!
//! The rules themselves are the tests of this crate, one file each, and each says its reason. Nothing here looks
//! at how a program behaves.
#![forbid(unsafe_code)]

pub mod crates;
pub mod tree;
