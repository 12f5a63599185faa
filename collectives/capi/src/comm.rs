//! `migshare_comm_*`, `migshare_alloc`, `migshare_free`.

use std::ffi::c_void;
use std::time::Duration;

use migshare_collectives::{Comm, Error, Options, Status};

use crate::guard::{Failure, guard};
use crate::handle::{CommHandle, SegmentHandle, store, with_comm};

fn handle(comm: Comm) -> *mut CommHandle {
    Box::into_raw(Box::new(CommHandle::new(comm)))
}

fn required<T>(pointer: *mut T) -> Result<(), Failure> {
    if pointer.is_null() {
        Err(Failure::Border(Status::Invalid, "a null pointer for a result"))
    } else {
        Ok(())
    }
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_from_env(comm: *mut *mut CommHandle) -> i32 {
    guard(|| {
        required(comm)?;
        // SAFETY: promised by the caller.
        unsafe { store(comm, handle(Comm::from_env()?)) }
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or live, `comm` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_join(
    segment: *const SegmentHandle,
    rank: i32,
    timeout_ms: u64,
    comm: *mut *mut CommHandle,
) -> i32 {
    guard(|| {
        required(comm)?;
        // SAFETY: promised by the caller.
        let segment = unsafe { segment.as_ref() }.ok_or(Error::Invalid("the segment is null"))?;
        let rank = usize::try_from(rank).map_err(|_| Error::Invalid("the rank is negative"))?;
        let mut options = Options::from_env()?;
        if timeout_ms != 0 {
            options.timeout = Duration::from_millis(timeout_ms);
        }
        // SAFETY: as above.
        unsafe { store(comm, handle(Comm::join(&segment.0, rank, &options)?)) }
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `result` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_split(
    comm: *mut CommHandle,
    color: i32,
    key: i32,
    result: *mut *mut CommHandle,
) -> i32 {
    guard(|| {
        required(result)?;
        // SAFETY: promised by the caller.
        unsafe {
            let part = with_comm(comm, |inner| Ok(inner.comm.split(u32::try_from(color).ok(), key)?))?;
            store(result, part.map_or(std::ptr::null_mut(), handle))
        }
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live; it is not used again, by any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_free(comm: *mut CommHandle) -> i32 {
    guard(|| {
        if !comm.is_null() {
            // SAFETY: promised by the caller.
            drop(unsafe { Box::from_raw(comm) });
        }
        Ok(())
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_abort(comm: *mut CommHandle) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe { with_comm(comm, |inner| Ok(inner.comm.abort()?)) })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `segment` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_segment(
    comm: *const CommHandle,
    segment: *mut *mut SegmentHandle,
) -> i32 {
    guard(|| {
        required(segment)?;
        // SAFETY: promised by the caller.
        unsafe {
            let shared = with_comm(comm, |inner| Ok(std::sync::Arc::clone(inner.comm.segment())))?;
            store(segment, Box::into_raw(Box::new(SegmentHandle(shared))))
        }
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `rank` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_rank(comm: *const CommHandle, rank: *mut i32) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe { store(rank, with_comm(comm, |inner| Ok(inner.comm.rank() as i32))?) })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `size` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_size(comm: *const CommHandle, size: *mut i32) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe { store(size, with_comm(comm, |inner| Ok(inner.comm.size() as i32))?) })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_set_timeout(comm: *mut CommHandle, timeout_ms: u64) -> i32 {
    guard(|| {
        if timeout_ms == 0 {
            return Err(Failure::Border(Status::Invalid, "a timeout of zero"));
        }
        let set = |inner: &mut crate::handle::Inner| {
            inner.comm.set_timeout(Duration::from_millis(timeout_ms));
            Ok(())
        };
        // SAFETY: promised by the caller.
        unsafe { with_comm(comm, set) }
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_comm_set_patience(comm: *mut CommHandle, limit_ms: u64) -> i32 {
    let set = |inner: &mut crate::handle::Inner| {
        inner.patience = (limit_ms > 0).then(|| Duration::from_millis(limit_ms));
        Ok(())
    };
    // SAFETY: promised by the caller.
    guard(|| unsafe { with_comm(comm, set) })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `buffer` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_alloc(
    comm: *mut CommHandle,
    bytes: usize,
    buffer: *mut *mut c_void,
) -> i32 {
    guard(|| {
        required(buffer)?;
        // SAFETY: promised by the caller.
        let address = unsafe {
            with_comm(comm, |inner| {
                let made = inner.comm.allocate(bytes)?;
                let address = made.as_ptr();
                inner.buffers.insert(address as usize, made);
                Ok(address)
            })?
        };
        // SAFETY: promised by the caller.
        unsafe { store(buffer, address.cast()) }
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live; the memory at `buffer` is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_free(comm: *mut CommHandle, buffer: *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        unsafe {
            with_comm(comm, |inner| match inner.buffers.remove(&(buffer as usize)) {
                Some(_) => Ok(()),
                None => Err(Failure::Border(Status::Invalid, "not a buffer of migshare_alloc")),
            })
        }
    })
}
