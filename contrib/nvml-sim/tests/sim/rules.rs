//! What creating, listing and destroying instances needs, and which code says that it is missing.

use std::collections::BTreeMap;

use crate::library::*;
use crate::node::{Node, on};

fn two_h100() -> Node {
    Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true")
}

/// Ids of the 7-slice profiles.
const ONE: u32 = 19;
const ONE_ME: u32 = 20;
const ONE_DOUBLE: u32 = 15;
const TWO: u32 = 14;
const THREE: u32 = 9;
const FOUR: u32 = 5;
const SEVEN: u32 = 0;

#[test]
fn the_drivers_own_choice_is_as_poor_as_the_guide_shows() {
    on("rules::the_drivers_own_choice_is_as_poor_as_the_guide_shows", two_h100, |nvml| {
        let make = |gpu, order: [u32; 4]| order.map(|profile| nvml.create(gpu, profile).map(|_| ()));
        let refused = make(nvml.gpu(0).unwrap(), [ONE, ONE, TWO, THREE]);
        assert_eq!(refused, [Ok(()), Ok(()), Ok(()), Err(INSUFFICIENT_RESOURCES)]);
        assert_eq!(make(nvml.gpu(1).unwrap(), [THREE, ONE, TWO, ONE]), [Ok(()); 4]);
    });
}

#[test]
fn a_taken_placement_and_a_full_gpu_say_the_same() {
    on("rules::a_taken_placement_and_a_full_gpu_say_the_same", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        nvml.create_at(gpu, ONE, (0, 1)).unwrap();
        assert_eq!(nvml.create_at(gpu, ONE, (0, 1)), Err(INSUFFICIENT_RESOURCES));
        assert_eq!(nvml.create(gpu, SEVEN), Err(INSUFFICIENT_RESOURCES));
        nvml.create_at(nvml.gpu(1).unwrap(), ONE, (0, 1)).unwrap();
    });
}

#[test]
fn what_is_no_profile_or_no_placement_is_an_invalid_argument() {
    on("rules::what_is_no_profile_or_no_placement_is_an_invalid_argument", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        for (profile, at) in
            [(99, (0, 1)), (ONE, (7, 1)), (ONE, (0, 2)), (TWO, (1, 2)), (FOUR, (4, 4)), (TWO, (6, 2))]
        {
            assert_eq!(nvml.create_at(gpu, profile, at), Err(INVALID_ARGUMENT), "{profile} at {at:?}");
        }
        assert_eq!(nvml.create(gpu, 99), Err(INVALID_ARGUMENT));
        assert_eq!(nvml.remaining(gpu, 99), Err(INVALID_ARGUMENT));
        assert_eq!(nvml.placements(gpu, 99), Err(INVALID_ARGUMENT));
    });
}

#[test]
fn remaining_capacity_counts_fragmentation() {
    on("rules::remaining_capacity_counts_fragmentation", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let left = |profile| nvml.remaining(gpu, profile).unwrap();
        assert_eq!([SEVEN, FOUR, THREE, TWO, ONE_DOUBLE, ONE, ONE_ME].map(left), [1, 1, 2, 3, 4, 7, 1]);
        nvml.create_at(gpu, ONE, (1, 1)).unwrap();
        assert_eq!([SEVEN, FOUR, THREE, TWO, ONE_DOUBLE, ONE, ONE_ME].map(left), [0, 0, 1, 2, 3, 6, 1]);
        // Unit 7 is left for nobody but 3g, 1g with double memory and 7g.
        nvml.create_at(gpu, ONE, (6, 1)).unwrap();
        assert_eq!([SEVEN, FOUR, THREE, TWO, ONE_DOUBLE, ONE].map(left), [0, 0, 0, 2, 2, 5]);
    });
}

#[test]
fn four_double_and_three_single_are_jointly_impossible() {
    on("rules::four_double_and_three_single_are_jointly_impossible", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        (0..4).for_each(|n| assert!(nvml.create_at(gpu, ONE_DOUBLE, (2 * n, 2)).is_ok()));
        assert_eq!(nvml.remaining(gpu, ONE), Ok(0));
        let gpu = nvml.gpu(1).unwrap();
        (0..6).for_each(|n| assert!(nvml.create_at(gpu, ONE, (n, 1)).is_ok()));
        assert_eq!(nvml.remaining(gpu, ONE_DOUBLE), Ok(1));
        nvml.create_at(gpu, ONE_DOUBLE, (6, 2)).unwrap();
    });
}

#[test]
fn media_extensions_go_to_one_instance() {
    on("rules::media_extensions_go_to_one_instance", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        nvml.create_at(gpu, ONE_ME, (3, 1)).unwrap();
        assert_eq!(nvml.create_at(gpu, ONE_ME, (0, 1)), Err(INSUFFICIENT_RESOURCES));
        nvml.create_at(gpu, ONE, (0, 1)).unwrap();
    });
}

#[test]
fn an_rtx_pro_with_all_engines_in_one_instance_has_room_for_those_without() {
    let node = || Node::with("driver = \"580.65.06\"", "[[gpu]]\nmodel = \"rtx-pro-6000\"\nmig = true");
    on("rules::an_rtx_pro_with_all_engines_in_one_instance_has_room_for_those_without", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let id = |number| nvml.profile(gpu, number).unwrap().id;
        nvml.create_at(gpu, id(15), (0, 3)).unwrap();
        assert_eq!(nvml.create_at(gpu, id(0), (3, 3)), Err(INSUFFICIENT_RESOURCES));
        nvml.create_at(gpu, id(13), (3, 3)).unwrap();
    });
}

#[test]
fn a_gpu_instance_is_in_use_while_it_has_compute_instances() {
    on("rules::a_gpu_instance_is_in_use_while_it_has_compute_instances", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let gi = nvml.create_at(gpu, THREE, (4, 4)).unwrap();
        let ci = nvml.create_full_ci(gi).unwrap();
        assert_eq!(nvml.destroy(gi), Err(IN_USE));
        nvml.destroy_ci(ci).unwrap();
        nvml.destroy(gi).unwrap();
    });
}

#[test]
fn an_instance_without_compute_instance_is_listed_but_is_no_mig_device() {
    on("rules::an_instance_without_compute_instance_is_listed_but_is_no_mig_device", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let orphan = nvml.create_at(gpu, ONE, (0, 1)).unwrap();
        let whole = nvml.create_at(gpu, ONE, (1, 1)).unwrap();
        nvml.create_full_ci(whole).unwrap();
        assert_eq!(nvml.mig_uuids(gpu).len(), 1);
        assert_eq!(nvml.instances(gpu).unwrap(), [orphan, whole]);
        let id = nvml.gi_info(orphan).unwrap().id;
        assert_eq!(nvml.gi_by_id(gpu, id), Ok(orphan));
        assert_eq!(nvml.gi_by_id(gpu, 14), Err(NOT_FOUND));
    });
}

#[test]
fn compute_instances_share_their_gpu_instance_by_slices() {
    on("rules::compute_instances_share_their_gpu_instance_by_slices", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let gi = nvml.create_at(gpu, THREE, (0, 4)).unwrap();
        let profiles: BTreeMap<u32, (u32, u32)> = (0..8)
            .filter_map(|n| nvml.ci_profile(gi, n).ok())
            .map(|p| (p.id, (p.sliceCount, p.instanceCount)))
            .collect();
        assert_eq!(profiles, BTreeMap::from([(0, (1, 3)), (1, (2, 1)), (2, (3, 1))]));
        let two = nvml.create_ci(gi, 1).unwrap();
        assert_eq!(nvml.ci_remaining(gi, 0), Ok(1));
        assert_eq!(nvml.create_ci_at(gi, 0, (0, 1)), Err(INSUFFICIENT_RESOURCES));
        let one = nvml.create_ci_at(gi, 0, (2, 1)).unwrap();
        assert_eq!(nvml.create_ci(gi, 0), Err(INSUFFICIENT_RESOURCES));
        assert_eq!(nvml.create_ci(gi, 4), Err(INVALID_ARGUMENT));
        assert_eq!(nvml.mig_uuids(gpu).len(), 2);
        let name = nvml.name(nvml.ci_info(two).unwrap().device).unwrap();
        assert_eq!(name, "NVIDIA H100 80GB HBM3 MIG 2c.3g.40gb");
        nvml.destroy_ci(two).unwrap();
        assert_eq!(nvml.ci_info(one).unwrap().id, 1);
        assert_eq!(nvml.ci_by_id(gi, 0), Err(NOT_FOUND));
    });
}

#[test]
fn a_double_memory_slice_of_a_gh200_has_a_compute_profile_of_its_own() {
    let node = || Node::new("[[gpu]]\nmodel = \"gh200-96\"\nmig = true");
    on("rules::a_double_memory_slice_of_a_gh200_has_a_compute_profile_of_its_own", node, |nvml| {
        let gi = nvml.create_at(nvml.gpu(0).unwrap(), ONE_DOUBLE, (0, 2)).unwrap();
        assert_eq!(nvml.ci_profile(gi, 0).map(|p| p.id), Err(NOT_SUPPORTED));
        assert_eq!(nvml.ci_profile(gi, 7).map(|p| (p.id, p.sliceCount)), Ok((7, 1)));
    });
}

#[test]
fn profiles_end_where_the_driver_branch_ends() {
    on("rules::profiles_end_where_the_driver_branch_ends", two_h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let codes: Vec<_> = (0..=10).map(|n| nvml.profile(gpu, n).map(|p| p.id)).collect();
        let none = Err(NOT_SUPPORTED);
        let wanted =
            [Ok(19), Ok(14), Ok(9), Ok(5), Ok(0), none, none, Ok(20), none, Ok(15), Err(INVALID_ARGUMENT)];
        assert_eq!(codes, wanted);
    });
}

#[test]
fn mig_devices_are_numbered_without_holes_by_gpu_instance_id() {
    let node = || Node::new("[[gpu]]\nmodel = \"h100-pcie-80\"\nmig = true\ngi_order = \"half-swapped\"");
    on("rules::mig_devices_are_numbered_without_holes_by_gpu_instance_id", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        for start in 0..7 {
            nvml.create_full_ci(nvml.create_at(gpu, ONE, (start, 1)).unwrap()).unwrap();
        }
        let id = |n| -> u32 { out(nvml, nvml.mig_device(gpu, n).unwrap()) };
        // As published for this board.
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(id), [7, 8, 9, 11, 12, 13, 14]);
        assert_eq!(nvml.mig_device(gpu, 7), Err(INVALID_ARGUMENT));
        let gi = nvml.gi_by_id(gpu, 8).unwrap();
        nvml.destroy_ci(nvml.ci_by_id(gi, 0).unwrap()).unwrap();
        assert_eq!([0, 1, 2].map(id), [7, 9, 11]);
        assert_eq!(nvml.mig_device(gpu, 6), Err(NOT_FOUND));
    });
}

fn out(nvml: &Nvml, device: Device) -> u32 {
    let mut id = 0;
    // SAFETY: a handle, and a local to write to.
    let code = unsafe { nvml.raw.nvmlDeviceGetGpuInstanceId(device, &mut id) };
    assert_eq!(code, 0);
    id
}
