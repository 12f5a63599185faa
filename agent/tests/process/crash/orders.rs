//! A life that admins fill: orders of every kind, and a lease that needs instances of its own.

use super::{Holder, Rig};
use migshare_proto::admin::{
    ApplyOrder, GpuNote, GpuPlace, GpuTarget, Order, OrderRequest, PlaceNote, PlanQuery, Wish,
};
use migshare_proto::message::{CloseLease, GrantStep, Need, OpenLease, Shape};
use migshare_proto::status::{LeafState, Status};
use migshare_proto::{ClientError, GpuUuid, JobKey, Placement, Reply, Request, StepId};
use std::process::Command;

/// Orders and requests of one life: each writes a line of the journal at least.
pub(super) const COUNT: u32 = 10;

const JOB: JobKey = JobKey { job: 5, start: 1, uid: 1000 };
const PLACE: Placement = Placement { start: 6, size: 1 };

/// What was answered and is so until the opposite is asked for; none while that is under way.
#[derive(Default)]
struct Told {
    cordoned: Option<bool>,
    quarantined: Option<bool>,
    full_memory: Option<bool>,
    leased: Option<bool>,
}

fn order(rig: &Rig, order: Order) -> Result<(), ClientError> {
    rig.ask(Request::Order(OrderRequest { order, force: false })).map(drop)
}

/// Does something after which a fact is as wanted. Until the answer nobody knows.
fn set(
    fact: &mut Option<bool>,
    wanted: bool,
    done: impl FnOnce() -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    *fact = None;
    done()?;
    *fact = Some(wanted);
    Ok(())
}

fn layout(gpu: &GpuUuid, layout: Wish) -> Order {
    Order::Apply(ApplyOrder { target: vec![GpuTarget { gpu: gpu.clone(), layout }], now: false })
}

fn note(gpu: &GpuUuid) -> PlaceNote {
    PlaceNote { place: GpuPlace { gpu: gpu.clone(), placement: PLACE }, note: "ecc".to_owned() }
}

fn work(rig: &Rig, gpu: &GpuUuid, holder: u32, told: &mut Told) -> Result<(), ClientError> {
    let shape = Shape { need: Some(Need::Slices(2)), ..Shape::default() };
    let open = OpenLease { job: JOB, leaves: 2, shape };
    set(&mut told.leased, true, || rig.ask(Request::OpenLease(open)).map(drop))?;
    let grant = GrantStep { job: JOB, step: StepId(0), leaves: 2, tasks: 1, shape, holder };
    rig.ask(Request::Grant(grant))?;
    set(&mut told.quarantined, true, || order(rig, Order::Quarantine(note(gpu))))?;
    set(&mut told.full_memory, true, || order(rig, layout(gpu, Wish::FullMemory)))?;
    set(&mut told.cordoned, true, || {
        order(rig, Order::Cordon(GpuNote { gpu: gpu.clone(), note: "fan".to_owned() }))
    })?;
    let close = CloseLease { job: JOB.job, uid: JOB.uid, start: Some(JOB.start) };
    set(&mut told.leased, false, || rig.ask(Request::CloseLease(close)).map(drop))?;
    set(&mut told.cordoned, false, || order(rig, Order::Uncordon(gpu.clone())))?;
    set(&mut told.quarantined, false, || order(rig, Order::Release(note(gpu).place)))?;
    set(&mut told.full_memory, false, || order(rig, layout(gpu, Wish::Configured)))
}

/// What was answered is so in the next life.
fn judge(told: &Told, status: &Status, rig: &Rig) {
    let gpu = &status.gpus[0];
    let quarantined =
        gpu.leaves.iter().any(|l| l.placement.overlaps(PLACE) && l.state == LeafState::Quarantined)
            || status.problems.iter().any(|p| p.contains("6:1 on gpu 0 is quarantined: ecc"));
    let target = vec![GpuTarget { gpu: gpu.uuid.clone(), layout: Wish::FullMemory }];
    let Ok(Reply::Plan(plan)) = rig.ask(Request::Plan(PlanQuery { target })) else { panic!("no plan") };
    for (what, told, is) in [
        ("cordon", told.cordoned, gpu.cordon.is_some()),
        ("quarantine", told.quarantined, quarantined),
        ("layout", told.full_memory, plan.ordered == Some(true)),
        ("lease", told.leased, status.leases.iter().any(|l| l.job == JOB)),
    ] {
        assert!(told.is_none_or(|told| told == is), "{what}: was answered {told:?}, is {is}");
    }
}

/// One life, and the next one. Whether the first was ended by its fault.
pub(super) fn live_and_judge(mut rig: Rig, command: Command) -> bool {
    let holder = Holder::new();
    let gpu = GpuUuid::new(&rig.machine().gpus[0].uuid);
    let mut told = Told::default();
    rig.launch(command);
    let killed = !rig.settled_or_ended()
        || work(&rig, &gpu, holder.pid(), &mut told).is_err()
        || !rig.settled_or_ended();
    if killed {
        rig.ended();
    } else {
        rig.kill();
    }
    rig.clear_faults();
    rig.launch(rig.command());
    let status = rig.until("a look at the gpus", |s| s.gpus.first().is_some_and(|g| !g.leaves.is_empty()));
    judge(&told, &status, &rig);
    // The next life puts an end to whatever this one has begun, and works as if nothing had been.
    let close = CloseLease { job: JOB.job, uid: JOB.uid, start: None };
    rig.ask(Request::CloseLease(close)).unwrap();
    order(&rig, Order::Uncordon(gpu.clone())).unwrap();
    order(&rig, Order::Release(note(&gpu).place)).unwrap();
    order(&rig, layout(&gpu, Wish::Configured)).unwrap();
    rig.settled();
    let mut told = Told::default();
    work(&rig, &gpu, holder.pid(), &mut told).unwrap();
    judge(&told, &rig.settled(), &rig);
    super::judge(&super::Told::default(), &rig.settled(), &rig);
    killed
}
