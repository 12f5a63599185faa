//! Collectives over host shared memory.
