//! MIG mode, reset, reboot, loss.

use crate::library::*;
use crate::node::{Node, Sleeper, on, own_sim};

fn one(model: &str, mig: bool) -> Node {
    Node::new(&format!("[[gpu]]\nmodel = \"{model}\"\nmig = {mig}"))
}

fn sim(arguments: &[&str]) {
    let done = own_sim(arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn with_mig_off_profiles_are_shown_and_nothing_can_be_made() {
    on(
        "modes::with_mig_off_profiles_are_shown_and_nothing_can_be_made",
        || one("h100-sxm-80", false),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            assert_eq!(nvml.mig(gpu), Ok((0, 0)));
            assert_eq!(nvml.profiles(gpu).len(), 7);
            assert_eq!(nvml.placements(gpu, 19).map(|p| p.len()), Ok(7));
            assert_eq!(nvml.create(gpu, 19), Err(NOT_SUPPORTED));
            assert_eq!(nvml.remaining(gpu, 19), Err(NOT_SUPPORTED));
            assert_eq!(nvml.instances(gpu), Err(NOT_SUPPORTED));
            assert_eq!(nvml.mig_device(gpu, 0), Err(NOT_SUPPORTED));
        },
    );
}

#[test]
fn on_hopper_the_mode_changes_at_once_and_handles_live() {
    on(
        "modes::on_hopper_the_mode_changes_at_once_and_handles_live",
        || one("h100-sxm-80", false),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            assert_eq!(nvml.set_mig(gpu, true), Ok(0));
            assert_eq!(nvml.mig(gpu), Ok((1, 1)));
            nvml.create(gpu, 19).unwrap();
        },
    );
}

#[test]
fn on_ampere_a_mode_change_resets_the_gpu_and_handles_die() {
    on(
        "modes::on_ampere_a_mode_change_resets_the_gpu_and_handles_die",
        || one("a100-40", false),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            assert_eq!(nvml.set_mig(gpu, true), Ok(0));
            assert_eq!(nvml.mig(gpu), Err(INVALID_ARGUMENT));
            assert_eq!(nvml.mig(nvml.gpu(0).unwrap()), Ok((1, 1)));
        },
    );
}

#[test]
fn a_mode_change_on_a_gpu_in_use_is_accepted_and_pending() {
    on(
        "modes::a_mode_change_on_a_gpu_in_use_is_accepted_and_pending",
        || one("a100-40", true),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            let gi = nvml.create(gpu, 19).unwrap();
            assert_eq!(nvml.set_mig(gpu, false), Ok(IN_USE));
            assert_eq!(nvml.mig(gpu), Ok((1, 0)));
            nvml.destroy(gi).unwrap();
            assert_eq!(nvml.set_mig(gpu, false), Ok(0));
            assert_eq!(nvml.mig(nvml.gpu(0).unwrap()), Ok((0, 0)));
        },
    );
}

#[test]
fn a_client_holding_the_gpu_blocks_changes_until_it_lets_go() {
    on(
        "modes::a_client_holding_the_gpu_blocks_changes_until_it_lets_go",
        || one("h100-sxm-80", true),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            let gi = nvml.create(gpu, 19).unwrap();
            sim(&["hold", "0", "--note", "dcgm-exporter"]);
            assert_eq!(nvml.create(gpu, 19), Err(IN_USE));
            assert_eq!(nvml.create_full_ci(gi), Err(IN_USE));
            assert_eq!(nvml.destroy(gi), Err(IN_USE));
            assert!(!own_sim(&["reset", "0"]).status.success());
            sim(&["release", "0"]);
            nvml.destroy(gi).unwrap();
        },
    );
}

#[test]
fn a_hold_ends_with_its_process() {
    on(
        "modes::a_hold_ends_with_its_process",
        || one("h100-sxm-80", true),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            let holder = Sleeper::new();
            sim(&["hold", "0", "--pid", &holder.pid()]);
            assert_eq!(nvml.create(gpu, 19), Err(IN_USE));
            drop(holder);
            nvml.create(gpu, 19).unwrap();
        },
    );
}

#[test]
fn a_reset_takes_the_instances_and_may_change_the_minor() {
    on(
        "modes::a_reset_takes_the_instances_and_may_change_the_minor",
        || one("h100-sxm-80", true),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            let gi = nvml.create(gpu, 19).unwrap();
            let uuid = nvml.uuid(gpu).unwrap();
            sim(&["reset", "0", "--minor", "5"]);
            assert_eq!(nvml.gi_info(gi).map(|i| i.id), Err(INVALID_ARGUMENT));
            assert_eq!(nvml.minor(gpu), Err(INVALID_ARGUMENT));
            let gpu = nvml.gpu(0).unwrap();
            assert_eq!((nvml.minor(gpu), nvml.uuid(gpu)), (Ok(5), Ok(uuid)));
            assert_eq!(nvml.mig(gpu), Ok((1, 1)));
            assert!(nvml.instances(gpu).unwrap().is_empty());
        },
    );
}

#[test]
fn a_reboot_keeps_the_mode_on_ampere_only() {
    let node = || {
        Node::new("[[gpu]]\nmodel = \"a100-40\"\nmig = true\n[[gpu]]\nmodel = \"h100-sxm-80\"\nmig = true")
    };
    on("modes::a_reboot_keeps_the_mode_on_ampere_only", node, |nvml| {
        nvml.create(nvml.gpu(0).unwrap(), 19).unwrap();
        let uuid = nvml.uuid(nvml.gpu(0).unwrap());
        sim(&["fault", "add", "--call", "nvmlDeviceGetCount_v2", "--return", "UNKNOWN"]);
        sim(&["reboot"]);
        assert_eq!(nvml.count(), Ok(2), "a fault outlived the reboot");
        assert_eq!(nvml.uuid(nvml.gpu(0).unwrap()), uuid);
        assert_eq!(nvml.mig(nvml.gpu(0).unwrap()), Ok((1, 1)));
        assert_eq!(nvml.mig(nvml.gpu(1).unwrap()), Ok((0, 0)));
        assert!(nvml.instances(nvml.gpu(0).unwrap()).unwrap().is_empty());
    });
}

#[test]
fn a_lost_gpu_says_so_and_the_others_work() {
    let node = || Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true");
    on("modes::a_lost_gpu_says_so_and_the_others_work", node, |nvml| {
        let (lost, well) = (nvml.gpu(0).unwrap(), nvml.gpu(1).unwrap());
        let gi = nvml.create(lost, 19).unwrap();
        let uuid = nvml.uuid(lost).unwrap();
        sim(&["lose", "0"]);
        assert_eq!(nvml.count(), Ok(2));
        assert_eq!(nvml.gpu(0), Err(GPU_IS_LOST));
        assert_eq!(nvml.mig(lost), Err(GPU_IS_LOST));
        assert_eq!(nvml.destroy(gi), Err(GPU_IS_LOST));
        assert_eq!(nvml.by_uuid(&uuid), Err(GPU_IS_LOST));
        nvml.create(well, 19).unwrap();
        sim(&["reset", "0"]);
        assert_eq!(nvml.mig(nvml.gpu(0).unwrap()), Ok((1, 1)));
    });
}

#[test]
fn a_wedged_mode_change_wants_a_reset_before_anything_else() {
    on(
        "modes::a_wedged_mode_change_wants_a_reset_before_anything_else",
        || one("a100-40", true),
        |nvml| {
            sim(&["fault", "pattern", "wedged"]);
            let gpu = nvml.gpu(0).unwrap();
            assert_eq!(nvml.set_mig(gpu, false), Ok(RESET_REQUIRED));
            assert_eq!(nvml.create(gpu, 19), Err(RESET_REQUIRED));
            sim(&["reset", "0"]);
            assert_eq!(nvml.mig(nvml.gpu(0).unwrap()), Ok((0, 0)));
        },
    );
}

#[test]
fn waiting_for_events_tells_of_changed_instances_and_of_loss() {
    use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlEventSet_t};
    on(
        "modes::waiting_for_events_tells_of_changed_instances_and_of_loss",
        || one("h100-sxm-80", true),
        |nvml| {
            let gpu = nvml.gpu(0).unwrap();
            let mut set: nvmlEventSet_t = std::ptr::null_mut();
            // SAFETY: the out pointer is a local; the handles are the library's.
            let code = unsafe { nvml.raw.nvmlEventSetCreate(&mut set) };
            // SAFETY: as above.
            let registered = unsafe { nvml.raw.nvmlDeviceRegisterEvents(gpu, 0x108, set) };
            assert_eq!((code, registered), (0, 0));
            let wait = || {
                // SAFETY: plain C data for the library to fill.
                let mut data: nvmlEventData_t = unsafe { std::mem::zeroed() };
                // SAFETY: as above.
                let code = unsafe { nvml.raw.nvmlEventSetWait_v2(set, &mut data, 0) };
                (code, data.eventType, data.eventData)
            };
            const TIMEOUT: u32 = 10;
            assert_eq!(wait().0, TIMEOUT);
            nvml.create(gpu, 19).unwrap();
            assert_eq!(wait(), (0, 0x100, 0));
            assert_eq!(wait().0, TIMEOUT);
            sim(&["lose", "0"]);
            assert_eq!(wait(), (0, 0x8, 79));
            // SAFETY: the set is the library's.
            assert_eq!(unsafe { nvml.raw.nvmlEventSetFree(set) }, 0);
            assert_eq!(wait().0, INVALID_ARGUMENT);
        },
    );
}
