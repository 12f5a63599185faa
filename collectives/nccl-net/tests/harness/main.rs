//! An ABI harness without NCCL: loads the shared object as NCCL does and drives every version of the table in real
//! processes, the way NCCL's proxy threads do. Patterns follow aws-ofi-nccl's functional tests.

#![allow(clippy::unwrap_used)]

mod abuse;
mod loaded;
mod ring;

use std::ffi::c_int;

use loaded::{VERSIONS, load};
use nccl_net_migshare::abi::{
    NcclResult, NetV6, NetV8, NetV10, NetV12, PropertiesV6, PropertiesV8, PropertiesV10, PropertiesV12,
};

macro_rules! check_table {
    ($table:ty, $properties:ty, $symbol:literal) => {{
        let table: &$table = loaded::table(load(), $symbol);
        // SAFETY: the name is a string constant of the plugin; all-zero properties are valid.
        unsafe {
            assert_eq!(std::ffi::CStr::from_ptr(table.name), c"migshare");
            let (mut count, mut properties): (c_int, $properties) = (0, std::mem::zeroed());
            assert_eq!((table.devices)(&raw mut count), NcclResult::Success);
            assert_eq!((table.get_properties)(0, &raw mut properties), NcclResult::Success);
            assert_eq!((count, properties.ptr_support, properties.max_recvs), (1, 1, 1));
            assert!(properties.pci_path.is_null() && properties.speed > 0);
            assert_eq!((table.get_properties)(1, &raw mut properties), NcclResult::InvalidArgument);
            assert_eq!((table.get_properties)(0, std::ptr::null_mut()), NcclResult::InvalidArgument);
        }
    }};
}

#[test]
fn every_version_is_exported_and_describes_one_host_memory_device() {
    check_table!(NetV6, PropertiesV6, c"ncclNetPlugin_v6");
    check_table!(NetV8, PropertiesV8, c"ncclNetPlugin_v8");
    check_table!(NetV10, PropertiesV10, c"ncclNetPlugin_v10");
    check_table!(NetV12, PropertiesV12, c"ncclNetPlugin_v12");
}

#[test]
fn bad_arguments_are_answered_not_followed() {
    for version in VERSIONS {
        let net = loaded::Net::open(version);
        let nobody = std::ptr::null_mut();
        let (mut handle, _) = net.listen().unwrap();
        handle[8] ^= 1;
        assert_eq!(
            net.try_connect(&mut handle).err(),
            Some(NcclResult::InvalidUsage),
            "a peer on another node"
        );
        assert!(net.try_connect(&mut [0; 128]).is_err(), "a handle of somebody else");
        assert!(net.try_accept(nobody).is_err());
        assert!(net.try_test(nobody).is_err());
        assert_eq!(net.register_cuda(), NcclResult::InvalidUsage);
    }
}

#[test]
fn a_job_on_several_nodes_is_refused_before_it_starts() {
    let this = std::env::current_exe().unwrap();
    let run = |nodes: &str| {
        let mut child = std::process::Command::new(&this);
        child.args(["--exact", "init_says_yes", "--nocapture", "--include-ignored"]);
        // The step that this test may run in does not count.
        child.env_remove("SLURM_STEP_NUM_NODES").env_remove("SLURM_JOB_NUM_NODES");
        let ended = child.env("SLURM_NNODES", nodes).output().unwrap();
        (ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (taken, said) = run("1");
    assert!(taken, "{said}");
    let (taken, said) = run("2");
    assert!(!taken && said.contains("InvalidUsage"), "{said}");
}

/// Run by the test above with other environments.
#[test]
#[ignore = "a helper process"]
fn init_says_yes() {
    for version in VERSIONS {
        loaded::Net::open(version);
    }
}
