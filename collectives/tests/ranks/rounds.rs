//! Two ranks that exchange messages in rounds until something happens to them.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use migshare_collectives::error::Status;
use migshare_collectives::{Comm, Error};

use crate::death::{FAULT, faults};
use crate::launch::{Running, say_ready};

pub(crate) const RANKS: usize = 2;
/// Longer than a test may take.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// For tests that may have to wait for a timeout.
pub(crate) const SHORT: Duration = Duration::from_millis(700);

/// A rank's life: rounds, of each of these lengths in turn, until a fault or until `limit`. When the lengths are all through, the
/// timeout is `patience` and the parent is told. A round has its number, what it sends and where it receives.
pub(crate) fn live<T: Copy + Default>(
    lengths: &[usize],
    limit: Duration,
    patience: Duration,
    round: impl Fn(&mut Comm, usize, &mut [T], &mut [T]) -> Result<(), Error>,
) -> ! {
    let mut comm = Comm::from_env().unwrap();
    let (begin, most) = (Instant::now(), lengths.iter().max().copied().unwrap_or(0));
    let (mut out, mut into) = (vec![T::default(); most], vec![T::default(); most]);
    for number in 0.. {
        let length = lengths[number % lengths.len()];
        let mut done = [u8::from(begin.elapsed() > limit)];
        let result = round(&mut comm, number, &mut out[..length], &mut into[..length]);
        if let Err(error) = result.and_then(|()| comm.broadcast(&mut done, 0)) {
            std::process::exit(FAULT + error.status() as i32);
        }
        if done[0] != 0 {
            break;
        }
        if number == lengths.len() {
            comm.set_timeout(patience);
            say_ready();
        }
    }
    std::process::exit(0)
}

fn codes(running: Running) -> Vec<Option<i32>> {
    running.finish().iter().map(ExitStatus::code).collect()
}

/// One rank found the damage; the other did, too, was told, or saw it gone.
pub(crate) fn assert_corrupt(running: Running, what: &str) {
    let codes = codes(running);
    let [corrupt, lost] = [Status::Corrupt, Status::PeerLost].map(|status| Some(FAULT + status as i32));
    assert!(codes.contains(&corrupt), "{what}: {codes:?}");
    assert!(codes.iter().all(|code| [corrupt, lost].contains(code)), "{what}: {codes:?}");
}

/// All ended well or by a fault that damage may cause: no crash, no wrong message.
pub(crate) fn assert_orderly(running: Running) {
    let faults = faults(&[Status::Corrupt, Status::Timeout, Status::PeerLost, Status::Mismatch]);
    let codes = codes(running);
    let orderly = |code: &Option<i32>| code.is_some_and(|code| code == 0 || faults.contains(&code));
    assert!(codes.len() == RANKS && codes.iter().all(orderly), "{codes:?}");
}
