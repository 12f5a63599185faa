//! Topology, placement and lease life cycle as pure functions of values.
