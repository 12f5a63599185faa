//! One operation in progress on one rank: its posts, its waits, its half of the staging.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Core, Span};
use crate::error::{Error, Result};
use crate::line::{Line, prefetch, prefetch_to_write};
use crate::schedule::Steps;
use crate::segment::layout::LINES;

/// What a rank tells about its buffers: the address of its source and of its target in its own memory, and the
/// offsets of both in the segment. A reader uses only what its operation needs.
pub(crate) type Published = [u64; 4];

/// Instead of an offset.
pub(crate) const NOT_IN_SEGMENT: u64 = u64::MAX;

/// Bytes on the board that are worth asking for early; the processor fetches ahead in longer ones by itself.
const LOOK_AHEAD_MAX: usize = 256;

/// Steps are counted from 1 within the operation.
pub(crate) struct Op<'a> {
    pub(super) core: &'a Core,
    pub(super) span: Span,
}

impl<'a> Op<'a> {
    pub(crate) fn core(&self) -> &'a Core {
        self.core
    }

    /// Puts control values next to the coming post, with a hash that binds them to it.
    pub(crate) fn publish(&self, values: Published) {
        let [a, b, c, d] = values;
        let raw = [a, b, c, d, self.seal(values)].map(u64::to_ne_bytes);
        self.own_line().put(raw.as_flattened());
    }

    /// The control values that `rank` published with the post that was just reached.
    pub(crate) fn published(&self, rank: usize) -> Result<Published> {
        let mut raw = [[0_u8; 8]; 5];
        self.line(rank).get(raw.as_flattened_mut());
        let [a, b, c, d, seal] = raw.map(u64::from_ne_bytes);
        let values = [a, b, c, d];
        if seal != self.seal(values) {
            return Err(Error::Corrupt { rank });
        }
        Ok(values)
    }

    fn seal(&self, values: Published) -> u64 {
        let mix = |sum: u64, value: u64| (sum ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        values.into_iter().fold(mix(self.core.charter.key, self.span.base), mix)
    }

    #[inline]
    fn own_line(&self) -> &'a Line {
        self.line(self.rank())
    }

    /// The line of `rank` for this operation.
    #[inline]
    pub(crate) fn line(&self, rank: usize) -> &'a Line {
        self.core.line(rank, self.span.line())
    }

    /// The staging of `rank` for this operation; [`Core::half_bytes`] long.
    #[inline]
    pub(crate) fn staging(&self, rank: usize) -> *mut u8 {
        self.core.half(rank, self.span.parity())
    }

    /// How often two ranks have swapped the halves of this operation before, where they do so `more` times now.
    pub(crate) fn turns(&self, more: u64) -> u64 {
        let turns = &self.core.turns[self.span.parity()];
        turns.replace(turns.get() + more)
    }

    /// The place of `rank` on its board for this operation; [`Core::place_bytes`] long.
    #[inline]
    pub(crate) fn place(&self, rank: usize) -> *mut u8 {
        self.core.place(rank, self.span.line())
    }
}

/// Operations of few bytes ahead of the current one whose lines are asked for.
const AHEAD: usize = 3;

impl Op<'_> {
    /// Asks for what `rank` writes in a later operation, if it is like this one, with `bytes` on the board: a rank that
    /// only writes is ahead of its readers, who would otherwise wait for each of its lines in turn. Where it is not ahead,
    /// as this rank had to wait for it, the lines are left to the writer.
    #[inline]
    pub(crate) fn look_ahead(&self, rank: usize, bytes: usize) {
        if self.core.waited.get() {
            return;
        }
        let line = (self.span.line() + AHEAD) % LINES;
        self.core.line(rank, line).prefetch();
        let place = self.core.place(rank, line);
        for at in (0..bytes.min(LOOK_AHEAD_MAX)).step_by(64) {
            prefetch(place.wrapping_add(at));
        }
    }

    /// Asks for what this rank itself writes in a later operation, likewise, if it is known that nobody looks at it any more.
    #[inline]
    pub(crate) fn claim_ahead(&self, bytes: usize) {
        let Some(span) = self.core.earlier(LINES - 1 - AHEAD) else { return };
        if !self.peers().all(|rank| self.core.has_seen(rank, span.base + 1)) {
            return;
        }
        let line = (self.span.line() + AHEAD) % LINES;
        self.core.line(self.rank(), line).prefetch_to_write();
        let place = self.core.place(self.rank(), line);
        for at in (0..bytes.min(LOOK_AHEAD_MAX)).step_by(64) {
            prefetch_to_write(place.wrapping_add(at));
        }
    }
}

impl<'a> Steps for Op<'a> {
    fn rank(&self) -> usize {
        self.core.rank()
    }

    fn size(&self) -> usize {
        self.core.size()
    }

    #[inline]
    fn post(&self, step: u64) {
        debug_assert!(step <= self.span.end - self.span.base);
        let step = self.span.base + step;
        debug_assert!(step > self.core.posted.replace(step));
        let line = self.own_line();
        line.put_mark(self.span.mark);
        line.post(self.core.codec.encode(step, self.span.signature()));
    }

    #[inline]
    fn reach(&self, rank: usize, step: u64) -> impl Future<Output = Result<()>> {
        Reach { core: self.core, rank, span: self.span, target: self.span.base + step }
    }

    #[inline]
    async fn gate(&self) -> Result<()> {
        let Some(span) = self.core.earlier(1) else { return Ok(()) };
        for rank in self.peers() {
            Reach { core: self.core, rank, span, target: span.base + 1 }.await?;
        }
        Ok(())
    }

    #[inline]
    async fn window(&self) -> Result<()> {
        let Some(span) = self.core.earlier(LINES - 1) else { return Ok(()) };
        for rank in self.peers() {
            // A look at a newer line in time: if the peer is there, the next windows are open, too.
            let soon = self
                .core
                .earlier(LINES - 1 - AHEAD)
                .is_some_and(|span| !self.core.has_seen(rank, span.base + 1));
            let newer = self.core.earlier(LINES / 2).filter(|_| soon);
            if let Some(newer) = newer {
                self.core.has_posted(rank, newer, newer.base + 1)?;
            }
            Reach { core: self.core, rank, span, target: span.base + 1 }.await?;
        }
        Ok(())
    }
}

/// Ready when a rank has posted a step, or when it never will.
pub(crate) struct Reach<'a> {
    core: &'a Core,
    rank: usize,
    span: Span,
    target: u64,
}

impl Future for Reach<'_> {
    type Output = Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        match self.core.has_posted(self.rank, self.span, self.target) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(fault) => Poll::Ready(Err(fault)),
        }
    }
}
