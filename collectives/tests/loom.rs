//! Models of every synchronisation piece over all interleavings (up to a preemption bound):
//! `RUSTFLAGS="--cfg loom" cargo test -p migshare-collectives --release --test loom`.
//!
//! The code under test is that of the library: `Line`, `Codec`, the schedules. Payload is loom
//! cells, which report every access that is not ordered after the write it should see.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use migshare_collectives::error::Result;
use migshare_collectives::line::Line;
use migshare_collectives::schedule::{
    DEPTH, PAIR_DEPTH, Steps, TwoPhase, exchange, fan_in, fan_out, lend, meet, short_in, short_out,
    succession, swapped, two_phase, two_phase_posts,
};
use migshare_collectives::word::{Codec, Seen};

const RANKS: usize = 2;
/// Voluntary switches are not counted; with more the long schedules take hours.
const PREEMPTIONS: usize = 1;
/// One more than there are slots: the first is used again.
const CHUNKS: u64 = DEPTH + 1;
/// Lines of a rank; the library has more, the rule is the same.
const LINES: u64 = 3;
const CODEC: Codec = Codec::new(99);

/// What ranks share: lines, a place for each line and, per parity, slots of staging (inputs and results).
struct Shared {
    lines: [[Line; LINES as usize]; RANKS],
    board: [[UnsafeCell<u64>; LINES as usize]; RANKS],
    staging: [[[[UnsafeCell<u64>; 2]; DEPTH as usize]; 2]; RANKS],
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { lines: Default::default(), board: Default::default(), staging: Default::default() })
    }
}

/// One operation of one rank, with the rules of `core` for parity, base and gate.
struct ModelOp<'a> {
    shared: &'a Shared,
    rank: usize,
    number: u64,
    base: u64,
    /// Of every operation.
    posts: u64,
    /// The highest step seen of each rank, as `core` keeps it.
    seen: &'a [Cell<u64>; RANKS],
}

impl ModelOp<'_> {
    fn parity(&self) -> usize {
        (self.number % 2) as usize
    }

    fn line(&self) -> usize {
        (self.number % LINES) as usize
    }

    /// Of the operation; none is 0.
    fn mark(&self) -> u64 {
        self.number + 1
    }

    fn place(&self, rank: usize) -> &UnsafeCell<u64> {
        &self.shared.board[rank][self.line()]
    }

    fn wait(&self, rank: usize, line: usize, target: u64) -> impl Future<Output = Result<()>> {
        poll_fn(move |_| {
            if self.seen[rank].get() >= target {
                return Poll::Ready(Ok(()));
            }
            let line = &self.shared.lines[rank][line];
            let word = line.word();
            if Codec::step_of(word) < target {
                return Poll::Pending;
            }
            let Seen::Step { step, .. } = CODEC.decode(word, self.seen[rank].get()) else {
                panic!("{word:x}")
            };
            if target > self.base {
                assert_eq!(line.mark(), self.mark());
            }
            self.seen[rank].set(step);
            Poll::Ready(Ok(()))
        })
    }

    async fn wait_for_earlier(&self, back: u64) -> Result<()> {
        if let Some(number) = self.number.checked_sub(back) {
            self.wait(1 - self.rank, (number % LINES) as usize, number * self.posts + 1).await?;
        }
        Ok(())
    }

    fn cell(&self, rank: usize, c: u64, result: usize) -> &UnsafeCell<u64> {
        &self.shared.staging[rank][self.parity()][(c % DEPTH) as usize][result]
    }

    fn write(&self, c: u64, result: usize, value: u64) {
        // SAFETY: loom checks that no other access is concurrent.
        self.cell(self.rank, c, result).with_mut(|cell| unsafe { *cell = value });
    }

    fn read(&self, rank: usize, c: u64, result: usize) -> u64 {
        // SAFETY: as above.
        self.cell(rank, c, result).with(|cell| unsafe { *cell })
    }

    fn value(&self, rank: usize, c: u64) -> u64 {
        self.number * 1000 + c * 10 + rank as u64 + 1
    }
}

impl Steps for ModelOp<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        RANKS
    }

    fn post(&self, step: u64) {
        let line = &self.shared.lines[self.rank][self.line()];
        line.put_mark(self.mark());
        line.post(CODEC.encode(self.base + step, 0));
    }

    fn reach(&self, rank: usize, step: u64) -> impl Future<Output = Result<()>> {
        self.wait(rank, self.line(), self.base + step)
    }

    async fn gate(&self) -> Result<()> {
        self.wait_for_earlier(1).await
    }

    async fn window(&self) -> Result<()> {
        self.wait_for_earlier(LINES - 1).await
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        loom::thread::yield_now();
    }
}

/// Runs `operations` operations of `posts` steps on two ranks.
fn model(operations: u64, posts: u64, body: fn(&ModelOp<'_>)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 20_000;
    // All but the long two-phase schedule end by themselves, within a second; that one is searched for so long,
    // from the end of an execution, where slots are used again.
    builder.max_duration = Some(std::time::Duration::from_secs(30));
    builder.check(move || {
        let shared = Shared::new();
        let rank = move |shared: &Shared, rank| {
            let seen = Default::default();
            for number in 0..operations {
                let base = number * posts;
                body(&ModelOp { shared, rank, number, base, posts, seen: &seen });
            }
        };
        let other = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || rank(&other, 1));
        rank(&shared, 0);
        thread.join().unwrap();
    });
}

#[test]
fn payload_of_a_line_is_the_one_of_the_step_that_was_reached() {
    model(LINES + 2, 1, |op| {
        block_on(async {
            op.window().await.unwrap();
            op.shared.lines[op.rank][op.line()].put(&op.value(op.rank, 0).to_ne_bytes());
            op.post(1);
            op.reach_all(1).await.unwrap();
            let mut payload = [0; 8];
            op.shared.lines[1 - op.rank][op.line()].get(&mut payload);
            assert_eq!(u64::from_ne_bytes(payload), op.value(1 - op.rank, 0));
        });
    });
}

fn run_exchange<const CHUNKS: u64>(op: &ModelOp<'_>) {
    let fill = |c| op.write(c, 0, op.value(op.rank, c));
    let drain = |c| assert_eq!(op.read(1 - op.rank, c, 0), op.value(1 - op.rank, c));
    block_on(exchange(op, CHUNKS, fill, |_| (), drain)).unwrap();
}

#[test]
fn a_long_exchange_never_reads_what_is_being_written() {
    model(1, CHUNKS, run_exchange::<CHUNKS>);
}

#[test]
fn short_exchanges_in_a_row_never_read_what_is_being_written() {
    model(4, 1, run_exchange::<1>);
}

/// As the library places the chunks of two ranks; the turns of the operations before are those of all of one parity.
fn run_swap<const CHUNKS: u64>(op: &ModelOp<'_>) {
    run_swapping::<CHUNKS>(op, false);
}

fn run_swapping<const CHUNKS: u64>(op: &ModelOp<'_>, in_one_pass: bool) {
    let turns = op.number / 2 * CHUNKS.div_ceil(PAIR_DEPTH);
    let cell = |rank, c| {
        let half = &op.shared.staging[swapped(rank, turns, c)][op.parity()];
        &half[(c % PAIR_DEPTH) as usize][0]
    };
    // SAFETY: loom checks that no other access is concurrent.
    let fill = |c| cell(op.rank, c).with_mut(|cell| unsafe { *cell = op.value(op.rank, c) });
    let other = 1 - op.rank;
    // SAFETY: as above.
    let drain = |c| cell(other, c).with(|cell| unsafe { assert_eq!(*cell, op.value(other, c)) });
    let next = |c| {
        drain(c);
        if c + 1 < CHUNKS {
            fill(c + 1);
        }
    };
    block_on(async {
        if in_one_pass {
            op.gate().await.unwrap();
            succession(op, 0, CHUNKS, fill, next).await.unwrap();
        } else {
            exchange(op, CHUNKS, fill, |_| (), drain).await.unwrap();
        }
    });
}

#[test]
fn two_ranks_that_drain_and_fill_in_one_pass_never_read_what_is_being_written() {
    model(1, 2 * PAIR_DEPTH + 1, |op| run_swapping::<{ 2 * PAIR_DEPTH + 1 }>(op, true));
}

#[test]
fn two_ranks_that_swap_halves_in_a_long_exchange_never_read_what_is_being_written() {
    model(1, 2 * PAIR_DEPTH + 1, run_swap::<{ 2 * PAIR_DEPTH + 1 }>);
}

#[test]
fn two_ranks_that_swap_halves_in_short_exchanges_never_read_what_is_being_written() {
    model(5, 1, run_swap::<1>);
}

/// Halves that two ranks have swapped serve an operation in which each writes its own, and the other way round.
#[test]
fn swapped_halves_are_free_for_the_operations_that_follow() {
    model(5, 1, |op| if op.number % 4 < 2 { run_swap::<1>(op) } else { run_exchange::<1>(op) });
}

fn run_fan_out<const CHUNKS: u64>(op: &ModelOp<'_>) {
    run_fan_out_of::<CHUNKS>(op, op.number as usize % 2);
}

fn run_fan_out_of<const CHUNKS: u64>(op: &ModelOp<'_>, root: usize) {
    let fill = |c| op.write(c, 0, op.value(root, c));
    let drain = |c| assert_eq!(op.read(root, c, 0), op.value(root, c));
    block_on(fan_out(op, root, CHUNKS, fill, |_| (), drain)).unwrap();
}

#[test]
fn a_long_fan_out_never_reads_what_is_being_written() {
    model(1, CHUNKS + 1, run_fan_out::<CHUNKS>);
}

#[test]
fn fan_outs_with_changing_roots_never_read_what_is_being_written() {
    model(5, 2, run_fan_out::<1>);
}

fn run_fan_in<const CHUNKS: u64>(op: &ModelOp<'_>) {
    let root = op.number as usize % 2;
    let fill = |c| op.write(c, 0, op.value(op.rank, c));
    let drain = |c| assert_eq!(op.read(1 - root, c, 0), op.value(1 - root, c));
    block_on(fan_in(op, root, CHUNKS, fill, drain)).unwrap();
}

#[test]
fn a_long_fan_in_never_reads_what_is_being_written() {
    model(1, CHUNKS + 1, run_fan_in::<CHUNKS>);
}

#[test]
fn fan_ins_with_changing_roots_never_read_what_is_being_written() {
    model(5, 2, run_fan_in::<1>);
}

/// A root that lends what lies in a place of its own, which it writes before each operation, and one that writes chunks in turn.
fn run_lending_out<const CHUNKS: u64>(op: &ModelOp<'_>) {
    let root = 0;
    let own = &op.shared.board[root][0];
    if !op.number.is_multiple_of(2) {
        return run_fan_out_of::<CHUNKS>(op, root);
    }
    block_on(async {
        if op.rank == root {
            // SAFETY: loom checks that no other access is concurrent.
            own.with_mut(|cell| unsafe { *cell = op.value(root, 0) });
            op.gate().await.unwrap();
            lend(op, CHUNKS, || (), op.peers()).await.unwrap();
        } else {
            op.reach(root, 1).await.unwrap();
            // SAFETY: as above.
            own.with(|cell| unsafe { assert_eq!(*cell, op.value(root, 0)) });
            op.post(CHUNKS + 1);
        }
    });
}

#[test]
fn a_lent_source_is_never_read_while_its_owner_writes() {
    model(5, 2 + 1, run_lending_out::<2>);
}

/// The root reads what the other rank lends, and then goes through the steps of the chunks.
fn run_lending_in<const CHUNKS: u64>(op: &ModelOp<'_>) {
    let root = op.number as usize % 2;
    let source = &op.shared.board[1 - root][0];
    block_on(async {
        if op.rank == root {
            op.reach_all(1).await.unwrap();
            // SAFETY: as above.
            source.with(|cell| unsafe { assert_eq!(*cell, op.value(1 - root, 0)) });
            fan_in(op, root, CHUNKS, |_| (), |_| ()).await.unwrap();
        } else {
            // SAFETY: as above.
            source.with_mut(|cell| unsafe { *cell = op.value(op.rank, 0) });
            op.gate().await.unwrap();
            lend(op, CHUNKS, || (), std::iter::once(root)).await.unwrap();
        }
    });
}

#[test]
fn sources_that_are_lent_to_a_root_are_never_read_while_their_owner_writes() {
    model(4, 2 + 1, run_lending_in::<2>);
}

#[test]
fn short_outs_with_changing_roots_never_read_what_is_being_written() {
    model(LINES + 3, 1, |op| {
        let root = usize::from(op.number > LINES);
        // SAFETY: loom checks that no other access is concurrent.
        let fill = || op.place(root).with_mut(|cell| unsafe { *cell = op.value(root, 0) });
        // SAFETY: as above.
        let drain = || op.place(root).with(|cell| unsafe { assert_eq!(*cell, op.value(root, 0)) });
        block_on(short_out(op, root, fill, drain)).unwrap();
    });
}

#[test]
fn a_meeting_leaves_the_marks_that_others_still_look_at() {
    model(LINES + 3, 1, |op| {
        if op.number > LINES {
            return block_on(meet(op)).unwrap();
        }
        // SAFETY: loom checks that no other access is concurrent.
        let fill = || op.place(0).with_mut(|cell| unsafe { *cell = op.value(0, 0) });
        // SAFETY: as above.
        let drain = || op.place(0).with(|cell| unsafe { assert_eq!(*cell, op.value(0, 0)) });
        block_on(short_out(op, 0, fill, drain)).unwrap();
    });
}

#[test]
fn short_ins_with_changing_roots_never_read_what_is_being_written() {
    model(LINES + 3, 1, |op| {
        let root = usize::from(op.number > LINES);
        // SAFETY: loom checks that no other access is concurrent.
        let fill = || op.place(op.rank).with_mut(|cell| unsafe { *cell = op.value(op.rank, 0) });
        let drain = || {
            // SAFETY: as above.
            op.place(1 - root).with(|cell| unsafe { assert_eq!(*cell, op.value(1 - root, 0)) });
        };
        block_on(short_in(op, root, fill, drain)).unwrap();
    });
}

struct Sums<'a>(&'a ModelOp<'a>);

impl TwoPhase for Sums<'_> {
    fn fill(&mut self, c: u64) {
        self.0.write(c, 0, self.0.value(self.0.rank, c));
    }

    fn reduce(&mut self, c: u64) {
        let other = 1 - self.0.rank;
        assert_eq!(self.0.read(other, c, 0), self.0.value(other, c));
        self.0.write(c, 1, self.0.value(self.0.rank, c) + 500);
    }

    fn drain(&mut self, c: u64) {
        let other = 1 - self.0.rank;
        assert_eq!(self.0.read(other, c, 1), self.0.value(other, c) + 500);
    }
}

fn run_two_phase<const CHUNKS: u64>(op: &ModelOp<'_>) {
    block_on(async {
        op.gate().await.unwrap();
        two_phase(op, 0, CHUNKS, Sums(op)).await.unwrap();
    });
}

#[test]
fn a_long_two_phase_never_reads_what_is_being_written() {
    model(1, two_phase_posts(0, CHUNKS), run_two_phase::<CHUNKS>);
}

#[test]
fn short_two_phases_in_a_row_never_read_what_is_being_written() {
    model(3, two_phase_posts(0, 1), run_two_phase::<1>);
}

#[test]
fn a_poisoned_line_is_seen_as_such_by_a_waiting_reader() {
    use migshare_collectives::error::Status;
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let line = Arc::new(Line::default());
        line.post(CODEC.encode(0, 0));
        let owner = Arc::clone(&line);
        let thread = loom::thread::spawn(move || {
            owner.post(CODEC.encode(1, 0));
            owner.post(CODEC.poison(Status::Timeout));
        });
        loop {
            match CODEC.decode(line.word(), 0) {
                Seen::Poisoned(cause) => break assert_eq!(cause, Status::Timeout),
                Seen::Step { step: 0 | 1, .. } => {}
                other => panic!("{other:?}"),
            }
            loom::thread::yield_now();
        }
        thread.join().unwrap();
    });
}
