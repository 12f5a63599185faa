//! The one switch between real atomics and loom's: `RUSTFLAGS="--cfg loom"` builds the models.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering, fence};
