//! Ranks that are killed, stopped or gone mad: the others end with a fault, in time, and never with a wrong result.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use migshare_collectives::error::Status;
use migshare_collectives::segment::layout::LINES;
use migshare_collectives::{Comm, Error, ReduceOp, Segment};

use crate::launch::{Launch, Running, say_ready};

/// Exit codes of ranks: this plus the status.
pub(crate) const FAULT: i32 = 20;
/// A result was wrong.
pub(crate) const WRONG: i32 = 90;
const RANKS: usize = 3;
/// Longer than a test may take.
const LONG: Duration = Duration::from_secs(120);
/// For tests that wait for a timeout.
const SHORT: Duration = Duration::from_millis(700);

/// Where the tests' dice come from: the seed is printed, so that a failure can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One round of everything, with results checked; sizes cross all algorithms.
fn round(comm: &mut Comm, round: usize) -> Result<(), Error> {
    let (rank, size) = (comm.rank(), comm.size());
    let count = [20, 700, 9000, 100_000][round % 4] + round % 7;
    let mut data = vec![(rank + round) as u32; count];
    comm.all_reduce(&mut data, ReduceOp::Sum)?;
    require(data.iter().all(|d| *d as usize == size * round + size * (size - 1) / 2));
    let root = round % size;
    let mut data = vec![(rank + round) as u32; count];
    comm.broadcast(&mut data, root)?;
    require(data.iter().all(|d| *d as usize == root + round));
    let mut all = vec![0; count * size];
    comm.all_gather(&vec![(rank * 3 + round) as u32; count], &mut all)?;
    require(all.iter().enumerate().all(|(i, d)| *d as usize == i / count * 3 + round));
    messages(comm, round, count)?;
    comm.barrier()
}

fn messages(comm: &mut Comm, round: usize, count: usize) -> Result<(), Error> {
    let (next, previous) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
    let out = vec![(comm.rank() * 5 + round) as u32; count];
    let mut into = vec![0_u32; count];
    // SAFETY: both buffers outlive the waits; after a failed wait nothing touches them any more.
    let (sent, received) = unsafe {
        let sent = comm.start_send(next, 0, out.as_ptr().cast(), count * 4)?;
        (sent, comm.start_receive(previous, 0, into.as_mut_ptr().cast(), count * 4)?)
    };
    comm.wait(received)?;
    comm.wait(sent)?;
    require(into.iter().all(|d| *d as usize == previous * 5 + round));
    Ok(())
}

fn require(right: bool) {
    if !right {
        std::process::exit(WRONG);
    }
}

/// A rank's life: rounds until a fault, or until `limit`. When the first is done the parent is told, and from then on the
/// timeout is `patience`: however slow the machine is, all ranks are in the middle of life when the test begins.
fn live(limit: Duration, patience: Duration) -> ! {
    let end = |error: &Error| -> ! { std::process::exit(FAULT + error.status() as i32) };
    let mut comm = Comm::from_env().unwrap_or_else(|error| end(&error));
    let begin = Instant::now();
    for n in 0.. {
        let mut done = [u8::from(begin.elapsed() > limit)];
        if let Err(error) = round(&mut comm, n).and_then(|()| comm.broadcast(&mut done, 0)) {
            // The communicator is over, for every call.
            require(comm.barrier().is_err_and(|later| later.status() == Status::Poisoned));
            end(&error);
        }
        if done[0] != 0 {
            break;
        }
        if n == 0 {
            comm.set_timeout(patience);
            say_ready();
        }
    }
    std::process::exit(0)
}

fn is_rank() -> bool {
    std::env::var_os("MIGSHARE_RANK").is_some()
}

pub(crate) fn faults(causes: &[Status]) -> Vec<i32> {
    causes.iter().map(|cause| FAULT + *cause as i32).collect()
}

fn launch(timeout: Duration) -> Running {
    Launch { timeout, bytes: 64 << 20, ..Launch::new(RANKS) }.start()
}

/// Waits for the ranks other than `except`; all must end with one of `codes`.
fn expect(running: &mut Running, except: usize, codes: &[i32]) {
    for rank in (0..RANKS).filter(|rank| *rank != except) {
        let status = running.wait(rank);
        assert!(status.code().is_some_and(|code| codes.contains(&code)), "rank {rank}: {status}");
    }
}

#[test]
fn ranks_notice_a_killed_peer_at_whatever_instruction() {
    if is_rank() {
        live(LONG, LONG);
    }
    let mut dice = Dice::new();
    for _ in 0..15 {
        // A rank killed before it joined can only be missed: the others time out.
        let mut running = launch(Duration::from_secs(2));
        std::thread::sleep(Duration::from_micros(15_000 + dice.below(120_000)));
        let victim = dice.below(RANKS as u64) as usize;
        running.signal(victim, libc::SIGKILL);
        expect(&mut running, victim, &faults(&[Status::PeerLost, Status::Timeout]));
    }
}

#[test]
fn a_peer_killed_in_the_middle_of_life_is_lost_not_late() {
    if is_rank() {
        live(LONG, LONG);
    }
    for victim in 0..RANKS {
        let mut running = launch(LONG);
        running.until_ready();
        running.signal(victim, libc::SIGKILL);
        expect(&mut running, victim, &faults(&[Status::PeerLost]));
    }
}

#[test]
fn a_stopped_peer_times_out_and_finds_the_communicator_poisoned_when_resumed() {
    if is_rank() {
        live(LONG, SHORT);
    }
    let mut dice = Dice::new();
    for _ in 0..4 {
        let mut running = launch(LONG);
        running.until_ready();
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        let victim = dice.below(RANKS as u64) as usize;
        running.signal(victim, libc::SIGSTOP);
        expect(&mut running, victim, &faults(&[Status::Timeout]));
        running.signal(victim, libc::SIGCONT);
        let status = running.wait(victim);
        let codes = faults(&[Status::Timeout, Status::PeerLost]);
        assert!(status.code().is_some_and(|code| codes.contains(&code)), "{status}");
    }
}

/// The words of a segment, for a mad rank to write to.
pub(crate) struct Control {
    words: *mut u64,
    /// Of the control area: everything from the member records up to the bytes of the first slot.
    count: u64,
}

impl Control {
    pub(crate) fn map(running: &Running) -> Self {
        Self::of(&running.segment)
    }

    pub(crate) fn of(segment: &Segment) -> Self {
        let (bytes, count) = (segment.layout().bytes, segment.layout().ring(0, 0, 0) as u64 / 8);
        let fd = segment.descriptor().unwrap().as_raw_fd();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh shared mapping of the whole segment.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        Self { words: base.cast(), count }
    }

    pub(crate) fn write(&self, index: u64, value: u64) {
        // SAFETY: inside the segment; ranks write the same words at the same time, which is the test.
        unsafe { self.words.add(index as usize).write_volatile(value) }
    }

    pub(crate) fn read(&self, index: u64) -> u64 {
        // SAFETY: as above.
        unsafe { self.words.add(index as usize).read_volatile() }
    }
}

#[test]
fn garbage_in_control_words_never_hangs_crashes_or_gives_wrong_results() {
    if is_rank() {
        live(Duration::from_millis(1500), SHORT);
    }
    let mut dice = Dice::new();
    let fault = [Status::Corrupt, Status::Timeout, Status::PeerLost, Status::Mismatch];
    let allowed = [faults(&fault), vec![0]].concat();
    for attempt in 0..8 {
        let mut running = launch(LONG);
        let control = Control::map(&running);
        running.until_ready();
        std::thread::sleep(Duration::from_micros(dice.below(50_000)));
        for _ in 0..1 << (attempt * 2) {
            let garbage = [u64::MAX, 0, dice.0, dice.below(1 << 30)][dice.below(4) as usize];
            let index = dice.below(control.count);
            control.write(index, garbage);
        }
        expect(&mut running, RANKS, &allowed);
    }
}

#[test]
fn a_damaged_word_of_a_peer_in_use_is_found_corrupt() {
    if is_rank() {
        live(LONG, LONG);
    }
    let mut running = launch(LONG);
    let control = Control::map(&running);
    running.until_ready();
    // All lines of rank 1 in the first slot, again and again, because the rank overwrites them.
    let deadline = Instant::now() + LONG;
    let layout = *running.segment.layout();
    let line = |index: usize| layout.line(0, 1, index) as u64 / 8;
    while running.children[0].try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline);
        (0..LINES).for_each(|index| control.write(line(index), 0x7fff_1234_5678_9abc));
        std::thread::yield_now();
    }
    expect(&mut running, RANKS, &faults(&[Status::Corrupt]));
}

#[test]
fn every_rank_names_the_one_that_died_whoever_noticed_it_first() {
    if !is_rank() {
        let mut running = Launch::new(RANKS).start();
        expect(&mut running, 2, &faults(&[Status::PeerLost]));
        return;
    }
    let mut comm = Comm::from_env().unwrap();
    comm.barrier().unwrap();
    if comm.rank() == 2 {
        std::process::abort();
    }
    let error = loop {
        if let Err(error) = comm.barrier() {
            break error;
        }
    };
    std::process::exit(if error == (Error::PeerLost { rank: 2 }) {
        FAULT + error.status() as i32
    } else {
        WRONG
    });
}

#[test]
fn a_request_whose_peer_died_ends_in_test_too() {
    if !is_rank() {
        let mut running = Launch::new(2).start();
        let status = running.wait(0);
        assert_eq!(status.code(), Some(FAULT + Status::PeerLost as i32));
        return;
    }
    let mut comm = Comm::from_env().unwrap();
    if comm.rank() == 1 {
        std::process::abort();
    }
    let mut data = [0_u8; 8];
    // SAFETY: the buffer lives until the process ends.
    let request = unsafe { comm.start_receive(1, 0, data.as_mut_ptr(), 8) }.unwrap();
    let error = loop {
        match comm.test(request) {
            Ok(None) => std::thread::yield_now(),
            Ok(Some(_)) => std::process::exit(WRONG),
            Err(error) => break error,
        }
    };
    std::process::exit(FAULT + error.status() as i32);
}
