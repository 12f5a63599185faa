//! What the way to the backend says of itself, beside our own timing: controllers, connections, ports, imports.
//!
//! ```text
//!   directory --mountinfo--> kind of backend --sysfs--> sources        once, at the mount
//!   sources --looked at every 100 ms to 1 s, off the read path--> findings --worst one--> Report --> Splitter
//! ```
//! Our own timing comes first and is always there ([`crate::policy`]); it notices a dead backend after 250 ms of
//! silence. What is here notices before the first read hangs, says why, and says when the backend is back. A source that
//! cannot be read (closed to users, other kernel) is no news: it never speaks against the backend. Nothing here asks the
//! backend itself anything, because a dead one would not answer.
//!
//! It does not tell the targets of one Lustre file system apart: an OST that a signal calls lost is left with all its neighbours,
//! one that our own timing finds lost is left alone.

mod backend;
mod lustre;
mod nvme;
mod rdma;
mod standing;
mod tcp;
mod trend;
mod watch;

use serde::Serialize;

use crate::mounts::Root;
pub use crate::policy::BackendState;
pub use backend::Kind;
pub use standing::{Stand, Standing};
pub use watch::Watch;

/// What one look at one source found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) state: BackendState,
    /// Why, in words; none while nothing is known against the backend.
    pub(crate) signal: Option<String>,
}

impl Finding {
    fn live() -> Self {
        Self::default()
    }

    fn degraded(signal: String) -> Self {
        Self { state: BackendState::Degraded, signal: Some(signal) }
    }

    fn gone(signal: String) -> Self {
        Self { state: BackendState::Gone, signal: Some(signal) }
    }

    /// The worse of two; of equals the first.
    fn or_worse(self, other: Self) -> Self {
        if other.state > self.state { other } else { self }
    }
}

/// Something that tells how the way to the backend is.
pub(crate) trait Source: Send {
    /// Its name in metrics.
    fn name(&self) -> SourceName;
    /// What it looks at, for people.
    fn watches(&self) -> String;
    /// Looks. Must not wait for the backend.
    fn look(&mut self, now: std::time::Instant) -> Finding;
}

/// The kinds of sources; the values of the label `source` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceName {
    /// Answers to our own reads.
    Timing,
    /// States of NVMe controllers and paths.
    Nvme,
    /// Counters of TCP connections.
    Tcp,
    /// States and counters of InfiniBand and RoCE ports.
    Rdma,
    /// Imports and statistics of the Lustre client.
    Lustre,
}

impl SourceName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Timing, Self::Nvme, Self::Tcp, Self::Rdma, Self::Lustre];

    /// As in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timing => "timing",
            Self::Nvme => "nvme",
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
            Self::Lustre => "lustre",
        }
    }
}

/// What all sources together say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of what they found.
    pub state: BackendState,
    /// Who found it, unless all is well.
    pub source: Option<SourceName>,
    /// In words.
    pub signal: Option<String>,
    /// Everything that is looked at.
    pub watched: Vec<String>,
}
