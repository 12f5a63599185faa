//! How the backend stands now, for `explain`, `status` and the metrics: what signals say, and our own timing on top.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::{BackendState, Report, SourceName};

/// See the module.
#[derive(Debug)]
pub struct Standing {
    now: Mutex<Now>,
    left: [AtomicU64; SourceName::ALL.len()],
}

#[derive(Debug)]
struct Now {
    report: Report,
    answers: bool,
    since: Instant,
}

/// One look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stand {
    /// Worst of signals and timing.
    pub state: BackendState,
    /// What moved it there, unless all is well.
    pub source: Option<SourceName>,
    /// The same in words.
    pub signal: Option<String>,
    /// Seconds since the state changed.
    pub for_s: u64,
    /// Everything that is looked at beside our own timing.
    pub watched: Vec<String>,
}

impl Default for Standing {
    fn default() -> Self {
        let now = Now { report: Report::default(), answers: true, since: Instant::now() };
        Self { now: Mutex::new(now), left: Default::default() }
    }
}

impl Now {
    fn state(&self) -> BackendState {
        if self.answers { self.report.state } else { BackendState::Gone }
    }

    fn source(&self) -> Option<SourceName> {
        if self.answers || self.report.state == BackendState::Gone {
            self.report.source
        } else {
            Some(SourceName::Timing)
        }
    }
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.lock();
        let before = now.state();
        change(&mut now);
        let after = now.state();
        if after == before {
            return;
        }
        now.since = Instant::now();
        if let (BackendState::Gone, Some(source)) = (after, now.source()) {
            self.left[source as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Signals changed.
    pub fn reported(&self, report: Report) {
        self.change(|now| now.report = report);
    }

    /// Whether our own reads are answered in time.
    pub fn answers(&self, answers: bool) {
        self.change(|now| now.answers = answers);
    }

    /// How it stands now.
    pub fn now(&self) -> Stand {
        let now = self.lock();
        let source = now.source();
        let signal = match source {
            Some(SourceName::Timing) => Some("a read failed or was not answered within 250 ms".to_owned()),
            _ => now.report.signal.clone(),
        };
        Stand {
            state: now.state(),
            source,
            signal,
            for_s: now.since.elapsed().as_secs(),
            watched: now.report.watched.clone(),
        }
    }

    /// How often the backend was left, by who said so first.
    pub fn left(&self) -> impl Iterator<Item = (SourceName, u64)> + '_ {
        SourceName::ALL.iter().map(|s| (*s, self.left[*s as usize].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: BackendState) -> Report {
        let source = (state != BackendState::Live).then_some(SourceName::Nvme);
        Report { state, source, signal: source.map(|_| "nvme1 is connecting".into()), watched: Vec::new() }
    }

    fn left(standing: &Standing) -> Vec<u64> {
        standing.left().map(|(_, n)| n).collect()
    }

    #[test]
    fn the_signal_that_was_first_is_named_and_counted() {
        let standing = Standing::default();
        standing.reported(report(BackendState::Gone));
        standing.answers(false);
        assert_eq!(standing.now().signal.as_deref(), Some("nvme1 is connecting"));
        assert_eq!(left(&standing), [0, 1, 0, 0, 0]);
        standing.reported(report(BackendState::Live));
        assert_eq!(standing.now().source, Some(SourceName::Timing));
        standing.answers(true);
        assert_eq!(standing.now().state, BackendState::Live);
        standing.answers(false);
        assert_eq!(left(&standing), [1, 1, 0, 0, 0]);
        standing.answers(true);
        standing.reported(report(BackendState::Degraded));
        assert_eq!((standing.now().state, left(&standing)[1]), (BackendState::Degraded, 1));
    }
}
