//! The system calls of this crate, each behind a safe function. Nothing else calls libc for memory,
//! descriptors or processes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::error::{Error, Result};

/// Smaller segments serve single connections, of which a process may have many: a huge page for each would
/// cost more memory than it saves time.
const HUGE_PAGES_FROM: usize = 128 << 20;

/// Turns `-1` into an error.
fn checked(value: libc::c_int, what: &'static str) -> Result<libc::c_int> {
    if value < 0 { Err(Error::last_os(what)) } else { Ok(value) }
}

/// An anonymous file of `bytes` zero bytes whose size can never change again.
///
/// # Errors
/// Fails when the kernel refuses the file or a seal.
pub(crate) fn sealed_memfd(bytes: u64) -> Result<OwnedFd> {
    // SAFETY: the name is a NUL-terminated literal; the result is checked before use.
    let raw = checked(
        unsafe { libc::memfd_create(c"migshare".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) },
        "memfd_create",
    )?;
    // SAFETY: `raw` is a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let len = libc::off_t::try_from(bytes).map_err(|_| Error::Invalid("segment size"))?;
    // SAFETY: plain system calls on a descriptor we own.
    checked(unsafe { libc::ftruncate(fd.as_raw_fd(), len) }, "ftruncate")?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, "F_ADD_SEALS")?;
    Ok(fd)
}

/// Whether the file can neither shrink nor grow any more.
pub(crate) fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: a plain system call; a descriptor without seals answers with -1.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0 && seals & libc::F_SEAL_GROW != 0
}

/// Kinds of locks on a whole file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    Shared,
    Exclusive,
}

/// Puts a lock on the file for this open description, in place of an earlier one; false when another's is in the way.
pub(crate) fn lock(fd: BorrowedFd<'_>, lock: Lock) -> Result<bool> {
    let kind = match lock {
        Lock::Shared => libc::F_RDLCK,
        Lock::Exclusive => libc::F_WRLCK,
    };
    // From the beginning to the end, wherever that is.
    let whole =
        libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the kernel reads the live structure.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) };
    match (done, std::io::Error::last_os_error().raw_os_error()) {
        (0, _) => Ok(true),
        (_, Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        _ => Err(Error::last_os("lock the segment")),
    }
}

/// Maps `bytes` of `fd` shared and writable, asking for huge pages where they pay.
pub(crate) fn map_shared(fd: BorrowedFd<'_>, bytes: usize) -> Result<*mut u8> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address the kernel chooses; nothing existing is replaced.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    if base == libc::MAP_FAILED {
        return Err(Error::last_os("mmap"));
    }
    if bytes >= HUGE_PAGES_FROM {
        // SAFETY: advice on the mapping just made; a refusal changes nothing.
        unsafe { libc::madvise(base, bytes, libc::MADV_HUGEPAGE) };
    }
    Ok(base.cast())
}

/// Undoes [`map_shared`].
///
/// # Safety
/// `base` and `bytes` are those of one `map_shared`, and nothing points there any more.
pub(crate) unsafe fn unmap(base: *mut u8, bytes: usize) {
    // SAFETY: the caller hands over the whole mapping.
    unsafe { libc::munmap(base.cast(), bytes) };
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: a plain system call; the result is checked.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = checked(libc::c_int::try_from(raw).unwrap_or(-1), "pidfd_open")?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Waits up to `timeout` until one of `fds` is readable; the index of the first that is.
pub(crate) fn poll_readable(fds: &mut [libc::pollfd], timeout: Duration) -> Option<usize> {
    let limit = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY: `fds` is a valid array of its own length; `limit` outlives the call; no signal mask.
    let ready = unsafe {
        libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const limit, std::ptr::null())
    };
    if ready <= 0 { None } else { fds.iter().position(|fd| fd.revents != 0) }
}

/// Gives the rest of the time slice away.
#[inline]
pub(crate) fn yield_now() {
    // SAFETY: has no arguments and no effects on memory.
    unsafe { libc::sched_yield() };
}

/// The CPUs that this process may use, as a bit set of 512.
pub(crate) fn allowed_cpus() -> [u64; 8] {
    let mut set = [0_u64; 16];
    // SAFETY: the kernel writes at most the given number of bytes into `set`.
    let done = unsafe { libc::sched_getaffinity(0, size_of_val(&set), set.as_mut_ptr().cast()) };
    if done != 0 {
        return [u64::MAX; 8];
    }
    std::array::from_fn(|i| set[i])
}

/// Whether memory of this machine is on more than one NUMA node.
pub(crate) fn has_several_nodes() -> bool {
    let nodes = std::fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
    nodes.contains([',', '-'])
}

/// The NUMA node of the CPU on which this thread runs now, below 64.
pub(crate) fn current_node() -> Option<u32> {
    let mut node = 0_u32;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes one number; null is allowed for the others.
    let done = unsafe { libc::syscall(libc::SYS_getcpu, none, &raw mut node, none) };
    (done == 0 && node < u64::BITS).then_some(node)
}

/// The CPUs of a NUMA node, as a list such as `0-3,8`.
pub(crate) fn cpus_of_node(node: u32) -> Option<String> {
    std::fs::read_to_string(format!("/sys/devices/system/node/node{node}/cpulist")).ok()
}

/// Prefers `node` for pages in a range that nobody has touched yet; whether the kernel took it.
///
/// # Safety
/// The range is mapped, and begins at a page.
pub(crate) unsafe fn prefer_node(at: *mut u8, bytes: usize, node: u32) -> bool {
    let nodes = 1_u64 << node;
    let (mode, width) = (libc::MPOL_PREFERRED, u64::from(u64::BITS) + 1); // the kernel takes one off (mbind(2), BUGS)
    // SAFETY: a policy changes no contents; the mask is read during the call only.
    unsafe { libc::syscall(libc::SYS_mbind, at, bytes, mode, &raw const nodes, width, 0) == 0 }
}

/// The node that the policy at an address prefers.
#[cfg(test)]
pub(crate) fn preferred_node(at: *mut u8) -> Option<u32> {
    const MPOL_F_ADDR: libc::c_ulong = 2; // linux/mempolicy.h
    let (mut mode, mut nodes) = (0_i32, [0_u64; 16]);
    // SAFETY: the kernel writes the mode and at most 1024 bits.
    let done = unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), 1024_u64, at, MPOL_F_ADDR)
    };
    (done == 0 && mode == libc::MPOL_PREFERRED).then(|| nodes[0].trailing_zeros())
}

/// Copies `len` bytes at `from` in process `pid` to `to`.
///
/// # Safety
/// `to` is writable for `len` bytes. Any value is allowed for `from`.
pub(crate) unsafe fn read_process(pid: i32, from: u64, to: *mut u8, len: usize) -> Result<()> {
    let mut done = 0;
    while done < len {
        let local = libc::iovec { iov_base: to.wrapping_add(done).cast(), iov_len: len - done };
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut((from as usize).wrapping_add(done)),
            iov_len: len - done,
        };
        // SAFETY: the local range is writable by the contract; the kernel checks the remote one.
        let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        if got <= 0 {
            return Err(Error::last_os("process_vm_readv"));
        }
        done += got as usize;
    }
    Ok(())
}

/// Whether other processes of this user could read the byte at `at`: false for mappings of devices.
#[must_use]
pub fn is_readable_from_outside(at: *const u8) -> bool {
    let mut byte = 0_u8;
    let pid = std::process::id() as i32;
    // SAFETY: `byte` is writable; the kernel checks the address.
    unsafe { read_process(pid, at as u64, &raw mut byte, 1) }.is_ok()
}

/// Start time of a process in clock ticks since boot, which with its pid names it for ever
/// (field 22 of `/proc/PID/stat`, proc(5)).
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A number that differs between processes and calls.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes at most eight bytes into `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
    if got == 8 { u64::from_ne_bytes(bytes) } else { clock ^ (u64::from(std::process::id()) << 40) }
}
