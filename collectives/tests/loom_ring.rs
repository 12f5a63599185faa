//! Models of rings, of sources that are read by one copy and of relays over all interleavings (up to a preemption bound):
//! `RUSTFLAGS="--cfg loom" cargo test -p migshare-collectives --release --test loom_ring`.
//!
//! The code under test is that of the library: `Line`, `Codec`, `Flow`, `Giver`, `Taker`. Payload is loom cells, which
//! report every access that is not ordered after the write it should see.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use migshare_collectives::flow::Flow;
use migshare_collectives::line::Line;
use migshare_collectives::relay::{Giver, Taker};
use migshare_collectives::word::Codec;

const CODEC: Codec = Codec::new(99);

#[test]
fn a_ring_never_gives_out_a_cell_twice() {
    const CAPACITY: u64 = 2;
    const CELLS: u64 = 5;
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let shared: Arc<([Line; 2], [UnsafeCell<u64>; CAPACITY as usize])> = Arc::default();
        let writer = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || {
            let ([given, taken], cells) = &*writer;
            let mut flow = Flow::default();
            while flow.own() < CELLS {
                if flow.free(taken, CODEC, CAPACITY).unwrap() == 0 {
                    loom::thread::yield_now();
                    continue;
                }
                let cell = &cells[(flow.own() % CAPACITY) as usize];
                // SAFETY: loom checks that no other access is concurrent.
                cell.with_mut(|cell| unsafe { *cell = flow.own() + 7 });
                flow.advance(given, CODEC, 1);
            }
        });
        let ([given, taken], cells) = &*shared;
        let mut flow = Flow::default();
        while flow.own() < CELLS {
            if flow.available(given, CODEC, CAPACITY).unwrap() == 0 {
                loom::thread::yield_now();
                continue;
            }
            let cell = &cells[(flow.own() % CAPACITY) as usize];
            // SAFETY: as above.
            cell.with(|cell| unsafe { assert_eq!(*cell, flow.own() + 7) });
            flow.advance(taken, CODEC, 1);
        }
        thread.join().unwrap();
    });
}

/// A send by one copy: the source is its owner's again as soon as the reader's count says so.
#[test]
fn a_source_is_not_read_after_its_ring_cell_was_taken() {
    const CAPACITY: u64 = 2;
    const MESSAGES: u64 = 4;
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let shared: Arc<([Line; 2], UnsafeCell<u64>)> = Arc::default();
        let writer = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || {
            let ([given, taken], source) = &*writer;
            let mut flow = Flow::default();
            for message in 0..MESSAGES {
                // SAFETY: loom checks that no other access is concurrent.
                source.with_mut(|source| unsafe { *source = message });
                while flow.free(taken, CODEC, CAPACITY).unwrap() == 0 {
                    loom::thread::yield_now();
                }
                flow.advance(given, CODEC, 1);
                let position = flow.own();
                while !flow.has_taken(taken, CODEC, position).unwrap() {
                    loom::thread::yield_now();
                }
            }
        });
        let ([given, taken], source) = &*shared;
        let mut flow = Flow::default();
        for message in 0..MESSAGES {
            while flow.available(given, CODEC, CAPACITY).unwrap() == 0 {
                loom::thread::yield_now();
            }
            // SAFETY: as above.
            source.with(|source| unsafe { assert_eq!(*source, message) });
            flow.advance(taken, CODEC, 1);
        }
        thread.join().unwrap();
    });
}

/// A long message, whose blocks the sender stages while the receiver takes them from the relay or from the source: the relay
/// is only read where it is staged, and the source is its owner's again when the message was taken.
fn relay<const SLOTS: usize, const BLOCKS: usize>(preemptions: usize) {
    const MESSAGES: u64 = 2;
    let (slot_count, blocks) = (SLOTS as u64, BLOCKS as u64);
    let value = |message: u64, block: u64| message * 100 + block + 1;
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let cells = |_| UnsafeCell::new(0);
        let shared: Arc<([Line; 4], [UnsafeCell<u64>; SLOTS], [UnsafeCell<u64>; BLOCKS])> =
            Arc::new((Default::default(), std::array::from_fn(cells), std::array::from_fn(cells)));
        let sender = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || {
            let ([given, taken, staged, drained], slots, source) = &*sender;
            let (mut flow, mut giver) = (Flow::default(), Giver::default());
            for message in 0..MESSAGES {
                for (block, cell) in source.iter().enumerate() {
                    // SAFETY: loom checks that no other access is concurrent.
                    cell.with_mut(|cell| unsafe { *cell = value(message, block as u64) });
                }
                let first = giver.announce(blocks).unwrap();
                flow.advance(given, CODEC, 1);
                while !flow.has_taken(taken, CODEC, message + 1).unwrap() {
                    let Some(block) = giver.next(drained, staged, CODEC, slot_count).unwrap() else {
                        loom::thread::yield_now();
                        continue;
                    };
                    // SAFETY: as above.
                    let copied = source[(block - first) as usize].with(|cell| unsafe { *cell });
                    // SAFETY: as above.
                    slots[(block % slot_count) as usize].with_mut(|slot| unsafe { *slot = copied });
                    giver.publish(staged, CODEC);
                }
            }
        });
        let ([given, taken, staged, drained], slots, source) = &*shared;
        let (mut flow, mut taker) = (Flow::default(), Taker::default());
        for message in 0..MESSAGES {
            while flow.available(given, CODEC, MESSAGES).unwrap() == 0 {
                loom::thread::yield_now();
            }
            let mut done = 0;
            while done < blocks {
                let (cell, count) = match taker.next(staged, CODEC, slot_count).unwrap() {
                    None => (&slots[(taker.position() % slot_count) as usize], 1),
                    Some(stride) => (&source[done as usize], stride.min(blocks - done)),
                };
                // SAFETY: as above; of several blocks the first stands for all.
                cell.with(|cell| unsafe { assert_eq!(*cell, value(message, done)) });
                taker.advance(drained, CODEC, count);
                done += count;
            }
            flow.advance(taken, CODEC, 1);
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_relay_of_one_slot_gives_every_block_once_and_the_source_back() {
    relay::<1, 2>(3);
}

#[test]
fn a_relay_of_two_slots_gives_every_block_once_and_the_source_back() {
    relay::<2, 3>(2);
}
