//! The alarm for NVML calls that do not return. A driver that hangs holds its caller in the kernel, where nothing can end it: such
//! a call can only be noticed and named. The rest of the agent goes on with what needs no NVML, which is every lease of leaves that
//! stand.
//!
//! ```text
//!   hardware thread   work_begins { begins  ended }* work_ended        guard (async)
//!                         │                                              sleeps while there is no work
//!                         └──────────────── watch ─────────────────────▶ limit passed within one call ─▶ Event::Hangs(Some(call))
//!                                                                        the call has returned        ─▶ Event::Hangs(None)
//! ```
//! A single call costs two stores under a lock that nobody else holds for long; a timer runs only while there is work.

use crate::driver::{Event, Inbox};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A call under way: NVML's name, its number among all calls, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    name: &'static str,
    number: u64,
    since: Instant,
}

#[derive(Debug, Default)]
struct State {
    count: u64,
    call: Option<Call>,
}

/// What the hardware thread is doing. All clones are about the same thread.
#[derive(Debug, Clone)]
pub struct Calls {
    state: Arc<Mutex<State>>,
    working: watch::Sender<bool>,
}

impl Default for Calls {
    fn default() -> Calls {
        Calls { state: Arc::default(), working: watch::Sender::new(false) }
    }
}

impl Calls {
    /// The thread has something to do.
    pub(super) fn work_begins(&self) {
        self.working.send_replace(true);
    }

    /// The thread has nothing to do.
    pub(super) fn work_ended(&self) {
        self.working.send_replace(false);
    }

    /// A call begins.
    pub(super) fn begins(&self, name: &'static str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        state.call = Some(Call { name, number: state.count, since: Instant::now() });
    }

    /// It has returned.
    pub(super) fn ended(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).call = None;
    }

    fn call(&self) -> Option<Call> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).call
    }
}

/// How often a call that hangs is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Tells the driver of calls that take longer than `limit`, and when they have returned. For ever.
pub async fn guard(calls: Calls, limit: Duration, inbox: Inbox) {
    let mut working = calls.working.subscribe();
    loop {
        // The sender is in `calls`, so that this cannot fail.
        let _ = working.wait_for(|working| *working).await;
        while *working.borrow_and_update() {
            // Work may consist of many short calls: what counts is the one that is under way.
            let left = calls.call().map_or(limit, |call| limit.saturating_sub(call.since.elapsed()));
            match calls.call().filter(|_| left.is_zero()) {
                Some(call) => follow(&calls, call, &inbox).await,
                None => {
                    let _ = tokio::time::timeout(left, working.changed()).await;
                }
            }
        }
    }
}

/// Follows a call that hangs until it returns.
async fn follow(calls: &Calls, hanging: Call, inbox: &Inbox) {
    inbox.send(Event::Hangs(Some(hanging.name)));
    while calls.call().is_some_and(|call| call.number == hanging.number) {
        tokio::time::sleep(LOOK).await;
    }
    tracing::warn!(call = hanging.name, seconds = hanging.since.elapsed().as_secs(), "NVML has returned");
    inbox.send(Event::Hangs(None));
}
