//! Joining: the ranks of a segment come together, each a living process that has seen all others.
//!
//! What happens in shared memory is `handshake`; here are the processes behind it, the deadline, and what follows for all from
//! what each rank says of itself.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::handshake::{FACTS, Meeting, Met, Presence, still_in};
use crate::line::Line;
use crate::liveness::Process;
use crate::segment::Segment;
use crate::segment::layout::LINES;
use crate::sys;
use crate::word::Codec;

/// Places of the facts in a presence: the process, when it started in clock ticks since boot, how it believes the segment to be
/// divided, the address of a copy of its session in private memory to try process_vm_readv on, and the CPUs it may use.
const PID: usize = 0;
const START: usize = 1;
const LAYOUT: usize = 2;
const PROBE: usize = 3;
const CPUS: std::ops::Range<usize> = 4..12;
const _: () = assert!(CPUS.end == FACTS);

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
/// `Timeout` names the first rank that did not come, `PeerLost` one that came and ended; `Invalid` when a living process holds
/// the rank.
pub(crate) fn join(segment: &Segment, slot: usize, rank: usize, timeout: Duration) -> Result<Membership> {
    refuse_living_owner(segment, rank)?;
    let mut patience = Patience::new(timeout);
    let records: Vec<_> = (0..segment.layout().ranks).map(|rank| segment.member(rank)).collect();
    while let Some(peer) =
        still_in(&records, rank, |found| watch(found).is_ok_and(|process| process.is_some()))
    {
        patience.nap(peer)?;
    }
    let session = Box::new(sys::random_u64() | 1);
    segment.member(rank).clear();
    reset_lines(segment, slot, rank, Codec::new(0));
    let mut meeting = Meeting::begin(records, rank, &presence(segment, &session));
    let processes = match gather(&mut meeting, segment, patience) {
        Ok(processes) => processes,
        // The other one has to find out, too.
        Err(error @ Error::Divided { .. }) => return Err(error),
        Err(error) => {
            meeting.give_up();
            return Err(error);
        }
    };
    // The peers have to find the probe for as long as they may still be joining: it is never freed.
    Box::leak(session);
    let all = || (0..processes.len()).filter_map(|peer| meeting.seen(peer));
    Ok(Membership {
        key: meeting.key(),
        oversubscribed: oversubscribed(all()),
        can_read_peers: all().all(can_read),
        processes,
    })
}

/// How long to go on looking.
struct Patience {
    timeout: Duration,
    deadline: Instant,
    nap: Duration,
}

impl Patience {
    fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now() + timeout, nap: Duration::from_micros(20) }
    }

    /// A pause between two looks at `rank`, which is waited for.
    fn nap(&mut self, rank: usize) -> Result<()> {
        if Instant::now() >= self.deadline {
            return Err(Error::Timeout { rank, millis: self.timeout.as_millis() as u64 });
        }
        std::thread::sleep(self.nap);
        self.nap = (self.nap * 2).min(Duration::from_millis(2));
        Ok(())
    }
}

/// Looks at all ranks until they are in; their processes.
fn gather(meeting: &mut Meeting<'_>, segment: &Segment, mut patience: Patience) -> Result<Vec<Process>> {
    let ranks = segment.layout().ranks;
    let mut processes: Vec<Option<Process>> = (0..ranks).map(|_| None).collect();
    // This rank is the only one that was seen already.
    for (process, own) in processes.iter_mut().zip(0..).filter_map(|(p, rank)| Some((p, meeting.seen(rank)?)))
    {
        let none = Error::System { what: "find this process in /proc", errno: libc::ENOENT };
        *process = Some(watch(own)?.ok_or(none)?);
    }
    loop {
        let mut missing = None;
        for rank in (0..ranks).rev() {
            if look(meeting, rank, segment, &mut processes[rank])? != Met::In {
                missing = Some(rank);
            }
        }
        match missing {
            Some(rank) => patience.nap(rank)?,
            None => return Ok(processes.into_iter().flatten().collect()),
        }
    }
}

/// One look at a rank, whose process goes to `process` when it is new.
fn look(
    meeting: &mut Meeting<'_>,
    rank: usize,
    segment: &Segment,
    process: &mut Option<Process>,
) -> Result<Met> {
    let gone = process.as_ref().is_some_and(Process::is_gone);
    let mut failed = Ok(());
    let met = meeting.look(rank, |found| match watch(found) {
        Ok(Some(new)) => {
            *process = Some(new);
            true
        }
        Ok(None) => false,
        Err(error) => {
            failed = Err(error);
            false
        }
    });
    failed?;
    match met {
        Met::New
            if meeting
                .seen(rank)
                .is_some_and(|peer| peer.facts[LAYOUT] != segment.layout().fingerprint()) =>
        {
            Err(Error::Divided { rank })
        }
        // It was gone before this look, in which it was not in: it will not come any more.
        Met::NotYet if gone => Err(Error::PeerLost { rank }),
        met => Ok(met),
    }
}

/// The process that says to be there, if it is.
fn watch(found: &Presence) -> Result<Option<Process>> {
    match i32::try_from(found.facts[PID]) {
        Ok(pid @ 1..) => Process::watch(pid, found.facts[START]),
        _ => Ok(None),
    }
}

/// A rank that another living process holds must not be written to: each line has one writer.
fn refuse_living_owner(segment: &Segment, rank: usize) -> Result<()> {
    let Some(found) = segment.member(rank).present() else { return Ok(()) };
    match watch(&found)? {
        Some(process) if process.pid != std::process::id() as i32 => {
            Err(Error::Invalid("another process holds this rank"))
        }
        _ => Ok(()),
    }
}

/// What this process says of itself.
fn presence(segment: &Segment, session: &u64) -> Presence {
    let pid = std::process::id();
    let mut facts = [0; FACTS];
    facts[PID] = u64::from(pid);
    facts[START] = sys::start_time(pid as i32).unwrap_or(0);
    facts[LAYOUT] = segment.layout().fingerprint();
    facts[PROBE] = std::ptr::from_ref(session) as u64;
    facts[CPUS].copy_from_slice(&sys::allowed_cpus());
    Presence { session: *session, facts }
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
        post(segment.relay_lines(slot, rank, peer).0);
        post(segment.relay_lines(slot, peer, rank).1);
    }
}

fn can_read(peer: &Presence) -> bool {
    let (pid, mut found) = (i32::try_from(peer.facts[PID]).unwrap_or(0), 0_u64);
    // SAFETY: `found` is writable for eight bytes; the kernel checks the address in the peer.
    let read = unsafe { sys::read_process(pid, peer.facts[PROBE], (&raw mut found).cast(), 8) };
    read.is_ok() && found == peer.session
}

fn oversubscribed<'a>(all: impl Iterator<Item = &'a Presence> + Clone) -> bool {
    let ranks = all.clone().count();
    let together = |word: usize| all.clone().fold(0, |cpus, peer| cpus | peer.facts[word]);
    ranks > CPUS.map(|word| together(word).count_ones()).sum::<u32>() as usize
}
