//! Tests of the node, by theme.

mod faults;
mod grants;
mod leases;
mod oracle;
mod start;
