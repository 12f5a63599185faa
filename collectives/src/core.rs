//! The synchronisation of one communicator: numbered posts, waits for posts, and the end by a fault.
//!
//! Every operation `k` owns the steps `base(k)+1 ..= base(k)+posts(k)`, and `base(k+1)` is the last of
//! them; both follow from the arguments, so they are equal on all ranks. A rank posts steps in order in
//! its own line `k % 32` and waits for steps of others.
//!
//! ```text
//!   rank 0   post 1 ───── post 2 ───── …        ordinary life
//!              ▼ wait(1, 2)
//!   rank 1   ─ post 1 ─── post 2 ─── …
//!
//!   Live ──own fault or a peer's poison──▶ Faulted: own lines carry the poison, all calls fail
//! ```
//! **Invariants.** One: only the owner writes a line. Two: a rank posts the first step of operation
//! `k` after it has done all its reads of operation `k-1`. Three ([`Op::gate`]): a rank writes staging
//! of parity `k % 2` only after it has seen all peers post in operation `k-1`; with two, all have finished
//! reading operation `k-2`, the last user of that parity. Four ([`Op::window`]): it writes the payload of a
//! line, or the line's place on the board, only after it has seen all peers post in operation `k-31`;
//! all have finished reading operation `k-32`, the last user of that line. Five: before its first post of operation `k` it has
//! passed a gate or a window, or reached a rank that has.
//!
//! So no rank is more than 31 operations ahead of another, no word is older than 64, and the line of the operation that
//! a rank is in shows nothing later: a step beyond its end, or another mark, is a rank that calls something else. Only the rank
//! that is in an operation looks at its marks, because a window looks at lines that may have begun to change.

mod op;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use op::{NOT_IN_SEGMENT, Op};

use crate::algorithm::trials::{Class, Trials};
use crate::attendance;
use crate::error::{Error, Result, Status};
use crate::line::Line;
use crate::liveness::Process;
use crate::ring::Pair;
use crate::segment::layout::LINES;
use crate::segment::{Left, Segment};
use crate::sync::{Ordering, fence};
use crate::sys;
use crate::word::{Codec, STEP_MAX, Seen, WINDOW};

/// Spins before the first yield: some two hundred microseconds. Where other processes want the CPU, too, a yield gives
/// them a time slice of milliseconds, while a peer on a CPU of its own is mostly back much sooner.
const SPIN_TURNS: u32 = 5000;
/// With more ranks than CPUs the peer that we wait for may need this CPU.
const SPIN_TURNS_OVERSUBSCRIBED: u32 = 3;
/// Steps that one operation may take; the window of `word` is wider by far.
pub(crate) const POSTS_MAX: u64 = 1 << 21;
/// Operations whose steps are remembered: words of peers may be as old.
const HISTORY: usize = 2 * LINES;

const _: () = assert!(POSTS_MAX * (HISTORY + LINES) as u64 <= WINDOW);

/// The steps of one operation, and what it is.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    base: u64,
    end: u64,
    /// A hash of the call.
    mark: u64,
    /// Of the operation, from 1.
    number: u64,
}

impl Span {
    /// The part of the mark for which a word has room.
    #[inline]
    fn signature(self) -> u16 {
        (self.mark >> 54) as u16
    }

    fn line(self) -> usize {
        self.number as usize % LINES
    }

    fn parity(self) -> usize {
        self.number as usize % 2
    }
}

/// What the members of a communicator agreed on when it was made.
pub(crate) struct Charter {
    pub(crate) segment: Arc<Segment>,
    pub(crate) slot: usize,
    pub(crate) rank: usize,
    /// World rank of each member, by rank.
    pub(crate) members: Vec<usize>,
    pub(crate) processes: Arc<Vec<Process>>,
    pub(crate) key: u64,
    pub(crate) oversubscribed: bool,
    pub(crate) single_copy: Cell<bool>,
    pub(crate) timeout: Cell<Duration>,
}

/// The state of one rank in one communicator. Used by one thread at a time.
pub(crate) struct Core {
    pub(crate) charter: Charter,
    codec: Codec,
    current: Cell<Span>,
    /// The last operations, by number.
    history: [Cell<Span>; HISTORY],
    posted: Cell<u64>,
    /// By parity: how often two ranks have swapped the halves of that parity.
    turns: [Cell<u64>; 2],
    /// The highest step seen of each member.
    seen: Vec<Cell<u64>>,
    /// Counts satisfied waits.
    ticks: Cell<u64>,
    /// The same of each member, so that deadlines start anew with progress.
    heard: Vec<Cell<u64>>,
    /// The member of the wait that last found nothing.
    awaited: Cell<usize>,
    /// Whether the current operation has looked for a post that was not there.
    waited: Cell<bool>,
    /// Rings from and to each member.
    pairs: Vec<Pair>,
    /// What this rank found out about the ways of its data.
    trials: RefCell<BTreeMap<Class, Trials>>,
    fault: RefCell<Option<Error>>,
    /// Whether a call has returned the fault itself; later ones only say that it is over.
    reported: Cell<bool>,
}

impl Core {
    pub(crate) fn new(charter: Charter) -> Self {
        let core = Self {
            codec: Codec::new(charter.key),
            current: Cell::default(),
            history: std::array::from_fn(|_| Cell::default()),
            posted: Cell::new(0),
            turns: Default::default(),
            seen: charter.members.iter().map(|_| Cell::new(0)).collect(),
            ticks: Cell::new(0),
            heard: charter.members.iter().map(|_| Cell::new(0)).collect(),
            awaited: Cell::new(charter.rank),
            waited: Cell::new(false),
            pairs: charter.members.iter().map(|_| Pair::default()).collect(),
            trials: RefCell::default(),
            fault: RefCell::new(None),
            reported: Cell::new(false),
            charter,
        };
        let Charter { segment, slot, members, rank, .. } = &core.charter;
        crate::join::reset_lines(segment, *slot, members[*rank], core.codec);
        attendance::enter(segment.attendance(*slot, members[*rank]), core.charter.key);
        core
    }

    pub(crate) fn rank(&self) -> usize {
        self.charter.rank
    }

    pub(crate) fn size(&self) -> usize {
        self.charter.members.len()
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    pub(crate) fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// A wait for `rank` was satisfied.
    #[inline]
    pub(crate) fn tick(&self, rank: usize) {
        self.ticks.set(self.ticks.get() + 1);
        self.heard[rank].set(self.heard[rank].get() + 1);
    }

    /// Grows with each satisfied wait for `rank`.
    pub(crate) fn heard(&self, rank: usize) -> u64 {
        self.heard[rank].get()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.charter.timeout.get()
    }

    pub(crate) fn spin_turns(&self) -> u32 {
        if self.charter.oversubscribed { SPIN_TURNS_OVERSUBSCRIBED } else { SPIN_TURNS }
    }

    pub(crate) fn await_member(&self, rank: usize) {
        self.awaited.set(rank);
    }

    pub(crate) fn process(&self, rank: usize) -> &Process {
        &self.charter.processes[self.charter.members[rank]]
    }

    pub(crate) fn pair(&self, rank: usize) -> &Pair {
        &self.pairs[rank]
    }

    pub(crate) fn trials<T>(&self, class: Class, work: impl FnOnce(&mut Trials) -> T) -> T {
        work(self.trials.borrow_mut().entry(class).or_default())
    }

    pub(crate) fn awaited(&self) -> usize {
        self.awaited.get()
    }

    pub(crate) fn line(&self, rank: usize, index: usize) -> &Line {
        self.charter.segment.line(self.charter.slot, self.charter.members[rank], index)
    }

    /// The operation `back` before the current one; `None` if there were not so many.
    fn earlier(&self, back: usize) -> Option<Span> {
        let number = self.current.get().number.checked_sub(back as u64).filter(|number| *number > 0)?;
        Some(self.history[number as usize % HISTORY].get())
    }

    /// The lowest step that a word of a peer may still show.
    fn floor(&self) -> u64 {
        self.earlier(HISTORY - 1).map_or(0, |span| span.base)
    }

    /// Starts the next operation, which takes `posts` steps on every rank.
    ///
    /// # Errors
    /// The fault that ended this communicator, or `Invalid` for more steps than a word can count.
    #[inline]
    pub(crate) fn begin(&self, mark: u64, posts: u64) -> Result<Op<'_>> {
        self.check_fault()?;
        let last = self.current.get();
        if posts > POSTS_MAX {
            return Err(Error::Invalid("more elements than one operation can take"));
        }
        if last.end + posts > STEP_MAX {
            return Err(Error::Exhausted("steps of this communicator"));
        }
        let span = Span { base: last.end, end: last.end + posts, mark, number: last.number + 1 };
        self.history[span.number as usize % HISTORY].set(span);
        self.current.set(span);
        self.waited.set(false);
        Ok(Op { core: self, span })
    }

    /// The fault that ended this communicator, if one did: in full as long as the caller of this library has not been told.
    #[inline]
    pub(crate) fn check_fault(&self) -> Result<()> {
        match &*self.fault.borrow() {
            None => Ok(()),
            Some(fault) if !self.reported.get() => Err(fault.clone()),
            Some(fault) => Err(Error::Ended { cause: fault.status() }),
        }
    }

    /// Ends the communicator for all members.
    pub(crate) fn fail(&self, fault: &Error) {
        if !fault.is_fatal() || self.fault.borrow().is_some() {
            return;
        }
        let word = self.codec.poison(fault.status());
        for index in 0..LINES {
            self.line(self.rank(), index).post(word);
        }
        // Whoever reads what the caller puts into its buffers from now on finds the poison afterwards.
        fence(Ordering::SeqCst);
        self.charter.segment.end_era();
        *self.fault.borrow_mut() = Some(fault.clone());
    }

    /// The caller of this library is told of the fault.
    pub(crate) fn fault_was_reported(&self) {
        self.reported.set(true);
    }

    /// Whether a word of `rank` has already shown `target`.
    fn has_seen(&self, rank: usize, target: u64) -> bool {
        self.seen[rank].get() >= target
    }

    /// Whether `rank` has posted `target` of `span` (in the span's line).
    #[inline]
    fn has_posted(&self, rank: usize, span: Span, target: u64) -> Result<bool> {
        let seen = &self.seen[rank];
        if seen.get() >= target {
            return Ok(true);
        }
        let line = self.line(rank, span.line());
        let word = line.word();
        if Codec::step_of(word) < target {
            self.awaited.set(rank);
            self.waited.set(true);
            return Ok(false);
        }
        let floor = seen.get().max(self.floor());
        match self.codec.decode(word, floor) {
            Seen::Step { step, signature } => {
                let same = if span.number == self.current.get().number {
                    step <= span.end && signature == span.signature() && line.mark() == span.mark
                } else {
                    step > span.end || signature == span.signature()
                };
                if !same {
                    return Err(Error::Mismatch { rank });
                }
                // A later operation that has the line by now is looked at when its turn comes.
                seen.set(step.min(span.end));
                self.tick(rank);
                Ok(true)
            }
            Seen::Poisoned(cause) => Err(self.told(rank, cause)),
            Seen::Garbage => Err(Error::Corrupt { rank }),
        }
    }

    /// What the poison of `rank` means here. Where it tells of a death, the one who died is named, and not the messenger: it is the
    /// one who is gone, or has left, without having ended the communicator itself.
    #[cold]
    fn told(&self, rank: usize, cause: Status) -> Error {
        let silent = |peer: usize| {
            let word = self.line(peer, 0).word();
            !matches!(self.codec.decode(word, 0), Seen::Poisoned(_)) && self.is_lost(peer)
        };
        let dead = (0..self.size()).find(|peer| *peer != self.rank() && silent(*peer));
        match dead.filter(|_| cause == Status::PeerLost) {
            Some(rank) => Error::PeerLost { rank },
            None => Error::Poisoned { rank, cause },
        }
    }

    /// Looks at all words of all peers for a reason to give up.
    #[cold]
    pub(crate) fn audit_words(&self) -> Result<()> {
        let floor = self.floor();
        for rank in (0..self.size()).filter(|rank| *rank != self.rank()) {
            for index in 0..LINES {
                let word = self.line(rank, index).word();
                if Codec::step_of(word) == 0 {
                    continue; // not yet used, or not yet joined
                }
                match self.codec.decode(word, floor) {
                    Seen::Step { .. } => {}
                    Seen::Poisoned(cause) => return Err(self.told(rank, cause)),
                    Seen::Garbage => return Err(Error::Corrupt { rank }),
                }
            }
        }
        Ok(())
    }

    /// Whether `rank` will do nothing more: its process is gone, or it has freed the communicator.
    pub(crate) fn is_lost(&self, rank: usize) -> bool {
        self.process(rank).is_gone() || self.has_left(rank)
    }

    /// Whether `rank` has freed the communicator. Who was never heard of may not have entered yet.
    fn has_left(&self, rank: usize) -> bool {
        let Charter { segment, slot, members, key, .. } = &self.charter;
        self.heard(rank) > 0 && !attendance::is_in(segment.attendance(*slot, members[rank]), *key)
    }

    /// Nothing of this communicator is looked at by this rank any more.
    pub(crate) fn leave(&self) {
        let Charter { segment, slot, rank, members, processes, key, .. } = &self.charter;
        attendance::leave(segment.attendance(*slot, members[*rank]));
        let left = Left { key: *key, members: members.clone(), processes: Arc::clone(processes) };
        segment.leave_slot(*slot, left);
    }

    /// Whether a peer ended the communicator: the last look before a result that was read straight
    /// from a peer's private memory counts as right.
    pub(crate) fn check_poison(&self) -> Result<()> {
        fence(Ordering::Acquire);
        for rank in (0..self.size()).filter(|rank| *rank != self.rank()) {
            let word = self.line(rank, self.current.get().line()).word();
            if let Seen::Poisoned(cause) = self.codec.decode(word, 0) {
                return Err(self.told(rank, cause));
            }
        }
        Ok(())
    }

    /// Copies `len` bytes at `address` in the memory of `rank` to `to`. What was read counts only if
    /// [`Core::check_poison`] holds afterwards: a rank that gave up owns its buffers again.
    ///
    /// # Safety
    /// `to` is writable for `len` bytes; any address is allowed.
    pub(crate) unsafe fn read_peer(&self, rank: usize, address: u64, to: *mut u8, len: usize) -> Result<()> {
        let process = self.process(rank);
        // SAFETY: passed on; the kernel checks the address in the other process.
        let read = unsafe { sys::read_process(process.pid, address, to, len) };
        // The call goes by the pid, which may be another process's when ours is gone: what came was not the peer's then.
        if process.is_gone() {
            return Err(Error::PeerLost { rank });
        }
        // A process that is about to end has no memory any more before it is gone.
        read.map_err(|error| match error {
            Error::System { errno: libc::ESRCH, .. } => Error::PeerLost { rank },
            Error::System { errno: libc::EFAULT, .. } => Error::Corrupt { rank },
            other => other,
        })
    }

    /// The half of a member's staging that operations of `parity` use.
    fn half(&self, rank: usize, parity: usize) -> *mut u8 {
        let Charter { segment, slot, members, .. } = &self.charter;
        segment.staging(*slot, members[rank]).wrapping_add(parity * self.half_bytes())
    }

    pub(crate) fn half_bytes(&self) -> usize {
        self.charter.segment.layout().half_bytes()
    }

    /// The place of a line on a member's board.
    fn place(&self, rank: usize, line: usize) -> *mut u8 {
        let Charter { segment, slot, members, .. } = &self.charter;
        let board = segment.staging(*slot, members[rank]).wrapping_add(2 * self.half_bytes());
        board.wrapping_add(line * self.place_bytes())
    }

    pub(crate) fn place_bytes(&self) -> usize {
        self.charter.segment.layout().place_bytes()
    }
}
