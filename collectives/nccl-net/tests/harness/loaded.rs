//! The shared object behind one face for all versions of its table.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use nccl_net_migshare::abi::{NcclResult, NetV6, NetV8, NetV10, NetV12};

pub(crate) type Ptr = *mut c_void;
pub(crate) const VERSIONS: [u32; 4] = [6, 8, 10, 12];
const HOST: c_int = 1;
const CUDA: c_int = 2;

/// `dlopen` of the library that was built with this test.
pub(crate) fn load() -> usize {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        let built = std::env::current_exe().unwrap().parent().unwrap().join("libnccl_net_migshare.so");
        let path = std::ffi::CString::new(built.to_str().unwrap()).unwrap();
        // SAFETY: a path; the library's constructors are Rust's.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{}", built.display());
        library as usize
    })
}

pub(crate) fn table<T>(library: usize, symbol: &CStr) -> &'static T {
    // SAFETY: a handle of dlopen that is never closed.
    let address = unsafe { libc::dlsym(library as Ptr, symbol.as_ptr()) };
    assert!(!address.is_null(), "{symbol:?}");
    // SAFETY: the symbol is a static table of this type.
    unsafe { &*address.cast::<T>() }
}

pub(crate) enum Net {
    V6(&'static NetV6),
    V8(&'static NetV8),
    V10(&'static NetV10),
    V12(&'static NetV12),
}

/// Calls what has the same arguments in all versions.
macro_rules! same {
    ($net:expr, $function:ident($($argument:expr),*)) => {
        // SAFETY: the callers below pass what the plugin handed out, or null to see it refused.
        unsafe { match $net {
            Net::V6(table) => (table.$function)($($argument),*),
            Net::V8(table) => (table.$function)($($argument),*),
            Net::V10(table) => (table.$function)($($argument),*),
            Net::V12(table) => (table.$function)($($argument),*),
        } }
    };
}

fn result<T>(code: NcclResult, value: T) -> Result<T, NcclResult> {
    if code == NcclResult::Success { Ok(value) } else { Err(code) }
}

impl Net {
    pub(crate) fn open(version: u32) -> Self {
        let (library, mut context, none) = (load(), std::ptr::null_mut(), std::ptr::null_mut());
        let net = match version {
            6 => Net::V6(table(library, c"ncclNetPlugin_v6")),
            8 => Net::V8(table(library, c"ncclNetPlugin_v8")),
            10 => Net::V10(table(library, c"ncclNetPlugin_v10")),
            _ => Net::V12(table(library, c"ncclNetPlugin_v12")),
        };
        // SAFETY: no logger, no profiler, no configuration: all may be null.
        let code = unsafe {
            match &net {
                Net::V6(table) => (table.init)(None),
                Net::V8(table) => (table.init)(None),
                Net::V10(table) => (table.init)(None, none),
                Net::V12(table) => (table.init)(&raw mut context, 1, none, None, none),
            }
        };
        assert_eq!(code, NcclResult::Success);
        net
    }

    pub(crate) fn listen(&self) -> Result<([u8; 128], Ptr), NcclResult> {
        let (mut handle, mut listener) = ([0_u8; 128], std::ptr::null_mut());
        let (at, to) = (handle.as_mut_ptr().cast(), &raw mut listener);
        // SAFETY: the handle has 128 bytes.
        let code = unsafe {
            match self {
                Net::V6(table) => (table.listen)(0, at, to),
                Net::V8(table) => (table.listen)(0, at, to),
                Net::V10(table) => (table.listen)(0, at, to),
                Net::V12(table) => (table.listen)(std::ptr::null_mut(), 0, at, to),
            }
        };
        result(code, (handle, listener))
    }

    /// Null as long as the connection is not there.
    pub(crate) fn try_connect(&self, handle: &mut [u8; 128]) -> Result<Ptr, NcclResult> {
        let (mut comm, at, none) = (std::ptr::null_mut(), handle.as_mut_ptr().cast(), std::ptr::null_mut());
        let to = &raw mut comm;
        let nothing = std::ptr::null_mut();
        // SAFETY: the handle has 128 bytes.
        let code = unsafe {
            match self {
                Net::V6(table) => (table.connect)(0, at, to),
                Net::V8(table) => (table.connect)(0, at, to, nothing),
                Net::V10(table) => (table.connect)(0, none, at, to, nothing),
                Net::V12(table) => (table.connect)(none, 0, at, to, nothing),
            }
        };
        result(code, comm)
    }

    pub(crate) fn try_accept(&self, listener: Ptr) -> Result<Ptr, NcclResult> {
        let mut comm = std::ptr::null_mut();
        let (to, nothing) = (&raw mut comm, std::ptr::null_mut());
        // SAFETY: a listener of the plugin, or null.
        let code = unsafe {
            match self {
                Net::V6(table) => (table.accept)(listener, to),
                Net::V8(table) => (table.accept)(listener, to, nothing),
                Net::V10(table) => (table.accept)(listener, to, nothing),
                Net::V12(table) => (table.accept)(listener, to, nothing),
            }
        };
        result(code, comm)
    }

    pub(crate) fn register(&self, comm: Ptr, memory: &mut [u8], kind: c_int) -> Result<Ptr, NcclResult> {
        let (mut handle, at, len) = (std::ptr::null_mut(), memory.as_mut_ptr().cast(), memory.len());
        let to = &raw mut handle;
        // SAFETY: the memory is valid for its length.
        let code = unsafe {
            match self {
                Net::V6(table) => (table.reg_mr)(comm, at, len as c_int, kind, to),
                Net::V8(table) => (table.reg_mr)(comm, at, len, kind, to),
                Net::V10(table) => (table.reg_mr)(comm, at, len, kind, to),
                Net::V12(table) => (table.reg_mr)(comm, at, len, kind, to),
            }
        };
        result(code, handle)
    }

    pub(crate) fn register_host(&self, comm: Ptr, memory: &mut [u8]) -> Ptr {
        self.register(comm, memory, HOST).unwrap()
    }

    pub(crate) fn register_cuda(&self) -> NcclResult {
        self.register(std::ptr::null_mut(), &mut [0; 8], CUDA).unwrap_err()
    }

    pub(crate) fn deregister(&self, comm: Ptr, memory: Ptr) {
        assert_eq!(same!(self, dereg_mr(comm, memory)), NcclResult::Success);
    }

    /// Null when the plugin has no room for one more request.
    pub(crate) fn try_send(&self, comm: Ptr, data: &[u8], memory: Ptr) -> Result<Ptr, NcclResult> {
        let (mut request, none) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (at, len, to) = (data.as_ptr().cast_mut().cast(), data.len(), &raw mut request);
        // SAFETY: callers keep `data` until the request is done.
        let code = unsafe {
            match self {
                Net::V6(table) => (table.isend)(comm, at, len as c_int, 7, memory, to),
                Net::V8(table) => (table.isend)(comm, at, len as c_int, 7, memory, to),
                Net::V10(table) => (table.isend)(comm, at, len, 7, memory, none, to),
                Net::V12(table) => (table.isend)(comm, at, len, 7, memory, none, to),
            }
        };
        result(code, request)
    }

    pub(crate) fn try_receive(&self, comm: Ptr, data: &mut [u8], memory: Ptr) -> Result<Ptr, NcclResult> {
        let (mut request, mut at, mut tag, mut memory) =
            (std::ptr::null_mut(), data.as_mut_ptr().cast(), 7, memory);
        let (mut small, mut large) = (data.len() as c_int, data.len());
        let (at, tag, memory, to) = (&raw mut at, &raw mut tag, &raw mut memory, &raw mut request);
        let none = std::ptr::null_mut();
        // SAFETY: arrays of one element each; callers keep `data` until the request is done.
        let code = unsafe {
            match self {
                Net::V6(table) => (table.irecv)(comm, 1, at, &raw mut small, tag, memory, to),
                Net::V8(table) => (table.irecv)(comm, 1, at, &raw mut small, tag, memory, to),
                Net::V10(table) => (table.irecv)(comm, 1, at, &raw mut large, tag, memory, none, to),
                Net::V12(table) => (table.irecv)(comm, 1, at, &raw mut large, tag, memory, none, to),
            }
        };
        result(code, request)
    }

    /// The size of a request that is done.
    pub(crate) fn try_test(&self, request: Ptr) -> Result<Option<usize>, NcclResult> {
        let (mut done, mut size) = (0, 0);
        let code = same!(self, test(request, &raw mut done, &raw mut size));
        result(code, (done != 0).then_some(size as usize))
    }

    pub(crate) fn flush(&self, comm: Ptr) {
        let mut request = 1 as Ptr;
        let none = std::ptr::null_mut();
        let code = same!(self, iflush(comm, 1, none, std::ptr::null_mut(), none, &raw mut request));
        assert!(code == NcclResult::Success && request.is_null());
    }

    pub(crate) fn close(&self, send: Ptr, receive: Ptr, listener: Ptr) {
        assert_eq!(same!(self, close_send(send)), NcclResult::Success);
        assert_eq!(same!(self, close_recv(receive)), NcclResult::Success);
        assert_eq!(same!(self, close_listen(listener)), NcclResult::Success);
    }
}
