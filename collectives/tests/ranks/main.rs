//! Real processes as ranks: every test starts its own executable again, once per rank.

#![allow(clippy::unwrap_used)]

mod death;
mod launch;
mod lent;
mod mismatch;
mod relayed;
mod segments;
mod silent;
mod slots;
mod stepped;
mod values;
mod words;
