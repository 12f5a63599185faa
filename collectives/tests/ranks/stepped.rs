//! A rank is killed after its n-th instruction, by a tracer that steps it: whatever n is, the others learn that it is gone,
//! and what they were told is right is right.
//!
//! The places are spread evenly over all instructions from before the first collective to behind the last, with a random one in
//! each part. `three_hundred_places` is for the desk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use migshare_collectives::comm::Collective;
use migshare_collectives::error::Status;
use migshare_collectives::{Comm, DataType, Error, ReduceOp};

use crate::death::{Dice, FAULT, WRONG};
use crate::launch::{Launch, Running, say_ready};
use crate::lives::{self, Life};

const RANKS: usize = 3;
const VICTIM: usize = 1;
/// Elements of an inline, a flat and a staged operation.
const COUNTS: [usize; 3] = [3, 200, 2100];
/// Elements of what is read by one copy.
const PULLED: usize = 16_500;
/// A step is one byte of a string instruction: without them there are far fewer.
const PLAIN_COPIES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";
const LONG: Duration = Duration::from_secs(120);

/// Looks at a result, where the rank is to do that.
type Check = dyn Fn(&dyn Fn() -> bool);

/// All calls with all sizes; `check` looks at each result that was said to be right. The roots change.
fn calls(comm: &mut Comm, buffers: &mut Buffers, check: &Check) -> Result<(), Error> {
    let (rank, size) = (comm.rank(), comm.size());
    for (index, count) in COUNTS.into_iter().enumerate() {
        let Buffers { own, all, into } = &mut *buffers;
        let (own, all, into) = (&own[..count], &mut all[..count * size], &mut into[..count]);
        let (from, to, root) = (own.as_ptr().cast(), into.as_mut_ptr().cast(), index % size);
        // SAFETY: both buffers have `count` elements.
        unsafe { comm.run(&Collective::all_reduce(from, to, count, DataType::U32, ReduceOp::Sum)) }?;
        check(&|| into.iter().all(|x| *x == 6));
        comm.all_gather(own, all)?;
        check(&|| all.iter().enumerate().all(|(i, x)| *x as usize == i / count + 1));
        // SAFETY: as above.
        unsafe { comm.run(&Collective::reduce(from, to, count, DataType::U32, ReduceOp::Max, root)) }?;
        check(&|| rank != root || into.iter().all(|x| *x == 3));
        messages(comm, own, into)?;
        check(&|| into.iter().all(|x| *x as usize == (rank + size - 1) % size + 1));
        into.copy_from_slice(own);
        comm.broadcast(into, root)?;
        check(&|| into.iter().all(|x| *x as usize == root + 1));
    }
    pulls(comm, buffers, check)?;
    comm.barrier()
}

/// The victim reads from a peer's memory, then the peers from the victim's.
fn pulls(comm: &mut Comm, buffers: &mut Buffers, check: &Check) -> Result<(), Error> {
    let Buffers { own, all, into } = buffers;
    let rank = comm.rank();
    for root in [0, VICTIM] {
        into.copy_from_slice(own);
        comm.broadcast(into, root)?;
        check(&|| into.iter().all(|x| *x as usize == root + 1));
        let (from, to) = (own.as_ptr().cast(), all.as_mut_ptr().cast());
        // SAFETY: the source has so many elements, the target as many for each rank.
        unsafe { comm.run(&Collective::gather(from, to, PULLED, DataType::U32, root)) }?;
        let of = |from: usize| all[from * PULLED..][..PULLED].iter().all(|x| *x as usize == from + 1);
        check(&|| rank != root || (0..RANKS).all(of));
    }
    messages(comm, own, into)?;
    let previous = (comm.rank() + comm.size() - 1) % comm.size();
    check(&|| into.iter().all(|x| *x as usize == previous + 1));
    Ok(())
}

fn messages(comm: &mut Comm, out: &[u32], into: &mut [u32]) -> Result<(), Error> {
    let (next, previous) = ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size());
    let bytes = size_of_val(out);
    // SAFETY: both buffers outlive the waits; after a failed wait nothing touches them any more.
    let (sent, received) = unsafe {
        let sent = comm.start_send(next, 0, out.as_ptr().cast(), bytes)?;
        (sent, comm.start_receive(previous, 0, into.as_mut_ptr().cast(), bytes)?)
    };
    comm.wait(received)?;
    comm.wait(sent).map(drop)
}

/// Made before the stepping begins, which is about the library.
struct Buffers {
    own: Vec<u32>,
    all: Vec<u32>,
    into: Vec<u32>,
}

impl Buffers {
    fn new(rank: usize) -> Self {
        Self { own: vec![rank as u32 + 1; PULLED], all: vec![0; PULLED * RANKS], into: vec![0; PULLED] }
    }
}

/// Stops here for the tracer, which is the parent.
fn stop() {
    // SAFETY: a signal to this thread.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// A rank's life. Nobody but the victim may find everything well: it never comes to the last barrier.
fn live<B>(make: impl Fn(&Comm) -> B, calls: impl Fn(&mut Comm, &mut B, &Check) -> Result<(), Error>) -> ! {
    let mut comm = Comm::from_env().unwrap();
    let mut buffers = make(&comm);
    if comm.rank() == VICTIM {
        // SAFETY: a plain system call: this thread is traced by its parent from now on.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME) }, 0);
        say_ready();
        stop();
        calls(&mut comm, &mut buffers, &|_| ()).unwrap();
        stop();
        std::process::exit(WRONG);
    }
    let check = |right: &dyn Fn() -> bool| {
        if !right() {
            std::process::exit(WRONG);
        }
    };
    let error = calls(&mut comm, &mut buffers, &check).and_then(|()| comm.barrier()).unwrap_err();
    std::process::exit(FAULT + error.status() as i32);
}

/// The tracer's side of the victim, which runs only when told to.
struct Traced {
    thread: i32,
}

impl Traced {
    /// Waits for the victim to stop; the signal it stopped for.
    fn stopped(&self) -> i32 {
        let mut status = 0;
        // SAFETY: the kernel writes one int.
        let found = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(found, self.thread);
        assert!(libc::WIFSTOPPED(status), "the victim ended by itself: {status:x}");
        libc::WSTOPSIG(status)
    }

    /// Runs one instruction; false when that was the stop behind the calls.
    fn step(&self) -> bool {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: a request to a stopped tracee; no memory is touched.
        let done = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.thread, none, none) };
        assert_eq!(done, 0);
        match self.stopped() {
            libc::SIGTRAP => true,
            libc::SIGSTOP => false,
            other => panic!("the victim got signal {other}"),
        }
    }

    fn kill(&self, running: &mut Running) {
        running.signal(VICTIM, libc::SIGKILL);
        let child = &mut running.children[VICTIM];
        if self.thread != child.id() as i32 {
            // A traced thread has to be taken leave of before its process can be. SAFETY: no status is asked for.
            unsafe { libc::waitpid(self.thread, std::ptr::null_mut(), libc::__WALL) };
        }
        child.wait().unwrap();
    }
}

/// Kills the victim after `limit` instructions, or behind the calls; how many it has done. The others must say that it is lost.
fn kill_after(limit: u64) -> u64 {
    let variables =
        vec![("GLIBC_TUNABLES", PLAIN_COPIES.to_owned()), ("MIGSHARE_KERNELS", "base".to_owned())];
    let mut running = Launch { timeout: LONG, bytes: 64 << 20, variables, ..Launch::new(RANKS) }.start();
    let traced = Traced { thread: running.next_ready() };
    assert_eq!(traced.stopped(), libc::SIGSTOP);
    let done = (0..limit).take_while(|_| traced.step()).count() as u64;
    traced.kill(&mut running);
    for rank in (0..RANKS).filter(|rank| *rank != VICTIM) {
        let status = running.wait(rank);
        let lost = Some(FAULT + Status::PeerLost as i32);
        assert_eq!(status.code(), lost, "rank {rank} after {done} instructions of the victim: {status}");
    }
    done
}

fn kill_at<B>(
    places: u64,
    make: impl Fn(&Comm) -> B,
    calls: impl Fn(&mut Comm, &mut B, &Check) -> Result<(), Error>,
) {
    if std::env::var_os("MIGSHARE_RANK").is_some() {
        live(make, calls);
    }
    let total = kill_after(u64::MAX);
    println!("{total} instructions");
    let mut dice = Dice::new();
    for place in 0..places {
        kill_after(total * place / places + dice.below((total / places).max(1)));
    }
}

#[test]
fn a_rank_killed_at_any_instruction_is_lost_and_no_result_is_wrong() {
    kill_at(12, |comm| Buffers::new(comm.rank()), calls);
}

/// The same in one of the lives of `lives`.
fn kill_in(life: Life) {
    let make = |comm: &Comm| {
        lives::LOOKS_AWAY.store(comm.rank() == VICTIM, Ordering::Relaxed);
        lives::Buffers::new(comm, COUNTS[2])
    };
    kill_at(5, make, |comm, buffers, _| {
        COUNTS.into_iter().enumerate().try_for_each(|(number, count)| life(comm, buffers, number, count))
    });
}

#[test]
fn a_rank_killed_at_any_instruction_among_split_communicators_is_lost() {
    kill_in(lives::split);
}

#[test]
fn a_rank_killed_at_any_instruction_among_buffers_in_the_segment_is_lost() {
    kill_in(lives::inside);
}

#[test]
fn a_rank_killed_at_any_instruction_among_started_collectives_is_lost() {
    kill_in(lives::started);
}

#[test]
#[ignore = "takes minutes: run it by hand when a schedule has changed"]
fn three_hundred_places() {
    kill_at(300, |comm| Buffers::new(comm.rank()), calls);
}
