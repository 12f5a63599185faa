//! Ctrl-C: what waits is told to give up, so that everything is stopped in order instead of being left behind.
//!
//! Tests have no need of it: their runner ends them, and daemons go with them.

use nix::sys::signal::{SigSet, Signal};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Makes the signals that ask a program to end mean "give up waiting". To be called before any other thread runs,
/// as threads inherit which signals are blocked; started programs do not.
pub fn watch() {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    if signals.thread_block().is_ok() {
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                ASKED.store(true, Ordering::Relaxed);
            }
        });
    }
}

/// Whether somebody asked the program to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Forgets that somebody asked: what is done from now on is done to its end.
pub fn forget() {
    ASKED.store(false, Ordering::Relaxed);
}
