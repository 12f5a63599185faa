//! The memory that the ranks of a step share: a sealed memfd from the agent or a parent, or a named
//! segment made without an agent.
//!
//! A memfd is preferred because it can be sealed: with a named segment any peer can shrink the file
//! and kill its neighbours with SIGBUS, and the name outlives a killed job. The named mode exists for
//! programs that run without the agent and without a common parent.
//!
//! This module hands out checked pointers; who may write where and when is decided in `core` and `ring`.

mod agent;
mod arena;
mod claim;
pub mod layout;
mod left;
pub mod pass;
mod placement;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use shared_memory::{Shmem, ShmemConf};

pub use agent::SOCKET_VARIABLE;
pub use layout::{DEFAULT_BYTES, Layout};

use crate::error::{Error, Result};
use crate::generation::Generation;
use crate::handshake::Record;
use crate::line::Line;
use crate::segment::arena::Arena;
pub(crate) use crate::segment::left::Left;
use crate::sys;

/// What keeps the mapping alive.
enum Backing {
    Memfd(OwnedFd),
    /// Unmaps, and unlinks the name where this process made it, when dropped.
    Named(Shmem),
}

/// A mapped segment. Cheap to share; the mapping ends with the last user.
pub struct Segment {
    base: *mut u8,
    layout: Layout,
    backing: Backing,
    /// Slots that a communicator of this process uses, one bit each.
    slots: AtomicU64,
    /// Those that it has left, and where others may still be.
    left: Mutex<[Option<Left>; layout::SLOTS]>,
    born: Generation,
    /// Grows with every fault: user buffers of earlier eras are lost.
    era: AtomicU64,
    arena: OnceLock<(usize, Mutex<Arena>)>,
    seated: OnceLock<claim::Seated>,
}

// SAFETY: the mapping is plain memory without thread affinity; all state beside it is atomic or
// behind a mutex. `Shmem` is not Sync only because it hands out `&mut` slices, which nobody asks for.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a sealed anonymous segment for `ranks` ranks. Children inherit [`Segment::descriptor`].
    ///
    /// # Errors
    /// Refuses sizes and rank numbers that do not fit; fails when the kernel does.
    pub fn create(bytes: u64, ranks: usize) -> Result<Arc<Self>> {
        Layout::new(bytes, ranks)?;
        Self::from_descriptor(sys::sealed_memfd(bytes)?, ranks)
    }

    /// Maps a segment that somebody handed over, whose size must be sealed.
    ///
    /// # Errors
    /// Refuses a file that a peer could shrink, and one too small for `ranks`.
    pub fn from_descriptor(fd: OwnedFd, ranks: usize) -> Result<Arc<Self>> {
        if !sys::is_sealed(fd.as_fd()) {
            return Err(Error::Invalid("the segment is not sealed against shrinking and growing"));
        }
        let file = std::fs::File::from(fd);
        let bytes = file.metadata().map_err(|_| Error::last_os("fstat"))?.len();
        let layout = Layout::new(bytes, ranks)?;
        let fd = OwnedFd::from(file);
        let base = sys::map_shared(fd.as_fd(), layout.bytes)?;
        Ok(Self::wrap(base, layout, Backing::Memfd(fd)))
    }

    /// Maps the segment that this process inherited under a number, which stays as it is.
    ///
    /// # Errors
    /// As [`Segment::from_descriptor`]; fails when nothing is open there.
    pub(crate) fn from_inherited(descriptor: i32, ranks: usize) -> Result<Arc<Self>> {
        let own = claim::reopened(descriptor)?;
        claim::announce(own.as_fd())?;
        Self::from_descriptor(own, ranks)
    }

    /// Fetches the step's segment from the agent at `socket`.
    ///
    /// # Errors
    /// The agent's refusal, or what [`Segment::from_descriptor`] refuses.
    pub fn from_agent(socket: &Path, ranks: usize) -> Result<Arc<Self>> {
        let (fd, granted) = agent::fetch(socket)?;
        claim::announce(fd.as_fd())?;
        let segment = Self::from_descriptor(fd, ranks)?;
        if segment.layout.bytes as u64 != granted.bytes {
            let (job, step) = (granted.job, granted.step);
            let text = format!("the segment of step {job}.{step} has another size than the agent says");
            return Err(Error::Environment(text));
        }
        Ok(segment)
    }

    /// Makes a segment with a name that other processes of this user can open.
    ///
    /// # Errors
    /// Fails when the name is taken or the size does not fit.
    pub fn create_named(name: &str, bytes: u64, ranks: usize) -> Result<Arc<Self>> {
        let layout = Layout::new(bytes, ranks)?;
        Self::wrap_named(ShmemConf::new().os_id(name).size(layout.bytes).create(), ranks)
    }

    /// Opens a segment made by [`Segment::create_named`].
    ///
    /// # Errors
    /// Fails when the name does not exist or the segment is too small for `ranks`.
    pub fn open_named(name: &str, ranks: usize) -> Result<Arc<Self>> {
        Self::wrap_named(ShmemConf::new().os_id(name).open(), ranks)
    }

    fn wrap_named(
        shmem: std::result::Result<Shmem, shared_memory::ShmemError>,
        ranks: usize,
    ) -> Result<Arc<Self>> {
        let shmem =
            shmem.map_err(|e| Error::Environment(format!("the named segment cannot be used: {e}")))?;
        let layout = Layout::new(shmem.len() as u64, ranks)?;
        Ok(Self::wrap(shmem.as_ptr(), layout, Backing::Named(shmem)))
    }

    fn wrap(base: *mut u8, layout: Layout, backing: Backing) -> Arc<Self> {
        let (slots, era) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self {
            base,
            layout,
            backing,
            slots,
            left: Mutex::default(),
            born: Generation::now(),
            era,
            arena: OnceLock::new(),
            seated: OnceLock::new(),
        })
    }

    /// The descriptor to hand to a child; a named segment has none.
    #[must_use]
    pub fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match &self.backing {
            Backing::Memfd(fd) => Some(fd.as_fd()),
            Backing::Named(_) => None,
        }
    }

    /// How the segment is divided.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.layout.bytes);
        self.base.wrapping_add(offset)
    }

    pub(crate) fn line(&self, slot: usize, rank: usize, index: usize) -> &Line {
        // SAFETY: the layout keeps the offset inside the mapping and a multiple of 64; a Line is made
        // of atomics, valid for all bits, so other processes may write it at any time.
        unsafe { &*self.at(self.layout.line(slot, rank, index)).cast() }
    }

    pub(crate) fn ring_lines(&self, slot: usize, source: usize, target: usize) -> (&Line, &Line) {
        let (head, tail) = self.layout.ring_lines(slot, source, target);
        // SAFETY: as in `line`.
        unsafe { (&*self.at(head).cast(), &*self.at(tail).cast()) }
    }

    pub(crate) fn relay_lines(&self, slot: usize, source: usize, target: usize) -> (&Line, &Line) {
        let (head, tail) = self.layout.relay_lines(slot, source, target);
        // SAFETY: as in `line`.
        unsafe { (&*self.at(head).cast(), &*self.at(tail).cast()) }
    }

    pub(crate) fn member(&self, rank: usize) -> &Record {
        // SAFETY: as in `line`; the record is made of atomics and no longer than MEMBER_BYTES.
        unsafe { &*self.at(self.layout.member(rank)).cast() }
    }

    pub(crate) fn staging(&self, slot: usize, rank: usize) -> *mut u8 {
        self.at(self.layout.staging(slot, rank))
    }

    pub(crate) fn ring(&self, slot: usize, source: usize, target: usize) -> *mut u8 {
        self.at(self.layout.ring(slot, source, target))
    }

    /// Where a rank says which communicator of a slot it is in: the line of a ring to itself, which carries no messages.
    pub(crate) fn attendance(&self, slot: usize, rank: usize) -> &Line {
        self.ring_lines(slot, rank, rank).0
    }

    pub(crate) fn relay(&self, slot: usize, source: usize, target: usize) -> *mut u8 {
        self.at(self.layout.relay(slot, source, target))
    }

    /// Takes the lowest slot that is free in `free` and in this process.
    pub(crate) fn take_slot(&self, free: u64) -> Option<usize> {
        let open = free & !self.slots.load(Ordering::Relaxed) & ((1 << layout::SLOTS) - 1);
        let slot = open.trailing_zeros() as usize;
        if slot >= layout::SLOTS || self.slots.fetch_or(1 << slot, Ordering::Relaxed) & (1 << slot) != 0 {
            return None;
        }
        Some(slot)
    }

    pub(crate) fn give_slot(&self, slot: usize) {
        self.slots.fetch_and(!(1 << slot), Ordering::Relaxed);
    }

    /// Gives a slot back, in which other members of the communicator may still be.
    pub(crate) fn leave_slot(&self, slot: usize, left: Left) {
        self.lefts()[slot] = Some(left);
        self.give_slot(slot);
    }

    /// Slots in which neither this process is nor anybody who may still look at what it wrote there.
    pub(crate) fn free_slots(&self) -> u64 {
        let mut free = !self.slots.load(Ordering::Relaxed) & ((1 << layout::SLOTS) - 1);
        for (slot, left) in self.lefts().iter_mut().enumerate() {
            match left {
                Some(left) if left.is_in_use(self, slot) => free &= !(1 << slot),
                _ => *left = None,
            }
        }
        free
    }

    fn lefts(&self) -> MutexGuard<'_, [Option<Left>; layout::SLOTS]> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which arena this process allocates from; the first communicator does.
    pub(crate) fn own_arena(&self, rank: usize) {
        self.arena.get_or_init(|| (rank, Mutex::new(Arena::new(self.layout.arena_bytes))));
    }

    fn arena(&self) -> Option<(usize, MutexGuard<'_, Arena>)> {
        let (rank, arena) = self.arena.get()?;
        Some((self.layout.arena(*rank), arena.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A fault happened: a stopped peer may still write to today's user buffers.
    pub(crate) fn end_era(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `len` bytes that all ranks can reach, for collectives without copies.
    ///
    /// # Errors
    /// `Exhausted` when the rank's arena is full, `Invalid` before a communicator joined.
    pub fn allocate(self: &Arc<Self>, len: usize) -> Result<SegmentBuffer> {
        let era = self.era.load(Ordering::Relaxed);
        let (base, mut arena) =
            self.arena().ok_or(Error::Invalid("join a communicator before allocating"))?;
        let start = arena.take(len, era).ok_or(Error::Full { wanted: len, room: self.layout.arena_bytes })?;
        Ok(SegmentBuffer { segment: Arc::clone(self), start: base + start, len, era })
    }

    /// The segment offset of a user buffer, if all of it lies in one live allocation of this rank.
    ///
    /// # Errors
    /// `StaleBuffer` when the allocation is older than a fault.
    pub(crate) fn offset_of(&self, at: *const u8, len: usize) -> Result<Option<usize>> {
        let offset = (at as usize).wrapping_sub(self.base as usize);
        if offset < self.layout.heap || offset >= self.layout.bytes {
            return Ok(None);
        }
        let Some((base, arena)) = self.arena() else { return Ok(None) };
        match offset.checked_sub(base).and_then(|start| arena.era_of(start, len)) {
            None => Ok(None),
            Some(era) if era == self.era.load(Ordering::Relaxed) => Ok(Some(offset)),
            Some(_) => Err(Error::StaleBuffer),
        }
    }

    /// Refuses a buffer that is lost, before an operation begins: afterwards this rank would be one operation ahead.
    ///
    /// # Errors
    /// As [`Segment::offset_of`].
    #[inline]
    pub(crate) fn refuse_stale(&self, at: *const u8, len: usize) -> Result<()> {
        if self.era.load(Ordering::Relaxed) == 0 { Ok(()) } else { self.offset_of(at, len).map(drop) }
    }

    /// A peer's buffer by the offset that it published, if it lies in the peer's arena.
    pub(crate) fn peer_buffer(&self, rank: usize, offset: u64, len: usize) -> Option<*mut u8> {
        let start = usize::try_from(offset).ok()?.checked_sub(self.layout.arena(rank))?;
        (start.checked_add(len)? <= self.layout.arena_bytes).then(|| self.at(self.layout.arena(rank) + start))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        match &mut self.backing {
            // SAFETY: made by map_shared with this length; users of pointers hold an Arc of the segment.
            Backing::Memfd(_) => unsafe { sys::unmap(self.base, self.layout.bytes) },
            // The name is its maker's, not that of a forked child.
            Backing::Named(named) if !self.born.is_this_process() => {
                named.set_owner(false);
            }
            Backing::Named(_) => {}
        }
    }
}

/// Bytes inside the segment, owned by this rank, zeroed only when fresh from the kernel.
pub struct SegmentBuffer {
    segment: Arc<Segment>,
    start: usize,
    len: usize,
    era: u64,
}

impl SegmentBuffer {
    /// The first byte; aligned to 4096.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.segment.at(self.start)
    }

    /// Bytes asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes were asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for SegmentBuffer {
    fn drop(&mut self) {
        let now = self.segment.era.load(Ordering::Relaxed);
        if let Some((base, mut arena)) = self.segment.arena() {
            // An era that ended since keeps the bytes taken, see `Arena::give`.
            arena.give(self.start - base, if now == self.era { now } else { u64::MAX });
        }
    }
}
