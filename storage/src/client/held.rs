//! A mount's policy, taken over for a while: whatever ends the command, short of SIGKILL, the mount has its own again.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use migshare_storage::policy::PolicyName;
use migshare_storage::sidecar::{block_signals, ending_signals};

use super::{get_text, set};

/// See the module.
pub(super) struct HeldPolicy(Arc<Held>);

struct Held {
    mount: PathBuf,
    /// The policy to come back to, until it did. Who changes the policy has this locked, so that nothing follows the last change.
    before: Mutex<Option<String>>,
}

impl HeldPolicy {
    /// Remembers the policy in force. From then on the signals that end a command give it back first; to be called before
    /// any other thread is started.
    pub(super) fn take(mount: &Path) -> Result<Self> {
        let before = Mutex::new(Some(get_text(mount, "policy")?));
        let held = Arc::new(Held { mount: mount.to_owned(), before });
        block_signals().context("cannot block signals")?;
        let theirs = Arc::clone(&held);
        std::thread::Builder::new().name("signals".into()).spawn(move || theirs.wait_for_a_signal())?;
        Ok(Self(held))
    }

    /// Another policy for now.
    pub(super) fn set(&self, policy: PolicyName) -> Result<()> {
        let _unchanged = self.0.before();
        set(&self.0.mount, "policy", &policy.to_string())
    }

    /// The end, with the error that dropping does not tell.
    pub(super) fn give_back(&self) -> Result<()> {
        self.0.give_back(&mut self.0.before())
    }
}

impl Drop for HeldPolicy {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            eprintln!("migshare-storage: {error:#}");
        }
    }
}

impl Held {
    fn before(&self) -> MutexGuard<'_, Option<String>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, before: &mut Option<String>) -> Result<()> {
        before.take().map_or(Ok(()), |policy| set(&self.mount, "policy", &policy))
    }

    /// Ends the process: readers may be waiting for a backend that is silent, and nobody waits for them.
    fn wait_for_a_signal(&self) {
        let Ok(signal) = ending_signals().wait() else { return };
        let mut before = self.before();
        match self.give_back(&mut before) {
            Ok(()) => eprintln!("interrupted: {} has its policy again", self.mount.display()),
            Err(error) => eprintln!("migshare-storage: {error:#}"),
        }
        exit(128 + signal as i32);
    }
}
