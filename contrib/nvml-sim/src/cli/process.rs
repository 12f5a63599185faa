//! `process`: who computes where.

use anyhow::bail;
use clap::{Args, Subcommand};
use nvidia_ml::code::Code;
use nvidia_ml::machine::{Machine, Process};
use nvidia_ml::store::Store;

use super::hardware;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Let a running process compute on a MIG device or a GPU, until it ends
    Add {
        #[command(flatten)]
        place: Place,
        /// The process
        #[arg(long)]
        pid: u32,
        /// Device memory it uses, in MiB
        #[arg(long, default_value_t = 0)]
        memory: u64,
    },
    /// End the work of a process on every device
    Remove {
        /// The process
        #[arg(long)]
        pid: u32,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// UUID of the MIG device or GPU
    #[arg(long)]
    uuid: Option<String>,
    /// NVML index of the GPU, or GPU:GI:CI
    #[arg(long)]
    at: Option<String>,
}

pub(crate) fn run(store: &Store, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add { place, pid, memory } => {
            let process = Process { pid: hardware::process(pid)?, memory_mib: memory };
            let chosen = chosen(&place)?;
            hardware::change(store, "process add", |machine| {
                chosen.processes(machine).ok_or(Code::NOT_FOUND)?.push(process);
                Ok(())
            })
        }
        Command::Remove { pid } => hardware::change(store, "process remove", |machine| {
            let mut removed = 0;
            each(machine, |list| {
                let before = list.len();
                list.retain(|p| p.pid.number != pid);
                removed += before - list.len();
            });
            if removed == 0 { Err(Code::NOT_FOUND) } else { Ok(()) }
        }),
    }
}

/// A place by name.
enum Chosen {
    Uuid(String),
    Gpu(usize),
    Instance(usize, u32, u32),
}

fn chosen(place: &Place) -> anyhow::Result<Chosen> {
    if let Some(uuid) = &place.uuid {
        return Ok(Chosen::Uuid(uuid.clone()));
    }
    let at = place.at.as_deref().unwrap_or_default();
    let numbers: Result<Vec<u32>, _> = at.split(':').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([gpu]) => Ok(Chosen::Gpu(*gpu as usize)),
        Ok([gpu, gi, ci]) => Ok(Chosen::Instance(*gpu as usize, *gi, *ci)),
        _ => bail!("--at {at:?} is neither GPU nor GPU:GI:CI"),
    }
}

impl Chosen {
    fn processes<'a>(&self, machine: &'a mut Machine) -> Option<&'a mut Vec<Process>> {
        for (n, gpu) in machine.gpus.iter_mut().enumerate() {
            let whole = match self {
                Chosen::Uuid(uuid) => gpu.uuid == *uuid,
                Chosen::Gpu(index) => n == *index,
                Chosen::Instance(..) => false,
            };
            // In MIG mode work runs on instances only.
            if whole {
                return if gpu.mig.current { None } else { Some(&mut gpu.processes) };
            }
            for gi in &mut gpu.instances {
                let gi_id = gi.id;
                let this = |ci: &&mut nvidia_ml::machine::ComputeInstance| match self {
                    Chosen::Uuid(uuid) => ci.uuid == *uuid,
                    Chosen::Instance(index, gi, id) => (n, gi_id, ci.id) == (*index, *gi, *id),
                    Chosen::Gpu(_) => false,
                };
                if let Some(ci) = gi.compute.iter_mut().find(this) {
                    return Some(&mut ci.processes);
                }
            }
        }
        None
    }
}

fn each(machine: &mut Machine, mut visit: impl FnMut(&mut Vec<Process>)) {
    for gpu in &mut machine.gpus {
        visit(&mut gpu.processes);
        gpu.instances.iter_mut().flat_map(|gi| &mut gi.compute).for_each(|ci| visit(&mut ci.processes));
    }
}
