//! The only code that calls NVML: it reads what GPUs and MIG instances there are, makes and destroys instances,
//! and switches MIG mode.
//!
//! It keeps one library handle for its whole life (mig-parted measured 68 to 100 init/shutdown cycles at 42 s
//! of CPU, NVIDIA/mig-parted commit 8f4dea42) and no device or instance handle beyond one call: handles die on
//! destroy, on reset and on re-init, and their values are used again. It decides nothing, retries nothing and never computes
//! a placement from a GPU instance id, since both a direct and a half-swapped order occur on real GPUs.
//!
//! ```text
//! session   what the agent calls: scan, create, destroy, set_mig
//!  ├ identity      one GPU: names, numbers, NUMA node
//!  ├ profiles      what a GPU offers
//!  ├ instances     what stands on it; create and destroy
//!  ├ capabilities  minors of the capability device files, from /proc
//!  └ raw           the NVML symbols that nvml-wrapper lacks          [all unsafe code is here]
//! events    what the driver reports by itself; waited for by a thread of its own
//! ```
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod capabilities;
mod error;
mod events;
mod identity;
mod instances;
mod profiles;
#[expect(unsafe_code, reason = "calls NVML's C functions, which nvml-wrapper does not wrap")]
mod raw;
mod session;

pub use error::NvmlError;
pub use events::{Event, Watch};
pub use session::{MigChange, Observer, Progress, Session, Versions};
