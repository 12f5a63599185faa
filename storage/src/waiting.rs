//! Requests under way, and who may stop waiting for them.
//!
//! The kernel's FUSE_INTERRUPT cannot be used: the FUSE crate refuses it, after which the kernel does not ask again. So a
//! request that takes long is looked at instead: a caller that has a fatal signal pending is answered EINTR and dies at once,
//! and with `soft` a request that is over its time is answered EIO. The end of the mount answers all. What the backend says
//! later is dropped.
//!
//! ```text
//!   nothing is old: a look every 100 ms     something is: every 10 ms, but at most a twentieth of a core
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// From this age on a request is looked at; how often the list is while it holds none of that age.
const OLD: Duration = Duration::from_millis(100);
/// How often old requests are looked at.
const TICK: Duration = Duration::from_millis(10);
/// Part of a core that looking may take: with many callers it takes longer.
const SHARE: u32 = 20;

type Cancel = Box<dyn FnOnce(Verdict) + Send>;

/// How a wait ends before its operation does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fail(i32),
    Substitute,
}

struct Entry {
    since: Instant,
    pid: u32,
    /// Waits for somebody else than the backend, who may take as long as they like.
    patient: bool,
    /// From this age on another answer may be given.
    substitute_after: Option<Duration>,
    cancel: Cancel,
}

/// The list of requests under way.
#[derive(Default)]
pub struct Waiting {
    entries: Mutex<Entries>,
    /// `soft`: most time a request may take.
    soft: Option<Duration>,
}

#[derive(Default)]
struct Entries {
    next: u64,
    by_age: BTreeMap<u64, Entry>,
    closed: bool,
}

/// An answer that is given once: by the operation, or by who stops the wait.
pub struct Ticket<R> {
    answer: Arc<Mutex<Option<R>>>,
    id: u64,
    list: Weak<Waiting>,
}

impl Waiting {
    /// An empty list, with its thread. `soft`: EIO after that time; `None`: wait for ever.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(soft: Option<Duration>) -> io::Result<Arc<Self>> {
        let list = Arc::new(Self { entries: Mutex::default(), soft });
        let weak = Arc::downgrade(&list);
        let watch = move || {
            while let Some(list) = weak.upgrade() {
                let start = Instant::now();
                let pause = if list.look() { TICK.max(start.elapsed() * (SHARE - 1)) } else { OLD };
                drop(list);
                std::thread::sleep(pause);
            }
        };
        std::thread::Builder::new().name("waiting".into()).spawn(watch)?;
        Ok(list)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of thread `pid` begins; `fail` answers it with an error number.
    pub fn enter<R: Send + 'static>(self: &Arc<Self>, pid: u32, answer: R, fail: fn(R, i32)) -> Ticket<R> {
        self.add(pid, answer, fail, None, |_| {})
    }

    /// The same for a request that waits for another process, as for a lock: `soft` does not end it.
    pub fn enter_patient<R: Send + 'static>(
        self: &Arc<Self>,
        pid: u32,
        answer: R,
        fail: fn(R, i32),
    ) -> Ticket<R> {
        let ticket = self.add(pid, answer, fail, None, |_| {});
        if let Some(entry) = self.entries().by_age.get_mut(&ticket.id) {
            entry.patient = true;
        }
        ticket
    }

    /// The same for a request that has a second best answer: `substitute` gives it when the best one takes longer than
    /// `after`.
    pub fn enter_with<R: Send + 'static>(
        self: &Arc<Self>,
        pid: u32,
        answer: R,
        fail: fn(R, i32),
        after: Duration,
        substitute: impl FnOnce(R) + Send + 'static,
    ) -> Ticket<R> {
        self.add(pid, answer, fail, Some(after), substitute)
    }

    fn add<R: Send + 'static>(
        self: &Arc<Self>,
        pid: u32,
        answer: R,
        fail: fn(R, i32),
        substitute_after: Option<Duration>,
        substitute: impl FnOnce(R) + Send + 'static,
    ) -> Ticket<R> {
        let answer = Arc::new(Mutex::new(Some(answer)));
        let ours = Arc::clone(&answer);
        let cancel: Cancel = Box::new(move |verdict| {
            let taken = ours.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (taken, verdict) {
                (Some(answer), Verdict::Fail(errno)) => fail(answer, errno),
                (Some(answer), Verdict::Substitute) => substitute(answer),
                (None, _) => {}
            }
        });
        let mut entries = self.entries();
        let id = entries.next;
        entries.next += 1;
        if entries.closed {
            drop(entries);
            cancel(Verdict::Fail(libc::ENOTCONN));
        } else {
            let entry = Entry { since: Instant::now(), pid, patient: false, substitute_after, cancel };
            entries.by_age.insert(id, entry);
        }
        Ticket { answer, id, list: Arc::downgrade(self) }
    }

    /// Ends all waits, and lets none begin any more: the mount is gone.
    pub fn close(&self) {
        let over = {
            let mut entries = self.entries();
            entries.closed = true;
            std::mem::take(&mut entries.by_age)
        };
        over.into_values().for_each(|entry| (entry.cancel)(Verdict::Fail(libc::ECONNABORTED)));
    }

    /// Ends the waits that are over. Returns whether old ones are left.
    fn look(&self) -> bool {
        let old: Vec<(u64, u32, Option<Verdict>)> = {
            let entries = self.entries();
            let old = entries.by_age.iter().take_while(|(_, e)| e.since.elapsed() >= OLD);
            old.map(|(id, e)| (*id, e.pid, self.verdict(e))).collect()
        };
        // Without the lock, which every new request needs: this asks the kernel, once per caller.
        let mut killed = HashMap::new();
        let mut left = false;
        for (id, pid, verdict) in old {
            let mut killed = || *killed.entry(pid).or_insert_with(|| is_being_killed(pid));
            let verdict = verdict.or_else(|| killed().then_some(Verdict::Fail(libc::EINTR)));
            match verdict {
                Some(verdict) => self.end(id, verdict),
                None => left = true,
            }
        }
        left
    }

    fn end(&self, id: u64, verdict: Verdict) {
        // The operation may have ended meanwhile.
        let Some(entry) = self.entries().by_age.remove(&id) else { return };
        if verdict == Verdict::Fail(libc::EIO) {
            tracing::warn!("a request of pid {} took longer than the soft timeout: EIO", entry.pid);
        }
        (entry.cancel)(verdict);
    }

    /// What its age alone says.
    fn verdict(&self, entry: &Entry) -> Option<Verdict> {
        if entry.substitute_after.is_some_and(|after| entry.since.elapsed() >= after) {
            Some(Verdict::Substitute)
        } else if !entry.patient && self.soft.is_some_and(|most| entry.since.elapsed() >= most) {
            Some(Verdict::Fail(libc::EIO))
        } else {
            None
        }
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.entries().by_age.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<R> Ticket<R> {
    /// Whether the wait was stopped.
    pub fn is_over(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Takes the answer; `None` when the wait was stopped.
    pub fn take(self) -> Option<R> {
        if let Some(list) = self.list.upgrade() {
            list.entries().by_age.remove(&self.id);
        }
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a thread has SIGKILL pending. Every fatal signal of a process ends as a pending SIGKILL of its threads (kernel,
/// complete_signal()).
fn is_being_killed(pid: u32) -> bool {
    let kill = 1 << (libc::SIGKILL - 1);
    Signals::of(pid).pending & kill != 0
}

/// Whether a thread has a signal pending that ends an interruptible wait.
pub(crate) fn has_signal(pid: u32) -> bool {
    let signals = Signals::of(pid);
    signals.pending & !signals.ignored & !signals.blocked != 0
}

/// Sets of signals of a thread, a bit each. A thread that is gone has none.
#[derive(Default)]
struct Signals {
    pending: u64,
    blocked: u64,
    ignored: u64,
}

impl Signals {
    fn of(pid: u32) -> Self {
        let mut signals = Self::default();
        for line in std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default().lines() {
            let Some((name, set)) = line.split_once(':') else { continue };
            let set = || u64::from_str_radix(set.trim(), 16).unwrap_or(0);
            match name {
                "SigPnd" | "ShdPnd" => signals.pending |= set(),
                "SigBlk" => signals.blocked = set(),
                "SigIgn" => signals.ignored = set(),
                _ => {}
            }
        }
        signals
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_soft_timeout_answers_once_and_the_late_result_is_dropped() {
        let list = Waiting::start(Some(Duration::from_millis(1))).unwrap();
        let (tx, rx) = mpsc::channel();
        let ticket = list.enter(std::process::id(), tx, |tx, errno| tx.send(errno).unwrap());
        assert_eq!(rx.recv_timeout(Duration::from_secs(30)), Ok(libc::EIO));
        assert!(ticket.take().is_none());
        assert!(list.is_empty());
    }

    #[test]
    fn the_end_of_the_mount_answers_all_that_wait_and_all_that_come() {
        let list = Waiting::start(None).unwrap();
        let (tx, rx) = mpsc::channel();
        let fail = |tx: mpsc::Sender<i32>, errno| tx.send(errno).unwrap();
        let ticket = list.enter(std::process::id(), tx.clone(), fail);
        list.close();
        assert_eq!(rx.try_recv(), Ok(libc::ECONNABORTED));
        assert!(ticket.is_over());
        assert!(list.enter_patient(std::process::id(), tx, fail).take().is_none());
        assert_eq!(rx.try_recv(), Ok(libc::ENOTCONN));
    }

    #[test]
    fn a_hard_wait_is_not_stopped_while_its_caller_lives() {
        let list = Waiting::start(None).unwrap();
        let (tx, rx) = mpsc::channel::<i32>();
        let ticket = list.enter(std::process::id(), tx, |tx, errno| tx.send(errno).unwrap());
        assert!(rx.recv_timeout(OLD * 3).is_err());
        assert!(ticket.take().is_some());
    }
}
