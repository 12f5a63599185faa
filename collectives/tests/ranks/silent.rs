//! A rank that is dead or stopped while another one goes on talking.

use std::time::{Duration, Instant};

use migshare_collectives::error::Status;
use migshare_collectives::{Comm, Error};

use crate::death::{FAULT, WRONG};
use crate::launch::{Launch, Running};

/// The timeout of rank 0, and how long it goes on when it notices nothing.
const TIMEOUT: Duration = Duration::from_millis(300);
const HANG: Duration = Duration::from_secs(30);

fn exit_code(running: &mut Running) -> Option<i32> {
    running.wait(0).code()
}

/// Rank 0 has asked rank 1 for a message, and exchanges others with rank 2 without a pause.
fn rank(signal: i32) -> ! {
    let mut comm = Comm::from_env().unwrap();
    comm.barrier().unwrap();
    if comm.rank() == 1 {
        // SAFETY: a plain system call.
        unsafe { libc::raise(signal) };
    }
    let mut byte = [0_u8];
    if comm.rank() != 0 {
        while comm.receive(&mut byte, 0).and_then(|_| comm.send(&byte, 0)).is_ok() {}
        std::process::exit(0);
    }
    comm.set_timeout(TIMEOUT);
    let begin = Instant::now();
    let mut place = [0_u8; 8];
    // SAFETY: the buffer lives until the process ends.
    let request = unsafe { comm.start_receive(1, 0, place.as_mut_ptr(), 8) }.unwrap();
    let mut turn = || -> Result<bool, Error> {
        comm.send(&byte, 2)?;
        comm.receive(&mut byte, 2)?;
        Ok(comm.test(request)?.is_some())
    };
    loop {
        match turn() {
            Ok(false) if begin.elapsed() < HANG => {}
            Ok(_) => std::process::exit(WRONG),
            Err(error) => std::process::exit(FAULT + error.status() as i32),
        }
    }
}

fn is_rank() -> bool {
    std::env::var_os("MIGSHARE_RANK").is_some()
}

#[test]
fn a_dead_peer_is_noticed_while_another_one_talks() {
    if is_rank() {
        rank(libc::SIGKILL);
    }
    let mut running = Launch::new(3).start();
    assert_eq!(exit_code(&mut running), Some(FAULT + Status::PeerLost as i32));
}

#[test]
fn a_stopped_peer_is_noticed_while_another_one_talks() {
    if is_rank() {
        rank(libc::SIGSTOP);
    }
    let mut running = Launch::new(3).start();
    assert_eq!(exit_code(&mut running), Some(FAULT + Status::Timeout as i32));
}

/// What a rank owes in one place is no reason to give it up while it answers in another.
#[test]
fn a_peer_that_answers_elsewhere_is_not_late() {
    Launch::new(2).run(|mut comm| {
        let mut place = [0_u8; 8];
        let peer = 1 - comm.rank();
        // SAFETY: the buffer outlives the wait below.
        let request = unsafe { comm.start_receive(peer, 0, place.as_mut_ptr(), 8) }.unwrap();
        comm.set_timeout(TIMEOUT);
        let begin = Instant::now();
        let mut ends = [0_u8];
        while ends[0] == 0 {
            ends[0] = u8::from(begin.elapsed() > 3 * TIMEOUT);
            comm.broadcast(&mut ends, 0).unwrap();
            comm.barrier().unwrap();
            assert!(ends[0] != 0 || comm.test(request) == Ok(None));
        }
        comm.set_timeout(Duration::from_secs(60));
        comm.send(&[1_u8; 8], peer).unwrap();
        assert_eq!(comm.wait(request), Ok(8));
    });
}
