//! Messages that the receiver may read from the sender's memory: announced at once, moved in blocks by whoever is there.
//!
//! The receiver's kernel copies at the speed of one core, and with memory that is in nobody's cache that is slow. So the
//! sender, which has nothing else to do while it is polled, copies blocks ahead into the relay, small enough for its
//! cache; the receiver takes what is there, at twice the speed, and reads the rest itself (`crate::relay`). A sender
//! that is not polled, has no CPU or shares one with the receiver costs nothing. One that takes long messages itself at the same time
//! has something else to do: then each side only reads, as staging would be a second copy on a core that is busy.

use std::cell::Cell;

use super::{EXHAUSTED, End, Header, fits};
use crate::algorithm::{In, Out};
use crate::error::{Error, Result};
use crate::flow::Damaged;
use crate::kernels::{copy, copy_streaming, stage};
use crate::line::Line;
use crate::relay::Taker;

/// Blocks of a relay.
const SLOTS: usize = 4;
/// From this length on what is staged goes past the caches: there is no room for it beside the relay, and reading the target first
/// would be a third stream through memory. Nor is the source in a cache, where string moves are slow: a sender that stages slower
/// than the receiver reads is never ahead of it.
const STREAMED_MIN: usize = 4 << 20;

thread_local! {
    /// Long messages that this thread has taken, in all communicators: one thread serves those of both directions.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// How many long messages this thread has taken so far.
pub(super) fn taken() -> u64 {
    TAKEN.get()
}

/// One end of one relay.
pub(super) struct Relay<'a> {
    end: &'a End<'a>,
    staged: &'a Line,
    drained: &'a Line,
    bytes: *mut u8,
    /// Bytes of a block; 0 where there is no relay.
    block: usize,
}

impl<'a> Relay<'a> {
    pub(super) fn new(end: &'a End<'a>, outgoing: bool) -> Self {
        let charter = &end.core.charter;
        let (own, other) = (charter.members[charter.rank], charter.members[end.peer]);
        let (source, target) = if outgoing { (own, other) } else { (other, own) };
        let (staged, drained) = charter.segment.relay_lines(charter.slot, source, target);
        let bytes = charter.segment.relay(charter.slot, source, target);
        Self { end, staged, drained, bytes, block: charter.segment.layout().relay_bytes / SLOTS }
    }

    /// Blocks of a message, 0 where there is no relay.
    fn blocks(&self, len: usize) -> u64 {
        if self.block == 0 { 0 } else { len.div_ceil(self.block) as u64 }
    }

    fn slot(&self, block: u64) -> *mut u8 {
        self.bytes.wrapping_add(block as usize % SLOTS * self.block)
    }

    /// The part of a message that its block `index` is: where it begins, and its length.
    fn part(&self, index: u64, len: usize) -> (usize, usize) {
        let at = index as usize * self.block;
        (at, self.block.min(len - at))
    }

    /// Counts a message that is about to be sent; its first block.
    pub(super) fn announce(&self, len: usize) -> Result<u64> {
        let cell = &self.end.core.pair(self.end.peer).giver;
        let mut giver = cell.get();
        let first = giver.announce(self.blocks(len));
        cell.set(giver);
        first.ok_or(EXHAUSTED)
    }

    /// Copies blocks of the message that begins with block `first` ahead, as far as there are free slots now.
    pub(super) fn stage(&self, from: In, len: usize, first: u64) -> std::result::Result<(), Damaged> {
        let core = self.end.core;
        let pair = core.pair(self.end.peer);
        if core.charter.oversubscribed || pair.is_taking.get() {
            return Ok(()); // the receivers have better use for the CPU
        }
        let (cell, codec) = (&pair.giver, core.codec());
        let mut giver = cell.get();
        let drained = giver.drained();
        let place = if len >= STREAMED_MIN { stage } else { copy };
        // The caller has other things to do, too: one round at a time.
        for _ in 0..SLOTS {
            let next = giver.next(self.drained, self.staged, codec, SLOTS as u64);
            cell.set(giver);
            // Blocks of other messages are theirs to stage: only this one is known to be unfinished.
            let mine = |block: &u64| (first..first + self.blocks(len)).contains(block);
            let Some(block) = next?.filter(mine) else { break };
            let (at, bytes) = self.part(block - first, len);
            // SAFETY: the slot is free and as long as a block; the source holds the message.
            unsafe { place(self.slot(block), from.at(at), bytes) };
            giver.publish(self.staged, codec);
            cell.set(giver);
        }
        if giver.drained() != drained {
            core.tick(self.end.peer); // what this rank stages by itself is no sign of life of the peer
        }
        Ok(())
    }

    fn taker(&self) -> Taker {
        self.end.core.pair(self.end.peer).taker.get()
    }

    /// `None` if the next block is in its slot, otherwise how many to read.
    fn missing(&self) -> Result<Option<u64>> {
        let cell = &self.end.core.pair(self.end.peer).taker;
        let mut taker = cell.get();
        let next = taker.next(self.staged, self.end.core.codec(), SLOTS as u64);
        cell.set(taker);
        next.map_err(|Damaged| Error::Corrupt { rank: self.end.peer })
    }

    fn advance(&self, blocks: u64) {
        let cell = &self.end.core.pair(self.end.peer).taker;
        let mut taker = cell.get();
        taker.advance(self.drained, self.end.core.codec(), blocks);
        cell.set(taker);
    }
}

/// Takes the message of `header`, which is announced and not moved yet; its length.
pub(super) fn receive(end: &End<'_>, header: &Header, to: Out, room: usize) -> Result<u64> {
    let relay = Relay::new(end, false);
    let corrupt = Error::Corrupt { rank: end.peer };
    let Ok(len) = usize::try_from(header.len) else { return Err(corrupt) };
    let blocks = relay.blocks(len);
    if !relay.taker().expects(header.block, blocks) {
        return Err(corrupt);
    }
    if let Err(too_long) = fits(header.len, room) {
        relay.advance(blocks);
        return Err(too_long);
    }
    if blocks == 0 {
        // SAFETY: the target is writable for `room` bytes, and the message is no longer.
        unsafe { end.core.read_peer(end.peer, header.address, to.0, len) }?;
    }
    let mut done = 0;
    while done < blocks {
        done += take(&relay, header.address, done, len, to)?;
    }
    end.core.check_poison()?;
    TAKEN.set(taken() + 1);
    Ok(header.len)
}

/// Takes one block from its slot, or some from the sender's memory, from block `done` of a message that the target has
/// room for; how many.
fn take(relay: &Relay<'_>, address: u64, done: u64, len: usize, to: Out) -> Result<u64> {
    let (at, bytes) = relay.part(done, len);
    let blocks = match relay.missing()? {
        None => {
            let store = if len >= STREAMED_MIN { copy_streaming } else { copy };
            // SAFETY: the slot is staged, and is not written again before it is drained; the target has room.
            unsafe { store(to.at(at), relay.slot(relay.taker().position()), bytes) };
            1
        }
        Some(stride) => {
            let blocks = stride.min(relay.blocks(len) - done);
            let bytes = (blocks as usize * relay.block).min(len - at);
            let from = address.wrapping_add(at as u64);
            // SAFETY: the target has room for the whole message; any address is allowed.
            unsafe { relay.end.core.read_peer(relay.end.peer, from, to.at(at), bytes) }?;
            blocks
        }
    };
    relay.advance(blocks);
    Ok(blocks)
}
