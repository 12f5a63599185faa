//! bpf(2) for device programs on cgroups: load, attach, detach, query. Nothing else of bpf is here.
//!
//! Layouts and numbers are those of `union bpf_attr` in linux/bpf.h; the kernel reads as many bytes as it is told
//! and takes the rest for zero, so each command has its own short struct.

use super::program::Insn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_long = 5;
pub(super) const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_QUERY: libc::c_long = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: our program and all others of this cgroup and its ancestors must agree.
const ALLOW_MULTI: u32 = 2;
/// `BPF_F_QUERY_EFFECTIVE`: with those inherited from ancestors.
const QUERY_EFFECTIVE: u32 = 1;
/// The kernel allows 64 programs per cgroup and attach type (`BPF_CGROUP_MAX_PROGS`); ancestors add theirs.
const MOST_PROGRAMS: usize = 1024;

#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// Loads a program; the kernel verifies it.
pub(super) fn load(code: &[Insn]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"migshare_leaves\0",
    };
    // SAFETY: the attr and the instructions and licence it points to live until the call returns.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program beside those that are there.
pub(super) fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    change(PROG_ATTACH, cgroup, program, ALLOW_MULTI)
}

/// Takes a program off again.
pub(super) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    change(PROG_DETACH, cgroup, program, 0)
}

/// Ids of the programs that decide in this cgroup, those of its ancestors included.
pub(super) fn effective(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MOST_PROGRAMS];
    let mut attr = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        query_flags: QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        pad: 0,
    };
    // SAFETY: `prog_ids` points to `prog_cnt` words that live until the call returns.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

pub(super) fn change(
    command: libc::c_long,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_flags: u32,
) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        attach_flags,
    };
    // SAFETY: the attr holds numbers only.
    unsafe { bpf(command, &mut attr) }.map(|_| ())
}

/// # Safety
/// `attr` is the layout that `command` reads and writes, and its pointers are valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller vouches for what `attr` holds; its size is passed along.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
