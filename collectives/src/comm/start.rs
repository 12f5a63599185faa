//! How a communicator begins: options, the environment of a rank, and the arithmetic of a split.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Comm, launcher};
use crate::error::{Error, Result};
use crate::segment::{SOCKET_VARIABLE, Segment};

/// Number of an inherited descriptor of a sealed memfd, for parents that make the segment themselves.
const DESCRIPTOR_VARIABLE: &str = "MIGSHARE_SEGMENT_FD";
/// Milliseconds that a rank waits for another.
const TIMEOUT_VARIABLE: &str = "MIGSHARE_TIMEOUT_MS";

/// What a rank may choose when it joins.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for another rank before giving up; also for the others to join.
    pub timeout: Duration,
    /// Read large messages straight from the peers' memory where the kernel allows it.
    pub single_copy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), single_copy: true }
    }
}

impl Options {
    /// The defaults, and the timeout from `MIGSHARE_TIMEOUT_MS`, where 0 is the default, too.
    ///
    /// # Errors
    /// Refuses a timeout that is not a number.
    pub fn from_env() -> Result<Self> {
        let mut options = Self::default();
        if let Some(millis) = number(TIMEOUT_VARIABLE)?.filter(|millis| *millis > 0) {
            options.timeout = Duration::from_millis(millis);
        }
        Ok(options)
    }
}

impl Comm {
    /// Joins the ranks of this step on this node: rank and size from `MIGSHARE_RANK` and `MIGSHARE_SIZE`, or from the variables of
    /// torchrun or mpirun where these started the process in a task of its own; the segment as [`segment_from_env`].
    ///
    /// # Errors
    /// `Environment` names the missing variable; otherwise as [`Comm::join`].
    pub fn from_env() -> Result<Self> {
        let place = launcher::place(|name| std::env::var(name).ok())?;
        let segment = segment_from_env(place.size)?;
        Self::join(&segment, place.rank, &Options::from_env()?)
    }
}

/// The segment that the environment names, for `size` ranks: from `MIGSHARE_SEGMENT_FD` or else from the agent at
/// `MIGSHARE_SEGMENT_SOCKET`. Others see that it is open, see [`Segment::claim`].
///
/// # Errors
/// `Environment` when it names none, otherwise what the segment's constructors refuse.
pub fn segment_from_env(size: usize) -> Result<Arc<Segment>> {
    if let Some(descriptor) = number(DESCRIPTOR_VARIABLE)? {
        let descriptor = i32::try_from(descriptor).map_err(|_| Error::Invalid("MIGSHARE_SEGMENT_FD"))?;
        return Segment::from_inherited(descriptor, size);
    }
    match std::env::var_os(SOCKET_VARIABLE) {
        Some(path) => Segment::from_agent(Path::new(&path), size).map_err(|error| match error {
            Error::System { .. } => {
                let path = Path::new(&path).display();
                let text = format!("{error} ({SOCKET_VARIABLE}={path}; a container needs the folder of the socket mounted in)");
                Error::Environment(text)
            }
            other => other,
        }),
        None => {
            let text = format!(
                "neither {DESCRIPTOR_VARIABLE} nor {SOCKET_VARIABLE} is set: the step has no segment (srun --mig-share=N,segment=SIZE \
                 asks for one)"
            );
            Err(Error::Environment(text))
        }
    }
}

fn number(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    let value = text.parse().map_err(|_| Error::Environment(format!("{name}={text} is not a number")))?;
    Ok(Some(value))
}

/// What a rank brings to a split: colour and key, and its free slots.
pub(super) struct Proposal(pub(super) [u64; 3]);

impl Proposal {
    pub(super) fn new(color: Option<u32>, key: i32, free: u64) -> Self {
        Self([color.map_or(u64::MAX, u64::from), u64::from((key as u32) ^ (1 << 31)), free])
    }
}

/// The members of one colour, in their new order, and the slots free on all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) ranks: Vec<usize>,
    pub(super) free: u64,
}

/// The group of `color` in the proposals of all ranks.
pub(super) fn group(proposals: &[u64], color: Option<u32>) -> Option<Group> {
    let color = u64::from(color?);
    let same = |(_, proposal): &(usize, &[u64])| proposal[0] == color;
    let mut members: Vec<_> = proposals.chunks_exact(3).enumerate().filter(same).collect();
    members.sort_by_key(|(rank, proposal)| (proposal[1], *rank));
    let free = members.iter().fold(u64::MAX, |free, (_, proposal)| free & proposal[2]);
    Some(Group { ranks: members.iter().map(|(rank, _)| *rank).collect(), free })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_orders_by_key_then_rank_and_keeps_common_slots() {
        let ranks = [
            (Some(1), 5, 0b1110),
            (Some(2), 0, 0b1111),
            (Some(1), -3, 0b1010),
            (None, 0, 0),
            (Some(1), 5, 0b11),
        ];
        let all: Vec<u64> =
            ranks.iter().flat_map(|(color, key, free)| Proposal::new(*color, *key, *free).0).collect();
        assert_eq!(group(&all, Some(1)), Some(Group { ranks: vec![2, 0, 4], free: 0b0010 }));
        assert_eq!(group(&all, Some(2)), Some(Group { ranks: vec![1], free: 0b1111 }));
        assert_eq!(group(&all, None), None);
    }
}
