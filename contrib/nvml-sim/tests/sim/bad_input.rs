//! What callers should not pass: null, handles of the wrong kind, buffers that are too small, unknown versions.

use std::mem::zeroed;
use std::ptr::null_mut;

use nvml_wrapper_sys::bindings::*;

use crate::library::*;
use crate::node::{Node, inside, on};

fn node() -> Node {
    Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\nmig = true")
}

#[test]
fn null_is_an_invalid_argument() {
    on("bad_input::null_is_an_invalid_argument", node, |nvml| {
        let (raw, gpu) = (&nvml.raw, nvml.gpu(0).unwrap());
        // SAFETY: null is what is tested; the library must not follow it.
        let codes = unsafe {
            [
                raw.nvmlDeviceGetCount_v2(null_mut()),
                raw.nvmlDeviceGetHandleByIndex_v2(0, null_mut()),
                raw.nvmlDeviceGetHandleByUUID(std::ptr::null(), null_mut()),
                raw.nvmlDeviceGetUUID(gpu, null_mut(), 96),
                raw.nvmlDeviceGetMigMode(gpu, null_mut(), null_mut()),
                raw.nvmlDeviceSetMigMode(gpu, 0, null_mut()),
                raw.nvmlDeviceGetGpuInstanceProfileInfo(gpu, 0, null_mut()),
                raw.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 0, null_mut()),
                raw.nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, 19, null_mut(), null_mut()),
                raw.nvmlDeviceCreateGpuInstance(gpu, 19, null_mut()),
                raw.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, 19, std::ptr::null(), null_mut()),
                raw.nvmlDeviceGetGpuInstances(gpu, 19, null_mut(), null_mut()),
                raw.nvmlDeviceGetComputeRunningProcesses_v3(gpu, null_mut(), null_mut()),
                raw.nvmlDeviceGetMemoryInfo(gpu, null_mut()),
            ]
        };
        assert_eq!(codes, [INVALID_ARGUMENT; 14]);
        assert!(nvml.instances(gpu).unwrap().is_empty(), "a refused call made an instance");
        assert_eq!(nvml.mig(gpu), Ok((1, 1)), "a refused call changed the mode");
    });
}

#[test]
fn handles_of_another_kind_or_of_nobody_are_invalid_arguments() {
    on("bad_input::handles_of_another_kind_or_of_nobody_are_invalid_arguments", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let gi = nvml.create(gpu, 19).unwrap();
        let ci = nvml.create_full_ci(gi).unwrap();
        let mig = nvml.ci_info(ci).unwrap().device;
        for word in [0usize, 1, 0xdead_beef, 0x7fff_ffff_f000, usize::MAX, gpu as usize ^ 1, gi as usize] {
            assert_eq!(nvml.mig(word as Device), Err(INVALID_ARGUMENT), "{word:#x}");
        }
        for word in [0usize, 1, usize::MAX, gpu as usize, ci as usize, mig as usize, gi as usize ^ 0x100] {
            assert_eq!(nvml.destroy(word as Gi), Err(INVALID_ARGUMENT), "{word:#x}");
            assert_eq!(nvml.create_ci(word as Gi, 0), Err(INVALID_ARGUMENT), "{word:#x}");
        }
        assert_eq!(nvml.destroy_ci(mig.cast()), Err(INVALID_ARGUMENT), "a device is no compute instance");
        assert_eq!(nvml.create(mig, 19), Err(INVALID_ARGUMENT), "a MIG device cannot be cut");
        assert_eq!(nvml.gpu(1), Err(INVALID_ARGUMENT));
        assert_eq!(nvml.by_uuid("GPU-nobody"), Err(NOT_FOUND));
    });
}

#[test]
fn texts_that_do_not_fit_are_refused_and_nothing_is_written() {
    on("bad_input::texts_that_do_not_fit_are_refused_and_nothing_is_written", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let length = nvml.uuid(gpu).unwrap().len();
        let mut buffer = [0x55; 96];
        // SAFETY: the buffer is larger than the length given.
        let short = unsafe { nvml.raw.nvmlDeviceGetUUID(gpu, buffer.as_mut_ptr(), length as u32) };
        assert_eq!((short, buffer), (INSUFFICIENT_SIZE, [0x55; 96]));
        // SAFETY: as above.
        let fits = unsafe { nvml.raw.nvmlDeviceGetUUID(gpu, buffer.as_mut_ptr(), length as u32 + 1) };
        assert_eq!((fits, buffer[length], buffer[length + 1]), (0, 0, 0x55));
    });
}

#[test]
fn both_versions_of_profile_information_are_served_and_no_other() {
    on("bad_input::both_versions_of_profile_information_are_served_and_no_other", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let ask = |version: u32| {
            // SAFETY: plain C data.
            let mut info: nvmlGpuInstanceProfileInfo_v2_t = unsafe { zeroed() };
            info.version = version;
            // SAFETY: versions 2 and 3 have the same size.
            let code = unsafe { nvml.raw.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 9, &mut info) };
            (code, info)
        };
        let (code, v2) = ask(0x0200_0098);
        assert_eq!((code, v2.id, v2.memorySizeMB, v2.multiprocessorCount), (0, 15, 20096, 26));
        let name: Vec<u8> = v2.name.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        assert_eq!(String::from_utf8(name).unwrap(), "MIG 1g.20gb");
        let (code, v3) = ask(0x0300_0098);
        // SAFETY: version 3 was asked for, so that is what was written, and both have the same size.
        let v3: nvmlGpuInstanceProfileInfo_v3_t = unsafe { std::mem::transmute(v3) };
        assert_eq!((code, v3.id, v3.memorySizeMB, v3.capabilities), (0, 15, 20096, 0));
        for version in [0, 0x0100_0098, 0x0200_0090, 0x0400_0098] {
            assert_eq!(ask(version).0, VERSION_MISMATCH, "{version:#x}");
        }
    });
}

#[test]
fn without_a_usable_configuration_initialisation_says_driver_not_loaded() {
    const TEST: &str = "bad_input::without_a_usable_configuration_initialisation_says_driver_not_loaded";
    const DRIVER_NOT_LOADED: u32 = 9;
    if std::env::var("NVML_SIM_TEST_REFUSED").is_ok() {
        let nvml = Nvml::load_only(&crate::node::shared_object());
        assert_eq!(nvml.init(), Err(DRIVER_NOT_LOADED));
        assert_eq!(nvml.count(), Err(1));
        return;
    }
    assert!(inside(TEST).is_none());
    for (text, says) in [("gpu = 3", "sim.toml"), ("[[gpu]]\nmodel = \"T4\"", "T4"), ("", "1 to 32 GPUs")] {
        let node = node();
        std::fs::write(node.config(), text).unwrap();
        let done = node.body(TEST).env("NVML_SIM_TEST_REFUSED", "1").output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.contains(says), "{text}: {said}");
    }
}

#[test]
fn a_broken_state_file_is_named() {
    let node = node();
    node.sim(&["init"]);
    std::fs::write(node.path("state/state.json"), "{").unwrap();
    let said = String::from_utf8(node.try_sim(&["status"]).stderr).unwrap();
    assert!(said.contains("state.json is not usable") || said.contains("state.json"), "{said}");
}
