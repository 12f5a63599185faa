//! Faults on command: which call fails, when and how. Set by `nvml-sim fault`, shared by all processes.
//!
//! Calls are counted in one file per fault: each matching call appends a byte and learns its number from the file
//! offset, which needs no lock, survives kill -9 and works for users who may not touch the state.

use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::directory;

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Number, for listing and clearing.
    pub id: u32,
    /// NVML function.
    pub call: String,
    /// Only calls about this GPU (NVML index).
    pub gpu: Option<usize>,
    /// First call that it hits, from 1.
    pub nth: u64,
    /// How many calls in a row it hits; none: all that follow.
    pub times: Option<u64>,
    /// Whether the call has done its work when the fault strikes.
    pub moment: Moment,
    /// What happens.
    pub effect: Effect,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// Before the call does anything.
    Before,
    /// After the call has taken effect.
    After,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The call returns this code.
    Return(u32),
    /// The call takes so many milliseconds longer, or until the fault is cleared.
    Delay(u64),
    /// The caller is killed (SIGKILL).
    Kill,
    /// `nvmlDeviceSetMigMode` succeeds with this activation status.
    Activation(u32),
}

impl Fault {
    /// Whether it is about this call.
    pub fn concerns(&self, call: &str, gpu: Option<usize>) -> bool {
        self.call == call && (self.gpu.is_none() || self.gpu == gpu)
    }

    /// Counts a matching call and says whether the fault strikes.
    pub fn strikes(&self, state: &Path) -> bool {
        let Ok(number) = self.count(state) else { return false };
        number >= self.nth && self.times.is_none_or(|times| number - self.nth < times)
    }

    /// Calls counted so far.
    pub fn counted(&self, state: &Path) -> u64 {
        std::fs::metadata(self.counter(state)).map_or(0, |m| m.len())
    }

    /// Makes the counter. Every user may count: a fault that spared the unprivileged would test little.
    pub fn arm(&self, state: &Path) -> std::io::Result<()> {
        let path = self.counter(state);
        directory(path.parent().unwrap_or(state))?;
        std::fs::File::create(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o622))
    }

    /// Removes the counter.
    pub fn disarm(&self, state: &Path) {
        // Nobody reads a counter whose fault is gone; a leftover is truncated when its number comes again.
        let _ = std::fs::remove_file(self.counter(state));
    }

    fn counter(&self, state: &Path) -> PathBuf {
        state.join("faults").join(self.id.to_string())
    }

    fn count(&self, state: &Path) -> std::io::Result<u64> {
        let mut file = OpenOptions::new().append(true).open(self.counter(state))?;
        file.write_all(b".")?;
        // After an appending write the offset is the end of our own byte (write(2)), whoever wrote since.
        file.stream_position()
    }
}
