//! What a new agent makes of what it finds.

use crate::rig::{Holder, Rig};
use migshare_proto::status::{GpuState, LeafState};
use nvidia_ml::code::Code;
use nvidia_ml::machine::{Condition, MigMode};

#[test]
fn leases_and_grants_survive_kill_minus_nine() {
    let mut rig = Rig::new(2);
    rig.start();
    let holder = Holder::new();
    let lease = rig.open(7, 3).unwrap();
    let granted = rig.grant(7, 0, 3, holder.pid()).unwrap();
    rig.kill();
    rig.start();
    assert_eq!(rig.open(7, 3).unwrap(), lease);
    assert_eq!(rig.grant(7, 0, 3, holder.pid()).unwrap(), granted);
}

#[test]
fn instances_that_stand_are_adopted_by_an_agent_without_a_journal() {
    let mut rig = Rig::new(1);
    rig.start();
    let before = rig.machine().gpus[0].instances.clone();
    rig.kill();
    std::fs::remove_dir_all(rig.path("state")).unwrap();
    rig.start();
    assert_eq!(rig.machine().gpus[0].instances, before, "nothing was made or destroyed");
}

#[test]
fn an_instance_of_somebody_else_is_quarantined_and_named() {
    let mut rig = Rig::new(1);
    rig.change(|m| {
        m.create_gpu_instance(0, 9, Some((4, 4))).unwrap();
    });
    rig.launch(rig.command());
    let status = rig.until("quarantine", |s| {
        s.gpus.iter().flat_map(|g| &g.leaves).any(|l| l.state == LeafState::Quarantined)
    });
    let text = status.problems.join("\n");
    assert!(text.contains("4:4") && text.contains("quarantined"), "{text}");
    assert_eq!(rig.machine().gpus[0].instances[0].profile, 9, "it still stands");
    let status = rig.until("leaves beside it", |s| s.gpus[0].leaves.len() == 5);
    assert_eq!((status.counted, status.usable), (7, 4));
}

#[test]
fn after_a_reboot_of_the_node_leases_have_ended_and_the_layout_comes_back() {
    let mut rig = Rig::new(1);
    boot(&rig, "first");
    rig.start();
    rig.open(7, 2).unwrap();
    rig.kill();
    rig.sim.reboot().unwrap();
    boot(&rig, "second");
    rig.start();
    let status = rig.try_status().unwrap();
    assert!(status.leases.is_empty());
    assert!(status.gpus[0].leaves.iter().all(|l| l.generation == 2), "new instances, not the old ones");
}

/// Gives the node's kernel a boot id of its own.
fn boot(rig: &Rig, id: &str) {
    let dir = rig.path("root/proc/sys/kernel/random");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("boot_id"), id).unwrap();
}

#[test]
fn a_lost_gpu_is_named_while_the_other_serves() {
    let mut rig = Rig::new(2).with("[slurm]\ndrain = false\nsqueue = \"/bin/false\"\ninterval = 1\n");
    rig.start();
    rig.change(|m| m.gpu_mut(1).unwrap().condition = Condition::Lost);
    let status = rig.until("notice of the loss", |s| s.problems.iter().any(|p| p.contains("gpu 1 is lost")));
    assert_eq!((status.counted, status.usable), (14, 7));
    assert_eq!(rig.open(7, 7).unwrap().leaves.iter().filter(|l| l.gpu == 0).count(), 7);
    rig.change(|m| m.reset(1, Some(5)).unwrap());
    let status = rig.settled();
    assert_eq!(status.leases.len(), 1, "the job on the other gpu went on");
    rig.open(8, 7).unwrap();
}

#[test]
fn an_instance_that_cannot_be_made_is_tried_again() {
    use nvidia_ml::fault::{Effect, Moment};
    let mut rig = Rig::new(1);
    let refuse = Effect::Return(Code::IN_USE.0);
    rig.fault("nvmlDeviceCreateGpuInstanceWithPlacement", 3, Some(1), Moment::Before, refuse);
    rig.start();
    assert!(rig.log().contains("IN_USE"));
}

#[test]
fn mig_mode_that_was_switched_off_comes_back_and_one_never_counted_stays_off() {
    let mut rig = Rig::new(2).with("[slurm]\ndrain = false\nsqueue = \"/bin/false\"\ninterval = 1\n");
    rig.change(|m| m.gpu_mut(1).unwrap().mig = MigMode { current: false, pending: false });
    rig.launch(rig.command());
    rig.until("the first gpu", |s| s.usable == 7 && s.gpus[0].leaves.len() == 7);
    rig.change(|m| {
        let gpu = m.gpu_mut(0).unwrap();
        gpu.instances.clear();
        gpu.mig = MigMode { current: false, pending: false };
    });
    rig.until("the mode again", |s| s.usable == 7 && s.gpus[0].leaves.iter().all(|l| l.generation == 2));
    assert_eq!(rig.try_status().unwrap().gpus[1].state, GpuState::MigOff);
    assert!(!rig.machine().gpus[1].mig.current);
}
