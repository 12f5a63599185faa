//! Processes on instances: seen where they run, in the way of destruction, gone when they end.

use crate::library::*;
use crate::node::{Node, Sleeper, on, own_sim};

fn node() -> Node {
    Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true")
}

fn sim(arguments: &[&str]) {
    let done = own_sim(arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_process_is_seen_on_its_instance_and_on_the_gpu_until_it_ends() {
    on("processes::a_process_is_seen_on_its_instance_and_on_the_gpu_until_it_ends", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let gi = nvml.create_at(gpu, 9, (4, 4)).unwrap();
        let (ci, other) = (nvml.create_ci(gi, 0).unwrap(), nvml.create_ci(gi, 0).unwrap());
        let device = nvml.ci_info(ci).unwrap().device;
        let uuid = nvml.uuid(device).unwrap();
        let sleeper = Sleeper::new();
        let pid = sleeper.pid();
        let number: u32 = pid.parse().unwrap();
        sim(&["process", "add", "--uuid", &uuid, "--pid", &pid, "--memory", "100"]);
        assert_eq!(nvml.processes(device), Ok(vec![(number, 2, 0)]));
        assert_eq!(nvml.processes(gpu), Ok(vec![(number, 2, 0)]));
        assert_eq!(nvml.processes(nvml.ci_info(other).unwrap().device), Ok(vec![]));
        assert_eq!(nvml.processes(nvml.gpu(1).unwrap()), Ok(vec![]));
        assert_eq!(nvml.destroy_ci(ci), Err(IN_USE));
        nvml.destroy_ci(other).unwrap();
        drop(sleeper);
        assert_eq!(nvml.processes(gpu), Ok(vec![]));
        nvml.destroy_ci(ci).unwrap();
        nvml.destroy(gi).unwrap();
    });
}

#[test]
fn too_small_a_list_tells_how_many_there_are() {
    on("processes::too_small_a_list_tells_how_many_there_are", node, |nvml| {
        let gpu = nvml.gpu(0).unwrap();
        let ci = nvml.create_full_ci(nvml.create_at(gpu, 19, (0, 1)).unwrap()).unwrap();
        let device = nvml.ci_info(ci).unwrap().device;
        let uuid = nvml.uuid(device).unwrap();
        let sleepers = [Sleeper::new(), Sleeper::new()];
        for sleeper in &sleepers {
            sim(&["process", "add", "--uuid", &uuid, "--pid", &sleeper.pid()]);
        }
        let mut count = 0;
        // SAFETY: with a count of 0 the list is not written to.
        let code = unsafe {
            nvml.raw.nvmlDeviceGetComputeRunningProcesses_v3(device, &mut count, std::ptr::null_mut())
        };
        assert_eq!((code, count), (INSUFFICIENT_SIZE, 2));
        sim(&["process", "remove", "--pid", &sleepers[0].pid()]);
        assert_eq!(nvml.processes(device).unwrap().len(), 1);
    });
}

#[test]
fn in_mig_mode_nobody_computes_on_the_whole_gpu() {
    let node = node();
    let pid = std::process::id().to_string();
    let add = |at: &str| node.try_sim(&["process", "add", "--at", at, "--pid", &pid]).status.success();
    assert!(!add("0") && !add("0:7:0") && !add("9") && !add("x"));
    let whole = Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"");
    whole.sim(&["process", "add", "--at", "0", "--pid", &pid]);
    assert_eq!(whole.machine().gpus[0].processes.len(), 1);
}
