use super::*;
use crate::fixture;
use crate::geometry::Holes;
use crate::layout::{Layout, leaves};
use crate::topology::Gpu;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn free_leaves(gpu: &Gpu, taken: u32, missing: u32) -> (Units, Vec<Free>) {
    let cuts = leaves(gpu);
    let bit = |mask: u32, i: usize| mask >> i & 1 == 1;
    let used = (0..cuts.len()).filter(|&i| bit(taken, i)).map(|i| cuts[i].placement.mask());
    let used = used.fold(0, |a, b| a | b);
    let free = (0..cuts.len()).filter(|&i| !bit(taken, i));
    (used, free.map(|i| Free { placement: cuts[i].placement, stands: !bit(missing, i) }).collect())
}

fn starts(gpu: &Gpu, taken: u32, count: u32) -> Vec<u8> {
    let geometry = Geometry::of(gpu);
    let (used, free) = free_leaves(gpu, taken, 0);
    let candidate = Candidate { geometry: &geometry, numa: None, used, free: free.clone() };
    let chosen = choose(&[candidate], count, Direction::Pack).unwrap();
    chosen.iter().map(|&(_, i)| free[i].placement.start).collect()
}

#[test]
fn the_first_leaf_of_a_seven_slice_gpu_is_the_one_that_spares_the_other_holes() {
    assert_eq!(starts(&fixture::h100(0), 0, 1), [6]);
    // Three leaves leave the place of a 4g: 3g at 4 is gone with the first of them anyway.
    assert_eq!(starts(&fixture::h100(0), 0, 3), [4, 5, 6]);
    assert_eq!(starts(&fixture::a30(0), 0b0001, 1), [1]);
    assert_eq!(starts(&fixture::rtx_pro_6000(0), 0b1000, 1), [6]);
}

#[test]
fn full_memory_layout_places_do_not_overlap() {
    for gpu in [fixture::h100(0), fixture::a30(0), fixture::rtx_pro_6000(0), fixture::h200(0)] {
        let cuts = Layout::FullMemory.cut(&gpu);
        assert_eq!(cuts.len(), leaves(&gpu).len(), "{}", gpu.model);
        let units: u32 = cuts.iter().map(|c| c.placement.mask().count_ones()).sum();
        assert_eq!(units, u32::from(gpu.units), "{}", gpu.model);
    }
}

/// What a choice is worth, most important first, written down a second time and in another way than the search does.
fn worth(gpus: &[Candidate<'_>], chosen: &[(usize, usize)], direction: Direction) -> Vec<u64> {
    let on = |g: usize| chosen.iter().filter(move |c| c.0 == g);
    let counts: Vec<u64> = (0..gpus.len()).map(|g| on(g).count() as u64).collect();
    let used = counts.iter().filter(|c| **c > 0).count() as u64;
    let makes = chosen.iter().filter(|(g, i)| !gpus[*g].free[*i].stands).count() as u64;
    let holes_lost = (0..gpus.len()).map(|g| {
        let taken = on(g).fold(gpus[g].used, |u, c| u | gpus[g].free[c.1].placement.mask());
        lost(gpus[g].geometry.holes(gpus[g].used), gpus[g].geometry.holes(taken))
    });
    let holes = holes_lost.fold([0u64; 8], |sum, l| std::array::from_fn(|i| sum[i] + l[i]));
    let nodes: BTreeSet<(Option<u32>, usize)> =
        chosen.iter().map(|c| (gpus[c.0].numa, gpus[c.0].numa.map_or(c.0, |_| 0))).collect();
    let squares: u64 = counts.iter().map(|c| c * c).sum();
    let head = match direction {
        Direction::Pack => [used, nodes.len() as u64],
        Direction::Spread => [100 - used, squares],
    };
    head.into_iter().chain([makes]).chain(holes).collect()
}

fn lost(before: Holes, after: Holes) -> [u64; 8] {
    let (b, a) = (before.0.to_be_bytes(), after.0.to_be_bytes());
    std::array::from_fn(|i| u64::from(b[i]) - u64::from(a[i]))
}

/// Every set of `count` disjoint places.
fn brute(gpus: &[Candidate<'_>], count: usize, direction: Direction) -> Option<Vec<u64>> {
    let all: Vec<(usize, usize)> =
        gpus.iter().enumerate().flat_map(|(g, c)| (0..c.free.len()).map(move |i| (g, i))).collect();
    let sets = (0u32..1 << all.len()).filter(|s| s.count_ones() as usize == count);
    let pick = |s: u32| (0..all.len()).filter(|i| s >> i & 1 == 1).map(|i| all[i]).collect::<Vec<_>>();
    sets.map(pick).filter(|set| disjoint(gpus, set)).map(|set| worth(gpus, &set, direction)).min()
}

fn disjoint(gpus: &[Candidate<'_>], set: &[(usize, usize)]) -> bool {
    let place = |c: &(usize, usize)| gpus[c.0].free[c.1].placement;
    set.iter().enumerate().all(|(i, a)| {
        place(a).mask() & gpus[a.0].used == 0
            && set[..i].iter().all(|b| a.0 != b.0 || !place(a).overlaps(place(b)))
    })
}

fn check(gpus: &[Candidate<'_>], count: u32, direction: Direction) {
    let chosen = choose(gpus, count, direction);
    if let Some(set) = &chosen {
        assert_eq!(set.len(), count as usize);
        assert!(set.is_sorted() && disjoint(gpus, set), "{set:?}");
    }
    let value = chosen.map(|set| worth(gpus, &set, direction));
    assert_eq!(value, brute(gpus, count as usize, direction), "{count} {direction:?} of {gpus:?}");
}

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Pack), Just(Direction::Spread)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn leaves_of_two_seven_slice_gpus_are_chosen_as_well_as_by_trying_all_sets(
        taken in prop::array::uniform2(0u32..128), missing in prop::array::uniform2(0u32..128),
        numa in prop::array::uniform2(prop::option::of(0u32..2)), count in 0u32..15, direction in any_direction(),
    ) {
        let gpu = fixture::h100(0);
        let geometry = Geometry::of(&gpu);
        let gpus: Vec<Candidate<'_>> = (0..2).map(|g| {
            let (used, free) = free_leaves(&gpu, taken[g], missing[g]);
            Candidate { geometry: &geometry, numa: numa[g], used, free }
        }).collect();
        check(&gpus, count, direction);
    }

    #[test]
    fn leaves_of_four_mixed_gpus_are_chosen_as_well_as_by_trying_all_sets(
        taken in prop::array::uniform4(0u32..16), numa in prop::array::uniform4(prop::option::of(0u32..3)),
        models in prop::array::uniform4(0usize..2), count in 0u32..17, direction in any_direction(),
    ) {
        let models = models.map(|m| [fixture::a30(0), fixture::rtx_pro_6000(0)][m].clone());
        let geometries: Vec<Geometry> = models.iter().map(Geometry::of).collect();
        let gpus: Vec<Candidate<'_>> = (0..4).map(|g| {
            let (used, free) = free_leaves(&models[g], taken[g], taken[(g + 1) % 4]);
            Candidate { geometry: &geometries[g], numa: numa[g], used, free }
        }).collect();
        check(&gpus, count, direction);
    }

    #[test]
    fn overlapping_places_of_larger_profiles_are_chosen_disjoint(
        taken in prop::array::uniform2(0u32..128), profile in prop::sample::select(vec![15u32, 14, 9, 5, 0]),
        count in 1u32..8, direction in any_direction(),
    ) {
        let gpu = fixture::h100(0);
        let geometry = Geometry::of(&gpu);
        let gpus: Vec<Candidate<'_>> = (0..2).map(|g| {
            let (used, _) = free_leaves(&gpu, taken[g], 0);
            let free = gpu.profile(profile).unwrap().placements.iter();
            let free = free.map(|&placement| Free { placement, stands: placement.start == 0 }).collect();
            Candidate { geometry: &geometry, numa: Some(0), used, free }
        }).collect();
        check(&gpus, count, direction);
    }
}
