//! Models of joining over all interleavings (up to a preemption bound), in memory that an earlier run has used:
//! `RUSTFLAGS="--cfg loom" cargo test -p migshare-collectives --release --test 'loom*'`.
//!
//! The code under test is `handshake` as it is. The lines of a rank are a loom cell, which reports a peer that looks before they
//! are ready, or an owner that writes after a peer was let in. Two ranks: with three, loom lets two of them spin for ever while
//! the third could go on.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use migshare_collectives::handshake::{Meeting, Met, Presence, Record, still_in};

/// Processes from this pid on live.
const FIRST_LIVING: u64 = 20;

struct Shared {
    records: Vec<Record>,
    lines: Vec<UnsafeCell<u64>>,
}

/// What a rank says of itself: all fields differ between ranks and attempts.
fn presence(rank: usize, attempt: u64, pid: u64) -> Presence {
    let session = 100 * attempt + rank as u64 + 1;
    Presence { session, facts: [pid + rank as u64, session] }
}

fn earlier(rank: usize) -> Presence {
    presence(rank, 1, 10)
}

fn own(rank: usize) -> Presence {
    presence(rank, 2, FIRST_LIVING)
}

/// A third run, after all have left the second.
fn again(rank: usize) -> Presence {
    presence(rank, 4, FIRST_LIVING)
}

/// An attempt that is given up before anybody was met. The process lives on.
fn given_up(rank: usize) -> Presence {
    presence(rank, 3, FIRST_LIVING)
}

/// Memory in which all ranks of an earlier run joined before they ended.
fn used(ranks: usize) -> Shared {
    let shared = Shared {
        records: (0..ranks).map(|_| Record::default()).collect(),
        lines: (0..ranks).map(|_| UnsafeCell::new(0)).collect(),
    };
    let mut meetings: Vec<_> = (0..ranks).map(|rank| begin(&shared, rank, &earlier(rank))).collect();
    for meeting in &mut meetings {
        (0..ranks).for_each(|peer| assert_ne!(meeting.look(peer, |_| true), Met::NotYet));
    }
    drop(meetings);
    shared
}

fn begin<'a>(shared: &'a Shared, rank: usize, presence: &Presence) -> Meeting<'a> {
    shared.records[rank].clear();
    // SAFETY: loom checks that no other access is concurrent.
    shared.lines[rank].with_mut(|lines| unsafe { *lines = presence.session });
    Meeting::begin(shared.records.iter().collect(), rank, presence)
}

/// Joins, looks at the others' lines, and returns the key.
fn join(shared: &Shared, rank: usize) -> u64 {
    join_as(shared, rank, own)
}

fn join_as(shared: &Shared, rank: usize, who: fn(usize) -> Presence) -> u64 {
    let ranks = shared.records.len();
    let records: Vec<_> = shared.records.iter().collect();
    while still_in(&records, rank, |found| found.facts[0] >= FIRST_LIVING).is_some() {
        loom::thread::yield_now();
    }
    let mut meeting = begin(shared, rank, &who(rank));
    let inside = |meeting: &mut Meeting<'_>, peer| {
        meeting.look(peer, |found| found.facts[0] >= FIRST_LIVING) == Met::In
    };
    while !(0..ranks).fold(true, |all, peer| inside(&mut meeting, peer) && all) {
        loom::thread::yield_now();
    }
    for peer in 0..ranks {
        assert_eq!(meeting.seen(peer), Some(&who(peer)), "rank {rank} joined another than rank {peer}");
        // SAFETY: as above.
        shared.lines[peer].with(|lines| unsafe { assert_eq!(*lines, who(peer).session) });
    }
    meeting.key()
}

fn model(ranks: usize, preemptions: usize, before_rank_0_joins: fn(&Shared)) {
    model_of(ranks, preemptions, before_rank_0_joins, join);
}

fn model_of(
    ranks: usize,
    preemptions: usize,
    before_rank_0_joins: fn(&Shared),
    join: fn(&Shared, usize) -> u64,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    // Those that begin twice have more executions than that: they are searched for so long.
    builder.max_duration = Some(std::time::Duration::from_secs(30));
    builder.check(move || {
        let shared = Arc::new(used(ranks));
        let others: Vec<_> = (1..ranks)
            .map(|rank| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || join(&shared, rank))
            })
            .collect();
        before_rank_0_joins(&shared);
        let key = join(&shared, 0);
        for other in others {
            assert_eq!(other.join().unwrap(), key);
        }
    });
}

#[test]
fn two_ranks_meet_each_other_and_nobody_of_an_earlier_run() {
    model(2, 2, |_| {});
}

#[test]
fn an_attempt_that_was_given_up_is_nobody() {
    model(2, 2, |shared| begin(shared, 0, &given_up(0)).give_up());
}

#[test]
fn an_attempt_whose_process_did_not_even_withdraw_is_nobody() {
    model(2, 2, |shared| drop(begin(shared, 0, &given_up(0))));
}

#[test]
fn who_joins_again_waits_for_those_who_are_still_in() {
    model_of(
        2,
        1,
        |_| {},
        |shared, rank| {
            join(shared, rank);
            shared.records[rank].withdraw();
            join_as(shared, rank, again)
        },
    );
}
