//! `migshare_segment_*`.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use migshare_collectives::segment::DEFAULT_BYTES;
use migshare_collectives::{Error, Segment, Status, comm};

use crate::guard::{Failure, guard};
use crate::handle::{SegmentHandle, store};

type Made = Result<Arc<Segment>, Error>;

/// Makes a segment and hands out its handle.
fn make(ranks: i32, to: *mut *mut SegmentHandle, with: impl FnOnce(usize) -> Result<Made, Failure>) -> i32 {
    guard(|| {
        let ranks = usize::try_from(ranks).map_err(|_| Error::Invalid("a segment serves 1 to 64 ranks"))?;
        if to.is_null() {
            return Err(Failure::Border(Status::Invalid, "a null pointer for a result"));
        }
        let segment = Box::new(SegmentHandle(with(ranks)??));
        // SAFETY: not null; writable by the contract of all callers.
        unsafe { store(to, Box::into_raw(segment)) }
    })
}

/// # Safety
/// `text` is null or a C string.
unsafe fn text<'a>(text: *const c_char) -> Result<&'a OsStr, Failure> {
    if text.is_null() {
        return Err(Failure::Border(Status::Invalid, "a null string"));
    }
    // SAFETY: promised by the caller.
    Ok(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

fn name(text: &OsStr) -> Result<&str, Failure> {
    text.to_str().ok_or(Failure::Border(Status::Invalid, "the name is not UTF-8"))
}

fn size_or_default(bytes: u64) -> u64 {
    if bytes == 0 { DEFAULT_BYTES } else { bytes }
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_create(
    bytes: u64,
    ranks: i32,
    segment: *mut *mut SegmentHandle,
) -> i32 {
    make(ranks, segment, |ranks| Ok(Segment::create(size_or_default(bytes), ranks)))
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_from_fd(
    fd: c_int,
    ranks: i32,
    segment: *mut *mut SegmentHandle,
) -> i32 {
    make(ranks, segment, |ranks| {
        if fd < 0 {
            return Err(Failure::Border(Status::Invalid, "the descriptor is negative"));
        }
        // SAFETY: only borrowed to be duplicated; the kernel refuses a number that is not open.
        let copy = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned();
        let copy = copy.map_err(|_| Error::last_os("duplicate the descriptor"))?;
        Ok(Segment::from_descriptor(copy, ranks))
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `socket` is a C string, `segment` is writable; both may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_from_agent(
    socket: *const c_char,
    ranks: i32,
    segment: *mut *mut SegmentHandle,
) -> i32 {
    // SAFETY: promised by the caller.
    make(ranks, segment, |ranks| Ok(Segment::from_agent(Path::new(unsafe { text(socket) }?), ranks)))
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_from_env(ranks: i32, segment: *mut *mut SegmentHandle) -> i32 {
    make(ranks, segment, |ranks| Ok(comm::segment_from_env(ranks)))
}

/// See `migshare.h`.
///
/// # Safety
/// `name` is a C string, `segment` is writable; both may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_create_named(
    name: *const c_char,
    bytes: u64,
    ranks: i32,
    segment: *mut *mut SegmentHandle,
) -> i32 {
    make(ranks, segment, |ranks| {
        // SAFETY: promised by the caller.
        let name = self::name(unsafe { text(name) }?)?;
        Ok(Segment::create_named(name, size_or_default(bytes), ranks))
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `name` is a C string, `segment` is writable; both may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_open_named(
    name: *const c_char,
    ranks: i32,
    segment: *mut *mut SegmentHandle,
) -> i32 {
    // SAFETY: promised by the caller.
    make(ranks, segment, |ranks| Ok(Segment::open_named(self::name(unsafe { text(name) }?)?, ranks)))
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or was made by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_claim(segment: *const SegmentHandle) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let segment = unsafe { segment.as_ref() }.ok_or(Error::Invalid("the segment is null"))?;
        Ok(segment.0.claim()?)
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or was made by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_fd(segment: *const SegmentHandle) -> c_int {
    let mut fd = -1;
    guard(|| {
        // SAFETY: promised by the caller.
        if let Some(descriptor) = unsafe { segment.as_ref() }.and_then(|s| s.0.descriptor()) {
            fd = descriptor.as_raw_fd();
        }
        Ok(())
    });
    fd
}

/// See `migshare.h`.
///
/// # Safety
/// `segment` is null or was made by this library and not freed; it is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_segment_free(segment: *mut SegmentHandle) -> i32 {
    guard(|| {
        if !segment.is_null() {
            // SAFETY: promised by the caller.
            drop(unsafe { Box::from_raw(segment) });
        }
        Ok(())
    })
}
