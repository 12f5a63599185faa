//! The agent is killed at every NVML call that changes something, at calls that look, and at every write and sync of its journal; a
//! new one must know every lease and every order that was answered, must have given nothing twice, and must account for every
//! instance that stands.
//!
//! How often a call is made is not written here: each is killed at until a life has passed it by, or where there are many, at some
//! of as many as a life without a fault has counted.

use crate::rig::{Holder, Rig, has, skip};
use migshare_proto::status::{GpuStatus, Status};
use migshare_proto::{ClientError, GpuUuid};
use nvidia_ml::fault::{Effect, Moment};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

mod orders;

/// What the clients were told, which a crash must not undo.
#[derive(Default)]
struct Told {
    /// Jobs whose lease was answered and whose end nobody asked for, with their leaves.
    held: BTreeMap<u32, BTreeSet<String>>,
    /// Jobs whose end was answered.
    ended: BTreeSet<u32>,
}

/// Jobs come and go until the agent dies or the work is done.
fn work(rig: &Rig, holder: u32, told: &mut Told) -> Result<(), ClientError> {
    for job in 1..=4 {
        let lease = rig.open(job, 2)?;
        let places = lease.leaves.iter().map(|l| format!("{} {}", l.gpu_uuid, l.placement)).collect();
        told.held.insert(job, places);
        rig.grant(job, 0, 1, holder)?;
        rig.grant(job, 1, 1, holder)?;
        if job > 2 {
            rig.release(job, 0)?;
            let older = job - 2;
            told.held.remove(&older);
            rig.close(older)?;
            told.ended.insert(older);
        }
    }
    Ok(())
}

/// The oracle. `status` is that of a new agent that has settled.
fn judge(told: &Told, status: &Status, rig: &Rig) {
    let mut holders: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for gpu in &status.gpus {
        for leaf in &gpu.leaves {
            if let Some(job) = leaf.job {
                let fresh =
                    holders.entry(job.job).or_default().insert(format!("{} {}", gpu.uuid, leaf.placement));
                assert!(fresh, "{} of gpu {} is shown twice", leaf.placement, gpu.index);
            }
        }
    }
    for (job, places) in &told.held {
        assert_eq!(holders.get(job), Some(places), "job {job} was told so");
    }
    for job in &told.ended {
        assert!(!holders.contains_key(job), "job {job} has ended");
    }
    let machine = rig.machine();
    for gpu in &machine.gpus {
        let known: BTreeSet<u32> = status
            .gpus
            .iter()
            .filter(|g| g.uuid == GpuUuid::new(&gpu.uuid))
            .flat_map(|g| &g.leaves)
            .map(|l| l.gi)
            .collect();
        let stand: BTreeSet<u32> = gpu.instances.iter().map(|i| i.id).collect();
        assert_eq!(known, stand, "every instance that stands is accounted for");
        assert!(
            gpu.instances.iter().all(|i| i.compute.len() == 1),
            "no instance without its compute instance"
        );
    }
}

/// One life, and the next one. Whether the first was ended by its fault.
fn live_and_judge(mut rig: Rig, command: Command) -> bool {
    let holder = Holder::new();
    let mut told = Told::default();
    rig.launch(command);
    let done = loop {
        match work(&rig, holder.pid(), &mut told) {
            // Not there yet, or there no more.
            Err(ClientError::Away { .. }) if rig.runs() && told.held.is_empty() && told.ended.is_empty() => {}
            other => break other,
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let killed = done.is_err() || !rig.settled_or_ended();
    if killed {
        rig.ended();
    } else {
        rig.kill();
    }
    rig.clear_faults();
    rig.start();
    judge(&told, &rig.settled(), &rig);
    // The next life works as if nothing had been.
    let mut told = Told::default();
    for job in 1..=4 {
        rig.close(job).unwrap();
    }
    work(&rig, holder.pid(), &mut told).unwrap();
    judge(&told, &rig.settled(), &rig);
    killed
}

/// Kills at the first call, the second and so on until one is not reached any more; how many were.
fn kill_at_each(call: &str, moment: Moment, life: impl Fn(Rig) -> bool) -> u64 {
    for nth in 1.. {
        let rig = Rig::new(1);
        rig.fault(call, nth, Some(1), moment, Effect::Kill);
        if !life(rig) {
            return nth - 1;
        }
    }
    unreachable!("a life has an end")
}

fn life(rig: Rig) -> bool {
    let command = rig.command();
    live_and_judge(rig, command)
}

#[test]
fn killed_at_every_nvml_call_that_makes_something() {
    for call in ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"] {
        for moment in [Moment::Before, Moment::After] {
            assert_eq!(kill_at_each(call, moment, life), 7, "{call}: one for each leaf");
        }
    }
}

#[test]
fn killed_at_calls_that_only_look() {
    for call in [
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetGpuInstances",
        "nvmlGpuInstanceGetInfo",
        "nvmlComputeInstanceGetInfo_v2",
    ] {
        let rig = Rig::new(1);
        let id = rig.fault(call, u64::MAX, Some(1), Moment::After, Effect::Kill);
        let made = counted(rig, id);
        assert!(made > 0, "{call} is never made");
        for nth in BTreeSet::from([1, made.div_ceil(4), made.div_ceil(2)]) {
            let rig = Rig::new(1);
            rig.fault(call, nth, Some(1), Moment::After, Effect::Kill);
            assert!(life(rig), "{call} {nth} of {made} was not reached");
        }
    }
}

/// How many calls of an armed fault's function a life makes before its work is done.
fn counted(mut rig: Rig, fault: u32) -> u64 {
    rig.start();
    let holder = Holder::new();
    work(&rig, holder.pid(), &mut Told::default()).unwrap();
    rig.counted(fault)
}

/// A large lease takes leaves apart, and so does an order.
#[test]
fn killed_at_every_nvml_call_of_large_leases_and_orders() {
    for call in [
        "nvmlComputeInstanceDestroy",
        "nvmlGpuInstanceDestroy",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
    ] {
        for moment in [Moment::Before, Moment::After] {
            let made = kill_at_each(call, moment, |rig| {
                let command = rig.command();
                orders::live_and_judge(rig, command)
            });
            assert!(made >= 3, "{call}: only {made} were reached");
        }
    }
}

/// From Hopper on the mode does not survive a reboot: the agent switches it on again.
#[test]
fn killed_at_every_switch_of_the_mode() {
    for moment in [Moment::Before, Moment::After] {
        let switches = kill_at_each("nvmlDeviceSetMigMode", moment, |mut rig| {
            // Counted first, so that the mode is the agent's to switch.
            rig.start();
            rig.kill();
            rig.change(|m| {
                m.gpus[0].instances.clear();
                (m.gpus[0].mig.current, m.gpus[0].mig.pending) = (false, false);
            });
            rig.launch(rig.command());
            let killed = !rig.settled_or_ended();
            if killed {
                rig.ended();
                rig.launch(rig.command());
            }
            judge(&Told::default(), &rig.settled(), &rig);
            killed
        });
        assert_eq!(switches, 1);
    }
}

/// strace kills the agent when it enters the n-th write or fdatasync of the journal: before the record is there, and when it
/// is there but not answered.
fn killed_at_each(call: &str, least: u32, life: impl Fn(Rig, Command) -> bool) {
    if !has("strace") {
        return skip("strace is not installed");
    }
    for nth in 1.. {
        let rig = Rig::new(1);
        let agent = rig.command();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
        command.arg("-e").arg(format!("inject={call}:signal=KILL:when={nth}"));
        command.arg("-P").arg(rig.path("state/journal")).arg("-P").arg(rig.path("state/journal.new"));
        command.arg(agent.get_program()).args(agent.get_args());
        if !life(rig, command) {
            assert!(nth > least, "only {nth} of {call} were reached");
            return;
        }
    }
}

#[test]
fn killed_at_every_write_of_the_journal_for_a_job() {
    killed_at_each("pwrite64", 20, live_and_judge);
}

#[test]
fn killed_at_every_sync_of_the_journal_for_a_job() {
    killed_at_each("fdatasync", 20, live_and_judge);
}

#[test]
fn killed_at_every_write_of_the_journal_for_an_order() {
    killed_at_each("pwrite64", orders::COUNT, orders::live_and_judge);
}

#[test]
fn killed_at_every_sync_of_the_journal_for_an_order() {
    killed_at_each("fdatasync", orders::COUNT, orders::live_and_judge);
}

/// A change of layout is under way; the next agent finishes it.
#[test]
fn killed_at_every_nvml_call_of_a_change_of_layout() {
    for (call, made) in [
        ("nvmlComputeInstanceDestroy", 7),
        ("nvmlGpuInstanceDestroy", 7),
        ("nvmlDeviceCreateGpuInstanceWithPlacement", 3),
        ("nvmlGpuInstanceCreateComputeInstance", 3),
    ] {
        for moment in [Moment::Before, Moment::After] {
            let mut nth = 1;
            while change_layout(call, moment, nth) {
                nth += 1;
            }
            assert_eq!(nth - 1, made, "{call}");
        }
    }
}

/// One change with one fault. Whether the fault ended the agent.
fn change_layout(call: &str, moment: Moment, nth: u64) -> bool {
    let mut rig = Rig::new(1);
    rig.start();
    rig.fault(call, nth, Some(1), moment, Effect::Kill);
    let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
    command.arg("--socket").arg(rig.path("agent.sock")).args(["apply", "gpu=0", "layout=2g.20gb:3"]);
    let done = command.output().unwrap();
    let killed = !done.status.success();
    if killed {
        rig.ended();
        rig.clear_faults();
        rig.launch(rig.command());
    }
    let three = |s: &Status| {
        let wide = |g: &GpuStatus| {
            g.leaves.iter().all(|l| l.profile == "2g.20gb" && l.generation > 0 && !l.uuid.is_empty())
        };
        s.problems.is_empty() && s.gpus.first().is_some_and(|g| g.leaves.len() == 3 && wide(g))
    };
    let status = rig.until("the end of the change", three);
    judge(&Told::default(), &status, &rig);
    killed
}
