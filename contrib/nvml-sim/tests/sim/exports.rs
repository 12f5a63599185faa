//! The library exports what the driver's does, and structures have the sizes that NVIDIA's header gives them.

use std::collections::BTreeSet;
use std::process::Command;

use nvidia_ml::abi::{absent, layout, simulated};
use nvml_wrapper_sys::bindings::*;

use crate::node::{shared_object, skip};

#[test]
fn exactly_the_names_of_driver_550_are_exported() {
    let Ok(listed) = Command::new("nm").args(["-D", "--defined-only"]).arg(shared_object()).output() else {
        return skip("nm is not installed");
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let wanted = include_str!("../../data/exports-550.163.txt");
    let wanted: BTreeSet<&str> = wanted.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(wanted.len(), 350);
    let differ: Vec<_> = exported.symmetric_difference(&wanted).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn what_is_simulated_is_not_also_absent() {
    let simulated: BTreeSet<&str> = simulated().collect();
    assert!(absent::NAMES.iter().all(|name| !simulated.contains(name)));
    // nvmlInit, nvmlInitWithFlags, nvmlShutdown and nvmlErrorString cannot be struck by faults of their own.
    assert_eq!(simulated.len() + absent::NAMES.len() + 4, 350);
}

#[test]
fn sizes_are_those_of_the_bindings_made_from_nvidias_header() {
    macro_rules! sizes {
        ($($name:ident)*) => { [$((stringify!($name), size_of::<$name>())),*] };
    }
    let theirs = sizes! {
        nvmlGpuInstancePlacement_t nvmlGpuInstanceProfileInfo_t nvmlGpuInstanceProfileInfo_v2_t
        nvmlGpuInstanceProfileInfo_v3_t nvmlGpuInstanceInfo_t nvmlComputeInstanceProfileInfo_t
        nvmlComputeInstanceProfileInfo_v2_t nvmlComputeInstanceProfileInfo_v3_t nvmlComputeInstanceInfo_t
        nvmlDeviceAttributes_t nvmlProcessInfo_v1_t nvmlProcessInfo_t nvmlProcessDetail_v1_t
        nvmlProcessDetailList_v1_t nvmlMemory_t nvmlMemory_v2_t nvmlPciInfo_t nvmlFieldValue_t nvmlEventData_t
    };
    assert_eq!(layout::SIZES, theirs);
}
