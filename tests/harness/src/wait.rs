//! Waiting for conditions. Nothing in the stories sleeps for a guessed time: it waits until something is so.

use crate::{Result, Trouble, interrupt};
use std::time::{Duration, Instant};

/// Enough for anything that works, also on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The longest time after which Slurm itself puts right what a killed slurmd left unfinished: a job whose end it was not told of, or
/// whose epilog it did not report, is told again when `KillWait` and twice `MessageTimeout` are over, which is looked for once a
/// minute (`purge_old_job` in slurmctld/job_mgr.c): 3 + 2 * 20 + 60 seconds, and as much again for two busy cores.
pub const RECOVERY: Duration = Duration::from_secs(200);

const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `look` answers `Ok`. Until then it says what it sees instead, and the last such text is in the error.
pub fn until<T>(what: &str, look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// As [`until`], for what may rightly take longer than [`PATIENCE`].
pub fn within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(_) if interrupt::asked() => return Err(Trouble::Interrupted(what.to_owned())),
            Err(seen) if Instant::now() >= deadline => {
                return Err(Trouble::Deadline { what: what.to_owned(), seconds: patience.as_secs(), seen });
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_good_look_ends_the_waiting() {
        let mut looks = 0;
        let got = until("three looks", || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
        });
        assert_eq!(got.unwrap(), 3);
    }
}
