//! What an instance larger than a leaf costs in leaves.
//!
//! Slurm counts leaves and does not know where they lie, so an instance is charged by its worst place: a 3g takes four
//! leaves at start 0 and three at start 4, and is charged four. So whatever lies where, as many leaves are free as Slurm
//! believes, and a request for leaves never fails for the shape of what is free.

use crate::layout::leaves;
use crate::topology::{Gpu, Profile};

/// How large an instance has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// At least so many compute slices.
    Slices(u8),
    /// At least so much memory, in MiB.
    MemoryMib(u64),
}

/// What one instance of a profile costs on one kind of GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// NVML profile id.
    pub profile: u32,
    /// NVML's name of the profile.
    pub name: String,
    /// Compute slices.
    pub slices: u8,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Leaves that it is charged: as many as it takes at its worst place.
    pub leaves: u32,
}

/// The price of every plain profile of a GPU, the cheapest first.
pub fn table(gpu: &Gpu) -> Vec<Price> {
    let plain = gpu.profiles.iter().filter(|p| p.plain && !p.placements.is_empty());
    let mut prices: Vec<Price> = plain.map(|p| price_of(gpu, p)).collect();
    prices.sort_by_key(|p| (p.leaves, p.slices, p.memory_mib));
    prices
}

/// The cheapest profile of a GPU that is large enough; of equally cheap ones the one of fewest slices.
pub fn price(gpu: &Gpu, need: Need) -> Option<Price> {
    let enough = |p: &Price| match need {
        Need::Slices(slices) => p.slices >= slices,
        Need::MemoryMib(mib) => p.memory_mib >= mib,
    };
    table(gpu).into_iter().find(enough)
}

fn price_of(gpu: &Gpu, profile: &Profile) -> Price {
    let cuts = leaves(gpu);
    let taken =
        |at: &migshare_proto::Placement| cuts.iter().filter(|c| c.placement.overlaps(*at)).count() as u32;
    Price {
        profile: profile.id,
        name: profile.name.clone(),
        slices: profile.slices,
        memory_mib: profile.memory_mib,
        leaves: profile.placements.iter().map(taken).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn prices_are_those_of_the_worst_place() {
        let prices = |gpu: &Gpu| table(gpu).into_iter().map(|p| (p.name, p.leaves)).collect::<Vec<_>>();
        let seven =
            [("1g.10gb", 1), ("1g.20gb", 2), ("2g.20gb", 2), ("3g.40gb", 4), ("4g.40gb", 4), ("7g.80gb", 7)];
        assert_eq!(prices(&fixture::h100(0)), seven.map(|(n, l)| (n.to_owned(), l)));
        let four = [("1g.24gb", 1), ("2g.48gb", 2), ("4g.96gb", 4)];
        assert_eq!(prices(&fixture::rtx_pro_6000(0)), four.map(|(n, l)| (n.to_owned(), l)));
    }

    #[test]
    fn thirty_gigabytes_are_another_profile_on_each_model() {
        let name = |gpu: &Gpu| price(gpu, Need::MemoryMib(30 * 1024)).map(|p| (p.name, p.leaves));
        assert_eq!(name(&fixture::h200(0)), Some(("1g.35gb".to_owned(), 2)));
        assert_eq!(name(&fixture::h100(0)), Some(("3g.40gb".to_owned(), 4)));
        assert_eq!(name(&fixture::a100_40(0)), Some(("7g.40gb".to_owned(), 7)));
        assert_eq!(name(&fixture::a30(0)), None);
    }

    #[test]
    fn slices_are_met_by_the_cheapest_profile_that_has_them() {
        let name = |slices| price(&fixture::h100(0), Need::Slices(slices)).map(|p| p.name);
        assert_eq!(name(1).as_deref(), Some("1g.10gb"));
        assert_eq!(name(2).as_deref(), Some("2g.20gb"));
        assert_eq!(name(5).as_deref(), Some("7g.80gb"));
        assert_eq!(name(8), None);
    }
}
