//! Housekeeping, on a thread of its own: a cache device that hangs holds that thread and nothing else, neither the end of the
//! sidecar nor those who read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::cache::{Cache, FileStore};
use crate::metrics::{self, Source};

/// How often the cache is made durable, and the metrics file is written.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// How often records that are not valid any more are erased.
const TICK: Duration = Duration::from_millis(200);
/// How long the end waits for a device; what was not synced is only not found by the next start.
const END: Duration = Duration::from_secs(10);

/// What there is to be kept.
pub(super) struct House {
    pub(super) cache: Arc<Cache<FileStore>>,
    pub(super) mounts: Arc<Vec<Source>>,
    pub(super) metrics_file: Option<PathBuf>,
}

/// The thread that keeps it.
pub(super) struct Keeper {
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl House {
    /// Keeps it from now on.
    pub(super) fn keep(self) -> io::Result<Keeper> {
        let (stop, told) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let run = move || {
            let mut last = Instant::now();
            while told.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                self.cache.erase_dropped();
                if last.elapsed() >= HOUSEKEEPING {
                    self.look_after();
                    last = Instant::now();
                }
            }
            self.sync();
            let _ = end.send(());
        };
        thread::Builder::new().name("house".into()).spawn(run)?;
        Ok(Keeper { stop, ended })
    }

    fn sync(&self) {
        if let Err(error) = self.cache.sync() {
            tracing::warn!("the cache could not be synced: {error}");
        }
    }

    fn look_after(&self) {
        self.mounts.iter().for_each(|m| m.reads.jobs().forget_ended());
        if let Some(path) = &self.metrics_file
            && let Err(error) =
                metrics::render(&self.cache, &self.mounts).and_then(|text| write_whole(path, &text))
        {
            tracing::warn!("metrics file {}: {error}", path.display());
        }
        self.sync();
        self.mounts.iter().filter_map(|m| m.back.as_ref()).for_each(|back| back.sync());
    }
}

impl Keeper {
    /// Makes the cache durable for the last time, if its device answers.
    pub(super) fn end(self) {
        drop(self.stop);
        if self.ended.recv_timeout(END).is_err() {
            tracing::warn!(
                "the cache device has not answered for {} s: the next start may find fewer extents",
                END.as_secs()
            );
        }
    }
}

/// Does something that a device may hold up, for as long as the end waits.
pub(super) fn in_time(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let run = move || {
        work();
        let _ = tell.send(());
    };
    if thread::Builder::new().name("end".into()).spawn(run).is_ok() {
        let _ = told.recv_timeout(END);
    }
}

/// A file that readers never see half written.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}
