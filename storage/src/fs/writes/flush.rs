//! Flushing: rounds of one file each, in the background or for an fsync; and the flush at the end.
//!
//! ```text
//!   round:  backend as `base`, or as a flush of ours may have left it? --no--> conflict: both copies are kept
//!             | yes
//!   Flushing -> sync journal -> cut, write, size -> fsync backend -> time -> Flushed -> sync journal -> trim
//! ```
//! A byte leaves the journal only after the backend's fsync, so that `fsync=local` holds until then. A failed round leaves
//! all of its bytes dirty, and is tried again after a pause that grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};

use super::journaled::{Live, WriteBack, base_of, now};
use super::overlay::TRIES;
use crate::cache::FileKey;
use crate::dirty::{Change, Plan, is_outdated};

/// Files younger than this may be written again, or removed.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that one round takes, so that space comes free in the course of a long burst.
const ROUND: u64 = 64 << 20;
/// Files flushed at once.
const FLUSHERS: usize = 4;
const TICK: Duration = Duration::from_millis(100);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a flush at the end ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Nothing is dirty.
    Clean,
    /// So many files could not be flushed; they stay in the journal.
    Left(u64),
    /// It was given up on request.
    GivenUp(u64),
}

impl WriteBack {
    /// Starts the flushers; they end with [`Self::end`].
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_flushing(self: &Arc<Self>) -> io::Result<()> {
        for _ in 0..FLUSHERS {
            let back = Arc::clone(self);
            std::thread::Builder::new().name("flush".into()).spawn(move || back.flush_forever())?;
        }
        Ok(())
    }

    /// Ends the flushers.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    fn flush_forever(&self) {
        while !self.ended.load(Ordering::Acquire) {
            if !self.flush_one_due() {
                // Spurious and missed wake-ups do no harm: the time is short.
                let lives = self.lives();
                drop(self.wake.wait_timeout(lives, TICK).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn flush_one_due(&self) -> bool {
        let all = self.closing.load(Ordering::Acquire) || self.ledger.is_filling();
        let latest = now() - LINGER.as_nanos() as i64;
        let ids = self.ledger.dirty().by_age();
        for id in ids {
            let Some(live) = self.lives().get(&id).cloned() else { continue };
            let due = self.ledger.dirty().get(id).is_some_and(|f| all || f.since() <= latest);
            let paused = live
                .retry
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some_and(|(at, _)| at > Instant::now());
            let Ok(one) = live.round.try_lock() else { continue };
            if !due || paused {
                continue;
            }
            if let Err(error) = self.round_locked(&live) {
                self.failed(&live, &error);
            }
            drop(one);
            return true;
        }
        false
    }

    fn failed(&self, live: &Live, error: &io::Error) {
        if self.ledger.dirty().get(live.id).is_none() {
            // A conflict: both copies are kept, which was told.
            return;
        }
        let name = live.sink_name();
        let mut retry = live.retry.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = retry.map_or(PAUSE.0, |(_, pause)| (pause * 2).min(PAUSE.1));
        *retry = Some((Instant::now() + pause, pause));
        tracing::error!("cannot flush {name}: {error}; it stays dirty, next try in {} s", pause.as_secs());
        if let Some(node) = live.node() {
            node.writing.fail(error.raw_os_error().unwrap_or(libc::EIO));
        }
    }

    /// Brings what is dirty of a file now to the backend.
    ///
    /// # Errors
    /// As the backend gives them; EIO for a conflict. The bytes stay in the journal, or in the conflict file.
    pub fn drain(&self, key: FileKey) -> io::Result<()> {
        let Some((id, upto)) = self.ledger.dirty().find(key).map(|(id, f)| (id, f.newest_seq())) else {
            return Ok(());
        };
        while self.ledger.dirty().get(id).is_some_and(|f| f.oldest_seq() <= upto) {
            let live = self.lives().get(&id).cloned();
            match live {
                Some(live) => self.round(&live)?,
                None if self.ledger.dirty().get(id).is_none() => return Ok(()),
                None => return Err(io::Error::from_raw_os_error(libc::EIO)),
            }
        }
        Ok(())
    }

    /// One round.
    pub(super) fn round(&self, live: &Live) -> io::Result<()> {
        let _one = live.round.lock().unwrap_or_else(PoisonError::into_inner);
        self.round_locked(live)
    }

    /// What a plan was to write may be written anew meanwhile, and its segment go with another file's flush.
    fn round_locked(&self, live: &Live) -> io::Result<()> {
        for _ in 1..TRIES {
            match self.try_round(live) {
                Err(error) if is_outdated(&error) => {}
                done => return done,
            }
        }
        self.try_round(live)
    }

    fn try_round(&self, live: &Live) -> io::Result<()> {
        let plan = self.ledger.dirty().get(live.id).map(|f| f.plan(ROUND));
        let Some(plan) = plan else { return Ok(()) };
        if self.is_conflict(live, &plan)? {
            return self.keep_both(live);
        }
        *live.ours_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Should this not get to the device, a crash in the middle of the round leaves a conflict copy, and nothing is lost.
        self.ledger.note_anyway(live.id, now(), &Change::Flushing, || {});
        if let Err(error) = self.ledger.sync() {
            tracing::warn!("the dirty journal cannot be synced: {error}");
        }
        let carried = self.identity.act_with(&live.rights, || self.carry_out(&live.sink, &plan));
        let bytes = match carried {
            Ok(bytes) => bytes,
            Err(error) => {
                self.counters.flush_errors.fetch_add(u64::from(!is_outdated(&error)), Ordering::Relaxed);
                if let Ok((base, _)) = base_of(&live.sink) {
                    let nothing = Change::Flushed { upto: 0, cut_upto: 0, whole: false, base };
                    self.ledger.note_anyway(live.id, now(), &nothing, || {});
                }
                return Err(error);
            }
        };
        self.counters.flushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (base, _) = base_of(&live.sink)?;
        self.end_life(live, &plan.done(base));
        *live.retry.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = self.ledger.sync().and_then(|()| self.ledger.trim()) {
            tracing::warn!("the dirty journal cannot be trimmed: {error}");
        }
        Ok(())
    }

    fn is_conflict(&self, live: &Live, plan: &Plan) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let unlinking = self.ledger.dirty().get(live.id).is_some_and(|f| f.origin.unlinking);
        if live.sink.metadata()?.nlink() == 0 {
            // Somebody else removed it; what we removed ourselves may still be read by those who have it open.
            return Ok(!unlinking);
        }
        let now = base_of(&live.sink)?.0;
        let ours_until = *live.ours_until.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(!plan.fits(now) || now != plan.base && ours_until.is_some_and(|until| now.mtime > until))
    }

    /// Does at a file what a plan says, durably. Returns the bytes written.
    pub(super) fn carry_out(&self, file: &File, plan: &Plan) -> io::Result<u64> {
        if let Some(cut) = plan.cut.filter(|cut| file.metadata().is_ok_and(|m| m.len() > *cut)) {
            file.set_len(cut)?;
        }
        let mut bytes = 0;
        for piece in &plan.pieces {
            file.write_all_at(&self.ledger.read(piece)?, piece.offset)?;
            bytes += piece.len;
        }
        if let Some((size, _)) = plan.end
            && file.metadata()?.len() != size
        {
            file.set_len(size)?;
        }
        if let Some((_, mtime)) = plan.end {
            let modified = Timespec {
                tv_sec: mtime.div_euclid(1_000_000_000),
                tv_nsec: mtime.rem_euclid(1_000_000_000),
            };
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: modified,
            };
            // Only the owner may; another writer's file keeps the time of the flush.
            let _ = futimens(file, &times);
        }
        file.sync_all()?;
        Ok(bytes)
    }

    /// Flushes everything, until nothing is dirty or nothing more can be done. `progress` is told the bytes left now and
    /// then, and says whether to go on.
    pub fn finish(&self, mut progress: impl FnMut(u64) -> bool) -> Finished {
        let began = Instant::now();
        self.closing.store(true, Ordering::Release);
        // What failed before gets another chance.
        self.lives()
            .values()
            .for_each(|live| *live.retry.lock().unwrap_or_else(PoisonError::into_inner) = None);
        loop {
            self.wake.notify_all();
            let left = self.dirty_files();
            if left == 0 {
                return Finished::Clean;
            }
            let stuck = |live: &Arc<Live>| {
                live.retry.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|(at, _)| at > began)
            };
            let flushable = {
                let dirty = self.ledger.dirty();
                self.lives().values().any(|live| dirty.get(live.id).is_some() && !stuck(live))
            };
            if !flushable {
                return Finished::Left(left);
            }
            if !progress(self.dirty_bytes()) {
                return Finished::GivenUp(left);
            }
            std::thread::sleep(TICK / 4);
        }
    }
}

impl Live {
    /// For messages.
    pub(super) fn sink_name(&self) -> String {
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", self.sink.as_raw_fd()));
        link.map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
    }
}
