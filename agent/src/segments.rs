//! Host memory that the ranks of one step share, for their collectives: who may have it, how much, and until when.
//!
//! ```text
//!   plugin (root) ──open_segment──▶ first socket ─▶ account    promised to a step, within the site's limits
//!   rank (user)   ──segment──────▶ second socket ─▶ whose?     pidfd, then cgroup or ancestors, then user
//!                                                   hand_out   memory is made when the first rank asks; a sealed memfd
//!   release, close_lease, end of the slurmstepd ──▶ end        the agent lets go; the pages go with the last rank
//! ```
//! A segment belongs to a step, not to a user: two jobs of one user are strangers to each other. What the agent keeps over its own
//! restart is in `register` (on disk: the promises) and `adopt` (the memory itself, from the service manager or the ranks).
//!
//! The agent never maps a segment and never reads or writes in it: what is inside is the ranks' affair, and as trustworthy
//! as they are.

mod account;
mod adopt;
mod ancestry;
mod cgroup;
pub mod limits;
mod memory;
mod peer;
mod register;
pub(crate) mod rights;
pub mod socket;
mod turnstile;

use crate::config::Config;
use crate::notify::Notifier;
use crate::process;
use crate::seldom::Seldom;
use account::{Account, Decision, Promise, StepKey};
use cgroup::Home;
use limits::HugePages;
use memory::Memory;
use migshare_policy::record::Holder;
use migshare_proto::message::{CloseLease, OpenSegment, Reason, Refused, ReleaseGrant, Reply, SegmentReply};
use migshare_proto::segment::Fetched;
use migshare_proto::size;
use migshare_proto::status::SegmentsStatus;
use peer::Peer;
use register::{Entry, Register};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// All segments of the node.
#[derive(Debug)]
pub struct Segments {
    node: String,
    state: Mutex<State>,
    /// The log line of a step that would have a segment if there were room.
    full: Seldom,
}

#[derive(Debug)]
struct State {
    account: Account,
    /// The memory of those that a rank has asked for.
    memory: BTreeMap<StepKey, Memory>,
    register: Register,
    manager: Notifier,
    huge_pages: HugePages,
}

/// A process that was found to belong to a step with a segment.
#[derive(Debug)]
struct Claim {
    key: StepKey,
    promise: Promise,
    peer: Peer,
}

/// A process that gets nothing, and why.
#[derive(Debug)]
struct Stranger {
    uid: u32,
    reason: String,
}

/// For whom a process counts that cannot be asked any more: user -1 does not exist (credentials(7)).
const NOBODY: u32 = u32::MAX;

impl Segments {
    /// Takes up what an earlier agent of this boot left. The state directory is this agent's alone already.
    ///
    /// # Errors
    /// When the kernel does not tell its boot id.
    pub fn open(config: &Config, manager: Notifier) -> std::io::Result<Arc<Segments>> {
        let register = Register::new(&config.state_dir, &process::boot_id(&config.proc_root)?);
        let account = Account::new(config.segments);
        let pages = config.segments.huge_pages;
        let mut state = State { account, memory: BTreeMap::new(), register, manager, huge_pages: pages };
        state.take_up();
        let huge_pages = memory::huge_pages().unwrap_or_else(|| "none".to_owned());
        tracing::info!(
            huge_pages,
            "segments are given out; ranks get huge pages where this says advise or always"
        );
        Ok(Arc::new(Segments {
            node: config.node.clone(),
            state: Mutex::new(state),
            full: Seldom::default(),
        }))
    }

    /// How much is promised.
    pub fn status(&self) -> SegmentsStatus {
        self.state().account.status()
    }

    /// Follows the ends of the slurmstepds whose segments were taken up.
    pub fn watch_all(self: &Arc<Self>) {
        let all: Vec<_> = self.state().account.all().map(|(key, promise)| (key, promise.holder)).collect();
        all.into_iter().for_each(|(key, holder)| self.watch(key, holder));
    }

    /// Answers the plugin.
    pub fn promise(self: &Arc<Self>, asked: &OpenSegment) -> Reply {
        let holder = process::holder(asked.holder);
        if !process::is_alive(holder) {
            let text = format!("process {} that should hold the segment does not run", asked.holder);
            return refusal(Reason::BadRequest, text);
        }
        let key = (asked.job.job, asked.step);
        let mut state = self.state();
        let segment = |bytes, note| Reply::Segment(SegmentReply { bytes, note });
        match state.account.open(asked, holder) {
            Decision::Known(promise) => segment(Some(promise.bytes), None),
            Decision::Promised(promise) => {
                state.let_go(key);
                state.save();
                drop(state);
                tracing::info!(
                    job = key.0,
                    step = %key.1,
                    size = size::show(promise.bytes),
                    pid = holder.pid,
                    "segment promised"
                );
                self.watch(key, holder);
                segment(Some(promise.bytes), None)
            }
            Decision::Nothing(note) => segment(None, Some(note)),
            Decision::Full(note) => {
                if let Some(left_out) = self.full.due(Instant::now()) {
                    tracing::warn!(job = key.0, step = %key.1, note, left_out, "a step goes without its segment");
                }
                segment(None, Some(note))
            }
            Decision::Refused(text) => {
                tracing::warn!(job = key.0, step = %key.1, text, "segment refused");
                refusal(Reason::NoSegment, text)
            }
        }
    }

    /// A step's grant has ended.
    pub fn released(&self, grant: &ReleaseGrant) {
        self.end_where(|key, promise| key.1 == grant.step && promise.job == grant.job);
    }

    /// A job's lease has ended.
    pub fn closed(&self, lease: &CloseLease) {
        self.end_where(|key, promise| {
            let same_run = lease.start.is_none_or(|start| start == promise.job.start);
            key.0 == lease.job && promise.job.uid == lease.uid && same_run
        });
    }

    fn end_where(&self, ends: impl Fn(StepKey, &Promise) -> bool) {
        let mut state = self.state();
        let ended: Vec<_> =
            state.account.all().filter(|(key, p)| ends(*key, p)).map(|(key, _)| key).collect();
        for key in &ended {
            state.account.close(*key);
            state.let_go(*key);
            tracing::info!(job = key.0, step = %key.1, "segment ended");
        }
        if !ended.is_empty() {
            state.save();
        }
    }

    /// Ends a segment when its slurmstepd does.
    fn watch(self: &Arc<Self>, key: StepKey, holder: Holder) {
        let segments = Arc::clone(self);
        tokio::spawn(async move {
            crate::holders::end_of(holder).await;
            segments.end_where(|k, promise| k == key && promise.holder == holder);
        });
    }

    /// Which step's segment a connection may have.
    fn whose(&self, stream: &impl AsFd) -> Result<Claim, Stranger> {
        let Some(peer) = Peer::of(stream) else {
            return Err(Stranger { uid: NOBODY, reason: "the process that connected has ended".to_owned() });
        };
        let (pid, uid) = (peer.pid, peer.uid);
        let stranger = |reason: String| Stranger { uid, reason };
        let key = self.step_of(&peer).ok_or_else(|| {
            stranger(format!(
                "process {pid} of user {uid} is in no job step that has leaves on {}",
                self.node
            ))
        })?;
        let promise = self.state().account.get(key).copied().ok_or_else(|| {
            stranger(format!(
                "step {}.{} has no segment on {}: ask for one by --mig-share=segment=SIZE",
                key.0, key.1, self.node
            ))
        })?;
        if promise.job.uid != uid {
            let owner = promise.job.uid;
            return Err(stranger(format!("step {}.{} is user {owner}'s, not user {uid}'s", key.0, key.1)));
        }
        if !peer.runs() {
            return Err(stranger(format!("process {pid} ended before it was known")));
        }
        Ok(Claim { key, promise, peer })
    }

    /// The step that a process is in: its cgroups decide where they name one, otherwise its ancestors do.
    fn step_of(&self, peer: &Peer) -> Option<StepKey> {
        match cgroup::home(peer.pid, &self.node) {
            Home::Step(job, step) => Some((job, step)),
            Home::Elsewhere => None,
            Home::Unnamed => {
                let holders: BTreeMap<Holder, StepKey> =
                    self.state().account.all().map(|(key, promise)| (promise.holder, key)).collect();
                ancestry::nearest(peer.pid, |ancestor| holders.get(&ancestor).copied())
            }
        }
    }

    /// The memory of a step, opened once more for a rank.
    fn hand_out(&self, claim: &Claim) -> Result<(OwnedFd, Fetched), String> {
        let (key, bytes) = (claim.key, claim.promise.bytes);
        let mut state = self.state();
        if state.account.get(key) != Some(&claim.promise) || !claim.peer.runs() {
            return Err(format!("step {}.{} has ended", key.0, key.1));
        }
        let file = state.memory_of(key, bytes).and_then(Memory::reopen).map_err(|error| {
            tracing::error!(job = key.0, step = %key.1, %error, "segment cannot be handed out");
            format!("the agent has no memory for step {}.{}: {error}", key.0, key.1)
        })?;
        tracing::debug!(job = key.0, step = %key.1, pid = claim.peer.pid, "segment handed out");
        Ok((file, Fetched { bytes, job: key.0, step: key.1 }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What an earlier agent promised to steps that still run.
    fn take_up(&mut self) {
        let passed = adopt::Passed::from_env();
        for entry in self.register.read() {
            let Entry { key: (job, step), promise, file } = entry;
            if !process::is_alive(promise.holder) {
                continue;
            }
            let memory = passed.find(&entry).or_else(|| {
                let found = adopt::among_ranks(&entry)?;
                self.manager.keep(&adopt::name(entry.key), found.file().as_fd());
                Some(found)
            });
            let found = memory.is_some();
            tracing::info!(job, %step, made = file.is_some(), found, "segment of a running step");
            if let Some(memory) = memory {
                self.memory.insert(entry.key, memory);
            }
            self.account.restore(entry.key, promise);
        }
        let known: Vec<String> = self.memory.keys().map(|key| adopt::name(*key)).collect();
        for name in passed.close(|name| known.iter().any(|k| k == name)) {
            self.manager.forget(&name);
        }
        self.save();
    }

    /// The memory of a promised segment, made now if need be.
    fn memory_of(&mut self, key: StepKey, bytes: u64) -> std::io::Result<&Memory> {
        if !self.memory.contains_key(&key) {
            self.make(key, bytes)?;
        }
        self.memory.get(&key).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// Makes memory. It is in the register before anybody has it, so that the next agent knows it for what it is.
    fn make(&mut self, key: StepKey, bytes: u64) -> std::io::Result<()> {
        let name = adopt::name(key);
        let memory = Memory::make(&name, bytes, self.huge_pages)?;
        let kept = memory.file().try_clone()?;
        self.memory.insert(key, memory);
        if let Err(error) = self.try_save() {
            self.memory.remove(&key);
            return Err(error);
        }
        self.manager.keep(&name, kept.as_fd());
        Ok(())
    }

    /// Gives the memory of a step up: it is gone when its ranks are.
    fn let_go(&mut self, key: StepKey) {
        if self.memory.remove(&key).is_some() {
            self.manager.forget(&adopt::name(key));
        }
    }

    fn save(&self) {
        if let Err(error) = self.try_save() {
            tracing::error!(%error, "the list of segments cannot be written: a restart of the agent would forget them");
        }
    }

    fn try_save(&self) -> std::io::Result<()> {
        let entry = |(key, promise): (StepKey, &Promise)| Entry {
            key,
            promise: *promise,
            file: self.memory.get(&key).map(Memory::id),
        };
        self.register.write(self.account.all().map(entry))
    }
}

fn refusal(reason: Reason, text: String) -> Reply {
    Reply::Refused(Refused::new(reason, text))
}
