//! How far a command is: one line that is drawn again and again on a terminal, a line every few seconds in a log.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// See the module. It may be told from several threads.
pub(super) struct Progress {
    files: usize,
    bytes: u64,
    files_done: AtomicUsize,
    bytes_done: AtomicU64,
    terminal: bool,
    shown: Mutex<Instant>,
}

impl Progress {
    pub(super) fn new(files: usize, bytes: u64) -> Self {
        Self {
            files,
            bytes,
            files_done: AtomicUsize::new(0),
            bytes_done: AtomicU64::new(0),
            terminal: std::io::stderr().is_terminal(),
            shown: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        let every = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.elapsed() >= every {
            *shown = Instant::now();
            self.show();
        }
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
        self.add(0);
    }

    /// The last look, also after a second: a log shows how it ended.
    pub(super) fn end(&self) {
        self.show();
        if self.terminal {
            eprintln!();
        }
    }

    fn show(&self) {
        let (bytes, files) =
            (self.bytes_done.load(Ordering::Relaxed), self.files_done.load(Ordering::Relaxed));
        let percent = 100.0 * bytes as f64 / self.bytes.max(1) as f64;
        let line =
            format!("{percent:5.1} % of {:.1} MB, {files} of {} files", self.bytes as f64 / 1e6, self.files);
        if self.terminal {
            eprint!("\r{line}");
        } else {
            eprintln!("{line}");
        }
    }
}
