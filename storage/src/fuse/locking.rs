//! Lock requests: which kind each one is, and how those that must wait do so.
//!
//! ```text
//!   request -> try at the backend -> got it: answer          caller killed: answered by `waiting`
//!                     ^      \--> taken: park --pause, or somebody here unlocked--> try again
//!                     \------------------------/              other signal: EINTR
//! ```
//! A wait holds no thread, so that waiters cannot keep the one from being served who is to unlock. The backend is asked at
//! growing pauses, because a blocked call there could not be interrupted without signals to threads.
//!
//! The kernel marks flock requests, but the FUSE crate does not hand the mark on (0.18). Where both kinds are forwarded, the
//! system call that the caller is blocked in tells them apart.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use fuser::ReplyEmpty;

use super::front::{Answer, number};
use crate::config::LockMode;
use crate::fs::{Caller, Fs, LockAsk, LockType};
use crate::io::Workers;
use crate::waiting::{Ticket, has_signal};

/// Pauses between tries for a lock that another node may hold.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long a caller may take to fall asleep in its system call.
const ASLEEP_WITHIN: Duration = Duration::from_secs(5);

/// The two families of locks, which do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// flock(2).
    Flock,
    /// fcntl(2): of a process, or of a description (OFD).
    Fcntl,
}

/// Which family a request belongs to.
pub(super) fn family(mode: LockMode, pid: u32, ask: &LockAsk) -> io::Result<Family> {
    let whole = ask.start == 0 && ask.end >= i64::MAX.cast_unsigned();
    match mode {
        LockMode::Flock => return Ok(Family::Flock),
        LockMode::Fcntl => return Ok(Family::Fcntl),
        _ if !whole => return Ok(Family::Fcntl),
        _ => {}
    }
    let start = Instant::now();
    while start.elapsed() < ASLEEP_WITHIN {
        let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        match text.split_whitespace().next().and_then(|n| n.parse::<i64>().ok()) {
            Some(libc::SYS_flock) => return Ok(Family::Flock),
            Some(libc::SYS_fcntl) => return Ok(Family::Fcntl),
            // It has sent the request and is about to sleep.
            None if text.starts_with("running") => std::thread::sleep(FIRST_PAUSE),
            _ => break,
        }
    }
    tracing::warn!(
        "cannot tell whether pid {pid} asks for a flock or an fcntl lock: ENOLCK; --locks flock or --locks fcntl forwards \
         one kind without having to tell"
    );
    Err(crate::fs::no_locks())
}

/// One request under way.
pub(super) struct LockRequest {
    pub(super) fs: Arc<Fs>,
    pub(super) ticket: Ticket<ReplyEmpty>,
    pub(super) who: Caller,
    pub(super) mode: LockMode,
    pub(super) ask: LockAsk,
    /// Whether the caller waits for a lock that is taken.
    pub(super) wait: bool,
}

impl LockRequest {
    /// Tries, and answers or parks.
    pub(super) fn begin(self, parked: &Arc<Parked>) {
        match family(self.mode, self.who.pid, &self.ask) {
            Ok(family) => self.attempt(family, FIRST_PAUSE, parked),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(self, error: &io::Error) {
        if let Some(reply) = self.ticket.take() {
            reply.fail(number(error));
        }
    }

    fn act(&self, family: Family, kind: LockType) -> io::Result<bool> {
        match family {
            Family::Flock => self.fs.try_flock(self.ask.handle, kind),
            Family::Fcntl => self.fs.try_fcntl(&self.who, &LockAsk { kind, ..self.ask }),
        }
    }

    fn attempt(self, family: Family, pause: Duration, parked: &Arc<Parked>) {
        if self.ticket.is_over() {
            return;
        }
        match self.act(family, self.ask.kind) {
            Ok(true) => self.won(family, parked),
            Ok(false) if !self.wait => self.fail(&io::Error::from_raw_os_error(libc::EAGAIN)),
            Ok(false) if has_signal(self.who.pid) => self.fail(&io::Error::from_raw_os_error(libc::EINTR)),
            Ok(false) => {
                let ours = Arc::clone(parked);
                let longer = (pause * 2).min(LONGEST_PAUSE);
                parked.park(pause, Box::new(move || self.attempt(family, longer, &ours)));
            }
            Err(error) => self.fail(&error),
        }
    }

    fn won(self, family: Family, parked: &Arc<Parked>) {
        let unlocked = self.ask.kind == LockType::Unlock;
        let undo = (Arc::clone(&self.fs), self.who, self.ask);
        match self.ticket.take() {
            Some(reply) => reply.ok(),
            // Killed meanwhile: nobody would ever unlock what was won.
            None => {
                let (fs, who, ask) = undo;
                let ask = LockAsk { kind: LockType::Unlock, ..ask };
                let _ = match family {
                    Family::Flock => fs.try_flock(ask.handle, LockType::Unlock),
                    Family::Fcntl => fs.try_fcntl(&who, &ask),
                };
            }
        }
        if unlocked {
            parked.wake_all();
        }
    }
}

type Task = Box<dyn FnOnce() + Send>;

/// Requests that wait for a lock.
pub(super) struct Parked {
    tasks: Mutex<Vec<(Instant, Task)>>,
    changed: Condvar,
    workers: Workers,
}

impl Parked {
    /// An empty list with its thread, which ends with it.
    pub(super) fn start(workers: Workers) -> io::Result<Arc<Self>> {
        let parked = Arc::new(Self { tasks: Mutex::default(), changed: Condvar::new(), workers });
        let weak = Arc::downgrade(&parked);
        std::thread::Builder::new().name("locks".into()).spawn(move || run(&weak))?;
        Ok(parked)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<(Instant, Task)>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn park(&self, pause: Duration, task: Task) {
        self.tasks().push((Instant::now() + pause, task));
        self.changed.notify_one();
    }

    /// Somebody here gave a lock up: it may be the one that the others wait for.
    pub(super) fn wake_all(&self) {
        let (now, mut tasks) = (Instant::now(), self.tasks());
        // Every close comes here, and nearly always nobody waits.
        if !tasks.is_empty() {
            tasks.iter_mut().for_each(|(at, _)| *at = now);
            self.changed.notify_one();
        }
    }

    fn turn(&self) {
        let mut tasks = self.tasks();
        let now = Instant::now();
        let due: Vec<Task> = tasks.extract_if(.., |(at, _)| *at <= now).map(|(_, task)| task).collect();
        if due.is_empty() {
            let next = tasks.iter().map(|(at, _)| at.saturating_duration_since(now)).min();
            let pause = next.map_or(IDLE, |pause| pause.min(IDLE));
            drop(self.changed.wait_timeout(tasks, pause).unwrap_or_else(PoisonError::into_inner));
            return;
        }
        drop(tasks);
        due.into_iter().for_each(|task| self.workers.run(task));
    }
}

/// How often the thread looks whether its list still exists.
const IDLE: Duration = Duration::from_secs(1);

fn run(parked: &Weak<Parked>) {
    while let Some(parked) = parked.upgrade() {
        parked.turn();
    }
}
