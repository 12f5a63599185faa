//! What an admin asks of a node: layouts, service of GPUs, quarantine, and the story of a job.

use crate::ids::{GpuUuid, Placement};
use crate::message::Reason;
use serde::{Deserialize, Serialize};

/// See [`crate::Request::Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanQuery {
    /// What is wished.
    pub target: Vec<GpuTarget>,
}

/// The layout that one GPU is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuTarget {
    /// The GPU.
    pub gpu: GpuUuid,
    /// Its layout.
    pub layout: Wish,
}

/// A layout by what is wished of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// The configured one.
    Configured,
    /// As many equal leaves as the GPU allows.
    Uniform,
    /// As many leaves, the last one with the memory that the others leave over.
    FullMemory,
    /// Exactly these instances.
    Slots(Vec<SlotWish>),
    /// So many instances of each named profile, wherever they fit.
    Counts(Vec<CountWish>),
}

/// An instance by size and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotWish {
    /// Compute slices.
    pub slices: u8,
    /// Where.
    pub placement: Placement,
}

/// Instances by name and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountWish {
    /// Profile name, for example `2g.20gb`.
    pub profile: String,
    /// How many.
    pub count: u32,
}

/// See [`crate::Reply::Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanReply {
    /// Steps that touch idle places only, in order.
    pub moves: Vec<MoveStatus>,
    /// What has to wait, and for what.
    pub deferred: Vec<DeferredStatus>,
    /// Whether these layouts are the ones that were ordered last: no longer after an order that was rolled back because
    /// hardware refused it. Agents of protocol version 1 do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
    /// The GPUs that went back to the layout before, as hardware refused this one when it was ordered last. The others keep it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_back: Vec<RollbackStatus>,
}

/// A GPU that hardware refused to give a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackStatus {
    /// NVML index of the GPU.
    pub gpu: u32,
    /// Where, and what NVML said.
    pub why: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStatus {
    /// NVML index of the GPU.
    pub gpu: u32,
    /// Where.
    pub placement: Placement,
    /// Profile name.
    pub profile: String,
    /// Whether the instance is made; otherwise it is destroyed.
    pub make: bool,
    /// How long this takes, in milliseconds: the mean of such changes since the agent's start, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u32>,
}

impl MoveStatus {
    /// Whether two plans mean the same step, whatever they expect it to take.
    pub fn is_same_step(&self, other: &MoveStatus) -> bool {
        let key = |m: &MoveStatus| (m.gpu, m.placement, m.make);
        key(self) == key(other) && self.profile == other.profile
    }
}

/// A part of a plan that has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeferredStatus {
    /// NVML index of the GPU, where it is seen.
    pub gpu: Option<u32>,
    /// Where.
    pub placement: Option<Placement>,
    /// What it waits for.
    pub why: String,
}

/// See [`crate::Request::Order`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRequest {
    /// What to do.
    pub order: Order,
    /// Also if it breaks running jobs.
    pub force: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Take a GPU out of service; its jobs go on.
    Cordon(GpuNote),
    /// Put a GPU back into service.
    Uncordon(GpuUuid),
    /// Keep a place out of use once its job has ended.
    Quarantine(PlaceNote),
    /// Use a place again.
    Release(GpuPlace),
    /// Give GPUs another layout; what is not idle follows as jobs end.
    Apply(ApplyOrder),
    /// No longer count a GPU that is gone for good.
    Forget(GpuUuid),
    /// End a job's leases although Slurm has not said so.
    Evict(u32),
}

/// A GPU and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuNote {
    /// The GPU.
    pub gpu: GpuUuid,
    /// Why.
    pub note: String,
}

/// A place on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuPlace {
    /// The GPU.
    pub gpu: GpuUuid,
    /// Where on it.
    pub placement: Placement,
}

/// A place and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceNote {
    /// The place.
    pub place: GpuPlace,
    /// Why.
    pub note: String,
}

/// A change of layouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyOrder {
    /// What is wished.
    pub target: Vec<GpuTarget>,
    /// Refuse, and change nothing, if any part has to wait.
    pub now: bool,
}

/// See [`crate::Request::Explain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuery {
    /// Slurm's job id.
    pub job: u32,
}

/// See [`crate::Reply::Story`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoryReply {
    /// What was decided about the job, oldest first.
    pub events: Vec<StoryEvent>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryEvent {
    /// When, seconds since the epoch.
    pub at: i64,
    /// What, and why.
    pub text: String,
    /// The kind of refusal, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}
