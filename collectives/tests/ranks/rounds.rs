//! Two ranks that exchange messages in rounds until something happens to them.

use std::time::{Duration, Instant};

use migshare_collectives::{Comm, Error};

use crate::death::FAULT;
use crate::launch::say_ready;

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
