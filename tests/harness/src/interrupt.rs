//! Ctrl-C: what waits is told to give up, so that everything is stopped in order instead of being left behind.
//!
//! Tests have no need of it: their runner ends them, and daemons go with them. Signals are handled, not blocked:
//! a blocked signal would stay blocked in every daemon that is started.

use crate::Result;
use crate::artifacts::file;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Makes the signals that ask a program to end mean "give up waiting".
pub fn watch() -> Result {
    let register = |signal| signal_hook::flag::register(signal, ASKED.clone());
    let registered = [SIGINT, SIGTERM, SIGHUP].into_iter().try_for_each(|signal| register(signal).map(drop));
    registered.map_err(|cause| file("signal handlers", cause))
}

/// Whether somebody asked the program to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Does to its end what has to be done even though somebody asked the program to end, which is remembered afterwards.
pub fn despite<T>(work: impl FnOnce() -> T) -> T {
    let asked = ASKED.swap(false, Ordering::Relaxed);
    let done = work();
    ASKED.fetch_or(asked, Ordering::Relaxed);
    done
}
