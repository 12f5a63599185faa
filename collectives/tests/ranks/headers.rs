//! Garbage in the headers of messages: found corrupt, however old or plausible it is, and never taken for a message.

use std::time::{Duration, Instant};

use migshare_collectives::flow::CELL;
use migshare_collectives::{Comm, Error};

use crate::death::{Control, Dice, WRONG};
use crate::launch::{Launch, Running};
use crate::rounds::{self, LONG, RANKS, SHORT, assert_corrupt, assert_orderly};

/// Bytes of a message that is announced, and of one that is not.
const LENGTHS: [usize; 4] = [0, 100_000, 0, 300_000];

fn is_rank() -> bool {
    std::env::var_os("MIGSHARE_RANK").is_some()
}

/// One message each way. All take one cell, where ranks may read each other's memory: the ring holds nothing but headers.
fn round(comm: &mut Comm, number: usize, out: &mut [u8], into: &mut [u8]) -> Result<(), Error> {
    let (peer, tag) = (1 - comm.rank(), number as u64 % 100 * 77);
    out.fill((number % 100) as u8 + comm.rank() as u8);
    // SAFETY: both buffers outlive the waits; after a failed wait nothing touches them any more.
    let (sent, received) = unsafe {
        let sent = comm.start_send(peer, tag, out.as_ptr(), out.len())?;
        (sent, comm.start_receive(peer, tag, into.as_mut_ptr(), into.len())?)
    };
    let came = comm.wait(received)?;
    comm.wait(sent)?;
    if came != into.len() as u64 || into.iter().any(|byte| *byte != (number % 100) as u8 + peer as u8) {
        std::process::exit(WRONG);
    }
    Ok(())
}

fn live(limit: Duration, patience: Duration) -> ! {
    let lengths = if can_read_peers() { LENGTHS } else { [0; 4] };
    rounds::live(&lengths, limit, patience, round)
}

/// Without this right long messages go through the ring, too.
fn can_read_peers() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").map_or(true, |scope| scope.trim() == "0")
}

/// The words of the first few headers, of both rings, where the ranks are after so many messages.
fn header_words(running: &Running) -> Vec<u64> {
    let layout = running.segment.layout();
    let cells = (layout.ring_bytes / CELL) as u64;
    [(0, 1), (1, 0)]
        .into_iter()
        .flat_map(|(source, target)| {
            let ring = layout.ring(0, source, target) as u64;
            (0..cells).flat_map(move |cell| (0..5).map(move |word| (ring + cell * CELL as u64) / 8 + word))
        })
        .collect()
}

#[test]
fn damaged_headers_are_found_corrupt() {
    if is_rank() {
        live(LONG, LONG);
    }
    let mut dice = Dice::new();
    for field in 0..5 {
        let mut running = Launch { timeout: LONG, ..Launch::new(RANKS) }.start();
        let (control, words) = (Control::map(&running), header_words(&running));
        running.until_ready();
        // One field of all headers, again and again, because their owners write them anew.
        let deadline = Instant::now() + LONG;
        while running.children.iter_mut().all(|child| child.try_wait().unwrap().is_none()) {
            assert!(Instant::now() < deadline);
            let garbage = [u64::MAX, 0, dice.below(u64::MAX), dice.below(1 << 20)][dice.below(4) as usize];
            words.iter().skip(field).step_by(5).for_each(|word| control.write(*word, garbage));
            std::thread::yield_now();
        }
        assert_corrupt(running, &format!("field {field}"));
    }
}

#[test]
fn garbage_in_headers_never_hangs_crashes_or_gives_wrong_messages() {
    if is_rank() {
        live(Duration::from_millis(800), SHORT);
    }
    let mut dice = Dice::new();
    for attempt in 0..6 {
        let mut running = Launch { timeout: LONG, ..Launch::new(RANKS) }.start();
        let (control, words) = (Control::map(&running), header_words(&running));
        running.until_ready();
        for _ in 0..1 << (attempt * 3) {
            let word = words[dice.below(words.len() as u64) as usize];
            // Also what another header says.
            let other = control.read(words[dice.below(words.len() as u64) as usize]);
            let garbage = [u64::MAX, 0, other, dice.below(u64::MAX), dice.below(1 << 20)];
            control.write(word, garbage[dice.below(5) as usize]);
        }
        assert_orderly(running);
    }
}

/// The words of the first header of a ring of this communicator.
fn first_header(comm: &Comm, slot: usize, source: usize, target: usize) -> (Control, u64) {
    let control = Control::of(comm.segment());
    (control, comm.segment().layout().ring(slot, source, target) as u64 / 8)
}

#[test]
fn zeros_at_the_beginning_of_a_stream_are_no_message() {
    Launch::new(RANKS).run(|mut comm| {
        if comm.rank() == 0 {
            comm.send(&[7_u64], 1).unwrap();
            let (control, header) = first_header(&comm, 0, 0, 1);
            (0..CELL as u64 / 8).for_each(|word| control.write(header + word, 0));
            // The other may have left it already, and ended the communicator.
            let _ = comm.barrier();
        } else {
            comm.barrier().unwrap();
            assert_eq!(comm.receive(&mut [0_u64], 0), Err(Error::Corrupt { rank: 0 }));
        }
    });
}

#[test]
fn what_an_earlier_communicator_left_behind_is_no_message() {
    Launch::new(RANKS).run(|mut world| {
        let rank = world.rank();
        let (control, header) = first_header(&world, 1, 0, 1);
        let words = header..header + CELL as u64 / 8;
        let mut first = world.split(Some(0), 0).unwrap().unwrap();
        if rank == 0 {
            first.send::<u8>(&[], 1).unwrap();
        } else {
            first.receive::<u8>(&mut [], 0).unwrap();
        }
        first.barrier().unwrap();
        let old: Vec<_> = words.clone().map(|word| control.read(word)).collect();
        assert!(old.iter().any(|word| *word != 0), "the message was elsewhere");
        drop(first);
        let mut second = world.split(Some(0), 0).unwrap().unwrap();
        if rank == 0 {
            second.send(&[7_u64], 1).unwrap();
            words.zip(old).for_each(|(word, value)| control.write(word, value));
        }
        world.barrier().unwrap();
        if rank == 1 {
            assert_eq!(second.receive(&mut [0_u64], 0), Err(Error::Corrupt { rank: 0 }));
        }
    });
}
