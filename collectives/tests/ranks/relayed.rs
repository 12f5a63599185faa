//! Two ranks that stage long messages for each other; one is killed, or the words of their rings and relays are overwritten.

use std::time::{Duration, Instant};

use migshare_collectives::error::Status;
use migshare_collectives::{Comm, Error};

use crate::death::{Control, Dice, FAULT, WRONG};
use crate::launch::{Launch, Running};
use crate::rounds::{self, LONG, RANKS, SHORT, assert_corrupt, assert_orderly};

/// Of u32: one block, some that the relay has room for, and more.
const COUNTS: [usize; 4] = [16_384, 16_385 * 3, 1 << 18, (1 << 20) + 3];

fn word(rank: usize, round: usize, index: usize) -> u32 {
    (rank * 7 + round * 31 + index) as u32
}

/// Both send and receive at once, or one sends twice to the other: who takes messages itself does not stage.
fn round(comm: &mut Comm, number: usize, out: &mut [u32], into: &mut [u32]) -> Result<(), Error> {
    let (rank, peer, bytes) = (comm.rank(), 1 - comm.rank(), size_of_val(out));
    out.iter_mut().enumerate().for_each(|(index, to)| *to = word(rank, number, index));
    let sender = (number / 2 % 3).checked_sub(1);
    let mut requests = Vec::new();
    if sender != Some(peer) {
        // SAFETY: the buffer outlives the wait; after a failed wait nothing touches it any more.
        requests.push(unsafe { comm.start_send(peer, 0, out.as_ptr().cast(), bytes) }?);
    }
    if sender != Some(rank) {
        // SAFETY: as above.
        requests.push(unsafe { comm.start_receive(peer, 0, into.as_mut_ptr().cast(), bytes) }?);
    }
    for request in requests {
        comm.wait(request)?;
    }
    if sender == Some(rank) {
        return Ok(());
    }
    if into.iter().enumerate().any(|(index, found)| *found != word(peer, number, index)) {
        std::process::exit(WRONG);
    }
    Ok(())
}

fn live(limit: Duration, patience: Duration) -> ! {
    rounds::live(&COUNTS, limit, patience, round)
}

fn start() -> Running {
    let running = Launch { timeout: LONG, ..Launch::new(RANKS) }.start();
    assert!(running.segment.layout().relay_bytes > 0);
    running
}

fn is_rank() -> bool {
    std::env::var_os("MIGSHARE_RANK").is_some()
}

/// The words at the head and the tail of ring and relay from `source` to the other, as indices of the control area.
fn words_from(running: &Running, source: usize) -> [u64; 4] {
    let layout = running.segment.layout();
    let (ring, relay) = (layout.ring_lines(0, source, 1 - source), layout.relay_lines(0, source, 1 - source));
    [ring.0, relay.0, ring.1, relay.1].map(|offset| offset as u64 / 8)
}

#[test]
fn a_rank_that_is_killed_among_long_messages_is_lost() {
    if is_rank() {
        live(LONG, LONG);
    }
    let mut dice = Dice::new();
    for _ in 0..8 {
        let mut running = start();
        running.until_ready();
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        let victim = dice.below(RANKS as u64) as usize;
        running.signal(victim, libc::SIGKILL);
        assert_eq!(running.wait(1 - victim).code(), Some(FAULT + Status::PeerLost as i32));
    }
}

#[test]
fn a_rank_that_is_stopped_among_long_messages_ends_both_by_a_fault() {
    if is_rank() {
        live(LONG, SHORT);
    }
    let mut dice = Dice::new();
    for _ in 0..3 {
        let mut running = start();
        running.until_ready();
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        running.signal(1, libc::SIGSTOP);
        assert_eq!(running.wait(0).code(), Some(FAULT + Status::Timeout as i32));
        running.signal(1, libc::SIGCONT);
        let codes = [Status::Timeout, Status::PeerLost].map(|status| Some(FAULT + status as i32));
        assert!(codes.contains(&running.wait(1).code()));
    }
}

#[test]
fn a_damaged_word_of_a_ring_or_relay_is_found_corrupt() {
    if is_rank() {
        live(LONG, LONG);
    }
    // What is in no range, and what is too far ahead in a word that is not even whole.
    for (which, garbage) in [u64::MAX, 1 << 40, 0x7fff_1234_5678_9abc, 1 << 63].into_iter().enumerate() {
        let mut running = start();
        let (control, index) = (Control::map(&running), words_from(&running, 0)[which]);
        running.until_ready();
        // Again and again, because its owner overwrites it.
        let deadline = Instant::now() + LONG;
        while running.children[0].try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline);
            control.write(index, garbage);
            std::thread::yield_now();
        }
        assert_corrupt(running, &format!("{garbage:#x} in word {which}"));
    }
}

#[test]
fn garbage_in_words_of_rings_and_relays_never_hangs_crashes_or_gives_wrong_messages() {
    if is_rank() {
        live(Duration::from_millis(800), SHORT);
    }
    let mut dice = Dice::new();
    for attempt in 0..6 {
        let mut running = start();
        let control = Control::map(&running);
        running.until_ready();
        for _ in 0..1 << (attempt * 2) {
            let garbage = [u64::MAX, 0, dice.below(u64::MAX), dice.below(1 << 30)][dice.below(4) as usize];
            let words = words_from(&running, dice.below(RANKS as u64) as usize);
            control.write(words[dice.below(4) as usize], garbage);
        }
        assert_orderly(running);
    }
}
