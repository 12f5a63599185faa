//! The messages. One line of JSON each; a client says hello first, then asks; every request has one reply.
//!
//! ```text
//! client                         agent
//!   {"hello":{…}}          ->
//!                          <-    {"hello":{…}}      versions agreed, or {"error":{"code":"version",…}} and the end
//!   {"open_lease":{…}}     ->
//!                          <-    {"lease":{…}}      or {"refused":{…}} or {"error":{…}}
//! ```
//!
//! Changing a message means a new golden file and, if an old peer would misread it, a new version.

use crate::admin::{ExplainQuery, OrderRequest, PlanQuery, PlanReply, StoryReply};
use crate::ids::{JobKey, StepId};
use crate::leaf::Leaf;
use crate::status::Status;
use serde::{Deserialize, Serialize};

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// First line of every connection.
    Hello(Hello),
    /// Hold leaves for a job on this node. Asking again for the same job and count gives the same lease. Root only.
    OpenLease(OpenLease),
    /// Give a step leaves out of its job's lease. Asking again for the same step gives the same grant. Root only.
    Grant(GrantStep),
    /// All leaves of a job, without a grant: for batch, interactive and extern steps. Root only.
    JobLeaves(JobLeaves),
    /// Let a step have host memory that its ranks share. Asking again for the same step gives the same. It ends with its
    /// holder, with the grant or with the lease. Root only.
    OpenSegment(OpenSegment),
    /// End a step's grant. Ending an unknown grant is not an error. Root only.
    Release(ReleaseGrant),
    /// End a job's lease. Ending an unknown lease is not an error. Root only.
    CloseLease(CloseLease),
    /// The node's GPUs, leaves and leases. Anybody may ask.
    Status(StatusQuery),
    /// What a change of layouts would do. Anybody may ask.
    Plan(PlanQuery),
    /// An admin's order. Root only.
    Order(OrderRequest),
    /// What was decided about a job, and why. Anybody may ask.
    Explain(ExplainQuery),
}

/// Versions and names, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Newest protocol version that the sender speaks; in the agent's answer: the version agreed.
    pub protocol: u32,
    /// Oldest protocol version that the sender speaks.
    pub oldest: u32,
    /// Program and version, for the log: `spank 0.1.0`.
    pub program: String,
}

/// How a request's leaves should lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// As the site's configuration and the node's driver suggest.
    #[default]
    Default,
    /// On one GPU, then on GPUs of one NUMA node.
    Pack,
    /// Over as many GPUs, and so PCIe links, as possible.
    Spread,
}

/// What the user asked for beyond a number of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// How the leaves should lie.
    #[serde(default)]
    pub spread: Spread,
    /// How large each instance has to be; a leaf where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Need>,
}

/// How large an instance has to be at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// So many compute slices.
    Slices(u8),
    /// So much memory, in MiB.
    MemoryMib(u64),
}

/// See [`Request::OpenLease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLease {
    /// The job.
    pub job: JobKey,
    /// Leaves on this node, as slurmctld counts them.
    pub leaves: u32,
    /// How they should lie.
    #[serde(default)]
    pub shape: Shape,
}

/// See [`Request::Grant`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStep {
    /// The job; its lease must be open.
    pub job: JobKey,
    /// The step.
    pub step: StepId,
    /// Leaves of this step on this node, as slurmctld counts them.
    pub leaves: u32,
    /// Tasks of this step on this node.
    pub tasks: u32,
    /// How the leaves should lie.
    #[serde(default)]
    pub shape: Shape,
    /// Process id of the slurmstepd that holds the grant: when it is gone, so is the grant.
    pub holder: u32,
}

/// See [`Request::JobLeaves`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLeaves {
    /// The job; its lease must be open.
    pub job: JobKey,
}

/// See [`Request::OpenSegment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSegment {
    /// The job.
    pub job: JobKey,
    /// The step; a batch or interactive step may have a segment as well.
    pub step: StepId,
    /// Leaves of this step on this node: by default only a step with several has a segment.
    pub leaves: u32,
    /// Bytes; without it what the site's configuration says.
    pub bytes: Option<u64>,
    /// Process id of the slurmstepd of the step: when it is gone, so is the segment.
    pub holder: u32,
}

/// See [`Request::Release`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseGrant {
    /// The job.
    pub job: JobKey,
    /// The step.
    pub step: StepId,
}

/// See [`Request::CloseLease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseLease {
    /// Slurm's job id.
    pub job: u32,
    /// The user that owns the job.
    pub uid: u32,
    /// Start time of the run that ended; without it every lease of this job and user on the node ends.
    pub start: Option<i64>,
}

/// See [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusQuery {}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Answer to hello.
    Hello(Hello),
    /// Answer to `open_lease`, `job_leaves`: the lease is on disk.
    Lease(LeaseReply),
    /// Answer to `grant`: the grant is on disk.
    Granted(GrantReply),
    /// Answer to `open_segment`.
    Segment(SegmentReply),
    /// Answer to `release`, `close_lease`, `order`: it is on disk.
    Done(Done),
    /// Answer to `status`.
    Status(Box<Status>),
    /// Answer to `plan`.
    Plan(PlanReply),
    /// Answer to `explain`.
    Story(StoryReply),
    /// The agent works, and says no for a reason.
    Refused(Refused),
    /// The request could not be served.
    Error(ErrorReply),
}

/// A job's leaves on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReply {
    /// The leaves, in the order in which tasks should take them.
    pub leaves: Vec<Leaf>,
    /// Major number of the capability device files (`nvidia-caps` in /proc/devices).
    pub caps_major: Option<u32>,
}

/// A step's leaves on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantReply {
    /// The leaves of the step, in the order in which tasks take them.
    pub leaves: Vec<Leaf>,
    /// For each local task, the positions of its leaves in `leaves`.
    pub tasks: Vec<Vec<u32>>,
    /// Major number of the capability device files (`nvidia-caps` in /proc/devices).
    pub caps_major: Option<u32>,
    /// Leaves that this step shares with others of its job, because it asked for more than was free.
    pub shared: u32,
}

/// Whether a step has a segment. The memory is made when the first rank asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentReply {
    /// Its size; none where the step did not ask for one and the site's rules give it none.
    pub bytes: Option<u64>,
    /// Why there is none, for people.
    pub note: Option<String>,
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Whether there was anything to end.
    pub found: bool,
}

/// Why the agent says no. A refusal is not an error: the agent works and knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The kind of reason, for programs.
    pub reason: Reason,
    /// The reason with names and numbers, and the way out, for people.
    pub text: String,
    /// The site wants a batch job that was refused for this to be queued again, away from this node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requeue: bool,
}

impl Refused {
    /// A refusal that ends the matter.
    pub fn new(reason: Reason, text: impl Into<String>) -> Refused {
        Refused { reason, text: text.into(), requeue: false }
    }
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Jobs hold so many leaves of this node that too few are left.
    NoLeaves,
    /// Hardware that should serve the request does not: lost, cordoned, quarantined or used from outside.
    Unavailable,
    /// Enough leaves are free, but no free place holds an instance of the size that was asked for.
    Fragmented,
    /// The user's jobs changed the shapes of instances as often as the site allows.
    RateLimited,
    /// No GPU of this node has an instance of the size that was asked for.
    NoSuchSize,
    /// The number of leaves pays for no whole number of instances of the size that was asked for.
    WrongPrice,
    /// A step has more tasks than leaves.
    FewerLeavesThanTasks,
    /// A step asks for more leaves than its job holds on this node.
    BeyondLease,
    /// The job has no lease on this node.
    NoLease,
    /// The lease exists with another number of leaves.
    LeaseDiffers,
    /// The agent does not take new leases now.
    NotServing,
    /// The segment that was asked for is larger than the site allows, or than what is left.
    NoSegment,
    /// It would take leaves away from running jobs, and was not forced.
    NeedsForce,
    /// A part of the change would have to wait, and all of it was asked for now.
    WouldWait,
    /// The GPU, the place or the layout does not exist on this node.
    NoSuchPlace,
    /// Processes use what was to be changed.
    InUse,
    /// The request makes no sense: zero leaves, zero tasks.
    BadRequest,
    /// A reason that this program does not know: the agent is of a later version.
    #[serde(other)]
    Unknown,
}

impl Reason {
    /// Its name on the wire, in metrics and in the journal.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(|v| v.as_str()).unwrap_or("unknown").to_owned()
    }

    /// The reason of this name.
    pub fn of_name(name: &str) -> Reason {
        serde_json::from_value(name.into()).unwrap_or(Reason::Unknown)
    }
}

/// Something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The kind of error, for programs.
    pub code: ErrorCode,
    /// What went wrong, for people.
    pub text: String,
}

/// The kinds of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No common protocol version.
    Version,
    /// The line is not a request, or is too long.
    Malformed,
    /// The peer's user may not ask this.
    Permission,
    /// The journal cannot be written: nothing was changed.
    Journal,
    /// NVML failed: the hardware is in the state that `status` shows.
    Hardware,
    /// The agent is too busy or is stopping; try again.
    Busy,
    /// A defect in the agent.
    Internal,
}
