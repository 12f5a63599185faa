//! What one GPU can offer: for each number of instances the best set of places, over all sets.

use super::Candidate;

/// What a choice costs, less is better: first instances to make, then holes lost. Costs of GPUs add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Cost {
    /// Instances that have to be made.
    pub(super) makes: u32,
    /// Holes lost, in the bytes of [`crate::geometry::Holes`]. Holes only shrink, so no byte of a difference borrows.
    pub(super) holes: u64,
}

impl Cost {
    pub(super) fn plus(self, other: Cost) -> Cost {
        Cost { makes: self.makes + other.makes, holes: self.holes + other.holes }
    }
}

/// A set of places of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Offer {
    pub(super) cost: Cost,
    /// One bit per position in [`Candidate::free`].
    pub(super) places: u32,
}

/// What one GPU can give: for each number of instances the best places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    pub(super) numa: Option<u32>,
    /// Position n: the best set of n places; position 0 is the empty set.
    pub(super) best: Vec<Option<Offer>>,
}

impl Offers {
    /// The largest number of places.
    pub(super) fn most(&self) -> usize {
        self.best.len() - 1
    }
}

/// The offers of several GPUs, of at most `count` places each. GPUs in the same state share the search.
pub(super) fn of_all(gpus: &[Candidate<'_>], count: usize) -> Vec<Offers> {
    let mut all: Vec<Offers> = Vec::with_capacity(gpus.len());
    for (i, gpu) in gpus.iter().enumerate() {
        let same = |other: &Candidate<'_>| {
            gpu.used == other.used && gpu.free == other.free && std::ptr::eq(gpu.geometry, other.geometry)
        };
        let known = gpus[..i].iter().position(same).map(|j| Offers { numa: gpu.numa, ..all[j].clone() });
        all.push(known.unwrap_or_else(|| offers(gpu, count)));
    }
    all
}

/// All offers of a GPU. No GPU has more than 12 units, so its free places are few.
fn offers(gpu: &Candidate<'_>, count: usize) -> Offers {
    let mut offers = Offers { numa: gpu.numa, best: vec![Some(Offer { cost: Cost::default(), places: 0 })] };
    let empty = Set { units: gpu.used, places: 0, makes: 0 };
    grow(gpu, 0, empty, count, &mut offers);
    offers
}

#[derive(Clone, Copy)]
struct Set {
    units: u64,
    places: u32,
    makes: u32,
}

/// Tries every disjoint set that continues `set` with at most `count` places from `from` on.
fn grow(gpu: &Candidate<'_>, from: usize, set: Set, count: usize, offers: &mut Offers) {
    if count == 0 {
        return;
    }
    for (i, free) in gpu.free.iter().enumerate().skip(from).take(32 - from.min(32)) {
        let units = free.placement.mask();
        if set.units & units != 0 {
            continue;
        }
        let makes = set.makes + u32::from(!free.stands);
        let larger = Set { units: set.units | units, places: set.places | 1 << i, makes };
        keep(gpu, larger, offers);
        grow(gpu, i + 1, larger, count - 1, offers);
    }
}

fn keep(gpu: &Candidate<'_>, set: Set, offers: &mut Offers) {
    let holes = gpu.geometry.holes(gpu.used).0 - gpu.geometry.holes(set.units).0;
    let offer = Offer { cost: Cost { makes: set.makes, holes }, places: set.places };
    let count = set.places.count_ones() as usize;
    if offers.best.len() <= count {
        offers.best.resize(count + 1, None);
    }
    let slot = &mut offers.best[count];
    if slot.is_none_or(|best| offer < best) {
        *slot = Some(offer);
    }
}
