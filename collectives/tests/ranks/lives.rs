//! Ranks that are killed or stopped in the middle of less ordinary lives: with communicators that were split off, with buffers
//! inside the segment, with collectives that are only started. The others end with a fault, in time, and never with a wrong result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use migshare_collectives::comm::Collective;
use migshare_collectives::error::Status;
use migshare_collectives::{Comm, DataType, Error, ReduceOp, Request, SegmentBuffer};

use crate::death::{Dice, FAULT, WRONG};
use crate::launch::{Launch, Running, say_ready};

const RANKS: usize = 3;
const LONG: Duration = Duration::from_secs(120);
/// For tests that wait for a timeout.
const SHORT: Duration = Duration::from_millis(700);
/// Elements of a collective: short, flat, and in chunks.
const COUNTS: [usize; 4] = [30, 900, 9000, 120_000];

/// What a rank does again and again, in a round with this number and with so many elements; the buffers are its own for all its life.
pub(crate) type Life = fn(&mut Comm, &Buffers, usize, usize) -> Result<(), Error>;

fn is_rank() -> bool {
    std::env::var_os("MIGSHARE_RANK").is_some()
}

/// Buffers inside the segment, of u32.
pub(crate) struct Buffers {
    own: SegmentBuffer,
    all: SegmentBuffer,
}

impl Buffers {
    pub(crate) fn new(comm: &Comm, count: usize) -> Self {
        let take = |bytes| comm.allocate(bytes).unwrap();
        Self { own: take(count * 4), all: take(count * 4 * comm.size()) }
    }

    fn fill(buffer: &SegmentBuffer, len: usize, value: u32) {
        // SAFETY: the buffer is this rank's, and no call is under way.
        let words = unsafe { slice(buffer) };
        words[..len].fill(value);
    }

    fn has(buffer: &SegmentBuffer, from: usize, len: usize, value: u32) -> bool {
        // SAFETY: likewise.
        let found = unsafe { slice(buffer) };
        found[from..from + len].iter().all(|found| *found == value)
    }
}

/// # Safety
/// Nobody else has the buffer.
#[allow(clippy::mut_from_ref, reason = "the buffer is memory that other processes write, too")]
unsafe fn slice(buffer: &SegmentBuffer) -> &mut [u32] {
    // SAFETY: promised by the caller; the memory is aligned to a page.
    unsafe { std::slice::from_raw_parts_mut(buffer.as_ptr().cast(), buffer.len() / 4) }
}

/// A rank that is stepped through its instructions leaves the looking at results to the others.
pub(crate) static LOOKS_AWAY: AtomicBool = AtomicBool::new(false);

fn require(right: impl FnOnce() -> bool) {
    if !LOOKS_AWAY.load(Ordering::Relaxed) && !right() {
        std::process::exit(WRONG);
    }
}

/// Two of three are in a group that changes, and all in one that is new each time.
pub(crate) fn split(world: &mut Comm, _: &Buffers, number: usize, count: usize) -> Result<(), Error> {
    let (rank, size) = (world.rank(), world.size());
    let mut twin = world.split(Some(3), -(rank as i32))?;
    let pair = world.split((rank != number % size).then_some(1), 0)?;
    if let Some(mut pair) = pair {
        let mut data = vec![rank as u32; count];
        pair.all_reduce(&mut data, ReduceOp::Sum)?;
        let sum = size * (size - 1) / 2 - number % size;
        require(|| data.iter().all(|found| *found as usize == sum));
        exchange(&mut pair, number, count)?;
    }
    if let Some(twin) = &mut twin {
        require(|| twin.rank() == size - 1 - rank);
        let mut data = vec![rank as u32; count];
        twin.broadcast(&mut data, 0)?;
        require(|| data.iter().all(|found| *found as usize == size - 1));
    }
    let mut data = vec![1_u32; count];
    world.all_reduce(&mut data, ReduceOp::Sum)?;
    require(|| data.iter().all(|found| *found as usize == size));
    Ok(())
}

/// A message to the next and one from the rank before.
fn exchange(comm: &mut Comm, number: usize, count: usize) -> Result<(), Error> {
    let (rank, size) = (comm.rank(), comm.size());
    let (out, mut into) = (vec![(rank + number) as u32; count], vec![0_u32; count]);
    let before = (rank + size - 1) % size;
    // SAFETY: both buffers outlive the waits; after a failed wait nothing touches them any more.
    let (sent, received) = unsafe {
        let sent = comm.start_send((rank + 1) % size, 0, out.as_ptr().cast(), count * 4)?;
        (sent, comm.start_receive(before, 0, into.as_mut_ptr().cast(), count * 4)?)
    };
    comm.wait(received)?;
    comm.wait(sent)?;
    require(|| into.iter().all(|found| *found as usize == before + number));
    Ok(())
}

/// Everything from and to memory that all ranks reach.
pub(crate) fn inside(comm: &mut Comm, buffers: &Buffers, number: usize, count: usize) -> Result<(), Error> {
    let (rank, size) = (comm.rank(), comm.size());
    let (own, all) = (buffers.own.as_ptr(), buffers.all.as_ptr());
    let (kind, root, base) = (DataType::U32, number % size, (number % 1000) as u32);
    let run = |comm: &mut Comm, call: Collective| {
        // SAFETY: the buffers hold what the calls below say.
        unsafe { comm.run(&call) }
    };
    Buffers::fill(&buffers.own, count, base + rank as u32);
    run(comm, Collective::all_reduce(own, own, count, kind, ReduceOp::Sum))?;
    require(|| Buffers::has(&buffers.own, 0, count, base * size as u32 + (size * (size - 1) / 2) as u32));
    Buffers::fill(&buffers.own, count, base + rank as u32);
    run(comm, Collective::all_gather(own, all, count, kind))?;
    require(|| (0..size).all(|from| Buffers::has(&buffers.all, from * count, count, base + from as u32)));
    Buffers::fill(&buffers.all, count * size, 0);
    run(comm, Collective::gather(own, all, count, kind, root))?;
    require(|| {
        rank != root
            || (0..size).all(|from| Buffers::has(&buffers.all, from * count, count, base + from as u32))
    });
    Buffers::fill(&buffers.all, count * size, base + 7 + root as u32);
    run(comm, Collective::scatter(all, own, count, kind, root))?;
    require(|| Buffers::has(&buffers.own, 0, count, base + 7 + root as u32));
    run(comm, Collective::broadcast(own, count, kind, root))?;
    require(|| Buffers::has(&buffers.own, 0, count, base + 7 + root as u32));
    comm.barrier()
}

/// Several collectives and messages at once, waited for in another order than they were started in, or asked for their end.
pub(crate) fn started(comm: &mut Comm, _: &Buffers, number: usize, count: usize) -> Result<(), Error> {
    let (rank, size) = (comm.rank(), comm.size());
    let mut sum = vec![(rank + number) as u32; count];
    let mut told = vec![(rank + number) as u32; count];
    let (out, mut into) = (vec![(rank + number) as u32; count], vec![0_u32; count]);
    let (kind, root, before) = (DataType::U32, number % size, (rank + size - 1) % size);
    let (at, to) = (sum.as_mut_ptr().cast::<u8>(), told.as_mut_ptr().cast());
    // SAFETY: the buffers outlive the waits; after a failed wait nothing touches them any more.
    let requests = unsafe {
        [
            comm.start(&Collective::all_reduce(at, at, count, kind, ReduceOp::Max))?,
            comm.start_send((rank + 1) % size, 0, out.as_ptr().cast(), count * 4)?,
            comm.start(&Collective::broadcast(to, count, kind, root))?,
            comm.start_receive(before, 0, into.as_mut_ptr().cast(), count * 4)?,
            comm.start(&Collective::barrier())?,
        ]
    };
    end(comm, requests, number)?;
    require(|| sum.iter().all(|found| *found as usize == size - 1 + number));
    require(|| told.iter().all(|found| *found as usize == root + number));
    require(|| into.iter().all(|found| *found as usize == before + number));
    Ok(())
}

/// All requests come to their end, or one fails: then all others that are not done have failed, too.
fn end(comm: &mut Comm, requests: [Request; 5], number: usize) -> Result<(), Error> {
    let mut failed = Ok(());
    for index in 0..requests.len() {
        let request = requests[(index * 2 + number) % requests.len()];
        let ended = if (number + index).is_multiple_of(2) { comm.wait(request) } else { ask(comm, request) };
        if failed.is_ok() {
            failed = ended.map(drop);
        }
    }
    failed
}

/// As a program that has something else to do.
fn ask(comm: &mut Comm, request: Request) -> Result<u64, Error> {
    loop {
        match comm.test(request)? {
            Some(bytes) => return Ok(bytes),
            None => std::thread::yield_now(),
        }
    }
}

/// A rank's life until a fault. When the first rounds are done the parent is told, and from then on the timeout is `patience`.
fn live(life: Life, patience: Duration) -> ! {
    let mut comm = Comm::from_env().unwrap();
    let buffers = Buffers::new(&comm, COUNTS[3]);
    for number in 0.. {
        if let Err(error) = life(&mut comm, &buffers, number, COUNTS[number % COUNTS.len()]) {
            // What was split off may have ended alone: others wait in the world.
            comm.abort().unwrap();
            let world = comm.barrier();
            require(|| world.is_err());
            std::process::exit(FAULT + error.status() as i32);
        }
        if number == COUNTS.len() {
            comm.set_timeout(patience);
            say_ready();
        }
    }
    unreachable!("a life goes on until a fault")
}

fn start() -> Running {
    Launch { timeout: LONG, ..Launch::new(RANKS) }.start()
}

/// Signals a rank in the middle of life; the others must end by one of `causes`.
fn struck(running: &mut Running, dice: &mut Dice, signal: i32, causes: &[Status]) -> usize {
    running.until_ready();
    std::thread::sleep(Duration::from_micros(dice.below(20_000)));
    let victim = dice.below(RANKS as u64) as usize;
    running.signal(victim, signal);
    let codes: Vec<_> = causes.iter().map(|cause| FAULT + *cause as i32).collect();
    for rank in (0..RANKS).filter(|rank| *rank != victim) {
        let status = running.wait(rank);
        assert!(status.code().is_some_and(|code| codes.contains(&code)), "rank {rank} of {victim}: {status}");
    }
    victim
}

fn killed(life: Life) {
    if is_rank() {
        live(life, LONG);
    }
    let mut dice = Dice::new();
    for _ in 0..8 {
        struck(&mut start(), &mut dice, libc::SIGKILL, &[Status::PeerLost]);
    }
}

fn stopped(life: Life) {
    if is_rank() {
        live(life, SHORT);
    }
    let mut dice = Dice::new();
    for _ in 0..3 {
        let mut running = start();
        // Who is told of it by one who ended its process meanwhile misses that one.
        let causes = [Status::Timeout, Status::PeerLost];
        let victim = struck(&mut running, &mut dice, libc::SIGSTOP, &causes);
        running.signal(victim, libc::SIGCONT);
        let status = running.wait(victim);
        let codes = causes.map(|cause| Some(FAULT + cause as i32));
        assert!(codes.contains(&status.code()), "{status}");
    }
}

#[test]
fn a_rank_killed_while_communicators_are_split_off_is_lost() {
    killed(split);
}

#[test]
fn a_rank_killed_among_buffers_in_the_segment_is_lost() {
    killed(inside);
}

#[test]
fn a_rank_killed_among_started_collectives_is_lost() {
    killed(started);
}

#[test]
fn a_rank_stopped_while_communicators_are_split_off_finds_them_ended() {
    stopped(split);
}

#[test]
fn a_rank_stopped_among_buffers_in_the_segment_finds_the_communicator_ended() {
    stopped(inside);
}

#[test]
fn a_rank_stopped_among_started_collectives_finds_the_communicator_ended() {
    stopped(started);
}

/// A program may free all buffers after a fault.
#[test]
fn a_fault_in_one_request_ends_the_use_of_the_buffers_of_all() {
    Launch::new(RANKS).run(|mut world| {
        let mut twin = world.split(Some(0), 0).unwrap().unwrap();
        let rank = world.rank();
        let mut places = [[0_u8; 8]; 2];
        let [wrong, right] = places.each_mut().map(|place| place.as_mut_ptr());
        if rank == 1 {
            // SAFETY: a message that is copied at once.
            unsafe { twin.start_send(0, 5, [1_u8; 8].as_ptr(), 8) }.unwrap();
        }
        let requests = (rank == 0).then(|| {
            // SAFETY: the places live until the end.
            let requests = unsafe {
                let right = twin.start_receive(2, 0, right, 8).unwrap();
                [twin.start_receive(1, 6, wrong, 8).unwrap(), right]
            };
            assert_eq!(twin.wait(requests[0]), Err(Error::Mismatch { rank: 1 }));
            requests
        });
        world.barrier().unwrap();
        if rank == 2 {
            // SAFETY: as above.
            unsafe { twin.start_send(0, 0, [2_u8; 8].as_ptr(), 8) }.unwrap();
        }
        world.barrier().unwrap();
        if let Some([_, right]) = requests {
            assert_eq!(twin.test(right), Err(Error::Ended { cause: Status::Mismatch }));
            assert_eq!(places[1], [0; 8]);
        }
    });
}

/// The sender of a long message frees its communicator, and its buffer, before the message is read.
#[test]
fn what_an_abandoned_send_lent_is_no_message() {
    Launch::new(2).run(|mut world| {
        let mut twin = world.split(Some(0), 0).unwrap().unwrap();
        let mut data = vec![1_u8; 2 << 20];
        if world.rank() == 0 {
            // SAFETY: the buffer outlives the communicator.
            unsafe { twin.start_send(1, 0, data.as_ptr(), data.len()) }.unwrap();
            drop(twin);
            data.fill(2);
            world.barrier().unwrap();
        } else {
            world.barrier().unwrap();
            data.fill(0);
            assert_eq!(twin.receive(&mut data, 0).map_err(|error| error.status()), Err(Status::PeerLost));
        }
        world.barrier().unwrap();
    });
}

#[test]
fn a_member_that_has_freed_the_communicator_is_not_waited_for() {
    Launch::new(3).run(|mut world| {
        let mut twin = world.split(Some(0), 0).unwrap().unwrap();
        twin.barrier().unwrap();
        if world.rank() == 0 {
            drop(twin);
        } else {
            assert_eq!(twin.barrier(), Err(Error::PeerLost { rank: 0 }));
        }
        world.barrier().unwrap();
    });
}

/// What it had done before counts, however late it is looked at.
#[test]
fn what_a_member_did_before_it_freed_the_communicator_counts() {
    Launch::new(2).run(|mut world| {
        let mut twin = world.split(Some(0), 0).unwrap().unwrap();
        twin.barrier().unwrap();
        if world.rank() == 0 {
            twin.broadcast(&mut [7_u8], 0).unwrap();
            twin.send(&[8_u8; 100], 1).unwrap();
            drop(twin);
            world.barrier().unwrap();
        } else {
            world.barrier().unwrap();
            let (mut told, mut sent) = ([0_u8], [0_u8; 100]);
            twin.broadcast(&mut told, 0).unwrap();
            twin.receive(&mut sent, 0).unwrap();
            assert_eq!((told, sent), ([7], [8; 100]));
        }
    });
}
