//! An admin's messages into the policy's orders, and plans into messages. A wish is made a layout here, because profile names and
//! counts mean something on a certain GPU only.

use crate::slurm::one_line;
use migshare_policy::Node;
use migshare_policy::layout::{self, Layout, Slot};
use migshare_policy::order::{Order, Plan};
use migshare_policy::record::Place;
use migshare_proto::GpuUuid;
use migshare_proto::admin::{self, DeferredStatus, GpuPlace, GpuTarget, MoveStatus, PlanReply, Wish};
use migshare_proto::message::{Reason, Refused};

/// GPUs and their layouts to be; `None` is the configured one.
pub type Target = Vec<(GpuUuid, Option<Layout>)>;

/// The order in a message. A note can become the reason of a drain, so it is taken as one line.
pub fn order(node: &Node, now: i64, order: admin::Order) -> Result<Order, Refused> {
    Ok(match order {
        admin::Order::Cordon(o) => Order::Cordon { gpu: o.gpu, note: one_line(&o.note), at: now },
        admin::Order::Uncordon(gpu) => Order::Uncordon { gpu },
        admin::Order::Quarantine(o) => Order::Quarantine { place: place(o.place), note: one_line(&o.note) },
        admin::Order::Release(at) => Order::Unquarantine { place: place(at) },
        admin::Order::Apply(o) => Order::Apply { layouts: target(node, o.target)?, now: o.now },
        admin::Order::Forget(gpu) => Order::Forget { gpu },
        admin::Order::Evict(job) => Order::Evict { job },
    })
}

/// The layouts in a message. Any user may send one to be planned, so it may not be longer than the node has GPUs.
pub fn target(node: &Node, target: Vec<GpuTarget>) -> Result<Target, Refused> {
    let (named, counted) = (target.len(), node.books().gpus.len());
    if named > counted {
        let text = format!("{named} gpus are named, and this node has {counted} in MIG mode");
        return Err(Refused::new(Reason::BadRequest, text));
    }
    target.into_iter().map(|t| wish(node, &t.gpu, t.layout).map(|layout| (t.gpu, layout))).collect()
}

/// The message for a plan; whether it was ordered is for the caller to say.
pub fn plan(plan: Plan) -> PlanReply {
    let moves = plan.moves.into_iter().map(|m| MoveStatus {
        gpu: m.gpu,
        placement: m.placement,
        profile: m.profile,
        make: m.make,
        expected_ms: None,
    });
    let deferred =
        plan.deferred.into_iter().map(|d| DeferredStatus { gpu: d.gpu, placement: d.placement, why: d.why });
    PlanReply { moves: moves.collect(), deferred: deferred.collect(), ..PlanReply::default() }
}

fn wish(node: &Node, gpu: &GpuUuid, wish: Wish) -> Result<Option<Layout>, Refused> {
    Ok(Some(match wish {
        Wish::Configured => return Ok(None),
        Wish::Uniform => Layout::Uniform,
        Wish::FullMemory => Layout::FullMemory,
        Wish::Slots(slots) => {
            Layout::Custom(slots.iter().map(|s| Slot { slices: s.slices, placement: s.placement }).collect())
        }
        Wish::Counts(counts) => {
            let seen = node.gpu(gpu).ok_or_else(|| bad(format!("gpu {gpu} is not there")))?;
            let counts: Vec<(&str, u32)> = counts.iter().map(|c| (c.profile.as_str(), c.count)).collect();
            layout::fit(seen, &counts).map_err(|misfit| bad(format!("gpu {}: {misfit}", seen.index)))?
        }
    }))
}

fn place(at: GpuPlace) -> Place {
    Place { gpu: at.gpu, placement: at.placement }
}

fn bad(text: String) -> Refused {
    Refused::new(Reason::NoSuchPlace, text)
}
