//! The writing side of a mount: its journal, what an earlier mount left in it, and the flush at the end.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::StartError;
use super::house::in_time;
use crate::config::{Fsync, MountConfig};
use crate::dirty::ledger::LEAST;
use crate::fs::writes::{Finished, Recovered, Refill, Settings};
use crate::fs::{Identity, ReadPath, WriteBack, WriteMode, Writes};

/// How often a flush at the start or end tells how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Makes what a mount's mode needs, after bringing what an earlier mount left behind to the backend.
pub(super) fn start(
    config: &MountConfig,
    cache_dir: &Path,
    cache_size: u64,
    reads: &Arc<ReadPath>,
    identity: Identity,
) -> Result<Writes, StartError> {
    let other = |what| move |source| StartError::Other { what, source };
    let directory = journal_of(cache_dir, &config.backend, reads.backend_id());
    let settings = Settings {
        bound: config.dirty.unwrap_or(cache_size / 4).max(LEAST),
        fsync_local: config.fsync == Some(Fsync::Local),
        directory,
    };
    let open = || {
        WriteBack::open(&settings, &config.backend, reads.backend_id(), identity)
            .map_err(|source| StartError::Journal { journal: settings.directory.clone(), source })
    };
    if config.writes == WriteMode::Back {
        let back = open()?;
        let found = back.recover();
        tell(&found, &config.backend);
        found.failed.iter().for_each(|file| tracing::error!("dirty data of {file} cannot be flushed yet"));
        back.start_flushing().map_err(other("start the flushers"))?;
        return Ok(Writes::Back(back));
    }
    if settings.directory.is_dir() {
        replay(&open()?, &settings.directory, &config.backend)?;
    }
    Ok(match config.writes {
        WriteMode::Around => Writes::Around,
        _ => Writes::Through(Refill::start(reads).map_err(other("start a thread"))?),
    })
}

/// For a mount that keeps nothing back: everything, before anybody sees the mount.
fn replay(back: &Arc<WriteBack>, journal: &Path, backend: &Path) -> Result<(), StartError> {
    let found = back.recover();
    tell(&found, backend);
    back.start_flushing().map_err(|source| StartError::Other { what: "start the flushers", source })?;
    let finished = finish(back, backend);
    if finished == Finished::Clean {
        // Only a directory that is empty goes.
        let _ = std::fs::remove_dir(journal);
        return Ok(());
    }
    let files = match &found.failed[..] {
        [] => "see the log".to_owned(),
        failed => failed.join("; "),
    };
    Err(StartError::Dirty { journal: journal.to_owned(), files })
}

fn tell(found: &Recovered, backend: &Path) {
    if found.files > 0 {
        let (files, bytes, backend) = (found.files, found.bytes, backend.display());
        tracing::warn!(
            "an earlier mount of {backend} left {files} dirty files with {bytes} bytes: flushing them"
        );
    }
}

/// Flushes with progress, until nothing is dirty and the journal is empty, nothing more can be done, or an ending signal comes.
pub(super) fn finish(back: &Arc<WriteBack>, name: &Path) -> Finished {
    let (all, began) = (back.dirty_bytes(), Instant::now());
    let signals =
        SignalFd::with_flags(&super::ending_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let mut told = began;
    let finished = back.finish(|left| {
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let done = all.saturating_sub(left) * 100 / all.max(1);
            tracing::info!("{}: flushing dirty data, {left} of {all} bytes left ({done} %)", name.display());
        }
        !signals.as_ref().is_ok_and(|s| matches!(s.read_signal(), Ok(Some(_))))
    });
    back.end();
    if finished == Finished::Clean {
        // What is left in a journal must be kept: nothing is.
        let back = Arc::clone(back);
        in_time(move || back.sync());
    }
    let name = name.display();
    match finished {
        Finished::Clean if all > 0 => {
            tracing::info!("{name}: flushed {all} bytes in {:.1} s", began.elapsed().as_secs_f64());
        }
        Finished::Clean => {}
        Finished::Left(files) => {
            tracing::error!(
                "{name}: {files} files could not be flushed; the next mount with this --cache tries again"
            );
        }
        Finished::GivenUp(files) => {
            tracing::warn!(
                "{name}: told to stop with {files} files dirty; the next mount with this --cache flushes them"
            );
        }
    }
    finished
}

/// The journal of a backend's directory: the same for every mount point, so that the next mount finds it.
fn journal_of(cache_dir: &Path, backend: &Path, backend_id: u64) -> PathBuf {
    // FNV-1a: the name is on the disk, so it must not change with the compiler's hasher.
    let id = backend.as_os_str().as_bytes().iter();
    let id = id.fold(backend_id, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    cache_dir.join(format!("dirty-{id:016x}"))
}
