//! Tests of the node, by theme.

mod admin;
mod faults;
mod grants;
mod large;
mod leases;
mod oracle;
mod start;
