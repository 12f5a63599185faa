//! Forked children: a copy of a communicator in another process is not a rank.
//!
//! The pid would say it, but a system call for every collective would cost as much as a small one takes. So the child counts its
//! fork (pthread_atfork(3)), and what was made before remembers the count. Processes that are made by a bare clone(2) are not seen.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static FORKS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process that made something, as its descendants can tell it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation(u32);

impl Generation {
    /// Of this process.
    pub(crate) fn now() -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // SAFETY: the handler does one atomic addition, which is allowed after a fork.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether no fork lies between.
    #[inline]
    pub(crate) fn is_this_process(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }
}
