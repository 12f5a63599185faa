//! Sources that readers copy from directly: by the segment where they lie in it, by process_vm_readv otherwise.
//!
//! A source publishes where its bytes are with its first post and leaves only when all its readers have said that they are
//! done. What was read counts only if the source has not given up meanwhile, because its buffer is its own again then.

use std::time::Instant;

use crate::algorithm::move_data::store_for;
use crate::algorithm::trials::{Class, Trials, Way};
use crate::algorithm::{Call, In, Out, PULL_MIN};
use crate::core::{NOT_IN_SEGMENT, Op};
use crate::error::{Error, Result};

/// Instead of the address of a source that goes through staging.
const STAGED: u64 = 0;

/// What a source decided about its data of one operation.
pub(crate) struct Offer {
    pub(crate) way: Way,
    /// When it began, where its time is wanted.
    since: Option<Instant>,
    class: Class,
}

impl Offer {
    /// Decides how `bytes` at `source` travel, and publishes that with the coming post.
    pub(crate) fn publish(op: &Op<'_>, call: &Call, source: In, bytes: usize) -> Result<Self> {
        let charter = &op.core().charter;
        let inside = charter.segment.offset_of(source.0, bytes)?;
        let class = (call.kind, call.bytes().ilog2());
        let (way, timed) = match inside {
            Some(_) => (Way::Lent, false),
            None if !charter.single_copy.get() => (Way::Staged, false),
            // Nothing happens at the same time, and each chunk would cost a turn of all ranks.
            None if charter.oversubscribed && call.bytes() >= PULL_MIN => (Way::Lent, false),
            None if charter.oversubscribed => (Way::Staged, false),
            None => op.core().trials(class, Trials::next),
        };
        let address = if way == Way::Lent { source.0 as u64 } else { STAGED };
        op.publish([address, 0, inside.map_or(NOT_IN_SEGMENT, |o| o as u64), NOT_IN_SEGMENT]);
        Ok(Self { way, since: timed.then(Instant::now), class })
    }

    /// Whether the source waits for its readers.
    pub(crate) fn waits(&self) -> bool {
        self.way == Way::Lent || self.since.is_some()
    }

    /// All readers are done.
    pub(crate) fn close(self, op: &Op<'_>) {
        if let Some(since) = self.since {
            op.core().trials(self.class, |trials| trials.record(self.way, since.elapsed()));
        }
    }
}

/// Whether `source`, whose first post was reached, lends its data.
pub(crate) fn is_lent(op: &Op<'_>, source: usize) -> Result<bool> {
    Ok(op.published(source)?[0] != STAGED)
}

/// Publishes with the coming post that `bytes` at `source` may be read.
pub(crate) fn publish(op: &Op<'_>, source: In, bytes: usize) -> Result<()> {
    let offset = op.core().charter.segment.offset_of(source.0, bytes)?;
    op.publish([source.0 as u64, 0, offset.map_or(NOT_IN_SEGMENT, |o| o as u64), NOT_IN_SEGMENT]);
    Ok(())
}

/// Copies `len` bytes at `offset` of what `source` lends.
pub(crate) fn read_from(op: &Op<'_>, source: usize, offset: usize, target: Out, len: usize) -> Result<()> {
    let core = op.core();
    let [address, _, in_segment, _] = op.published(source)?;
    if in_segment != NOT_IN_SEGMENT {
        let at = in_segment.wrapping_add(offset as u64);
        let from = core.charter.segment.peer_buffer(core.charter.members[source], at, len);
        let from = from.ok_or(Error::Corrupt { rank: source })?;
        // SAFETY: the range was checked to lie in the source's arena; the target is the caller's.
        unsafe { store_for(len)(target.0, from, len) };
        return Ok(());
    }
    // SAFETY: the target is writable for `len`.
    unsafe { core.read_peer(source, address.wrapping_add(offset as u64), target.0, len) }
}
