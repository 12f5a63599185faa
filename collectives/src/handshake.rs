//! How ranks find each other in memory that an earlier run may have used: the part of joining that is shared memory.
//!
//! ```text
//!   rank r:  wait until nobody is left of those with whom I was in
//!            ─▶ clear my record ─▶ reset my lines ─▶ publish facts, then my session
//!            ─▶ look at every peer, again and again:
//!                 a session that I have not seen, of a living process: remember it, acknowledge it
//!                 it acknowledged mine, and has begun no other session since: it is in
//!            ─▶ all are in: joined; key = all sessions mixed
//!            ─▶ the communicator is freed: withdraw my session
//! ```
//! A session is a random number of one attempt of one process to join, so that records left behind by an earlier run, or by an
//! attempt that was given up, are never taken for members of this one: they do not acknowledge. Each record has one writer. A
//! reader takes the facts and then looks whether the session is still the same, as in a sequence lock: facts of one attempt
//! never go with the session of another.
//!
//! Who lives, how long to wait and what the facts are is `join`'s affair.

use crate::sync::{AtomicU64, Ordering, fence};

/// Ranks of one segment at most: eight GPUs with seven leaves, and room.
pub const MAX_RANKS: usize = if cfg!(loom) { 3 } else { 64 };
/// How much a rank says of itself. The models need two facts to see one change without the other.
pub const FACTS: usize = if cfg!(loom) { 2 } else { 12 };

/// What a rank tells the others about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Names this attempt to join; never 0.
    pub session: u64,
    /// What `join` wants all to know.
    pub facts: [u64; FACTS],
}

/// Where a rank tells it. Only the rank writes its record.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Record {
    session: AtomicU64,
    facts: [AtomicU64; FACTS],
    /// The sessions of the others that this rank has seen.
    acknowledged: [AtomicU64; MAX_RANKS],
}

impl Default for Record {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self { session: zero(0), facts: std::array::from_fn(zero), acknowledged: std::array::from_fn(zero) }
    }
}

impl Record {
    /// Takes back what an earlier attempt or run said, before anything else that the rank writes. Whoever sees it taken back knows
    /// that the rank reads nothing of the others any more.
    pub fn clear(&self) {
        self.session.store(0, Ordering::Release);
        // Whoever sees anything that is written from now on sees that the old session is over.
        fence(Ordering::Release);
        self.acknowledged.iter().for_each(|seen| seen.store(0, Ordering::Relaxed));
    }

    /// Says who is here; all that was written before is visible to those who see it.
    pub fn publish(&self, own: &Presence) {
        self.facts.iter().zip(own.facts).for_each(|(cell, fact)| cell.store(fact, Ordering::Relaxed));
        self.session.store(own.session, Ordering::Release);
    }

    /// What the rank joined is over, and it reads nothing of the others any more.
    pub fn withdraw(&self) {
        self.session.store(0, Ordering::Release);
    }

    /// Who is said to be here, if somebody is and is not writing it right now.
    pub fn present(&self) -> Option<Presence> {
        let session = self.session.load(Ordering::Acquire);
        let facts = std::array::from_fn(|fact| self.facts[fact].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let same = self.session.load(Ordering::Relaxed) == session;
        (session != 0 && same).then_some(Presence { session, facts })
    }
}

/// Who is still in with `rank` by an earlier attempt, perhaps another process': the first of whom `lives` holds. As long as there
/// is one it may look at the lines of `rank`, which must not be reset then. To be in each must have acknowledged the other.
pub fn still_in(records: &[&Record], rank: usize, mut lives: impl FnMut(&Presence) -> bool) -> Option<usize> {
    (0..records.len()).filter(|peer| *peer != rank).find(|peer| {
        let theirs = records[*peer];
        let acknowledged = records[rank].acknowledged[*peer].load(Ordering::Relaxed);
        let mutual = theirs.acknowledged[rank].load(Ordering::Acquire) != 0;
        let session = theirs.session.load(Ordering::Acquire);
        // A record that changes between two looks is looked at again: only what was acquired above says that a rank has left.
        mutual
            && session != 0
            && session == acknowledged
            && theirs.present().is_none_or(|found| lives(&found))
    })
}

/// How far a peer is, at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It is new here, and was acknowledged.
    New,
    /// It has acknowledged this rank.
    In,
    /// Neither.
    NotYet,
}

/// One attempt to join: this rank's session and what it has seen of the others.
#[derive(Debug)]
pub struct Meeting<'a> {
    rank: usize,
    records: Vec<&'a Record>,
    session: u64,
    seen: Vec<Option<Presence>>,
}

impl<'a> Meeting<'a> {
    /// Publishes `own` in the record of `rank`, which was cleared before. `records` are those of all ranks.
    pub fn begin(records: Vec<&'a Record>, rank: usize, own: &Presence) -> Self {
        records[rank].publish(own);
        let mut seen = vec![None; records.len()];
        seen[rank] = Some(*own);
        Self { rank, records, session: own.session, seen }
    }

    /// Looks at a peer. `lives` says whether the process of a presence runs.
    pub fn look(&mut self, peer: usize, lives: impl FnOnce(&Presence) -> bool) -> Met {
        if peer == self.rank {
            return Met::In;
        }
        let theirs = self.records[peer];
        let known = self.seen[peer].map_or(0, |seen| seen.session);
        let now = theirs.session.load(Ordering::Relaxed);
        if now != known && now != 0 {
            let Some(found) = theirs.present().filter(lives) else { return Met::NotYet };
            self.seen[peer] = Some(found);
            self.records[self.rank].acknowledged[peer].store(found.session, Ordering::Release);
            return Met::New;
        }
        let acknowledged = theirs.acknowledged[self.rank].load(Ordering::Acquire) == self.session;
        // It was the attempt known here that acknowledged, and no later one. It may have left since, which clears no acknowledgement.
        let now = theirs.session.load(Ordering::Relaxed);
        if known != 0 && acknowledged && (now == known || now == 0) { Met::In } else { Met::NotYet }
    }

    /// What the peer said when it was met last.
    pub fn seen(&self, peer: usize) -> Option<&Presence> {
        self.seen[peer].as_ref()
    }

    /// A number on which all who are in agree.
    pub fn key(&self) -> u64 {
        let sessions = self.seen.iter().map(|seen| seen.map_or(0, |seen| seen.session));
        sessions.fold(0, |key: u64, s| key.rotate_left(7).wrapping_mul(0x5851_f42d_4c95_7f2d) ^ s)
    }

    /// Gives the attempt up: nobody is to acknowledge it any more, and it acknowledges nobody.
    pub fn give_up(self) {
        self.records[self.rank].clear();
    }
}
