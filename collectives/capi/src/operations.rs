//! The collectives and messages, blocking and not: one line of table each.

use std::cell::Cell;
use std::ffi::c_void;
use std::time::Duration;

use migshare_collectives::comm::Collective;
use migshare_collectives::{DataType, Error, ReduceOp, Request, Status};

use crate::guard::{Failure, guard};
use crate::handle::{CommHandle, store, with_comm};

thread_local! {
    /// The number of the request that this thread's last blocking collective became.
    static UNFINISHED: Cell<u64> = const { Cell::new(0) };
}

/// See `migshare.h`.
#[unsafe(no_mangle)]
pub extern "C" fn migshare_unfinished() -> u64 {
    UNFINISHED.get()
}

fn data_type(number: i32) -> Result<DataType, Failure> {
    Ok(DataType::from_number(number).ok_or(Error::Invalid("the element type is none of migshare_type"))?)
}

fn reduce_op(number: i32) -> Result<ReduceOp, Failure> {
    Ok(ReduceOp::from_number(number).ok_or(Error::Invalid("the operator is none of migshare_op"))?)
}

fn rank(number: i32) -> Result<usize, Failure> {
    Ok(usize::try_from(number).map_err(|_| Error::Invalid("the root is negative"))?)
}

/// # Safety
/// `comm` is null or live; the buffers are as [`Collective`] says.
unsafe fn run(comm: *mut CommHandle, collective: Collective) -> Result<(), Failure> {
    // SAFETY: passed on.
    unsafe {
        with_comm(comm, |inner| {
            let Some(limit) = inner.patience else { return Ok(inner.comm.run(&collective)?) };
            let request = inner.comm.start(&collective)?;
            if inner.comm.wait_for(request, limit)?.is_none() {
                UNFINISHED.set(request.number());
                return Err(Failure::Border(
                    Status::Pending,
                    "the collective takes longer than the patience",
                ));
            }
            Ok(())
        })
    }
}

/// # Safety
/// As [`run`] until the request is done; `request` is null or writable.
unsafe fn start(comm: *mut CommHandle, collective: Collective, request: *mut u64) -> Result<(), Failure> {
    // SAFETY: passed on. The pointer is written once before, so that nothing starts without a name.
    unsafe {
        store(request, 0)?;
        let started = with_comm(comm, |inner| Ok(inner.comm.start(&collective)?))?;
        store(request, started.number())
    }
}

macro_rules! collectives {
    ($($blocking:ident, $starting:ident: ($($argument:ident: $kind:ty),*) => $make:expr;)*) => {$(
        /// See `migshare.h`.
        ///
        /// # Safety
        /// `comm` is null or live; buffers have the sizes that the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $blocking(comm: *mut CommHandle, $($argument: $kind),*) -> i32 {
            // SAFETY: promised by the caller.
            guard(|| unsafe { run(comm, $make) })
        }

        /// See `migshare.h`.
        ///
        /// # Safety
        /// As its blocking form until the request is done; `request` is null or writable.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $starting(comm: *mut CommHandle, $($argument: $kind,)* request: *mut u64) -> i32 {
            // SAFETY: promised by the caller.
            guard(|| unsafe { start(comm, $make, request) })
        }
    )*};
}

type Send = *const c_void;
type Recv = *mut c_void;

collectives! {
    migshare_barrier, migshare_ibarrier: () => Collective::barrier();
    migshare_broadcast, migshare_ibroadcast: (buffer: Recv, count: usize, kind: i32, root: i32) =>
        Collective::broadcast(buffer.cast(), count, data_type(kind)?, rank(root)?);
    migshare_all_reduce, migshare_iall_reduce: (send: Send, recv: Recv, count: usize, kind: i32, op: i32) =>
        Collective::all_reduce(send.cast(), recv.cast(), count, data_type(kind)?, reduce_op(op)?);
    migshare_reduce, migshare_ireduce: (send: Send, recv: Recv, count: usize, kind: i32, op: i32, root: i32) =>
        Collective::reduce(send.cast(), recv.cast(), count, data_type(kind)?, reduce_op(op)?, rank(root)?);
    migshare_reduce_scatter, migshare_ireduce_scatter:
        (send: Send, recv: Recv, count: usize, kind: i32, op: i32) =>
        Collective::reduce_scatter(send.cast(), recv.cast(), count, data_type(kind)?, reduce_op(op)?);
    migshare_all_gather, migshare_iall_gather: (send: Send, recv: Recv, count: usize, kind: i32) =>
        Collective::all_gather(send.cast(), recv.cast(), count, data_type(kind)?);
    migshare_gather, migshare_igather: (send: Send, recv: Recv, count: usize, kind: i32, root: i32) =>
        Collective::gather(send.cast(), recv.cast(), count, data_type(kind)?, rank(root)?);
    migshare_scatter, migshare_iscatter: (send: Send, recv: Recv, count: usize, kind: i32, root: i32) =>
        Collective::scatter(send.cast(), recv.cast(), count, data_type(kind)?, rank(root)?);
    migshare_all_to_all, migshare_iall_to_all: (send: Send, recv: Recv, count: usize, kind: i32) =>
        Collective::all_to_all(send.cast(), recv.cast(), count, data_type(kind)?);
}

/// Starts a send or a receive.
///
/// # Safety
/// `comm` is null or live; the buffer stays valid until the request is done.
unsafe fn message(
    comm: *mut CommHandle,
    to_send: bool,
    at: Recv,
    bytes: usize,
    peer: i32,
    tag: u64,
) -> Result<Request, Failure> {
    let peer = usize::try_from(peer).map_err(|_| Error::Invalid("the peer is negative"))?;
    // SAFETY: passed on.
    unsafe {
        with_comm(comm, |inner| {
            Ok(if to_send {
                inner.comm.start_send(peer, tag, at.cast(), bytes)?
            } else {
                inner.comm.start_receive(peer, tag, at.cast(), bytes)?
            })
        })
    }
}

/// Waits, and stores how much came if the caller wants to know.
///
/// # Safety
/// `comm` is null or live, `received` is null or writable.
unsafe fn finish(comm: *mut CommHandle, request: Request, received: *mut usize) -> Result<(), Failure> {
    // SAFETY: passed on.
    unsafe {
        let bytes = with_comm(comm, |inner| Ok(inner.comm.wait(request)?))?;
        if received.is_null() { Ok(()) } else { store(received, bytes as usize) }
    }
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live; `buffer` holds `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_send(
    comm: *mut CommHandle,
    buffer: Send,
    bytes: usize,
    peer: i32,
    tag: u64,
) -> i32 {
    // SAFETY: promised by the caller; a failed wait ends the use of the buffer.
    guard(|| unsafe {
        let request = message(comm, true, buffer.cast_mut(), bytes, peer, tag)?;
        finish(comm, request, std::ptr::null_mut())
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live; `buffer` has room for `bytes`; `received` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_recv(
    comm: *mut CommHandle,
    buffer: Recv,
    bytes: usize,
    peer: i32,
    tag: u64,
    received: *mut usize,
) -> i32 {
    // SAFETY: promised by the caller; a failed wait ends the use of the buffer.
    guard(|| unsafe {
        let request = message(comm, false, buffer, bytes, peer, tag)?;
        finish(comm, request, received)
    })
}

/// See `migshare.h`.
///
/// # Safety
/// As `migshare_send` until the request is done; `request` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_isend(
    comm: *mut CommHandle,
    buffer: Send,
    bytes: usize,
    peer: i32,
    tag: u64,
    request: *mut u64,
) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe {
        store(request, 0)?;
        store(request, message(comm, true, buffer.cast_mut(), bytes, peer, tag)?.number())
    })
}

/// See `migshare.h`.
///
/// # Safety
/// As `migshare_recv` until the request is done; `request` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_irecv(
    comm: *mut CommHandle,
    buffer: Recv,
    bytes: usize,
    peer: i32,
    tag: u64,
    request: *mut u64,
) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe {
        store(request, 0)?;
        store(request, message(comm, false, buffer, bytes, peer, tag)?.number())
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `received` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_test(comm: *mut CommHandle, request: u64, received: *mut usize) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe {
        answer(with_comm(comm, |inner| Ok(inner.comm.test(Request::from_number(request))?))?, received)
    })
}

/// What `test` and `wait_for` say.
///
/// # Safety
/// `received` is null or writable.
unsafe fn answer(done: Option<u64>, received: *mut usize) -> Result<(), Failure> {
    match done {
        None => Err(Failure::Border(Status::Pending, "the request is not complete yet")),
        // SAFETY: not null, and promised by the caller.
        Some(bytes) if !received.is_null() => unsafe { store(received, bytes as usize) },
        Some(_) => Ok(()),
    }
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `received` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_wait_for(
    comm: *mut CommHandle,
    request: u64,
    limit_ms: u64,
    received: *mut usize,
) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe {
        let (request, limit) = (Request::from_number(request), Duration::from_millis(limit_ms));
        answer(with_comm(comm, |inner| Ok(inner.comm.wait_for(request, limit)?))?, received)
    })
}

/// See `migshare.h`.
///
/// # Safety
/// `comm` is null or live, `received` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn migshare_wait(comm: *mut CommHandle, request: u64, received: *mut usize) -> i32 {
    // SAFETY: promised by the caller.
    guard(|| unsafe { finish(comm, Request::from_number(request), received) })
}
