//! Communicators: the public face of the library.

mod calls;
mod launcher;
mod slices;
mod start;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::core::{Charter, Core};
use crate::datatype::ReduceOp;
use crate::error::{Error, Result};
use crate::generation::Generation;
use crate::join;
use crate::request::Engine;
use crate::segment::{Segment, SegmentBuffer};

pub use calls::Collective;
pub use start::{Options, segment_from_env};

/// A group of ranks of one step. One thread at a time may use it; all members must make the same
/// collective calls in the same order.
///
/// ```
/// # use migshare_collectives::{Comm, Options, ReduceOp, Segment};
/// // In a step: `Comm::from_env()`. Without an agent a parent makes the segment and its children inherit the descriptor.
/// let segment = Segment::create(16 << 20, 1)?;
/// let mut comm = Comm::join(&segment, 0, &Options::default())?;
/// let mut gradient = [1.0_f32, 2.0];
/// comm.all_reduce(&mut gradient, ReduceOp::Average)?;
/// assert_eq!(gradient, [1.0, 2.0]);
/// # Ok::<(), migshare_collectives::Error>(())
/// ```
///
/// After an error for which [`Error::is_fatal`] holds, the communicator is over for all members, the
/// contents of the buffers of unfinished calls are undefined, and buffers inside the segment can only be freed.
pub struct Comm {
    // Declared before `core`: tasks borrow it.
    engine: Engine,
    core: Box<Core>,
    splits: u64,
    /// Made by `join`, not by `split`.
    joined: bool,
    born: Generation,
}

// SAFETY: everything inside is owned by this value and moves with it: the cells of the core, and the tasks of
// the engine, which borrow the core and hold user buffers that their callers promised on any thread.
unsafe impl Send for Comm {}

impl Comm {
    /// Joins all ranks of `segment`; returns when all have come.
    ///
    /// # Errors
    /// `Timeout` names the first rank that did not come, `Exhausted` or `Invalid` if this process is in already.
    pub fn join(segment: &Arc<Segment>, rank: usize, options: &Options) -> Result<Self> {
        let ranks = segment.layout().ranks;
        if rank >= ranks {
            return Err(Error::OutOfRange { what: "rank", value: rank, limit: ranks });
        }
        segment.sit_down(rank)?;
        let slot = segment.take_slot(1).ok_or(Error::Exhausted("the world communicator of this segment"))?;
        let joined =
            join::join(segment, slot, rank, options.timeout).inspect_err(|_| segment.give_slot(slot))?;
        segment.own_arena(rank);
        segment.place_near(rank);
        let charter = Charter {
            segment: Arc::clone(segment),
            slot,
            rank,
            members: (0..ranks).collect(),
            processes: Arc::new(joined.processes),
            key: joined.key,
            oversubscribed: joined.oversubscribed,
            single_copy: Cell::new(false),
            timeout: Cell::new(options.timeout),
        };
        let mut comm = Self::from_charter(charter);
        comm.joined = true;
        comm.agree_on_single_copy(joined.can_read_peers && options.single_copy)?;
        Ok(comm)
    }

    fn from_charter(charter: Charter) -> Self {
        Self {
            engine: Engine::default(),
            core: Box::new(Core::new(charter)),
            splits: 0,
            joined: false,
            born: Generation::now(),
        }
    }

    /// One-copy transfers need the right to read the memory of every peer, on every rank.
    fn agree_on_single_copy(&mut self, able: bool) -> Result<()> {
        let mut vote = [u8::from(able)];
        self.all_reduce(&mut vote, ReduceOp::Min)?;
        self.core.charter.single_copy.set(vote[0] != 0);
        Ok(())
    }

    /// This rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.core.rank()
    }

    /// Number of members.
    #[must_use]
    pub fn size(&self) -> usize {
        self.core.size()
    }

    /// The segment that carries this communicator.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.core.charter.segment
    }

    /// How long a rank waits for another before it gives up.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.core.timeout()
    }

    /// Changes the timeout of this rank.
    pub fn set_timeout(&self, timeout: Duration) {
        self.core.charter.timeout.set(timeout);
    }

    /// Takes memory inside the segment, see [`Segment::allocate`].
    ///
    /// # Errors
    /// `Exhausted` when this rank's arena is full.
    pub fn allocate(&self, bytes: usize) -> Result<SegmentBuffer> {
        self.refuse_copy()?;
        self.segment().allocate(bytes)
    }

    /// Divides the members: those with the same `color` form a new communicator, ordered by `key` and then by
    /// rank. `None` is no member of any. All members must call it.
    ///
    /// # Errors
    /// `Exhausted` when the group has no common free slot.
    pub fn split(&mut self, color: Option<u32>, key: i32) -> Result<Option<Self>> {
        // When all have come, all have left what they freed before: now it is known which slots are free.
        self.barrier()?;
        self.splits += 1;
        let own = start::Proposal::new(color, key, self.segment().free_slots());
        let mut all = vec![0_u64; 3 * self.size()];
        self.all_gather(&own.0, &mut all)?;
        let parts = start::group(&all, color);
        let charter = match &parts {
            Some(group) => self.charter_of(group)?,
            None => None,
        };
        // All members must have reset their lines before anybody uses the new communicator.
        let comm = charter.map(Self::from_charter);
        let failed = parts.is_some() && comm.is_none();
        self.barrier()?;
        if failed {
            Err(Error::Exhausted(
                "communicator slots: a rank can be in 8 communicators at once; free one of them",
            ))
        } else {
            Ok(comm)
        }
    }

    /// The charter of a new communicator of `group`, a list of this communicator's ranks.
    fn charter_of(&self, group: &start::Group) -> Result<Option<Charter>> {
        let old = &self.core.charter;
        let Some(slot) = old.segment.take_slot(group.free & group.free.wrapping_neg()) else {
            return Ok(None);
        };
        let rank = group.ranks.iter().position(|r| *r == self.rank()).ok_or(Error::Invalid("color"))?;
        Ok(Some(Charter {
            segment: Arc::clone(&old.segment),
            slot,
            rank,
            members: group.ranks.iter().map(|r| old.members[*r]).collect(),
            processes: Arc::clone(&old.processes),
            key: (old.key ^ self.splits.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(17)
                ^ group.ranks[0] as u64,
            oversubscribed: old.oversubscribed,
            single_copy: old.single_copy.clone(),
            timeout: old.timeout.clone(),
        }))
    }

    /// A forked child has a copy of this value, but is not the rank.
    #[inline]
    fn refuse_copy(&self) -> Result<()> {
        if self.born.is_this_process() {
            return Ok(());
        }
        Err(Error::Invalid("this communicator was made before a fork: it belongs to the parent process"))
    }

    /// A reference to the core for tasks that the engine keeps.
    fn lasting_core(&self) -> &'static Core {
        // SAFETY: the box gives the core a stable address until this value is dropped; the engine,
        // which holds all tasks, is dropped before it, and tasks never leave the engine.
        unsafe { &*std::ptr::from_ref(&*self.core) }
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        if !self.born.is_this_process() {
            return; // the rank is the parent, and lives on
        }
        if self.engine.lends() {
            // What peers read from the buffers of abandoned operations must not count.
            self.core.fail(&Error::PeerLost { rank: self.rank() });
        }
        self.core.leave();
        let charter = &self.core.charter;
        if self.joined {
            charter.segment.member(charter.rank).withdraw();
        }
    }
}
