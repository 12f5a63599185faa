//! The agent is killed at every NVML call that changes something and at every write and sync of its journal; a new one must
//! know every lease that was answered, must have given nothing twice, and must account for every instance that stands.

use crate::rig::{Holder, Rig, has, skip};
use migshare_proto::status::{GpuStatus, Status};
use migshare_proto::{ClientError, GpuUuid};
use nvidia_ml::fault::{Effect, Moment};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

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

/// One life, and the next one.
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

#[test]
fn killed_at_every_nvml_call_that_makes_something() {
    for call in ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"] {
        for moment in [Moment::Before, Moment::After] {
            for nth in 1..=7 {
                let rig = Rig::new(1);
                rig.fault(call, nth, Some(1), moment, Effect::Kill);
                let command = rig.command();
                assert!(live_and_judge(rig, command), "{call} {nth} was reached");
            }
        }
    }
}

#[test]
fn killed_at_calls_that_only_look() {
    for call in [
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetGpuInstances",
        "nvmlGpuInstanceGetInfo",
        "nvmlComputeInstanceGetInfo_v2",
    ] {
        for nth in [1, 2, 5] {
            let rig = Rig::new(1);
            rig.fault(call, nth, Some(1), Moment::After, Effect::Kill);
            let command = rig.command();
            live_and_judge(rig, command);
        }
    }
}

/// strace kills the agent when it enters the n-th write or fdatasync of the journal: before the record is there, and when it
/// is there but not answered.
#[test]
fn killed_at_every_write_and_sync_of_the_journal() {
    if !has("strace") {
        return skip("strace is not installed");
    }
    for call in ["pwrite64", "fdatasync"] {
        let mut nth = 0;
        loop {
            nth += 1;
            let rig = Rig::new(1);
            let agent = rig.command();
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
            command.arg("-e").arg(format!("inject={call}:signal=KILL:when={nth}"));
            command.arg("-P").arg(rig.path("state/journal")).arg("-P").arg(rig.path("state/journal.new"));
            command.arg(agent.get_program()).args(agent.get_args());
            if !live_and_judge(rig, command) {
                break;
            }
        }
        assert!(nth > 20, "only {nth} of {call} were reached");
    }
}

/// A change of layout is under way; the next agent finishes it.
#[test]
fn killed_at_every_nvml_call_of_a_change_of_layout() {
    let calls = [
        ("nvmlComputeInstanceDestroy", 7),
        ("nvmlGpuInstanceDestroy", 7),
        ("nvmlDeviceCreateGpuInstanceWithPlacement", 3),
        ("nvmlGpuInstanceCreateComputeInstance", 3),
    ];
    for (call, last) in calls {
        for moment in [Moment::Before, Moment::After] {
            for nth in [1, 2, last] {
                let mut rig = Rig::new(1);
                rig.start();
                rig.fault(call, nth, Some(1), moment, Effect::Kill);
                let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
                command.arg("--socket").arg(rig.path("agent.sock")).args([
                    "apply",
                    "gpu=0",
                    "layout=2g.20gb:3",
                ]);
                command.output().unwrap();
                rig.ended();
                rig.clear_faults();
                rig.launch(rig.command());
                let three = |s: &Status| {
                    let wide = |g: &GpuStatus| {
                        g.leaves
                            .iter()
                            .all(|l| l.profile == "2g.20gb" && l.generation > 0 && !l.uuid.is_empty())
                    };
                    s.problems.is_empty() && s.gpus.first().is_some_and(|g| g.leaves.len() == 3 && wide(g))
                };
                let status = rig.until("the end of the change", three);
                judge(&Told::default(), &status, &rig);
            }
        }
    }
}
