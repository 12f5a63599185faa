//! `status`: the node as it is.

use nvidia_ml::machine::{Gpu, GpuInstance, Machine};
use nvidia_ml::store::Store;

use super::fault::describe;

pub(crate) fn show(store: &Store, json: bool) -> anyhow::Result<()> {
    let mut machine = (*store.snapshot()?).clone();
    machine.forget_dead(nvidia_ml::process::Pid::alive);
    if json {
        println!("{}", serde_json::to_string_pretty(&machine)?);
    } else {
        print(&machine);
    }
    Ok(())
}

fn print(machine: &Machine) {
    println!("driver {}, CUDA {}.{}, SIMULATED", machine.driver, machine.cuda.0, machine.cuda.1);
    for (n, gpu) in machine.gpus.iter().enumerate() {
        print_gpu(n, gpu);
    }
    for f in &machine.faults {
        println!("fault {}: {} from call {}: {}", f.id, f.call, f.nth, describe(f.effect));
    }
}

fn print_gpu(n: usize, gpu: &Gpu) {
    let (product, inferred) =
        gpu.spec().map_or((gpu.model.as_str(), 0), |m| (m.product.as_str(), m.inferred.len()));
    let on = |on| if on { "on" } else { "off" };
    let mut mig = format!("MIG {}", on(gpu.mig.current));
    if gpu.mig.pending != gpu.mig.current {
        mig += &format!(" ({} pending)", on(gpu.mig.pending));
    }
    println!("GPU {n} {product} {} minor {}, {mig}, {:?}", gpu.uuid, gpu.minor, gpu.condition);
    if inferred > 0 {
        println!("  {inferred} kinds of figures of this model are inferred; see `nvml-sim models`");
    }
    for holder in &gpu.holders {
        let pid = holder.pid.map_or_else(String::new, |pid| format!(" (pid {})", pid.number));
        println!("  held by {}{pid}", holder.note);
    }
    for process in &gpu.processes {
        println!("  pid {} {} MiB", process.pid.number, process.memory_mib);
    }
    let mut instances: Vec<&GpuInstance> = gpu.instances.iter().collect();
    instances.sort_by_key(|gi| gi.start);
    for gi in instances {
        let name = gpu.spec().ok().and_then(|m| m.profile(gi.profile)).map_or("?", |p| p.name.as_str());
        println!("  GI {:2} {name} at {}:{}", gi.id, gi.start, gi.size);
        for ci in &gi.compute {
            let pids: Vec<String> = ci.processes.iter().map(|p| p.pid.number.to_string()).collect();
            println!("    CI {} {} slices {} {}", ci.id, ci.slices, ci.uuid, pids.join(" "));
        }
    }
}
