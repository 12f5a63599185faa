//! The logic of the SPANK plugin: options, leases, task environment and device filter.
