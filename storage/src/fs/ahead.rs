//! Reading ahead of a sequential reader, where the kernel may not: its window is 128 KiB, and only root can widen it.
//!
//! ```text
//!   request in order, twice --> pieces of 1 MiB behind it are read, up to four
//!   request inside a piece  --> here: answered | under way: answered with it | older than a second, file changed: read anew
//!   request out of order    --> all pieces go
//! ```
//! Pieces are read like any other request, so they are hits, split or misses as those are, and fill the cache. It lies above
//! the read path and knows nothing of sides.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::OpenFile;
use super::reads::{ReadPath, Reply};
use crate::cache::Version;

/// Bytes of a piece, and how many a stream has at most.
const PIECE: u64 = 1 << 20;
const DEPTH: u32 = 4;
/// Requests in order that make up for one more piece.
const REQUESTS_PER_PIECE: u32 = 2;
/// As long as bytes may be split after they were validated.
const FRESH: Duration = Duration::from_secs(1);
/// Bytes that all streams of a mount may have.
const MOST: u64 = 64 << 20;

/// Of one mount.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    on: AtomicBool,
    bytes: Arc<AtomicU64>,
}

/// Of one open file.
#[derive(Debug, Default)]
pub(super) struct Stream(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Where the next request starts, if it is in order.
    next: u64,
    in_order: u32,
    pieces: VecDeque<Piece>,
}

/// What bytes belong to: they are good only while it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    version: Version,
    changes: u64,
}

#[derive(Clone, Debug)]
struct Piece {
    start: u64,
    len: u64,
    basis: Basis,
    asked: Instant,
    content: Arc<Mutex<Content>>,
    _room: Arc<Room>,
}

/// A piece's share of [`MOST`].
#[derive(Debug)]
struct Room(Arc<AtomicU64>, u64);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

enum Content {
    Asked(Vec<Waiter>),
    Here(Arc<[u8]>),
    Failed,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asked(_) => "asked",
            Self::Here(_) => "here",
            Self::Failed => "failed",
        })
    }
}

/// A request for bytes of a piece that is under way.
struct Waiter {
    offset: u64,
    len: u32,
    reply: Reply,
}

/// What a request leads to.
struct Turn {
    /// It must be read by itself.
    direct: Option<Reply>,
    /// Pieces to read.
    ask: Vec<Piece>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    pub(super) fn turn_on(&self) {
        self.on.store(true, Ordering::Release);
    }

    /// Reads; the reply may come from another thread.
    pub(super) fn read(
        &self,
        path: &Arc<ReadPath>,
        open: &Arc<OpenFile>,
        offset: u64,
        len: u32,
        reply: Reply,
    ) {
        let state = open.node.state();
        let changes = state.changes();
        let known = state.current().filter(|_| self.on.load(Ordering::Acquire) && !open.past_pages);
        let Some(current) = known else { return path.read(open, offset, len, reply) };
        let basis = Basis { version: current.version, changes };
        let now = Instant::now();
        let turn = lock(&open.stream.0).turn((offset, len), (basis, now), &self.bytes, reply);
        if let Some(reply) = turn.direct {
            path.read(open, offset, len, reply);
        }
        for piece in turn.ask {
            let (ours, path_again, open_again) = (piece.clone(), Arc::clone(path), Arc::clone(open));
            let done = move |result: io::Result<&[u8]>| {
                for waiter in ours.arrived(result) {
                    path_again.read(&open_again, waiter.offset, waiter.len, waiter.reply);
                }
            };
            path.read(open, piece.start, piece.len as u32, Box::new(done));
        }
    }
}

impl State {
    fn turn(
        &mut self,
        (offset, len): (u64, u32),
        (basis, now): (Basis, Instant),
        bytes: &Arc<AtomicU64>,
        reply: Reply,
    ) -> Turn {
        let size = basis.version.size;
        let end = (offset + u64::from(len)).min(size);
        self.pieces.retain(|p| p.basis == basis && now.saturating_duration_since(p.asked) < FRESH);
        if offset == self.next {
            self.in_order = self.in_order.saturating_add(1);
            self.pieces.retain(|p| p.start + p.len > offset);
        } else {
            self.in_order = 0;
            self.pieces.clear();
        }
        self.next = end;
        let piece = self.pieces.iter().find(|p| p.start <= offset && end <= p.start + p.len);
        let direct = match piece.filter(|_| offset < end) {
            Some(piece) => piece.serve(Waiter { offset, len: (end - offset) as u32, reply }),
            None => Some(reply),
        };
        Turn { direct, ask: self.ask(end, (basis, now), bytes) }
    }

    /// New pieces behind what is read or asked for already.
    fn ask(&mut self, end: u64, (basis, now): (Basis, Instant), bytes: &Arc<AtomicU64>) -> Vec<Piece> {
        let wanted = (self.in_order / REQUESTS_PER_PIECE).min(DEPTH) as usize;
        let mut new = Vec::new();
        while self.pieces.len() < wanted {
            let start = self.pieces.back().map_or(end, |p| p.start + p.len).max(end);
            let len = (PIECE - start % PIECE).min(basis.version.size.saturating_sub(start));
            if len == 0 || bytes.load(Ordering::Acquire) + len > MOST {
                break;
            }
            bytes.fetch_add(len, Ordering::AcqRel);
            let piece = Piece {
                start,
                len,
                basis,
                asked: now,
                content: Arc::new(Mutex::new(Content::Asked(Vec::new()))),
                _room: Arc::new(Room(Arc::clone(bytes), len)),
            };
            self.pieces.push_back(piece.clone());
            new.push(piece);
        }
        new
    }
}

impl Piece {
    /// Answers, or lets the request wait; gives the reply back when the piece cannot serve it.
    fn serve(&self, waiter: Waiter) -> Option<Reply> {
        let here = match &mut *lock(&self.content) {
            Content::Asked(waiters) => {
                waiters.push(waiter);
                return None;
            }
            Content::Failed => return Some(waiter.reply),
            Content::Here(bytes) => Arc::clone(bytes),
        };
        self.answer(waiter, &here).map(|waiter| waiter.reply)
    }

    /// Answers those who wait; returns those who must be read by themselves.
    fn arrived(&self, result: io::Result<&[u8]>) -> Vec<Waiter> {
        let bytes: Option<Arc<[u8]>> = result.ok().map(Arc::from);
        let content = bytes.as_ref().map_or(Content::Failed, |b| Content::Here(Arc::clone(b)));
        let Content::Asked(waiters) = std::mem::replace(&mut *lock(&self.content), content) else {
            return Vec::new();
        };
        let Some(bytes) = bytes else { return waiters };
        waiters.into_iter().filter_map(|waiter| self.answer(waiter, &bytes)).collect()
    }

    /// Gives the waiter back where the bytes end too early.
    fn answer(&self, waiter: Waiter, bytes: &[u8]) -> Option<Waiter> {
        let from = (waiter.offset - self.start) as usize;
        let Some(bytes) = bytes.get(from..from + waiter.len as usize) else { return Some(waiter) };
        (waiter.reply)(Ok(bytes));
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use proptest::prelude::*;

    use super::*;

    /// A version, in a test that takes no time.
    fn basis(size: u64, changes: u64) -> (Basis, Instant) {
        static NOW: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        (Basis { version: Version { size, ..Version::default() }, changes }, *NOW)
    }

    /// Bytes of the file after so many changes.
    fn bytes(start: u64, len: u64, changes: u64) -> Vec<u8> {
        static ALL: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            (0..9 * PIECE as usize).map(|at| (at / 511) as u8 ^ (at as u8).wrapping_mul(31)).collect()
        });
        let from = (start + changes * 997) as usize;
        ALL[from..from + len as usize].to_vec()
    }

    fn reply() -> (Reply, Receiver<io::Result<Vec<u8>>>) {
        let (tx, rx) = channel();
        (Box::new(move |result| tx.send(result.map(<[u8]>::to_vec)).unwrap()), rx)
    }

    #[test]
    fn a_reader_in_order_finds_its_bytes_already_read() {
        let (size, room) = (8 * PIECE, Arc::new(AtomicU64::new(0)));
        let (mut state, mut direct, mut at) = (State::default(), 0, 0);
        while at < size {
            let (reply, heard) = reply();
            let turn = state.turn((at, 128 << 10), basis(size, 0), &room, reply);
            turn.ask.iter().for_each(|p| assert!(p.arrived(Ok(&bytes(p.start, p.len, 0))).is_empty()));
            match turn.direct {
                Some(_) => direct += 1,
                None => assert_eq!(heard.try_recv().unwrap().unwrap(), bytes(at, 128 << 10, 0)),
            }
            at += 128 << 10;
        }
        assert_eq!(direct, 2, "requests of a reader in order that were read by themselves");
        drop(state);
        assert_eq!(room.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_piece_that_fails_or_ends_early_lets_its_requests_be_read_by_themselves() {
        let (size, room) = (8 * PIECE, Arc::new(AtomicU64::new(0)));
        let mut state = State::default();
        let (first, _) = reply();
        state.turn((0, 4096), basis(size, 0), &room, first);
        let (second, _) = reply();
        let asked = state.turn((4096, 4096), basis(size, 0), &room, second).ask;
        let (third, heard) = reply();
        assert!(state.turn((8192, 4096), basis(size, 0), &room, third).direct.is_none());
        assert_eq!(asked[0].arrived(Err(io::ErrorKind::TimedOut.into())).len(), 1);
        assert!(heard.try_recv().is_err());
        let (fourth, _) = reply();
        assert!(state.turn((12288, 4096), basis(size, 0), &room, fourth).direct.is_some());
    }

    #[test]
    fn bytes_that_were_asked_for_a_second_ago_are_read_anew() {
        let (room, (basis, now)) = (Arc::new(AtomicU64::new(0)), basis(8 * PIECE, 0));
        let mut state = State::default();
        let mut turn = |at, now| state.turn((at, 4096), (basis, now), &room, reply().0);
        turn(0, now);
        let asked = turn(4096, now).ask;
        asked[0].arrived(Ok(&vec![0; PIECE as usize]));
        assert!(turn(8192, now + FRESH / 2).direct.is_none());
        assert!(turn(12288, now + FRESH).direct.is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        InOrder(u32),
        Elsewhere(u64, u32),
        Arrives(usize),
        Change,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_comes_in_whatever_order_every_request_gets_the_bytes_of_its_time(
            steps in prop::collection::vec(prop_oneof![
                8 => (1..200_000_u32).prop_map(Step::InOrder),
                1 => (0..6 * PIECE, 1..200_000_u32).prop_map(|(at, len)| Step::Elsewhere(at, len)),
                4 => (0..8_usize).prop_map(Step::Arrives),
                1 => Just(Step::Change),
            ], 1..80)
        ) {
            let (size, room) = (5 * PIECE + 777, Arc::new(AtomicU64::new(0)));
            let (mut state, mut changes) = (State::default(), 0);
            let mut asked: Vec<Piece> = Vec::new();
            let mut waiting: Vec<(u64, u64, u64, Receiver<_>)> = Vec::new();
            for step in steps {
                let (at, len) = match step {
                    Step::InOrder(len) => (state.next, len),
                    Step::Elsewhere(at, len) => (at.min(size), len),
                    Step::Arrives(n) => {
                        if !asked.is_empty() {
                            let piece = asked.swap_remove(n % asked.len());
                            // Read when it was asked for, or as late as now.
                            let content = bytes(piece.start, piece.len, piece.basis.changes);
                            prop_assert!(piece.arrived(Ok(&content)).is_empty());
                        }
                        continue;
                    }
                    Step::Change => { changes += 1; continue }
                };
                let (reply, heard) = reply();
                let turn = state.turn((at, len), basis(size, changes), &room, reply);
                asked.extend(turn.ask);
                if turn.direct.is_none() {
                    waiting.push((at, u64::from(len).min(size - at), changes, heard));
                }
                prop_assert!(room.load(Ordering::Acquire) <= MOST);
            }
            for piece in asked {
                prop_assert!(piece.arrived(Ok(&bytes(piece.start, piece.len, piece.basis.changes))).is_empty());
            }
            for (at, len, changes, heard) in waiting {
                prop_assert!(heard.try_recv().unwrap().unwrap() == bytes(at, len, changes));
            }
        }
    }
}
