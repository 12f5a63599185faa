//! Which leaves a request gets.

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
