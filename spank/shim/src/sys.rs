//! Slurm's C declarations as bindgen reads them from the installed headers, and the few that it cannot see.
#![allow(missing_docs, non_camel_case_types, non_upper_case_globals, unreachable_pub, dead_code)]
// Generated: its pointers are Slurm's business.
#![allow(clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/slurm.rs"));

/// `SHOW_ALL | SHOW_DETAIL`. Macros in slurm.h, the second one by way of another macro since 24.11.
pub const SHOW_EVERYTHING: u16 = 1 | 2;
/// `NODE_STATE_DRAIN`, `SLURM_BIT(9)` in slurm.h of all series.
pub const NODE_DRAIN: u32 = 1 << 9;
/// `PART_FLAG_DEFAULT`, bit 0 in slurm.h of all series.
pub const PARTITION_DEFAULT: u64 = 1;
