//! Waiting for conditions. Nothing in the stories sleeps for a guessed time: it waits until something is so.

use crate::{Result, Trouble, interrupt};
use std::time::{Duration, Instant};

/// Enough for anything that works, also on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `look` answers `Ok`. Until then it says what it sees instead, and the last such text is in the error.
pub fn until<T>(what: &str, mut look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(_) if interrupt::asked() => return Err(Trouble::Interrupted(what.to_owned())),
            Err(seen) if Instant::now() >= deadline => {
                return Err(Trouble::Deadline { what: what.to_owned(), seconds: PATIENCE.as_secs(), seen });
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
