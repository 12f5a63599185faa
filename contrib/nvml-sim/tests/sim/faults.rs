//! Faults on command: they hit the call that was named, when it was named, over all processes.

use std::os::unix::process::ExitStatusExt;

use crate::library::*;
use crate::node::{Node, inside, on, own_sim};

fn node() -> Node {
    Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true")
}

fn fault(arguments: &str) -> String {
    let arguments: Vec<&str> = std::iter::once("fault").chain(arguments.split(' ')).collect();
    let done = own_sim(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn the_nth_call_fails_and_its_neighbours_do_not() {
    on("faults::the_nth_call_fails_and_its_neighbours_do_not", node, |nvml| {
        fault("add --call nvmlDeviceGetCount_v2 --nth 3 --times 2 --return GPU_IS_LOST");
        let codes: Vec<_> = (0..6).map(|_| nvml.count()).collect();
        assert_eq!(codes, [Ok(2), Ok(2), Err(GPU_IS_LOST), Err(GPU_IS_LOST), Ok(2), Ok(2)]);
        assert!(fault("list").contains("counted 6"));
        fault("clear");
        assert_eq!(fault("list"), "");
    });
}

#[test]
fn a_fault_before_has_no_effect_and_one_after_has() {
    on("faults::a_fault_before_has_no_effect_and_one_after_has", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        fault("add --call nvmlDeviceCreateGpuInstanceWithPlacement --return UNKNOWN");
        assert_eq!(nvml.create_at(gpu, 19, (0, 1)), Err(999));
        assert_eq!(nvml.instances(gpu).unwrap().len(), 0);
        fault("add --call nvmlDeviceCreateGpuInstanceWithPlacement --after --return UNKNOWN");
        assert_eq!(nvml.create_at(gpu, 19, (0, 1)), Err(999));
        assert_eq!(nvml.instances(gpu).unwrap().len(), 1);
    });
}

#[test]
fn a_fault_of_one_gpu_spares_the_other() {
    on("faults::a_fault_of_one_gpu_spares_the_other", node, |nvml| {
        fault("add --call nvmlDeviceCreateGpuInstance --gpu 1 --times 0 --return IN_USE");
        nvml.create(nvml.gpu(0).unwrap(), 19).unwrap();
        assert_eq!(nvml.create(nvml.gpu(1).unwrap(), 19), Err(IN_USE));
        assert_eq!(nvml.create(nvml.gpu(1).unwrap(), 19), Err(IN_USE));
    });
}

#[test]
fn a_zombie_stays_when_its_compute_instance_is_gone() {
    on("faults::a_zombie_stays_when_its_compute_instance_is_gone", node, |nvml| {
        fault("pattern zombie");
        let gpu = nvml.gpu(0).unwrap();
        let gi = nvml.create(gpu, 19).unwrap();
        nvml.destroy_ci(nvml.create_full_ci(gi).unwrap()).unwrap();
        assert_eq!([(); 3].map(|()| nvml.destroy(gi)), [Err(IN_USE); 3]);
        assert!(nvml.mig_uuids(gpu).is_empty());
        nvml.destroy(gi).unwrap();
    });
}

#[test]
fn an_orphan_is_left_when_the_compute_instance_fails() {
    on("faults::an_orphan_is_left_when_the_compute_instance_fails", node, |nvml| {
        fault("pattern orphan --gpu 0");
        let gpu = nvml.gpu(0).unwrap();
        let gi = nvml.create(gpu, 19).unwrap();
        assert_eq!(nvml.create_full_ci(gi), Err(INSUFFICIENT_RESOURCES));
        assert!(nvml.mig_uuids(gpu).is_empty());
        assert_eq!(nvml.instances(gpu).unwrap(), [gi]);
        nvml.create_full_ci(gi).unwrap();
    });
}

#[test]
fn calls_are_counted_over_all_processes() {
    on("faults::calls_are_counted_over_all_processes", node, |nvml| {
        fault("add --call nvmlDeviceGetUUID --nth 2 --return UNKNOWN");
        let gpu = nvml.gpu(0).unwrap();
        nvml.uuid(gpu).unwrap();
        let other = Nvml::load(&{
            // A copy is another library to the loader: a second session, as a second process has.
            let copy = crate::node::own_root().with_file_name("copy.so");
            std::fs::copy(crate::node::shared_object(), &copy).unwrap();
            copy
        });
        assert_eq!(other.uuid(other.gpu(0).unwrap()), Err(999));
        nvml.uuid(gpu).unwrap();
    });
}

#[test]
fn a_killed_caller_leaves_what_the_moment_says() {
    const TEST: &str = "faults::a_killed_caller_leaves_what_the_moment_says";
    if let Some(nvml) = inside(TEST) {
        let _ = nvml.create_at(nvml.gpu(0).unwrap(), 19, (0, 1));
        unreachable!("the fault should have killed this process");
    }
    for (moment, left) in [(None, 0), (Some("--after"), 1)] {
        let node = node();
        node.sim(&["init"]);
        let mut add = vec!["fault", "add", "--call", "nvmlDeviceCreateGpuInstanceWithPlacement", "--kill"];
        add.extend(moment);
        node.sim(&add);
        let done = node.body(TEST).output().unwrap();
        assert_eq!(done.status.signal(), Some(9), "{moment:?}");
        assert_eq!(node.machine().gpus[0].instances.len(), left, "{moment:?}");
    }
}

#[test]
fn a_delayed_call_still_works() {
    on("faults::a_delayed_call_still_works", node, |nvml| {
        fault("add --call nvmlDeviceGetCount_v2 --delay 30");
        let before = std::time::Instant::now();
        assert_eq!(nvml.count(), Ok(2));
        assert!(before.elapsed() >= std::time::Duration::from_millis(30), "it did not wait");
    });
}

#[test]
fn initialisation_can_fail_and_be_tried_again() {
    on("faults::initialisation_can_fail_and_be_tried_again", node, |nvml| {
        nvml.shutdown().unwrap();
        fault("add --call nvmlInit_v2 --return DRIVER_NOT_LOADED");
        assert_eq!(nvml.init(), Err(9));
        assert_eq!(nvml.count(), Err(1));
        nvml.init().unwrap();
        assert_eq!(nvml.count(), Ok(2));
    });
}

#[test]
fn nonsense_is_refused_with_what_is_known() {
    let node = node();
    for (arguments, says) in [
        ("add --call nvmlMakeCoffee --return IN_USE", "nvmlMakeCoffee is not a simulated NVML function"),
        ("add --call nvmlDeviceGetCount_v2 --return TEAPOT", "no NVML code \"TEAPOT\""),
        ("add --call nvmlDeviceGetCount_v2 --nth 0 --return IN_USE", "--nth"),
        ("add --call nvmlDeviceGetCount_v2", "--return"),
        ("add --call nvmlDeviceGetCount_v2 --activation IN_USE", "nvmlDeviceSetMigMode"),
        ("add --call nvmlDeviceGetCount_v2 --gpu 7 --kill", "no GPU 7"),
        ("pattern gremlin", "zombie"),
        ("clear 17", "no fault 17"),
    ] {
        let arguments: Vec<&str> = std::iter::once("fault").chain(arguments.split(' ')).collect();
        let done = node.try_sim(&arguments);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && said.contains(says), "{arguments:?}: {said}");
    }
}
