//! A slot that this process has left, and who may still be in it.

use std::sync::Arc;

use super::Segment;
use crate::attendance;
use crate::liveness::Process;

/// The last communicator of this process in a slot. Its other members may still look at what this process wrote.
pub(crate) struct Left {
    pub(crate) key: u64,
    /// World ranks.
    pub(crate) members: Vec<usize>,
    pub(crate) processes: Arc<Vec<Process>>,
}

impl Left {
    /// Whether a member whose process lives has not left the communicator.
    pub(crate) fn is_in_use(&self, segment: &Segment, slot: usize) -> bool {
        self.members.iter().any(|member| {
            attendance::is_in(segment.attendance(slot, *member), self.key)
                && !self.processes[*member].is_gone()
        })
    }
}
