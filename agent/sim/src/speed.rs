//! How fast a job runs on what it was given. A model, stated here and nowhere else.
//!
//! One instance: median speeds of 32 training jobs on an A100 by instance size, relative to the whole GPU, measured by
//! MISO (Li et al., SoCC 2022, published data): 1g .309, 2g .516, 3g .668, 4g .746, 7g 1. Five and six slices, for which
//! no profile exists, are interpolated.
//!
//! Several leaves: as fast as one instance of as many slices would be, minus a share for the collectives between them. That
//! is less than the leaves' speeds added up (seven times .309), which only jobs that hardly synchronise would reach.

/// Speed of one instance of 1 to 7 slices.
const SPEED: [f64; 7] = [0.309, 0.516, 0.668, 0.746, 0.831, 0.915, 1.0];

/// What collectives between leaves cost, as a share of a job's time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overhead {
    /// For a job of more than one leaf.
    pub several: f64,
    /// In addition, for a job on more than one GPU.
    pub across: f64,
}

impl Default for Overhead {
    /// Five and ten per cent: an assumption. Packed leaves of one H200 reduce at 142 GB/s, leaves of two GPUs at 27 GB/s
    /// (stas00/ml-engineering), so across costs more.
    fn default() -> Overhead {
        Overhead { several: 0.05, across: 0.10 }
    }
}

/// Speed of an instance of so many slices relative to a whole GPU.
pub fn of_instance(slices: u32) -> f64 {
    let last = SPEED.len() as u32;
    SPEED[(slices.clamp(1, last) - 1) as usize]
}

/// Seconds that a job takes on an instance of `given` slices, which takes `seconds` on one of `wanted`.
pub fn on_instance(seconds: f64, wanted: u32, given: u32) -> f64 {
    seconds * of_instance(wanted) / of_instance(given)
}

/// Seconds that a job takes on as many leaves as it wants, on so many GPUs.
pub fn on_leaves(seconds: f64, leaves: u32, gpus: u32, overhead: Overhead) -> f64 {
    let several = if leaves > 1 { overhead.several } else { 0.0 };
    // A job of more than one whole GPU communicates between GPUs in any case.
    let across = if gpus > leaves.div_ceil(7) { overhead.across } else { 0.0 };
    seconds * (1.0 + several + across)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_instance_is_faster_and_the_wanted_one_takes_the_trace_s_time() {
        assert_eq!(on_instance(100.0, 2, 2), 100.0);
        assert!(on_instance(100.0, 2, 3) < 100.0);
        assert!((on_instance(100.0, 1, 7) - 30.9).abs() < 1e-9);
    }

    #[test]
    fn only_what_had_to_be_split_pays_for_it() {
        let overhead = Overhead { several: 0.1, across: 0.2 };
        assert_eq!(on_leaves(100.0, 1, 1, overhead), 100.0);
        assert!((on_leaves(100.0, 3, 1, overhead) - 110.0).abs() < 1e-9);
        assert!((on_leaves(100.0, 3, 2, overhead) - 130.0).abs() < 1e-9);
        assert!((on_leaves(100.0, 14, 2, overhead) - 110.0).abs() < 1e-9);
    }
}
