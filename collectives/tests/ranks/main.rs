//! Real processes as ranks: every test starts its own executable again, once per rank.

#![allow(clippy::unwrap_used)]

mod death;
mod headers;
mod launch;
mod lent;
mod lives;
mod mismatch;
mod relayed;
mod rounds;
mod segments;
mod silent;
mod slots;
mod stepped;
mod values;
mod words;
