//! What can go wrong, and the status code that each of it becomes at the C border.

use thiserror::Error;

/// Status codes of the C ABI (`migshare_status` in `migshare.h`); the numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// The call did what it was asked.
    Ok = 0,
    /// An argument is out of range; the communicator is untouched.
    Invalid = 1,
    /// A peer process is gone.
    PeerLost = 2,
    /// A peer did not answer within the communicator's timeout.
    Timeout = 3,
    /// Control words in the segment hold values that no correct rank writes.
    Corrupt = 4,
    /// Ranks called different operations, or the same one with different arguments.
    Mismatch = 5,
    /// An earlier fault already ended this communicator.
    Poisoned = 6,
    /// A message is longer than the buffer it should go to.
    Truncated = 7,
    /// Out of segment memory or communicator slots.
    Exhausted = 8,
    /// The operating system or the agent said no.
    System = 9,
    /// The operation is not complete yet (`test` only).
    Pending = 10,
    /// The communicator is in use by another thread.
    Busy = 11,
    /// A defect in the library itself was caught at the border.
    Internal = 12,
}

impl Status {
    /// The status in words, for the ranks that only hear of it.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Status::PeerLost => "a rank is gone",
            Status::Timeout => "a rank did not answer in time",
            Status::Corrupt => "control words are corrupt",
            Status::Mismatch => "ranks called different operations, or with different arguments",
            Status::System => "a system call failed",
            _ => "it had failed before",
        }
    }
}

/// Why a call failed. Ranks are numbered within the communicator of the call.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// An argument is out of range.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// A number is not below its limit.
    #[error("invalid argument: {what} {value} is out of range, there are {limit} (0 to {})", limit.saturating_sub(1))]
    OutOfRange {
        /// What it numbers.
        what: &'static str,
        /// As it was given.
        value: usize,
        /// The first number that is too large.
        limit: usize,
    },
    /// A segment cannot serve so many ranks.
    #[error(
        "a segment of {bytes} bytes is too small for {ranks} ranks, which need {needed}: ask for more \
         (srun --mig-share=N,segment=SIZE, or the size given to the call that makes it)"
    )]
    TooSmall {
        /// The segment's size.
        bytes: u64,
        /// Of the step on this node.
        ranks: usize,
        /// The least size that will do.
        needed: u64,
    },
    /// The rank's part of the segment has no room for a buffer.
    #[error(
        "out of segment memory: no {wanted} bytes in one piece, of the {room} that each rank has: free buffers, or ask for a larger \
         segment (srun --mig-share=N,segment=SIZE)"
    )]
    Full {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes of a rank's part.
        room: usize,
    },
    /// The process of a rank exited or was killed, or has freed the communicator.
    #[error("rank {rank} is gone: its process ended or was killed, or it has freed the communicator")]
    PeerLost {
        /// The lost rank.
        rank: usize,
    },
    /// A rank did not answer in time; it may be stopped, or stuck outside the library.
    #[error(
        "rank {rank} did not answer within {millis} ms (MIGSHARE_TIMEOUT_MS): it is stopped, busy elsewhere or was never started"
    )]
    Timeout {
        /// The silent rank.
        rank: usize,
        /// The communicator's timeout.
        millis: u64,
    },
    /// A control word of a rank holds a value that no correct rank writes.
    #[error("control words of rank {rank} are corrupt")]
    Corrupt {
        /// Owner of the words.
        rank: usize,
    },
    /// A rank called something else.
    #[error("rank {rank} is in a different operation or uses other arguments")]
    Mismatch {
        /// The rank that differs.
        rank: usize,
    },
    /// A rank joined what it took for another segment.
    #[error("rank {rank} joined with another number of ranks, or with another version of this library")]
    Divided {
        /// The rank that differs.
        rank: usize,
    },
    /// Another rank reported a fault first.
    #[error("rank {rank} ended the communicator: {}", cause.meaning())]
    Poisoned {
        /// The rank that reported it.
        rank: usize,
        /// What it had seen.
        cause: Status,
    },
    /// This rank already had a fault in this communicator.
    #[error("the communicator ended earlier: {}", cause.meaning())]
    Ended {
        /// The fault.
        cause: Status,
    },
    /// An incoming message does not fit.
    #[error("a message of {len} bytes does not fit a buffer of {room}")]
    Truncated {
        /// Bytes sent.
        len: u64,
        /// Bytes offered.
        room: u64,
    },
    /// A fixed resource is used up.
    #[error("out of {0}")]
    Exhausted(&'static str),
    /// A buffer inside the segment outlived a fault, so that a peer may still write to it.
    #[error("a buffer inside the segment was in use when a communicator failed; free it and take a new one")]
    StaleBuffer,
    /// A system call failed.
    #[error("{what}: {}", std::io::Error::from_raw_os_error(*errno))]
    System {
        /// The call.
        what: &'static str,
        /// Its errno.
        errno: i32,
    },
    /// The agent refused the segment.
    #[error("the agent refused the segment: {0}")]
    Refused(String),
    /// The environment or the agent's answer cannot be understood.
    #[error("{0}")]
    Environment(String),
}

/// Shorthand of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The code at the C border. A fault that another rank reported first keeps its kind.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Error::Invalid(_) | Error::OutOfRange { .. } | Error::TooSmall { .. } | Error::StaleBuffer => {
                Status::Invalid
            }
            Error::PeerLost { .. } => Status::PeerLost,
            Error::Timeout { .. } => Status::Timeout,
            Error::Corrupt { .. } => Status::Corrupt,
            Error::Mismatch { .. } | Error::Divided { .. } => Status::Mismatch,
            Error::Poisoned { cause, .. } => *cause,
            Error::Ended { .. } => Status::Poisoned,
            Error::Truncated { .. } => Status::Truncated,
            Error::Exhausted(_) | Error::Full { .. } => Status::Exhausted,
            Error::System { .. } | Error::Refused(_) | Error::Environment(_) => Status::System,
        }
    }

    /// Whether the fault ends the communicator for all of its members.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Error::Invalid(_)
                | Error::OutOfRange { .. }
                | Error::TooSmall { .. }
                | Error::Truncated { .. }
                | Error::Exhausted(_)
                | Error::Full { .. }
                | Error::StaleBuffer
        )
    }

    /// The last failed system call as an error.
    #[must_use]
    pub fn last_os(what: &'static str) -> Self {
        Error::System { what, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }
}

/// Faults that travel in a poisoned control word, by their number there.
pub(crate) const POISON_CAUSES: [Status; 6] =
    [Status::PeerLost, Status::Timeout, Status::Corrupt, Status::Mismatch, Status::System, Status::Poisoned];
