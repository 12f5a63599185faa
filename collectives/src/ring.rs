//! Send and receive: one ring per ordered pair of ranks, messages in order, of any length.
//!
//! ```text
//!   ┌ header, one cell ──────────────────────────────┐┌ data, whole cells ─────────────┐
//!   │ length · tag · address · block · check         ││ absent when read by one copy   │
//!   └────────────────────────────────────────────────┘└────────────────────────────────┘
//! ```
//! Short messages are copied through the ring block by block, so that both ends work at the same time.
//! Long ones are read straight from the sender's memory where the kernel allows it, see [`long`]. A message longer than the receiver's buffer is
//! taken off the ring and reported as truncated; the communicator lives on.

mod long;

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use crate::algorithm::{In, Out, PULL_MIN};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::flow::{CELL, Damaged, Flow};
use crate::kernels::copy;
use crate::line::Line;
use crate::relay::{Giver, Taker};

/// Blocks per ring: the receiver works on one while the sender fills the next.
const BLOCKS: usize = 4;
/// A word counts no further.
const EXHAUSTED: Error = Error::Exhausted("steps of this communicator");

/// Both directions between this rank and one peer.
#[derive(Default)]
pub(crate) struct Pair {
    outgoing: Cell<Flow>,
    incoming: Cell<Flow>,
    giver: Cell<Giver>,
    taker: Cell<Taker>,
    /// While the last long message to the peer was under way, this thread took others: it has no time to stage.
    is_taking: Cell<bool>,
    /// The send that was polled last has nothing more to write and only waits for the peer to read: the next
    /// one may begin.
    handed_over: Cell<bool>,
}

impl Pair {
    pub(crate) fn handed_over(&self) -> bool {
        self.handed_over.get()
    }
}

/// The first cell of a message.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    len: u64,
    tag: u64,
    /// Where the bytes are in the sender's memory, 0 when they follow in the ring.
    address: u64,
    /// Of such a message: the number of its first block in the relay.
    block: u64,
    check: u64,
    rest: [u64; 3],
}

const _: () = assert!(size_of::<Header>() == CELL);

impl Header {
    fn new(len: usize, tag: u64, (address, block): (u64, u64), place: u64) -> Self {
        let mut header = Self { len: len as u64, tag, address, block, check: 0, rest: [0; 3] };
        header.check = header.sum(place);
        header
    }

    /// A hash that also binds the header to its `place`, see [`End::place`].
    fn sum(&self, place: u64) -> u64 {
        [self.len, self.tag, self.address, self.block]
            .iter()
            .fold(place, |sum, field| (sum ^ field).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }
}

/// One end of one ring.
struct End<'a> {
    core: &'a Core,
    peer: usize,
    given: &'a Line,
    taken: &'a Line,
    bytes: *mut u8,
    capacity: u64,
    flow: &'a Cell<Flow>,
}

impl<'a> End<'a> {
    fn new(core: &'a Core, peer: usize, outgoing: bool) -> Self {
        let charter = &core.charter;
        let (own, other) = (charter.members[charter.rank], charter.members[peer]);
        let (source, target) = if outgoing { (own, other) } else { (other, own) };
        let (given, taken) = charter.segment.ring_lines(charter.slot, source, target);
        let pair = core.pair(peer);
        Self {
            core,
            peer,
            given,
            taken,
            bytes: charter.segment.ring(charter.slot, source, target),
            capacity: (charter.segment.layout().ring_bytes / CELL) as u64,
            flow: if outgoing { &pair.outgoing } else { &pair.incoming },
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Flow) -> std::result::Result<T, Damaged>) -> Result<T> {
        let mut flow = self.flow.get();
        let result = work(&mut flow);
        self.flow.set(flow);
        result.map_err(|Damaged| Error::Corrupt { rank: self.peer })
    }

    /// Waits until `look` finds something, which counts as progress.
    async fn until(&self, look: impl Fn(&mut Flow) -> std::result::Result<u64, Damaged>) -> Result<u64> {
        poll_fn(|_| match self.with(&look) {
            Ok(0) => {
                self.core.await_member(self.peer);
                Poll::Pending
            }
            other => {
                self.core.tick(self.peer);
                Poll::Ready(other)
            }
        })
        .await
    }

    async fn free(&self) -> Result<u64> {
        self.until(|flow| {
            self.core.pair(self.peer).handed_over.set(false);
            flow.free(self.taken, self.core.codec(), self.capacity)
        })
        .await
    }

    async fn available(&self) -> Result<u64> {
        self.until(|flow| flow.available(self.given, self.core.codec(), self.capacity)).await
    }

    fn advance(&self, cells: u64, line: &Line) {
        let mut flow = self.flow.get();
        flow.advance(line, self.core.codec(), cells);
        self.flow.set(flow);
    }

    fn position(&self) -> u64 {
        self.flow.get().own()
    }

    /// What the next header is bound to: where it is in the stream, and of which communicator. Without the latter, zeros would be an
    /// empty message at the beginning of a stream, and what an earlier communicator left there one of this.
    fn place(&self) -> u64 {
        self.position() ^ self.core.charter.key
    }

    fn cell(&self, position: u64) -> *mut u8 {
        self.bytes.wrapping_add((position % self.capacity) as usize * CELL)
    }

    /// Bytes in one go from `position`: up to the end of the ring, `cells`, a block, and `left`.
    fn run(&self, position: u64, cells: u64, left: usize) -> usize {
        let straight = self.capacity - position % self.capacity;
        let block = self.capacity / BLOCKS as u64;
        left.min(straight.min(cells).min(block) as usize * CELL)
    }
}

/// Sends `len` bytes to `peer`; `staged` forbids that the peer reads them from this process.
pub(crate) async fn send(
    core: &Core,
    peer: usize,
    tag: u64,
    from: In,
    len: usize,
    staged: bool,
) -> Result<u64> {
    let end = End::new(core, peer, true);
    if !end.flow.get().has_room_to_count((len / CELL) as u64 + 2) {
        return Err(EXHAUSTED);
    }
    let by_one_copy = !staged && len >= PULL_MIN && core.charter.single_copy.get();
    let mut cells = end.free().await?;
    let relay = by_one_copy.then(|| long::Relay::new(&end, true));
    let first = relay.as_ref().map_or(Ok(0), |relay| relay.announce(len))?;
    let source = if by_one_copy { (from.0 as u64, first) } else { (0, 0) };
    let header = Header::new(len, tag, source, end.place());
    // SAFETY: at least one cell is ours to write; cells are aligned to 64.
    unsafe { end.cell(end.position()).cast::<Header>().write(header) };
    if let Some(relay) = relay {
        end.advance(1, end.given);
        let (position, taken_before) = (end.position(), long::taken());
        end.until(|flow| {
            core.pair(peer).handed_over.set(true);
            let is_taken = flow.has_taken(end.taken, core.codec(), position)?;
            if !is_taken {
                relay.stage(from, len, first)?;
            }
            Ok(u64::from(is_taken))
        })
        .await?;
        core.pair(peer).is_taking.set(long::taken() != taken_before);
        return Ok(len as u64);
    }
    // The header becomes visible with the first data, in one post.
    let (mut done, mut unposted) = (0, 1);
    cells -= 1;
    while done < len {
        if cells == 0 {
            end.advance(std::mem::take(&mut unposted), end.given);
            cells = end.free().await?;
        }
        let position = end.position() + unposted;
        let bytes = end.run(position, cells, len - done);
        // SAFETY: `bytes` fit into the free cells from `position` without wrapping; the source holds them.
        unsafe { copy(end.cell(position), from.at(done), bytes) };
        done += bytes;
        let used = bytes.div_ceil(CELL) as u64;
        end.advance(unposted + used, end.given);
        (cells, unposted) = (cells - used, 0);
    }
    if unposted > 0 {
        end.advance(unposted, end.given);
    }
    Ok(len as u64)
}

/// Receives one message of at most `room` bytes from `peer`; its length.
pub(crate) async fn receive(core: &Core, peer: usize, tag: u64, to: Out, room: usize) -> Result<u64> {
    let end = End::new(core, peer, false);
    let mut cells = end.available().await?;
    // SAFETY: at least one cell is readable; any bits are a header, which is checked next.
    let header = unsafe { end.cell(end.position()).cast::<Header>().read_volatile() };
    if header.check != header.sum(end.place()) {
        return Err(Error::Corrupt { rank: peer });
    }
    if header.tag != tag {
        return Err(Error::Mismatch { rank: peer });
    }
    let len = usize::try_from(header.len).map_err(|_| Error::Corrupt { rank: peer })?;
    if header.address != 0 {
        let result = long::receive(&end, &header, to, room);
        end.advance(1, end.taken);
        return result;
    }
    let (mut done, mut unposted) = (0, 1);
    cells -= 1;
    while done < len {
        if cells == 0 {
            end.advance(std::mem::take(&mut unposted), end.taken);
            cells = end.available().await?;
        }
        let position = end.position() + unposted;
        let bytes = end.run(position, cells, len - done);
        let wanted = bytes.min(room.saturating_sub(done));
        // SAFETY: the cells are readable, `wanted` bytes fit into the target behind `done`.
        unsafe { copy(to.at(done.min(room)), end.cell(position), wanted) };
        done += bytes;
        let used = bytes.div_ceil(CELL) as u64;
        end.advance(unposted + used, end.taken);
        (cells, unposted) = (cells - used, 0);
    }
    if unposted > 0 {
        end.advance(unposted, end.taken);
    }
    fits(header.len, room)
}

fn fits(len: u64, room: usize) -> Result<u64> {
    if len > room as u64 { Err(Error::Truncated { len, room: room as u64 }) } else { Ok(len) }
}
