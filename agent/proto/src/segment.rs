//! What is said on the second socket, the one that knows one request: a rank asks for the host memory of its own step and
//! gets one line, and with it the descriptor of a sealed memfd.
//!
//! ```text
//!   rank  ── {"segment":{"v":1}}\n ─────────────────────────────────▶  agent
//!   rank  ◀─ {"segment":{"bytes":N,"job":J,"step":S}}\n + SCM_RIGHTS ─  agent     or
//!   rank  ◀─ {"refused":{"reason":"…"}}\n ───────────────────────────  agent
//! ```
//! There is no hello and no credential: the kernel says who the peer is, and the agent to which step it belongs. Which
//! steps have a segment is decided at the agent's first socket, by [`crate::message::OpenSegment`].

use crate::ids::StepId;
use serde::{Deserialize, Serialize};

/// The version that this crate speaks on the second socket.
pub const VERSION: u32 = 1;

/// What a rank asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentRequest {
    /// The segment of the step that I am in.
    Segment(Fetch),
}

/// See [`SegmentRequest::Segment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Version of the request.
    pub v: u32,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentAnswer {
    /// The descriptor comes along with this line.
    Segment(Fetched),
    /// The agent works, and says no.
    Refused(NotFetched),
}

/// The segment of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Size of the file, which is sealed.
    pub bytes: u64,
    /// Slurm's job id.
    pub job: u32,
    /// The step, with Slurm's numbers for the special ones.
    pub step: StepId,
}

/// Why there is no segment for the peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFetched {
    /// For people, with names and numbers and the way out.
    pub reason: String,
}
