//! The exported tables and the functions behind them. Versions differ in arguments only; each function
//! unpacks its own and calls the common one.

#![allow(non_upper_case_globals, reason = "NCCL looks the tables up by these names")]
#![allow(clippy::too_many_arguments, reason = "NCCL's signatures")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use crate::abi::{Logger, NcclResult, NetV6, NetV8, NetV10, NetV12};
use crate::channel::{Channel, Memory, Pending};
use crate::connect::{self, Handle, Listener};
use crate::device;
use crate::guard::{Failure, guard};

type Ptr = *mut c_void;
type Out = *mut *mut c_void;

fn null(what: &str) -> Failure {
    Failure::new(NcclResult::InvalidArgument, format!("{what} is null"))
}

/// # Safety
/// `to` is null or writable.
unsafe fn store<T>(to: *mut T, value: T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(null("a result"));
    }
    // SAFETY: not null, and promised by the caller.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// `at` is null or came out of a `Box` of `T` that was not freed.
unsafe fn borrow<'a, T>(at: Ptr) -> Result<&'a T, Failure> {
    // SAFETY: promised by the caller.
    unsafe { at.cast::<T>().as_ref() }.ok_or_else(|| null("an object"))
}

/// # Safety
/// As [`borrow`], and `at` is not used again.
unsafe fn take<T>(at: Ptr) -> Result<Box<T>, Failure> {
    // SAFETY: promised by the caller.
    if at.is_null() { Err(null("an object")) } else { Ok(unsafe { Box::from_raw(at.cast()) }) }
}

/// A new object, or null for "not yet".
fn boxed<T>(value: Option<T>) -> Ptr {
    value.map_or(std::ptr::null_mut(), |value| Box::into_raw(Box::new(value)).cast())
}

/// Declares functions that NCCL calls; each body runs in the guard.
macro_rules! functions {
    ($($name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {$(
        #[allow(unused_unsafe, reason = "some bodies are safe")]
        unsafe extern "C" fn $name($($argument: $kind),*) -> NcclResult {
            // SAFETY: NCCL passes pointers as its headers say: results are writable, objects are those that
            // this plugin made and NCCL has not closed.
            guard(|| unsafe { $body })
        }
    )*};
}

/// # Safety
/// `handle` has 128 writable bytes, `result` is writable.
unsafe fn listen(device: c_int, handle: Ptr, result: Out) -> Result<(), Failure> {
    device::check(device)?;
    if handle.is_null() || result.is_null() {
        return Err(null("the handle"));
    }
    let (own, listener) = connect::listen()?;
    // SAFETY: promised by the caller; NCCL's buffer may have any alignment.
    unsafe {
        handle.cast::<Handle>().write_unaligned(own);
        store(result, boxed(Some(listener)))
    }
}

/// # Safety
/// `handle` has 128 readable bytes, `result` is writable.
unsafe fn connect_to(device: c_int, handle: Ptr, result: Out) -> Result<(), Failure> {
    device::check(device)?;
    if handle.is_null() || result.is_null() {
        return Err(null("the handle"));
    }
    // SAFETY: promised by the caller.
    unsafe {
        let channel = connect::connect(handle as usize, handle.cast::<Handle>().read_unaligned())?;
        store(result, boxed(channel.map(Arc::new)))
    }
}

/// # Safety
/// `listener` is one of this plugin, `result` is writable.
unsafe fn accept_from(listener: Ptr, result: Out) -> Result<(), Failure> {
    // SAFETY: promised by the caller.
    unsafe { store(result, boxed(connect::accept(borrow::<Listener>(listener)?)?.map(Arc::new))) }
}

/// # Safety
/// `result` is writable.
unsafe fn register(data: Ptr, size: usize, kind: c_int, result: Out) -> Result<(), Failure> {
    // SAFETY: promised by the caller.
    unsafe { store(result, boxed(Some(Memory::register(data.cast(), size, kind)?))) }
}

/// # Safety
/// As NCCL's `isend`.
unsafe fn send(comm: Ptr, data: Ptr, size: usize, memory: Ptr, request: Out) -> Result<(), Failure> {
    // SAFETY: promised by the caller; unregistered memory has no handle.
    unsafe {
        let memory = memory.cast::<Memory>().as_ref();
        store(request, boxed(borrow::<Arc<Channel>>(comm)?.send(data.cast(), size, memory)?))
    }
}

/// # Safety
/// As NCCL's `irecv`.
unsafe fn receive(comm: Ptr, n: c_int, data: Out, size: usize, request: Out) -> Result<(), Failure> {
    if n != 1 || data.is_null() {
        return Err(Failure::new(NcclResult::InvalidArgument, "receives come one at a time"));
    }
    // SAFETY: promised by the caller.
    unsafe { store(request, boxed(borrow::<Arc<Channel>>(comm)?.receive((*data).cast(), size)?)) }
}

fn length(size: c_int) -> Result<usize, Failure> {
    usize::try_from(size).map_err(|_| Failure::new(NcclResult::InvalidArgument, "a negative size"))
}

functions! {
    init_v6(logger: Logger) { device::init(logger) }
    init_v10(logger: Logger, _profiler: Ptr) { device::init(logger) }
    init_v12(context: Out, _id: u64, _config: Ptr, logger: Logger, _profiler: Ptr) {
        device::init(logger)?;
        store(context, std::ptr::null_mut())
    }
    devices(count: *mut c_int) { store(count, 1) }
    properties_v6(dev: c_int, to: *mut crate::abi::PropertiesV6) { device::check(dev)?; store(to, device::V6) }
    properties_v8(dev: c_int, to: *mut crate::abi::PropertiesV8) { device::check(dev)?; store(to, device::V8) }
    properties_v10(dev: c_int, to: *mut crate::abi::PropertiesV10) { device::check(dev)?; store(to, device::V10) }
    properties_v12(dev: c_int, to: *mut crate::abi::PropertiesV12) { device::check(dev)?; store(to, device::V12) }
    listen_v6(dev: c_int, handle: Ptr, result: Out) { listen(dev, handle, result) }
    listen_v12(_context: Ptr, dev: c_int, handle: Ptr, result: Out) { listen(dev, handle, result) }
    connect_v6(dev: c_int, handle: Ptr, result: Out) { connect_to(dev, handle, result) }
    connect_v8(dev: c_int, handle: Ptr, result: Out, _device_side: Out) { connect_to(dev, handle, result) }
    connect_v10(dev: c_int, _config: Ptr, handle: Ptr, result: Out, _device_side: Out) {
        connect_to(dev, handle, result)
    }
    connect_v12(_context: Ptr, dev: c_int, handle: Ptr, result: Out, _device_side: Out) {
        connect_to(dev, handle, result)
    }
    accept_v6(listener: Ptr, result: Out) { accept_from(listener, result) }
    accept_v8(listener: Ptr, result: Out, _device_side: Out) { accept_from(listener, result) }
    reg_mr_v6(_comm: Ptr, data: Ptr, size: c_int, kind: c_int, result: Out) {
        register(data, length(size)?, kind, result)
    }
    reg_mr_v8(_comm: Ptr, data: Ptr, size: usize, kind: c_int, result: Out) { register(data, size, kind, result) }
    reg_mr_dma_buf(_comm: Ptr, _data: Ptr, _size: usize, _kind: c_int, _offset: u64, _fd: c_int, _result: Out) {
        Err(Failure::new(NcclResult::InvalidUsage, "DMA-BUF memory is not supported"))
    }
    dereg_mr(_comm: Ptr, memory: Ptr) { take::<Memory>(memory).map(drop) }
    isend_v6(comm: Ptr, data: Ptr, size: c_int, _tag: c_int, memory: Ptr, request: Out) {
        send(comm, data, length(size)?, memory, request)
    }
    isend_v10(comm: Ptr, data: Ptr, size: usize, _tag: c_int, memory: Ptr, _profile: Ptr, request: Out) {
        send(comm, data, size, memory, request)
    }
    irecv_v6(comm: Ptr, n: c_int, data: Out, sizes: *mut c_int, _tags: *mut c_int, _memory: Out, request: Out) {
        let size = *borrow::<c_int>(sizes.cast())?;
        receive(comm, n, data, length(size)?, request)
    }
    irecv_v10(
        comm: Ptr, n: c_int, data: Out, sizes: *mut usize, _tags: *mut c_int, _memory: Out, _profile: Out, request: Out
    ) {
        let size = *borrow::<usize>(sizes.cast())?;
        receive(comm, n, data, size, request)
    }
    // Host memory is in order by itself: no request means nothing to wait for.
    iflush(_comm: Ptr, _n: c_int, _data: Out, _sizes: *mut c_int, _memory: Out, request: Out) {
        store(request, std::ptr::null_mut())
    }
    test(request: Ptr, done: *mut c_int, sizes: *mut c_int) {
        store(done, 0)?;
        let Some(length) = borrow::<Pending>(request)?.test()? else { return Ok(()) };
        drop(take::<Pending>(request)?);
        if !sizes.is_null() {
            store(sizes, c_int::try_from(length).unwrap_or(c_int::MAX))?;
        }
        store(done, 1)
    }
    close(comm: Ptr) {
        take::<Arc<Channel>>(comm)?.close();
        Ok(())
    }
    close_listen(listener: Ptr) { take::<Listener>(listener).map(drop) }
    get_device_mr(_comm: Ptr, _memory: Ptr, _result: Out) {
        Err(Failure::new(NcclResult::InvalidUsage, "there is no device side"))
    }
    irecv_consumed(_comm: Ptr, _n: c_int, _request: Ptr) { Ok(()) }
    make_v_device(_device: *mut c_int, _properties: Ptr) {
        Err(Failure::new(NcclResult::InvalidUsage, "virtual devices cannot be merged"))
    }
    finalize(_context: Ptr) { Ok(()) }
    set_net_attr(_context: Ptr, _attributes: Ptr) { Ok(()) }
}

/// NCCL 2.18 and later fall back to this version.
#[unsafe(no_mangle)]
pub static ncclNetPlugin_v6: NetV6 = NetV6 {
    name: device::NAME.as_ptr(),
    init: init_v6,
    devices,
    get_properties: properties_v6,
    listen: listen_v6,
    connect: connect_v6,
    accept: accept_v6,
    reg_mr: reg_mr_v6,
    reg_mr_dma_buf,
    dereg_mr,
    isend: isend_v6,
    irecv: irecv_v6,
    iflush,
    test,
    close_send: close,
    close_recv: close,
    close_listen,
};

/// NCCL 2.20 and later.
#[unsafe(no_mangle)]
pub static ncclNetPlugin_v8: NetV8 = NetV8 {
    name: device::NAME.as_ptr(),
    init: init_v6,
    devices,
    get_properties: properties_v8,
    listen: listen_v6,
    connect: connect_v8,
    accept: accept_v8,
    reg_mr: reg_mr_v8,
    reg_mr_dma_buf,
    dereg_mr,
    isend: isend_v6,
    irecv: irecv_v6,
    iflush,
    test,
    close_send: close,
    close_recv: close,
    close_listen,
    get_device_mr,
    irecv_consumed,
};

/// NCCL 2.26 and later.
#[unsafe(no_mangle)]
pub static ncclNetPlugin_v10: NetV10 = NetV10 {
    name: device::NAME.as_ptr(),
    init: init_v10,
    devices,
    get_properties: properties_v10,
    listen: listen_v6,
    connect: connect_v10,
    accept: accept_v8,
    reg_mr: reg_mr_v8,
    reg_mr_dma_buf,
    dereg_mr,
    isend: isend_v10,
    irecv: irecv_v10,
    iflush,
    test,
    close_send: close,
    close_recv: close,
    close_listen,
    get_device_mr,
    irecv_consumed,
    make_v_device,
};

/// NCCL 2.30 and later.
#[unsafe(no_mangle)]
pub static ncclNetPlugin_v12: NetV12 = NetV12 {
    name: device::NAME.as_ptr(),
    init: init_v12,
    devices,
    get_properties: properties_v12,
    listen: listen_v12,
    connect: connect_v12,
    accept: accept_v8,
    reg_mr: reg_mr_v8,
    reg_mr_dma_buf,
    dereg_mr,
    isend: isend_v10,
    irecv: irecv_v10,
    iflush,
    test,
    close_send: close,
    close_recv: close,
    close_listen,
    get_device_mr,
    irecv_consumed,
    make_v_device,
    finalize,
    set_net_attr,
};
