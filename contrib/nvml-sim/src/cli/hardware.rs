//! What happens to hardware: boot, reset, loss, other clients.

use anyhow::{Context, bail};
use nvidia_ml::capfs;
use nvidia_ml::code::{self, Code};
use nvidia_ml::machine::{Condition, Holder, Machine};
use nvidia_ml::process::Pid;
use nvidia_ml::store::Store;

/// Changes the node; NVML's refusal becomes a message.
pub(crate) fn change<T>(
    store: &Store,
    what: &str,
    change: impl FnOnce(&mut Machine) -> Result<T, Code>,
) -> anyhow::Result<T> {
    let refused = |c: Code| anyhow::anyhow!("{what}: {} ({})", code::text(c.0).to_string_lossy(), c.name());
    store.update(change)?.map_err(refused)
}

/// NVML index of a GPU that is named by index or UUID.
pub(crate) fn index(store: &Store, gpu: &str) -> anyhow::Result<usize> {
    let machine = store.snapshot()?;
    let known = |n: &usize| *n < machine.gpus.len();
    let by_index = gpu.parse::<usize>().ok().filter(known);
    let found = by_index.or_else(|| machine.gpus.iter().position(|g| g.uuid == gpu));
    found
        .with_context(|| format!("no GPU {gpu}: this node has {}, from 0, or use a UUID", machine.gpus.len()))
}

/// The process with this number.
pub(crate) fn process(number: u32) -> anyhow::Result<Pid> {
    Pid::find(number).with_context(|| format!("no process {number}"))
}

/// `init`.
pub(crate) fn init(store: &Store) -> anyhow::Result<()> {
    let machine = store.snapshot()?;
    let config = store.config();
    println!(
        "{} GPUs, state in {}, files in {}",
        machine.gpus.len(),
        config.state.display(),
        config.root.display()
    );
    for remark in config.remarks() {
        println!("note: {remark}");
    }
    let nodes_work = capfs::nodes_usable(&config.root);
    if config.enforce_caps && nodes_work == Some(false) {
        println!(
            "note: device nodes do not work under {} (mounted nodev?): ordinary users will see no MIG device",
            config.root.display()
        );
    }
    Ok(())
}

/// `reboot`.
pub(crate) fn reboot(store: &Store) -> anyhow::Result<()> {
    Ok(store.reboot()?)
}

/// `reset`.
pub(crate) fn reset(store: &Store, gpu: &str, minor: Option<u32>) -> anyhow::Result<()> {
    let index = index(store, gpu)?;
    if minor.is_some_and(|minor| minor as usize >= nvidia_ml::config::MAX_GPUS) {
        bail!("a minor number is below {}", nvidia_ml::config::MAX_GPUS);
    }
    change(store, "reset", |machine| machine.reset(index, minor))
}

/// `lose`.
pub(crate) fn lose(store: &Store, gpu: &str) -> anyhow::Result<()> {
    let index = index(store, gpu)?;
    change(store, "lose", |machine| {
        machine.gpu_mut(index)?.condition = Condition::Lost;
        Ok(())
    })
}

/// `hold`.
pub(crate) fn hold(store: &Store, gpu: &str, pid: Option<u32>, note: String) -> anyhow::Result<()> {
    let index = index(store, gpu)?;
    let pid = pid.map(process).transpose()?;
    change(store, "hold", |machine| {
        machine.gpu_mut(index)?.holders.push(Holder { pid, note });
        Ok(())
    })
}

/// `release`.
pub(crate) fn release(store: &Store, gpu: &str) -> anyhow::Result<()> {
    let index = index(store, gpu)?;
    change(store, "release", |machine| {
        machine.gpu_mut(index)?.holders.clear();
        Ok(())
    })
}
