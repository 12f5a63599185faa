//! MIG mode, GPU reset and reboot.
//!
//! ```text
//!             set_mig (Hopper+, or Ampere while idle: resets the GPU)
//!   off ──────────────────────────────────────────────────────────────> on
//!    │  set_mig while somebody uses it: current stays, pending differs   │
//!    └──> pending ── set_mig again when idle, GPU reset, reboot ─────────┘
//! ```
//! On Ampere the mode outlives a reboot, on Hopper and later it does not (NVIDIA MIG user guide).

use super::{Condition, Machine};
use crate::code::{Code, Result};
use crate::models::Architecture;

/// What became of a mode change that was accepted: the activation status of `nvmlDeviceSetMigMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The mode is in force.
    Done,
    /// The mode is pending; the code says why.
    Pending(Code),
}

impl Machine {
    /// Asks for a MIG mode. `refuse` is an activation failure that a fault injects.
    pub fn set_mig(&mut self, index: usize, on: bool, refuse: Option<Code>) -> Result<Activation> {
        let gpu = self.gpu_mut(index)?;
        gpu.answers()?;
        gpu.mig.pending = on;
        if let Some(code) = refuse {
            // A GPU that says so wants the reset before anything else (seen on cloud VMs).
            if code == Code::RESET_REQUIRED {
                gpu.condition = Condition::ResetRequired;
            }
            return Ok(Activation::Pending(code));
        }
        if gpu.mig.current == on {
            return Ok(Activation::Done);
        }
        if !gpu.holders.is_empty() || !gpu.processes.is_empty() || !gpu.instances.is_empty() {
            return Ok(Activation::Pending(Code::IN_USE));
        }
        if gpu.spec()?.architecture.resetless() {
            gpu.mig.current = on;
        } else {
            self.reset(index, None)?;
        }
        Ok(Activation::Done)
    }

    /// Resets a GPU: instances go, handles die, the pending mode comes into force, a lost GPU is back.
    /// The minor number may change.
    ///
    /// Errors: IN_USE while somebody holds the device or computes on it; INVALID_ARGUMENT for a minor in use.
    pub fn reset(&mut self, index: usize, minor: Option<u32>) -> Result<()> {
        let others = |minor: &u32| self.gpus.iter().enumerate().any(|(n, g)| n != index && g.minor == *minor);
        if minor.as_ref().is_some_and(others) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let serial = self.serial();
        let gpu = self.gpu_mut(index)?;
        if !gpu.holders.is_empty() || !gpu.all_processes().is_empty() {
            return Err(Code::IN_USE);
        }
        gpu.serial = serial;
        gpu.minor = minor.unwrap_or(gpu.minor);
        gpu.instances.clear();
        gpu.mig.current = gpu.mig.pending;
        gpu.condition = Condition::Healthy;
        Ok(())
    }

    /// Reboots the node: nothing runs or holds any more, every GPU is reset, faults are disarmed.
    pub fn reboot(&mut self) {
        for index in 0..self.gpus.len() {
            let serial = self.serial();
            let gpu = &mut self.gpus[index];
            gpu.holders.clear();
            gpu.processes.clear();
            gpu.instances.clear();
            let keeps = gpu.spec().is_ok_and(|m| m.architecture == Architecture::Ampere);
            gpu.mig.pending &= keeps;
            gpu.mig.current = gpu.mig.pending;
            gpu.condition = Condition::Healthy;
            gpu.serial = serial;
        }
        self.faults.clear();
    }
}
