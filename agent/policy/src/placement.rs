//! Which leaves a request gets: an exact search, per GPU over all subsets, across GPUs by dynamic programming.
//!
//! What counts, most important first:
//! - pack: fewest GPUs, fewest NUMA nodes, fewest instances to make, largest holes left;
//! - spread: most GPUs, most even, fewest instances to make, largest holes left.
//!
//! Largest holes: how many instances of each larger profile could still be made on what stays free, the largest profile
//! first ([`crate::geometry::Holes`]). This module knows nothing of leases: it is given what is free.

mod offer;
mod search;

use crate::geometry::{Geometry, Units};
use migshare_proto::Placement;
pub use offer::Offers;

/// How the leaves of a request should lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// On the fewest GPUs, then on the fewest NUMA nodes, then where the largest holes stay free.
    Pack,
    /// On as many GPUs, and so PCIe links, as possible, evenly, then where the largest holes stay free.
    Spread,
}

impl Direction {
    /// What suits collectives between leaves under this NVIDIA driver.
    ///
    /// From R570 on leaves of one GPU talk peer to peer inside the GPU and other paths are ten times slower (NVIDIA MIG
    /// user guide, "CUDA device enumeration"; all-reduce measurements in stas00/ml-engineering): pack. Before, all
    /// traffic goes through host memory over each GPU's one PCIe link: spread.
    pub fn for_driver(major: u32) -> Direction {
        if major >= 570 { Direction::Pack } else { Direction::Spread }
    }
}

/// What one GPU has to offer to a request.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its geometry.
    pub geometry: &'a Geometry,
    /// Its NUMA node.
    pub numa: Option<u32>,
    /// Units that the request cannot have.
    pub used: Units,
    /// Places that the request can have. They may overlap each other; chosen ones do not.
    pub free: Vec<Free>,
}

/// A place that a request can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Where.
    pub placement: Placement,
    /// Whether the instance stands already.
    pub stands: bool,
}

/// The best places for `count` instances: for each one the position of its GPU in `gpus` and of its place in that GPU's
/// `free`, both ascending. `None` exactly where no choice has `count` disjoint places.
pub fn choose(gpus: &[Candidate<'_>], count: u32, direction: Direction) -> Option<Vec<(usize, usize)>> {
    let offers = offer::of_all(gpus, usize::try_from(count).ok()?);
    choose_from(&offers.iter().collect::<Vec<_>>(), count, direction)
}

/// What each of these GPUs can give to any request.
pub fn offers(gpus: &[Candidate<'_>]) -> Vec<Offers> {
    offer::of_all(gpus, usize::MAX)
}

/// As [`choose`], from what the GPUs were found to be able to give.
pub fn choose_from(offers: &[&Offers], count: u32, direction: Direction) -> Option<Vec<(usize, usize)>> {
    let count = usize::try_from(count).ok()?;
    let counts = match direction {
        Direction::Pack => search::pack(offers, count)?,
        Direction::Spread => search::spread(offers, count)?,
    };
    let mut chosen = Vec::with_capacity(count);
    for (gpu, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        let mut places = offers[gpu].best[n]?.places;
        while places != 0 {
            chosen.push((gpu, places.trailing_zeros() as usize));
            places &= places - 1;
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests;
