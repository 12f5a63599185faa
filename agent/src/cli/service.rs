//! Commands that take a GPU, a place or a job's lease out of service, and put them back. None breaks a running job without `--force`; the
//! refusal says whose it would be.

use super::{Agent, Exit, PATIENCE, target};
use clap::Args;
use migshare_proto::admin::{GpuNote, GpuPlace, Order, PlaceNote};
use migshare_proto::status::Status;

#[derive(Args)]
pub(super) struct Cordon {
    /// The GPU: index or UUID
    #[arg(value_name = "GPU")]
    gpu: String,
    /// Why; shown by `migshare status` and as the node's drain reason
    #[arg(long, value_name = "TEXT", default_value = "cordoned by an admin")]
    note: String,
}

#[derive(Args)]
pub(super) struct OneGpu {
    /// The GPU: index or UUID
    #[arg(value_name = "GPU")]
    gpu: String,
}

#[derive(Args)]
pub(super) struct OnePlace {
    /// The GPU: index or UUID
    #[arg(value_name = "GPU")]
    gpu: String,
    /// The place as `migshare status` shows it, for example 4:1
    #[arg(value_name = "PLACE")]
    place: String,
}

#[derive(Args)]
pub(super) struct Quarantine {
    #[command(flatten)]
    at: OnePlace,
    /// Why; shown by `migshare status`
    #[arg(long, value_name = "TEXT", default_value = "quarantined by an admin")]
    note: String,
}

#[derive(Args)]
pub(super) struct Evict {
    /// Slurm's job id
    job: u32,
    /// Also while the job may still run
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(super) struct Forget {
    /// The GPU: UUID, or the index that it had
    #[arg(value_name = "GPU")]
    gpu: String,
    /// Also while jobs hold leaves of it
    #[arg(long)]
    force: bool,
}

pub(super) fn cordon(agent: &Agent, options: &Cordon) -> anyhow::Result<Exit> {
    let gpu = target::gpu(&options.gpu, &agent.status(PATIENCE)?)?;
    give(agent, Order::Cordon(GpuNote { gpu, note: options.note.clone() }), false)
}

pub(super) fn uncordon(agent: &Agent, options: &OneGpu) -> anyhow::Result<Exit> {
    let gpu = target::gpu(&options.gpu, &agent.status(PATIENCE)?)?;
    give(agent, Order::Uncordon(gpu), false)
}

pub(super) fn quarantine(agent: &Agent, options: &Quarantine) -> anyhow::Result<Exit> {
    let place = place(agent, &options.at)?;
    give(agent, Order::Quarantine(PlaceNote { place, note: options.note.clone() }), false)
}

pub(super) fn release(agent: &Agent, options: &OnePlace) -> anyhow::Result<Exit> {
    give(agent, Order::Release(place(agent, options)?), false)
}

pub(super) fn evict(agent: &Agent, options: &Evict) -> anyhow::Result<Exit> {
    give(agent, Order::Evict(options.job), options.force)
}

pub(super) fn forget(agent: &Agent, options: &Forget) -> anyhow::Result<Exit> {
    let gpu = target::gpu(&options.gpu, &agent.status(PATIENCE)?)?;
    give(agent, Order::Forget(gpu), options.force)
}

fn place(agent: &Agent, options: &OnePlace) -> anyhow::Result<GpuPlace> {
    let gpu = target::gpu(&options.gpu, &agent.status(PATIENCE)?)?;
    Ok(GpuPlace { gpu, placement: target::place(&options.place)? })
}

fn give(agent: &Agent, order: Order, force: bool) -> anyhow::Result<Exit> {
    let changed = agent.order(order, force)?;
    let Status { usable, counted, .. } = agent.status(PATIENCE)?;
    if agent.json {
        println!("{}", serde_json::json!({ "changed": changed, "usable": usable, "counted": counted }));
        return Ok(Exit::Well);
    }
    println!("{}", if changed { "done" } else { "nothing to change" });
    if usable < counted {
        // Slurm counts a node's leaves and knows no part of a node that is out of service.
        println!(
            "{usable} of the {counted} leaves that Slurm counts can be used: until all can, the node is drained (its jobs go on)"
        );
    }
    Ok(Exit::Well)
}
