//! How ranks find each other in a fresh or used segment.
//!
//! ```text
//!   rank r:  clear my session ─▶ reset my lines ─▶ publish pid, start, layout ─▶ publish session
//!            ─▶ wait for a living session of every peer ─▶ acknowledge each
//!            ─▶ wait until every peer acknowledged mine ─▶ joined; key = all sessions mixed
//! ```
//! A session is a random number of one process' attempt to join, so that records left behind by an
//! earlier run of the step are never taken for members of this one: they do not acknowledge.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::line::Line;
use crate::liveness::Process;
use crate::segment::Segment;
use crate::segment::layout::{LINES, MAX_RANKS, MEMBER_BYTES};
use crate::sys;
use crate::word::Codec;

/// What a rank tells the others about itself. Only the rank writes its record.
#[repr(C, align(64))]
pub(crate) struct MemberRecord {
    session: AtomicU64,
    pid: AtomicU64,
    start: AtomicU64,
    layout: AtomicU64,
    /// Address of a copy of the session in private memory, to try process_vm_readv on.
    probe: AtomicU64,
    cpus: [AtomicU64; 8],
    /// The sessions of the others that this rank has seen.
    acknowledged: [AtomicU64; MAX_RANKS],
}

const _: () = assert!(size_of::<MemberRecord>() <= MEMBER_BYTES);

/// The result of joining: everything that the ranks agreed on.
pub(crate) struct Membership {
    pub(crate) processes: Vec<Process>,
    pub(crate) key: u64,
    /// More ranks than CPUs that they may use.
    pub(crate) oversubscribed: bool,
    /// This rank can read the memory of all others.
    pub(crate) can_read_peers: bool,
}

/// Joins `segment` as `rank`, together with all other ranks of the step.
///
/// # Errors
/// `Timeout` names the first rank that did not come; `Invalid` when a living process holds the rank.
pub(crate) fn join(segment: &Segment, slot: usize, rank: usize, timeout: Duration) -> Result<Membership> {
    let ranks = segment.layout().ranks;
    let own = segment.member(rank);
    refuse_living_owner(own)?;
    let session = Box::new(sys::random_u64() | 1);
    publish(segment, slot, rank, &session);
    let mut wait = Wait { deadline: Instant::now() + timeout, millis: timeout.as_millis() as u64 };
    let mut processes = Vec::with_capacity(ranks);
    let mut sessions = Vec::with_capacity(ranks);
    for peer in 0..ranks {
        let (theirs, process) = wait.until(peer, || living_session(segment.member(peer)))?;
        if segment.member(peer).layout.load(Ordering::Relaxed) != segment.layout().fingerprint() {
            return Err(Error::Mismatch { rank: peer });
        }
        own.acknowledged[peer].store(theirs, Ordering::Release);
        processes.push(process);
        sessions.push(theirs);
    }
    for (peer, process) in processes.iter().enumerate() {
        wait.until(peer, || {
            let seen = segment.member(peer).acknowledged[rank].load(Ordering::Acquire) == *session;
            if !seen && process.is_gone() {
                return Err(Error::PeerLost { rank: peer });
            }
            Ok(seen.then_some(()))
        })?;
    }
    let can_read_peers =
        (0..ranks).all(|peer| can_read(segment.member(peer), &processes[peer], sessions[peer]));
    let key =
        sessions.iter().fold(0, |key: u64, s| key.rotate_left(7).wrapping_mul(0x5851_f42d_4c95_7f2d) ^ s);
    // The peers have to find the probe for as long as they may still be joining: it is never freed.
    Box::leak(session);
    Ok(Membership { processes, key, oversubscribed: oversubscribed(segment), can_read_peers })
}

struct Wait {
    deadline: Instant,
    millis: u64,
}

impl Wait {
    fn until<T>(&mut self, rank: usize, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let mut nap = Duration::from_micros(20);
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() >= self.deadline {
                return Err(Error::Timeout { rank, millis: self.millis });
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(2));
        }
    }
}

/// A rank that another living process holds must not be written to: each line has one writer.
fn refuse_living_owner(own: &MemberRecord) -> Result<()> {
    match living_session(own)? {
        Some((_, process)) if process.pid != std::process::id() as i32 => {
            Err(Error::Invalid("another process holds this rank"))
        }
        _ => Ok(()),
    }
}

/// Publishes this rank's record, the session last.
fn publish(segment: &Segment, slot: usize, rank: usize, session: &u64) {
    let own = segment.member(rank);
    own.session.store(0, Ordering::Release);
    for seen in &own.acknowledged {
        seen.store(0, Ordering::Relaxed);
    }
    reset_lines(segment, slot, rank, Codec::new(0));
    let pid = std::process::id();
    own.pid.store(u64::from(pid), Ordering::Relaxed);
    own.start.store(sys::start_time(pid as i32).unwrap_or(0), Ordering::Relaxed);
    own.layout.store(segment.layout().fingerprint(), Ordering::Relaxed);
    own.probe.store(std::ptr::from_ref(session) as u64, Ordering::Relaxed);
    for (cell, cpus) in own.cpus.iter().zip(sys::allowed_cpus()) {
        cell.store(cpus, Ordering::Relaxed);
    }
    own.session.store(*session, Ordering::Release);
}

/// Puts all lines that this rank writes in `slot` to the beginning of a communicator's life.
pub(crate) fn reset_lines(segment: &Segment, slot: usize, rank: usize, codec: Codec) {
    let start = codec.encode(0, 0);
    let post = |line: &Line| line.post(start);
    for index in 0..LINES {
        post(segment.line(slot, rank, index));
    }
    for peer in 0..segment.layout().ranks {
        post(segment.ring_lines(slot, rank, peer).0);
        post(segment.ring_lines(slot, peer, rank).1);
    }
}

/// The session in `record`, if the process that wrote it still lives.
fn living_session(record: &MemberRecord) -> Result<Option<(u64, Process)>> {
    let session = record.session.load(Ordering::Acquire);
    let pid = i32::try_from(record.pid.load(Ordering::Relaxed)).unwrap_or(0);
    if session == 0 || pid <= 0 {
        return Ok(None);
    }
    let process = Process::watch(pid, record.start.load(Ordering::Relaxed))?;
    Ok(process.map(|process| (session, process)))
}

fn can_read(record: &MemberRecord, process: &Process, session: u64) -> bool {
    let mut found = 0_u64;
    let from = record.probe.load(Ordering::Relaxed);
    // SAFETY: `found` is writable for eight bytes; the kernel checks the address in the peer.
    let read = unsafe { sys::read_process(process.pid, from, (&raw mut found).cast(), 8) };
    read.is_ok() && found == session
}

fn oversubscribed(segment: &Segment) -> bool {
    let ranks = segment.layout().ranks;
    let cpus: u32 = (0..8)
        .map(|word| {
            let any = |set, rank| set | segment.member(rank).cpus[word].load(Ordering::Relaxed);
            (0..ranks).fold(0_u64, any).count_ones()
        })
        .sum();
    ranks > cpus as usize
}
