//! Ids, UUIDs and handles: which are stable, which come again, which die.

use std::collections::BTreeMap;

use crate::library::*;
use crate::node::{Node, on};

/// Published pairs of GPU instance id and placement.
const DIRECT: [(u32, Span); 8] =
    [(1, (0, 4)), (2, (4, 4)), (3, (0, 2)), (4, (2, 2)), (5, (4, 2)), (7, (0, 1)), (8, (1, 1)), (13, (6, 1))];
const HALF_SWAPPED: [(u32, Span); 10] = [
    (1, (4, 4)),
    (2, (0, 4)),
    (6, (2, 2)),
    (7, (4, 1)),
    (8, (5, 1)),
    (9, (6, 1)),
    (11, (0, 1)),
    (12, (1, 1)),
    (13, (2, 1)),
    (14, (3, 1)),
];

fn profile_of(size: u32) -> u32 {
    BTreeMap::from([(1, 19), (2, 14), (4, 9), (8, 0)])[&size]
}

fn follows(nvml: &Nvml, published: &[(u32, Span)]) {
    let gpu = nvml.gpu(0).unwrap();
    for (id, at) in published {
        let gi = nvml.create_at(gpu, profile_of(at.1), *at).unwrap();
        assert_eq!(nvml.gi_info(gi).unwrap().id, *id, "{at:?}");
        nvml.destroy(gi).unwrap();
    }
}

#[test]
fn ids_follow_the_direct_listings() {
    let node = || Node::new("[[gpu]]\nmodel = \"a100-40\"\nmig = true");
    on("identity::ids_follow_the_direct_listings", node, |nvml| follows(nvml, &DIRECT));
}

#[test]
fn ids_follow_the_half_swapped_listings() {
    let node = || Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\nmig = true\ngi_order = \"half-swapped\"");
    on("identity::ids_follow_the_half_swapped_listings", node, |nvml| follows(nvml, &HALF_SWAPPED));
}

#[test]
fn ids_of_an_rtx_pro_follow_its_listing() {
    let node = || Node::new("[[gpu]]\nmodel = \"rtx-pro-6000\"\nmig = true");
    on("identity::ids_of_an_rtx_pro_follow_its_listing", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        for (id, profile, at) in
            [(3, 14, (0, 3)), (4, 14, (3, 3)), (5, 14, (6, 3)), (6, 14, (9, 3)), (1, 5, (0, 6))]
        {
            let gi = nvml.create_at(gpu, profile, at).unwrap();
            assert_eq!(nvml.gi_info(gi).unwrap().id, id, "{at:?}");
            nvml.destroy(gi).unwrap();
        }
    });
}

fn h100() -> Node {
    Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true")
}

#[test]
fn an_instance_made_again_has_the_same_uuid_and_another_handle() {
    on("identity::an_instance_made_again_has_the_same_uuid_and_another_handle", h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let make = |profile, at| {
            let gi = nvml.create_at(gpu, profile, at).unwrap();
            let ci = nvml.create_full_ci(gi).unwrap();
            (gi, ci, nvml.uuid(nvml.ci_info(ci).unwrap().device).unwrap())
        };
        let (gi, ci, uuid) = make(19, (3, 1));
        assert!(uuid.starts_with("MIG-") && uuid.len() == 40, "{uuid}");
        nvml.destroy_ci(ci).unwrap();
        nvml.destroy(gi).unwrap();
        assert_eq!(nvml.by_uuid(&uuid), Err(NOT_FOUND));
        let again = make(19, (3, 1));
        assert_eq!(again.2, uuid);
        assert_ne!((again.0, again.1), (gi, ci));
        assert_eq!(nvml.destroy(gi), Err(INVALID_ARGUMENT), "a handle outlived its instance");
        assert_eq!(nvml.ci_info(ci).map(|i| i.id), Err(INVALID_ARGUMENT));
        assert_ne!(make(19, (4, 1)).2, uuid);
    });
}

#[test]
fn uuids_differ_between_gpus_and_lead_back_to_the_device() {
    on("identity::uuids_differ_between_gpus_and_lead_back_to_the_device", h100, |nvml| {
        let mut uuids = Vec::new();
        for n in 0..2 {
            let gpu = nvml.gpu(n).unwrap();
            assert_eq!(nvml.by_uuid(&nvml.uuid(gpu).unwrap()), Ok(gpu));
            let ci = nvml.create_full_ci(nvml.create_at(gpu, 19, (0, 1)).unwrap()).unwrap();
            let device = nvml.ci_info(ci).unwrap().device;
            let uuid = nvml.uuid(device).unwrap();
            assert_eq!(nvml.by_uuid(&uuid), Ok(device));
            assert_eq!(nvml.mig_device(gpu, 0), Ok(device));
            uuids.push(uuid);
        }
        assert_ne!(uuids[0], uuids[1]);
    });
}

#[test]
fn handles_die_with_the_session_and_state_does_not() {
    on("identity::handles_die_with_the_session_and_state_does_not", h100, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        nvml.create_full_ci(nvml.create_at(gpu, 19, (5, 1)).unwrap()).unwrap();
        let uuids = nvml.mig_uuids(gpu);
        nvml.init().unwrap();
        nvml.shutdown().unwrap();
        assert_eq!(nvml.mig_uuids(gpu), uuids, "an inner pair of init and shutdown ended the session");
        nvml.shutdown().unwrap();
        assert_eq!(nvml.count(), Err(1));
        assert_eq!(nvml.shutdown(), Err(1));
        nvml.init().unwrap();
        assert_eq!(nvml.mig(gpu), Err(INVALID_ARGUMENT));
        assert_eq!(nvml.mig_uuids(nvml.gpu(0).unwrap()), uuids);
    });
}
