//! Reads a file that was cached before it was written into the cache again, once it is closed and has been quiet.
//!
//! What was never read is not worth the backend's time, so only a file that had been cached comes back. The bytes are read
//! anew and validated like any fill: only the backend can say what a file holds after writers on several nodes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::fs::{Fs, Node, OpenFile, ReadPath};

/// When to look: a little after content may be admitted.
const QUIET: Duration = Duration::from_millis(2200);
/// Looks at a file that does not come to rest.
const TRIES: u32 = 3;
/// Files that may wait; more are read when somebody asks for them.
const MOST: usize = 256;
const TICK: Duration = Duration::from_millis(200);

struct Waiting {
    due: Instant,
    tries: u32,
    node: Arc<Node>,
    file: File,
}

/// See the module.
pub struct Refill {
    queue: Mutex<VecDeque<Waiting>>,
}

impl Refill {
    /// An empty queue with its thread, which ends with it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(reads: &Arc<ReadPath>) -> io::Result<Arc<Self>> {
        let refill = Arc::new(Self { queue: Mutex::default() });
        let (weak, reads): (Weak<Self>, _) = (Arc::downgrade(&refill), Arc::downgrade(reads));
        let run = move || {
            while let (Some(refill), Some(reads)) = (weak.upgrade(), reads.upgrade()) {
                refill.look(&reads);
                drop((refill, reads));
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new().name("refill".into()).spawn(run)?;
        Ok(refill)
    }

    /// A written file was closed for good.
    pub(super) fn later(&self, fs: &Fs, open: &OpenFile) {
        // With our own rights: the bytes go into the cache alone, and who reads them opens the file first.
        let Ok(file) = fs.reopen(&open.node, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK)
        else {
            return;
        };
        self.push(Waiting { due: Instant::now() + QUIET, tries: TRIES, node: Arc::clone(&open.node), file });
    }

    fn push(&self, waiting: Waiting) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < MOST {
            queue.push_back(waiting);
        }
    }

    fn look(&self, reads: &ReadPath) {
        loop {
            let due = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                match queue.front() {
                    Some(first) if first.due <= Instant::now() => queue.pop_front(),
                    _ => None,
                }
            };
            let Some(waiting) = due else { return };
            if !reads.refill(&waiting.node, &waiting.file) && waiting.tries > 1 {
                self.push(Waiting { due: Instant::now() + QUIET, tries: waiting.tries - 1, ..waiting });
            }
        }
    }
}
