//! `fault`: arms, lists and clears faults.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use nvidia_ml::abi;
use nvidia_ml::code::Code;
use nvidia_ml::fault::{Effect, Fault, Moment};
use nvidia_ml::machine::Machine;
use nvidia_ml::store::Store;

use super::hardware;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Arm a fault
    Add(Add),
    /// Arm a set of faults that real hardware was seen to show
    Pattern {
        /// Which; without it, list them
        name: Option<String>,
        /// Only calls about this GPU (index or UUID)
        #[arg(long)]
        gpu: Option<String>,
    },
    /// List armed faults and how many calls each has counted
    List,
    /// Clear one fault, or all
    Clear {
        /// Its number
        id: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// NVML function, for example nvmlGpuInstanceDestroy
    #[arg(long)]
    call: String,
    /// Only calls about this GPU (index or UUID)
    #[arg(long)]
    gpu: Option<String>,
    /// First call that it hits, counted from now over all processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    nth: u64,
    /// How many calls in a row it hits; 0: all that follow
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Strike when the call has taken effect, not before
    #[arg(long)]
    after: bool,
    #[command(flatten)]
    effect: Choice,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// The call returns this code, by name (IN_USE) or number
    #[arg(long = "return", value_name = "CODE")]
    code: Option<String>,
    /// The call takes so many milliseconds longer
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// The caller is killed
    #[arg(long)]
    kill: bool,
    /// nvmlDeviceSetMigMode succeeds with this activation status
    #[arg(long, value_name = "CODE")]
    activation: Option<String>,
}

/// What real hardware was seen to do, and the faults that do the same.
struct Pattern {
    name: &'static str,
    seen: &'static str,
    faults: &'static [(&'static str, u64, Effect)],
}

const IN_USE: Effect = Effect::Return(Code::IN_USE.0);
const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "zombie",
        seen: "destroying a GPU instance fails with IN_USE three times after its compute instance went (NVIDIA/DCGM#276, NVIDIA/go-nvml#146)",
        faults: &[("nvmlGpuInstanceDestroy", 3, IN_USE)],
    },
    Pattern {
        name: "zombie-forever",
        seen: "as zombie, until cleared",
        faults: &[("nvmlGpuInstanceDestroy", 0, IN_USE)],
    },
    Pattern {
        name: "slow",
        seen: "destroying a GPU instance takes about 1 s, a look-up by UUID about 10 s",
        faults: &[
            ("nvmlGpuInstanceDestroy", 0, Effect::Delay(1000)),
            ("nvmlDeviceGetHandleByUUID", 0, Effect::Delay(10_000)),
        ],
    },
    Pattern {
        name: "orphan",
        seen: "creating the compute instance fails once: a GPU instance stays that the MIG device list does not show",
        faults: &[(
            "nvmlGpuInstanceCreateComputeInstance",
            1,
            Effect::Return(Code::INSUFFICIENT_RESOURCES.0),
        )],
    },
    Pattern {
        name: "wedged",
        seen: "a mode change succeeds with activation status RESET_REQUIRED and the GPU wants a reset (cloud VMs)",
        faults: &[("nvmlDeviceSetMigMode", 1, Effect::Activation(Code::RESET_REQUIRED.0))],
    },
];

pub(crate) fn run(store: &Store, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let fault = fault(store, &add)?;
            println!("{}", arm(store, fault)?);
        }
        Command::Pattern { name: None, .. } => {
            PATTERNS.iter().for_each(|p| println!("{:15} {}", p.name, p.seen));
        }
        Command::Pattern { name: Some(name), gpu } => {
            let known = || PATTERNS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
            let pattern = PATTERNS.iter().find(|p| p.name == name);
            let pattern =
                pattern.with_context(|| format!("pattern {name:?} is not known; known are {}", known()))?;
            let gpu = gpu.map(|gpu| hardware::index(store, &gpu)).transpose()?;
            for &(call, times, effect) in pattern.faults {
                let times = Some(times).filter(|times| *times > 0);
                let fault =
                    Fault { id: 0, call: call.into(), gpu, nth: 1, times, moment: Moment::Before, effect };
                println!("{}", arm(store, fault)?);
            }
        }
        Command::List => list(store)?,
        Command::Clear { id } => clear(store, id)?,
    }
    Ok(())
}

fn fault(store: &Store, add: &Add) -> anyhow::Result<Fault> {
    if !abi::simulated().any(|name| name == add.call) {
        bail!("{} is not a simulated NVML function", add.call);
    }
    let code = |text: &String| Code::parse(text).with_context(|| format!("no NVML code {text:?}"));
    let effect = match &add.effect {
        Choice { code: Some(text), .. } => Effect::Return(code(text)?.0),
        Choice { delay: Some(ms), .. } => Effect::Delay(*ms),
        Choice { activation: Some(text), .. } => Effect::Activation(code(text)?.0),
        Choice { .. } => Effect::Kill,
    };
    if matches!(effect, Effect::Activation(_)) && add.call != "nvmlDeviceSetMigMode" {
        bail!("--activation is for nvmlDeviceSetMigMode");
    }
    Ok(Fault {
        id: 0,
        call: add.call.clone(),
        gpu: add.gpu.as_ref().map(|gpu| hardware::index(store, gpu)).transpose()?,
        nth: add.nth,
        times: Some(add.times).filter(|times| *times > 0),
        moment: if add.after { Moment::After } else { Moment::Before },
        effect,
    })
}

/// Arms a fault and returns its number.
fn arm(store: &Store, fault: Fault) -> anyhow::Result<u32> {
    let armed = store.update(|machine: &mut Machine| -> std::io::Result<u32> {
        let fault = Fault { id: machine.serial(), ..fault };
        fault.arm(&store.config().state)?;
        machine.faults.push(fault);
        Ok(machine.next_serial)
    });
    armed?.context("counter of the fault")
}

fn list(store: &Store) -> anyhow::Result<()> {
    for f in &store.snapshot()?.faults {
        let gpu = f.gpu.map_or_else(|| "any GPU".to_owned(), |gpu| format!("GPU {gpu}"));
        let times = f.times.map_or_else(|| "all that follow".to_owned(), |times| format!("{times} times"));
        let counted = f.counted(&store.config().state);
        let effect = describe(f.effect);
        println!(
            "{}: {} on {gpu}: from call {} {times} {:?} {effect}; counted {counted}",
            f.id, f.call, f.nth, f.moment
        );
    }
    Ok(())
}

pub(crate) fn describe(effect: Effect) -> String {
    match effect {
        Effect::Return(code) => format!("return {}", Code(code).name()),
        Effect::Delay(ms) => format!("delay {ms} ms"),
        Effect::Kill => "kill the caller".to_owned(),
        Effect::Activation(code) => format!("activation status {}", Code(code).name()),
    }
}

fn clear(store: &Store, id: Option<u32>) -> anyhow::Result<()> {
    let cleared = store.update(|machine: &mut Machine| -> anyhow::Result<Vec<Fault>> {
        let all = std::mem::take(&mut machine.faults);
        let (gone, kept) = all.into_iter().partition(|f| id.is_none_or(|id| f.id == id));
        machine.faults = kept;
        Ok(gone)
    })??;
    if let (Some(id), true) = (id, cleared.is_empty()) {
        bail!("no fault {id}");
    }
    cleared.iter().for_each(|f| f.disarm(&store.config().state));
    Ok(())
}
