//! Initialisation, versions, error texts, processes' names.

use std::ffi::c_char;

use super::border::{Out, Text, guard, strike};
use super::exports;
use crate::code::{self, Code};
use crate::fault::Moment;
use crate::process::Pid;
use crate::session;

/// Opens the session; faults on it strike once it is open.
fn init(name: &'static str) -> u32 {
    guard(|| {
        session::open()?;
        let faults = session::enter()?.struck(name, None);
        let struck = strike(&faults, Moment::Before).and_then(|()| strike(&faults, Moment::After));
        if struck.is_err() {
            session::close()?;
        }
        struck
    })
}

/// `nvmlInit_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    init("nvmlInit_v2")
}

/// `nvmlInit`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit() -> u32 {
    init("nvmlInit_v2")
}

/// `nvmlInitWithFlags`. The flags ask to go on without GPUs, which there always are.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: u32) -> u32 {
    init("nvmlInit_v2")
}

/// `nvmlShutdown`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    guard(session::close)
}

/// `nvmlErrorString`. Works without initialisation.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    code::text(result).as_ptr()
}

exports! {
    /// `nvmlSystemGetDriverVersion`.
    fn nvmlSystemGetDriverVersion(version: Text, length: u32) |call| { version.put(length, &call.machine.driver) }

    /// `nvmlSystemGetNVMLVersion`: CUDA's major version before the driver's.
    fn nvmlSystemGetNVMLVersion(version: Text, length: u32) |call| {
        version.put(length, &format!("{}.{}", call.machine.cuda.0, call.machine.driver))
    }

    /// `nvmlSystemGetCudaDriverVersion`.
    fn nvmlSystemGetCudaDriverVersion(version: Out<u32>) |call| {
        version.put(call.machine.cuda.0 * 1000 + call.machine.cuda.1 * 10)
    }

    /// `nvmlSystemGetCudaDriverVersion_v2`.
    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<u32>) |call| {
        version.put(call.machine.cuda.0 * 1000 + call.machine.cuda.1 * 10)
    }

    /// `nvmlSystemGetProcessName`.
    fn nvmlSystemGetProcessName(pid: u32, name: Text, length: u32) |_call| {
        let full = Pid::name(pid).ok_or(Code::NOT_FOUND)?;
        let room = (length as usize).saturating_sub(1);
        let fits = (0..=full.len().min(room)).rev().find(|&n| full.is_char_boundary(n)).unwrap_or(0);
        name.put(length, &full[..fits])
    }
}
