//! Hardware that fails as real hardware was seen to fail: what the agent makes of it, and that it says so.

use crate::rig::{Holder, Rig, until};
use migshare_proto::admin::{GpuNote, Order, OrderRequest};
use migshare_proto::status::{Filter, GpuState, LeafState, Status};
use migshare_proto::{ClientError, GpuUuid, Request};
use nvidia_ml::code::Code;
use nvidia_ml::fault::{Effect, Fault, Moment};
use nvidia_ml::machine::{Condition, Process};
use nvidia_ml::process::Pid;
use std::process::{Command, Output};

/// A node that is looked at every second.
fn rig(gpus: u32) -> Rig {
    Rig::new(gpus).with("[slurm]\ndrain = false\nsqueue = \"/bin/false\"\ninterval = 1\n")
}

/// Gives an order and follows it for a while; some of these can never be carried out.
fn apply(rig: &Rig, target: &[&str]) {
    apply_for(rig, "5", target);
}

fn apply_for(rig: &Rig, seconds: &str, target: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
    command.arg("--socket").arg(rig.path("agent.sock")).args(["apply", "--wait", seconds]).args(target);
    command.output().unwrap()
}

/// NVIDIA/DCGM#276, NVIDIA/go-nvml#146: the compute instance is gone, the GPU instance stays IN_USE with nobody visible.
#[test]
fn a_zombie_instance_is_tried_again() {
    let mut rig = rig(1);
    rig.start();
    let in_use = Effect::Return(Code::IN_USE.0);
    rig.fault("nvmlGpuInstanceDestroy", 1, Some(2), Moment::Before, in_use);
    apply(&rig, &["gpu=0", "layout=2g.20gb:3"]);
    let three = |s: &migshare_proto::status::Status| {
        s.gpus[0].leaves.iter().filter(|l| l.profile == "2g.20gb").count() == 3
    };
    rig.until("the new layout in spite of the zombie", three);
    assert!(rig.log().contains("IN_USE"), "the failure is an event");
}

#[test]
fn a_zombie_that_stays_is_quarantined_and_released_once_it_is_gone() {
    let mut rig = rig(1);
    rig.start();
    rig.fault("nvmlGpuInstanceDestroy", 1, None, Moment::Before, Effect::Return(Code::IN_USE.0));
    apply(&rig, &["gpu=0", "layout=7g.80gb:1"]);
    let status =
        rig.until("quarantine", |s| s.gpus[0].leaves.iter().any(|l| l.state == LeafState::Quarantined));
    assert!(status.problems.iter().any(|p| p.contains("IN_USE")), "{:?}", status.problems);
    rig.clear_faults();
    let places: Vec<String> = status.gpus[0].leaves.iter().map(|l| l.placement.to_string()).collect();
    apply(&rig, &["configured"]);
    for place in places {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
        command.arg("--socket").arg(rig.path("agent.sock")).args(["release", "0", &place]);
        assert!(command.output().unwrap().status.success());
    }
    rig.settled();
}

#[test]
fn a_gpu_that_wants_a_reset_serves_again_after_it() {
    let mut rig = rig(2);
    rig.start();
    rig.change(|m| m.gpu_mut(0).unwrap().condition = Condition::ResetRequired);
    let status = rig.until("notice", |s| s.gpus[0].state == GpuState::ResetRequired);
    assert!(status.problems.iter().any(|p| p.contains("needs a reset")), "{:?}", status.problems);
    assert_eq!(status.usable, 7);
    let told = |rig: &Rig, event: &str| {
        rig.log().lines().any(|line| line.contains(event) && line.contains("gpu 0 needs a reset"))
    };
    assert!(told(&rig, "problem") && !told(&rig, "problem is over"), "{}", rig.log());
    rig.change(|m| m.reset(0, Some(7)).unwrap());
    rig.settled();
    assert!(told(&rig, "problem is over"), "{}", rig.log());
    let lease = rig.open(1, 14).unwrap();
    let leaf = lease.leaves.iter().find(|l| l.gpu == 0).unwrap();
    assert_eq!(leaf.gpu_minor, 7, "the minor number that it has now");
    assert!(rig.log().contains("minor number of the gpu changed"), "{}", rig.log());
    assert_eq!(leaf.caps[0], 3 + 135 * 7 + 9 * leaf.gi);
}

#[test]
fn a_mode_that_stays_off_until_a_reset_is_named() {
    let mut rig = rig(1);
    rig.start();
    rig.fault("nvmlDeviceSetMigMode", 1, None, Moment::Before, Effect::Activation(Code::RESET_REQUIRED.0));
    rig.change(|m| {
        let gpu = m.gpu_mut(0).unwrap();
        gpu.instances.clear();
        gpu.mig = nvidia_ml::machine::MigMode { current: false, pending: false };
    });
    let status = rig.until("notice", |s| s.usable == 0);
    assert!(!status.problems.is_empty());
    let path = rig.path("log");
    rig.until("the event", |_| {
        std::fs::read_to_string(&path).unwrap().contains("stays off until the gpu is reset")
    });
    assert!(matches!(rig.open(1, 1), Err(ClientError::Refused(_))));
}

#[test]
fn a_process_of_no_job_keeps_its_leaf_from_jobs() {
    let mut rig = rig(1);
    rig.start();
    let pid = Pid::find(std::process::id()).unwrap();
    rig.change(|m| m.gpus[0].instances[2].compute[0].processes.push(Process { pid, memory_mib: 10 }));
    let status = rig.until("notice", |s| s.usable == 6);
    let text = status.problems.join("\n");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(rig.open(1, 7).is_err());
    rig.change(|m| m.gpus[0].instances[2].compute[0].processes.clear());
    rig.settled();
}

#[test]
fn instances_that_somebody_destroyed_are_made_again() {
    let mut rig = rig(1);
    rig.start();
    rig.change(|m| m.gpus[0].instances.clear());
    rig.until("the layout again", |s| {
        s.gpus[0].leaves.iter().all(|l| l.generation == 2) && s.gpus[0].leaves.len() == 7
    });
    rig.settled();
}

#[test]
fn nvml_that_does_not_answer_is_named_and_comes_back() {
    let mut rig = rig(1);
    rig.start();
    rig.open(1, 1).unwrap();
    rig.fault("nvmlDeviceGetCount_v2", 1, None, Moment::Before, Effect::Return(Code::UNKNOWN.0));
    let status = rig.until("notice", |s| !s.problems.is_empty());
    assert!(status.problems[0].contains("NVML does not answer"), "{:?}", status.problems);
    assert_eq!(status.leases.len(), 1);
    rig.clear_faults();
    rig.settled();
}

#[test]
fn a_cordoned_gpu_is_left_alone_with_its_mode_and_comes_back_whole() {
    let mut rig = rig(2);
    rig.start();
    let gpu = GpuUuid::new(&rig.machine().gpus[1].uuid);
    let made =
        |s: &Status, generation| s.gpus[0].leaves.iter().filter(|l| l.generation == generation).count() == 7;
    let order = |rig: &Rig, order| rig.ask(Request::Order(OrderRequest { order, force: false })).unwrap();
    order(&rig, Order::Cordon(GpuNote { gpu: gpu.clone(), note: "new fan".to_owned() }));
    rig.change(|m| m.reset(1, None).unwrap());
    // The agent looks, and makes what is missing elsewhere.
    rig.change(|m| m.gpus[0].instances.clear());
    rig.until("the layout of the other", |s| made(s, 2));
    assert!(rig.machine().gpus[1].instances.is_empty());
    rig.change(|m| (m.gpus[1].mig.current, m.gpus[1].mig.pending) = (false, false));
    rig.until("a look at the mode", |s| s.gpus[1].state == GpuState::MigOff);
    rig.change(|m| m.gpus[0].instances.clear());
    rig.until("the layout of the other again", |s| made(s, 3));
    assert!(!rig.machine().gpus[1].mig.pending);
    order(&rig, Order::Uncordon(gpu));
    rig.settled();
}

#[test]
fn a_step_that_hardware_refuses_rolls_the_change_back_and_apply_says_so() {
    let mut rig = rig(1);
    rig.start();
    rig.open(812, 1).unwrap();
    rig.close(812).unwrap();
    let refuse = Effect::Return(Code::INSUFFICIENT_RESOURCES.0);
    rig.fault("nvmlDeviceCreateGpuInstanceWithPlacement", 1, Some(3), Moment::Before, refuse);
    let done = apply_for(&rig, "60", &["--json", "gpu=0", "layout=7g.80gb:1"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("gpu 0 was rolled back") && said.contains("INSUFFICIENT_RESOURCES"), "{said}");
    assert_ne!(done.status.code(), Some(0));
    let left: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(left["ordered"], false);
    // The former layout is back, and nothing is left of the attempt.
    rig.settled();
    assert_eq!(rig.open(813, 7).unwrap().leaves.len(), 7);
}

/// Each GPU of an order by itself: the one that hardware refused goes back, the other keeps what was ordered.
#[test]
fn a_gpu_that_is_rolled_back_is_named_and_the_others_of_the_order_are_followed_to_the_end() {
    let mut rig = rig(2);
    rig.start();
    rig.arm(Fault {
        id: 0,
        call: "nvmlDeviceCreateGpuInstanceWithPlacement".to_owned(),
        gpu: Some(0),
        nth: 1,
        times: Some(3),
        moment: Moment::Before,
        effect: Effect::Return(Code::INSUFFICIENT_RESOURCES.0),
    });
    let done = apply_for(&rig, "60", &["7g.80gb:1"]);
    let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(1), "{out}{said}");
    assert!(said.contains("gpu 0 was rolled back to the layout before: 0:8: NVML refused 3 times"), "{said}");
    assert!(
        said.contains("INSUFFICIENT_RESOURCES") && said.contains("the order holds for the other 1"),
        "{said}"
    );
    assert!(!said.contains("gpu 1 was") && out.contains("made 7g.80gb at 0:8 on gpu 1"), "{out}{said}");
    let status = rig.until("both layouts", |s| s.gpus[0].leaves.len() == 7 && s.gpus[1].leaves.len() == 1);
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    let log = rig.log();
    let warning = log.lines().find(|line| line.contains("is rolled back to the one before"));
    assert!(
        warning.is_some_and(|l| l.contains("WARN") && l.contains("INSUFFICIENT_RESOURCES")),
        "{warning:?}"
    );
    // A new order asks hardware anew.
    assert_eq!(apply_for(&rig, "60", &["7g.80gb:1"]).status.code(), Some(0));
}

#[test]
fn a_change_that_was_under_way_when_the_agent_was_killed_is_told_and_can_still_be_rolled_back() {
    let mut rig = rig(1);
    rig.start();
    let refuse = Effect::Return(Code::INSUFFICIENT_RESOURCES.0);
    rig.fault("nvmlDeviceCreateGpuInstanceWithPlacement", 1, None, Moment::Before, refuse);
    apply_for(&rig, "0", &["gpu=0", "layout=7g.80gb:1"]);
    rig.kill();
    rig.launch(rig.command());
    until("rolled back", || rig.log().contains("layout of the gpu is rolled back to the one before"));
    assert!(rig.log().contains("a change of the gpu's layout was under way"), "{}", rig.log());
    rig.clear_faults();
    rig.settled();
    assert_eq!(rig.open(813, 7).unwrap().leaves.len(), 7);
}

#[test]
fn an_ordered_layout_comes_back_after_a_reset_and_after_a_reboot() {
    let mut rig = rig(1);
    rig.start();
    apply(&rig, &["gpu=0", "layout=full-memory"]);
    let last = |s: &migshare_proto::status::Status, generation: u64| {
        // An agent that has just started has seen no GPU yet.
        s.gpus.first().is_some_and(|gpu| {
            let wide = gpu.leaves.iter().find(|l| l.profile == "1g.20gb");
            gpu.leaves.len() == 7 && wide.is_some_and(|l| l.generation == generation)
        })
    };
    rig.until("the layout", |s| last(s, 1));
    rig.change(|m| m.reset(0, None).unwrap());
    rig.until("the layout after a reset", |s| last(s, 2));
    rig.kill();
    rig.sim.reboot().unwrap();
    rig.launch(rig.command());
    rig.until("the layout after a reboot", |s| last(s, 3));
}

/// A driver that hangs holds its caller for as long as it likes.
#[test]
fn a_call_that_does_not_return_is_named_and_leases_go_on() {
    let mut rig =
        Rig::new(1).with("nvml_alarm = 1\n[slurm]\ndrain = false\nsqueue = \"/bin/false\"\ninterval = 1\n");
    rig.start();
    rig.open(1, 2).unwrap();
    rig.fault("nvmlDeviceGetCount_v2", 1, None, Moment::Before, Effect::Delay(3_600_000));
    let status = rig.until("the alarm", |s| !s.problems.is_empty());
    assert!(
        status.problems[0].contains("does not return from nvmlDeviceGetCount_v2"),
        "{:?}",
        status.problems
    );
    let holder = Holder::new();
    rig.grant(1, 0, 2, holder.pid()).unwrap();
    rig.open(2, 5).unwrap();
    rig.close(1).unwrap();
    assert_eq!(rig.try_status().unwrap().leases.len(), 1);
    assert!(rig.log().contains("NVML does not return"));
    rig.clear_faults();
    rig.settled();
    assert!(rig.log().contains("NVML has returned"));
}

/// The regular look is a day away: only what the driver reports can tell.
#[test]
fn a_gpu_that_is_lost_is_noticed_by_the_drivers_event() {
    let far = "[slurm]\ndrain = false\nsqueue = \"/bin/false\"\ninterval = 86400\n";
    let mut rig = Rig::new(2).with(far);
    let mut command = rig.command();
    command.env("MIGSHARE_LOG", "debug");
    rig.launch(command);
    rig.settled();
    let path = rig.path("log");
    rig.until("the registration", |_| std::fs::read_to_string(&path).unwrap().contains("waiting for errors"));
    rig.change(|m| m.gpu_mut(1).unwrap().condition = Condition::Lost);
    let status = rig.until("notice", |s| s.gpus[1].state == GpuState::Lost);
    assert_eq!(status.usable, 7);
    assert!(rig.log().contains("Xid(Some(79))"), "the event and its number are told");
}

/// What every other test of a lost GPU shows by looking, shown where the events are switched off.
#[test]
fn without_events_the_regular_look_notices_a_lost_gpu() {
    let mut rig = Rig::new(2)
        .with("nvml_events = false\n[slurm]\ndrain = false\nsqueue = \"/bin/false\"\ninterval = 1\n");
    rig.start();
    rig.change(|m| m.gpu_mut(1).unwrap().condition = Condition::Lost);
    rig.until("notice", |s| s.gpus[1].state == GpuState::Lost);
    assert!(!rig.log().contains("looking at the gpus"));
}

#[test]
fn a_kernel_that_cannot_isolate_tasks_is_named_at_the_start_and_in_the_status() {
    let mut rig = Rig::new(1);
    let own = rig.path("root/proc/self");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("mountinfo"), "1 1 0:1 / / rw - ext4 /dev/vda rw\n").unwrap();
    rig.launch(rig.command());
    let status = rig.until("the problem", |s| !s.problems.is_empty() && s.usable == 7);
    assert!(status.problems[0].contains("neither cgroup v2 nor v1"), "{:?}", status.problems);
    assert_eq!(status.isolation.filter, Filter::None);
    assert!(rig.log().contains("tasks cannot be isolated"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
    let out = command.arg("--socket").arg(rig.path("agent.sock")).arg("status").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("isolation of tasks: none") && out.status.code() == Some(5), "{text}");
}
