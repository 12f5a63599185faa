//! What the opaque pointers of the header point at.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use migshare_collectives::{Comm, Segment, SegmentBuffer, Status};

use crate::guard::Failure;

/// `migshare_segment`.
pub struct SegmentHandle(pub(crate) Arc<Segment>);

/// `migshare_comm`.
pub struct CommHandle {
    busy: AtomicBool,
    inner: UnsafeCell<Inner>,
}

/// What one thread at a time works on.
pub(crate) struct Inner {
    pub(crate) comm: Comm,
    /// Live allocations of `migshare_alloc`, by address.
    pub(crate) buffers: HashMap<usize, SegmentBuffer>,
    /// How long a blocking collective may take.
    pub(crate) patience: Option<Duration>,
}

impl CommHandle {
    pub(crate) fn new(comm: Comm) -> Self {
        let inner = Inner { comm, buffers: HashMap::new(), patience: None };
        Self { busy: AtomicBool::new(false), inner: UnsafeCell::new(inner) }
    }
}

/// Frees the busy flag, also when a panic passes.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Runs `work` on the communicator behind `handle`, if no other thread is in it.
///
/// # Safety
/// `handle` is null or came from this library and was not freed.
#[inline]
pub(crate) unsafe fn with_comm<T>(
    handle: *const CommHandle,
    work: impl FnOnce(&mut Inner) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // SAFETY: promised by the caller.
    let handle =
        unsafe { handle.as_ref() }.ok_or(Failure::Border(Status::Invalid, "the communicator is null"))?;
    if handle.busy.swap(true, Ordering::Acquire) {
        return Err(Failure::Border(Status::Busy, "another thread is in this communicator"));
    }
    let _turn = Turn(&handle.busy);
    // SAFETY: the flag gives this thread the only access until the turn ends.
    work(unsafe { &mut *handle.inner.get() })
}

/// Writes through a pointer of the caller.
///
/// # Safety
/// `to` is null or writable.
pub(crate) unsafe fn store<T>(to: *mut T, value: T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(Failure::Border(Status::Invalid, "a null pointer for a result"));
    }
    // SAFETY: not null, and promised by the caller.
    unsafe { to.write(value) };
    Ok(())
}
