//! Threads for calls that block: started as needed up to a bound, ended after a while without work.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Job;

/// A piece of work.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// An idle thread above the first ends after this long.
const IDLE: Duration = Duration::from_secs(10);

/// A bounded pool of threads with an unbounded queue.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    most: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Workers {
    /// A pool of at most `most` threads; the first one starts now.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(name: &'static str, most: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { name, most, state: Mutex::default(), wake: Condvar::new() });
        shared.lock().threads = 1;
        spawn(&shared)?;
        Ok(Self { shared })
    }

    /// Runs a task on some thread, soon.
    pub(crate) fn run(&self, task: Task) {
        let mut state = self.shared.lock();
        state.queue.push_back(task);
        let short = state.queue.len() > state.idle && state.threads < self.shared.most;
        if short {
            state.threads += 1;
            drop(state);
            if spawn(&self.shared).is_err() {
                // The threads that exist will get to it.
                self.shared.lock().threads -= 1;
            }
        } else {
            drop(state);
        }
        self.shared.wake.notify_one();
    }

    /// Lets the threads end once the queue is empty.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.queue.pop_front() {
                drop(state);
                // A panic in one request must not take the thread and its place in the count away.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (next, timeout) = self.wake.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() && state.threads > 1 {
                break;
            }
        }
        state.threads -= 1;
    }
}

fn spawn(shared: &Arc<Shared>) -> io::Result<()> {
    let ours = Arc::clone(shared);
    std::thread::Builder::new().name(shared.name.to_owned()).spawn(move || ours.work()).map(drop)
}

/// Does one job by blocking.
pub(super) fn read(job: Job) {
    let Job { file, ranges, mut buffer, done } = job;
    let (mut got, mut at) = (0, 0);
    let result = loop {
        let Some(range) = ranges.get(at) else { break Ok(got) };
        let start: usize = ranges[..at].iter().map(|r| r.len).sum();
        let Some(place) = buffer.get_mut(start..start + range.len) else { break Ok(got) };
        match read_range(&file, range.offset, place) {
            Ok(n) => got += n,
            Err(error) => break Err(error),
        }
        at += 1;
    };
    done(result, buffer);
}

fn read_range(file: &File, offset: u64, place: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    loop {
        match file.read_at(&mut place[got..], offset + got as u64) {
            Ok(0) => return Ok(got),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        // An odd end under O_DIRECT is the end of the file; asking again would be refused as unaligned.
        if got == place.len() || !got.is_multiple_of(512) {
            return Ok(got);
        }
    }
}
