//! NCCL's plugin structures, as the public headers declare them: NVIDIA/nccl,
//! `src/include/plugin/net/net_v6.h`, `net_v8.h`, `net_v10.h`, `net_v12.h`. Sizes and offsets are
//! asserted for x86-64. Nothing but declarations.

#![allow(missing_docs, reason = "names and meaning are those of NCCL's headers")]

use std::ffi::{c_char, c_int, c_ulong, c_void};

/// `ncclResult_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum NcclResult {
    Success = 0,
    SystemError = 2,
    InternalError = 3,
    InvalidArgument = 4,
    InvalidUsage = 5,
    RemoteError = 6,
}

pub const PTR_HOST: c_int = 1;
pub const HANDLE_BYTES: usize = 128;
pub const MAX_REQUESTS: usize = 32;
/// `ncclDebugLogger_t`, which is variadic like printf.
pub type Logger = Option<
    unsafe extern "C" fn(
        level: c_int,
        flags: c_ulong,
        file: *const c_char,
        line: c_int,
        format: *const c_char,
        ...
    ),
>;
pub const LOG_WARN: c_int = 2;
pub const LOG_INFO: c_int = 3;
/// `NCCL_INIT | NCCL_NET`.
pub const LOG_FLAGS: c_ulong = 0x1 | 0x10;

type Out = *mut *mut c_void;
type Ptr = *mut c_void;

#[repr(C)]
pub struct PropertiesV6 {
    pub name: *const c_char,
    pub pci_path: *const c_char,
    pub guid: u64,
    pub ptr_support: c_int,
    pub speed: c_int,
    pub port: c_int,
    pub latency: f32,
    pub max_comms: c_int,
    pub max_recvs: c_int,
}

#[repr(C)]
pub struct PropertiesV8 {
    pub name: *const c_char,
    pub pci_path: *const c_char,
    pub guid: u64,
    pub ptr_support: c_int,
    pub reg_is_global: c_int,
    pub speed: c_int,
    pub port: c_int,
    pub latency: f32,
    pub max_comms: c_int,
    pub max_recvs: c_int,
    pub net_device_type: c_int,
    pub net_device_version: c_int,
}

#[repr(C)]
pub struct VDevice<const N: usize> {
    pub ndevs: c_int,
    pub devs: [c_int; N],
}

#[repr(C)]
pub struct PropertiesV10 {
    pub name: *const c_char,
    pub pci_path: *const c_char,
    pub guid: u64,
    pub ptr_support: c_int,
    pub reg_is_global: c_int,
    pub force_flush: c_int,
    pub speed: c_int,
    pub port: c_int,
    pub latency: f32,
    pub max_comms: c_int,
    pub max_recvs: c_int,
    pub net_device_type: c_int,
    pub net_device_version: c_int,
    pub v_props: VDevice<4>,
    pub max_p2p_bytes: usize,
    pub max_coll_bytes: usize,
}

#[repr(C)]
pub struct PropertiesV12 {
    pub name: *const c_char,
    pub pci_path: *const c_char,
    pub guid: u64,
    pub ptr_support: c_int,
    pub reg_is_global: c_int,
    pub force_flush: c_int,
    pub speed: c_int,
    pub port: c_int,
    pub latency: f32,
    pub max_comms: c_int,
    pub max_recvs: c_int,
    pub net_device_type: c_int,
    pub net_device_version: c_int,
    pub v_props: VDevice<8>,
    pub max_p2p_bytes: usize,
    pub max_coll_bytes: usize,
    pub max_multi_request_size: c_int,
    pub rail_id: i16,
    pub plane_id: i16,
}

/// Declares a table of function pointers behind the name.
macro_rules! table {
    ($name:ident { $($field:ident: ($($argument:ty),*);)* }) => {
        #[repr(C)]
        pub struct $name {
            pub name: *const c_char,
            $(pub $field: unsafe extern "C" fn($($argument),*) -> NcclResult,)*
        }
        // SAFETY: a constant table of functions and one constant string.
        unsafe impl Sync for $name {}
    };
}

table!(NetV6 {
    init: (Logger);
    devices: (*mut c_int);
    get_properties: (c_int, *mut PropertiesV6);
    listen: (c_int, Ptr, Out);
    connect: (c_int, Ptr, Out);
    accept: (Ptr, Out);
    reg_mr: (Ptr, Ptr, c_int, c_int, Out);
    reg_mr_dma_buf: (Ptr, Ptr, usize, c_int, u64, c_int, Out);
    dereg_mr: (Ptr, Ptr);
    isend: (Ptr, Ptr, c_int, c_int, Ptr, Out);
    irecv: (Ptr, c_int, Out, *mut c_int, *mut c_int, Out, Out);
    iflush: (Ptr, c_int, Out, *mut c_int, Out, Out);
    test: (Ptr, *mut c_int, *mut c_int);
    close_send: (Ptr);
    close_recv: (Ptr);
    close_listen: (Ptr);
});

table!(NetV8 {
    init: (Logger);
    devices: (*mut c_int);
    get_properties: (c_int, *mut PropertiesV8);
    listen: (c_int, Ptr, Out);
    connect: (c_int, Ptr, Out, Out);
    accept: (Ptr, Out, Out);
    reg_mr: (Ptr, Ptr, usize, c_int, Out);
    reg_mr_dma_buf: (Ptr, Ptr, usize, c_int, u64, c_int, Out);
    dereg_mr: (Ptr, Ptr);
    isend: (Ptr, Ptr, c_int, c_int, Ptr, Out);
    irecv: (Ptr, c_int, Out, *mut c_int, *mut c_int, Out, Out);
    iflush: (Ptr, c_int, Out, *mut c_int, Out, Out);
    test: (Ptr, *mut c_int, *mut c_int);
    close_send: (Ptr);
    close_recv: (Ptr);
    close_listen: (Ptr);
    get_device_mr: (Ptr, Ptr, Out);
    irecv_consumed: (Ptr, c_int, Ptr);
});

table!(NetV10 {
    init: (Logger, Ptr);
    devices: (*mut c_int);
    get_properties: (c_int, *mut PropertiesV10);
    listen: (c_int, Ptr, Out);
    connect: (c_int, Ptr, Ptr, Out, Out);
    accept: (Ptr, Out, Out);
    reg_mr: (Ptr, Ptr, usize, c_int, Out);
    reg_mr_dma_buf: (Ptr, Ptr, usize, c_int, u64, c_int, Out);
    dereg_mr: (Ptr, Ptr);
    isend: (Ptr, Ptr, usize, c_int, Ptr, Ptr, Out);
    irecv: (Ptr, c_int, Out, *mut usize, *mut c_int, Out, Out, Out);
    iflush: (Ptr, c_int, Out, *mut c_int, Out, Out);
    test: (Ptr, *mut c_int, *mut c_int);
    close_send: (Ptr);
    close_recv: (Ptr);
    close_listen: (Ptr);
    get_device_mr: (Ptr, Ptr, Out);
    irecv_consumed: (Ptr, c_int, Ptr);
    make_v_device: (*mut c_int, Ptr);
});

table!(NetV12 {
    init: (Out, u64, Ptr, Logger, Ptr);
    devices: (*mut c_int);
    get_properties: (c_int, *mut PropertiesV12);
    listen: (Ptr, c_int, Ptr, Out);
    connect: (Ptr, c_int, Ptr, Out, Out);
    accept: (Ptr, Out, Out);
    reg_mr: (Ptr, Ptr, usize, c_int, Out);
    reg_mr_dma_buf: (Ptr, Ptr, usize, c_int, u64, c_int, Out);
    dereg_mr: (Ptr, Ptr);
    isend: (Ptr, Ptr, usize, c_int, Ptr, Ptr, Out);
    irecv: (Ptr, c_int, Out, *mut usize, *mut c_int, Out, Out, Out);
    iflush: (Ptr, c_int, Out, *mut c_int, Out, Out);
    test: (Ptr, *mut c_int, *mut c_int);
    close_send: (Ptr);
    close_recv: (Ptr);
    close_listen: (Ptr);
    get_device_mr: (Ptr, Ptr, Out);
    irecv_consumed: (Ptr, c_int, Ptr);
    make_v_device: (*mut c_int, Ptr);
    finalize: (Ptr);
    set_net_attr: (Ptr, Ptr);
});

#[cfg(target_arch = "x86_64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<PropertiesV6>() == 48);
    assert!(size_of::<PropertiesV8>() == 64);
    assert!(size_of::<PropertiesV10>() == 104);
    assert!(size_of::<PropertiesV12>() == 128);
    assert!(size_of::<NetV6>() == 136);
    assert!(size_of::<NetV8>() == 152);
    assert!(size_of::<NetV10>() == 160);
    assert!(size_of::<NetV12>() == 176);
    assert!(offset_of!(PropertiesV10, force_flush) == 32);
    assert!(offset_of!(PropertiesV10, latency) == 44);
    assert!(offset_of!(PropertiesV10, v_props) == 64);
    assert!(offset_of!(PropertiesV10, max_p2p_bytes) == 88);
    assert!(offset_of!(PropertiesV12, max_p2p_bytes) == 104);
    assert!(offset_of!(PropertiesV12, max_multi_request_size) == 120);
    assert!(offset_of!(PropertiesV12, rail_id) == 124);
    assert!(offset_of!(PropertiesV12, plane_id) == 126);
};
