//! The border to C: pointers that callers pass, and the one way into and out of a call.
//!
//! [`Out`], [`Text`] and [`CText`] are the pointer parameters of the exported functions. Their fields are private and
//! nothing in Rust makes one, so whatever they hold came from a C caller under nvml.h's contract: null,
//! or valid for what the function's documentation says. Null becomes INVALID_ARGUMENT; no other module
//! follows a pointer. A panic ends at `call`.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};

use crate::code::{Code, Result, SUCCESS};
use crate::fault::{Effect, Fault, Moment};
use crate::session::{self, Call, Handle};

/// Where the caller wants a value, or an array of them.
#[derive(Debug)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// Whether the caller passed null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// An error for null.
    pub fn required(self) -> Result<Out<T>> {
        if self.is_null() { Err(Code::INVALID_ARGUMENT) } else { Ok(self) }
    }

    /// Writes the value.
    pub fn put(self, value: T) -> Result<()> {
        let pointer = self.required()?.0;
        // SAFETY: not null, so by the type's contract the caller's memory for one T; unaligned is allowed for.
        unsafe { ptr::write_unaligned(pointer, value) };
        Ok(())
    }

    /// The place of the `n`th value of an array that the caller provides.
    pub fn nth(self, n: usize) -> Result<Out<T>> {
        // `wrapping_add` follows nothing: whether the memory is the caller's is decided where it is used.
        Ok(Out(self.required()?.0.wrapping_add(n)))
    }

    /// Writes an array, for which the called function documents that the caller has provided.
    pub fn put_all(self, values: &[T]) -> Result<()> {
        self.required()?;
        values.iter().enumerate().try_for_each(|(n, value)| self.nth(n)?.put(*value))
    }

    /// Reads what the caller has put there.
    pub fn get(self) -> Result<T> {
        let pointer = self.required()?.0;
        // SAFETY: not null, so by the type's contract a T of the caller's; all T in use here are plain C data.
        Ok(unsafe { ptr::read_unaligned(pointer) })
    }

    /// The same memory as another structure that begins with the same fields; for version words.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

/// A text buffer of the caller's; its length is a parameter of its own.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Text(*mut c_char);

impl Text {
    /// Writes `text` and a NUL; INSUFFICIENT_SIZE where `length` does not hold both.
    pub fn put(self, length: u32, text: &str) -> Result<()> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        if text.len() >= length as usize {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        // SAFETY: not null, so by the type's contract `length` bytes of the caller's, and text and NUL fit in.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr().cast(), self.0, text.len());
            self.0.add(text.len()).write(0);
        }
        Ok(())
    }
}

/// A NUL-terminated text of the caller's.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct CText(*const c_char);

impl CText {
    /// The text; INVALID_ARGUMENT for null and for what is not UTF-8.
    pub fn get(&self) -> Result<&str> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so by the type's contract a NUL-terminated text that outlives the call.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::INVALID_ARGUMENT)
    }
}

/// Runs the body of an exported function: faults strike before and after, panics stop here.
pub(crate) fn call(name: &'static str, on: Option<Handle>, body: impl FnOnce(&Call) -> Result<()>) -> u32 {
    guard(|| {
        let mut call = session::enter()?;
        let faults = call.struck(name, on);
        call.note_activation(&faults);
        strike(&faults, Moment::Before)?;
        body(&call)?;
        strike(&faults, Moment::After)
    })
}

/// Turns a result into a code and a panic into UNKNOWN.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> u32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code.0,
        // The panic hook has already said where on standard error.
        Err(_) => Code::UNKNOWN.0,
    }
}

/// Lets those faults happen whose moment it is.
pub(crate) fn strike(faults: &[Fault], moment: Moment) -> Result<()> {
    for fault in faults.iter().filter(|f| f.moment == moment) {
        match fault.effect {
            Effect::Delay(ms) => delay(fault, Duration::from_millis(ms)),
            Effect::Kill => raise(Signal::SIGKILL).map_err(|_| Code::OPERATING_SYSTEM)?,
            Effect::Return(code) if code != SUCCESS => return Err(Code(code)),
            Effect::Return(_) | Effect::Activation(_) => {}
        }
    }
    Ok(())
}

/// How often a delayed call looks whether its fault is still set.
const LOOK: Duration = Duration::from_millis(20);

/// Waits so long, or until the fault is cleared: a call that hangs for good comes back when the test has seen enough.
fn delay(fault: &Fault, time: Duration) {
    let deadline = Instant::now() + time;
    let set =
        || crate::session::enter().map_or(true, |call| call.machine.faults.iter().any(|f| f.id == fault.id));
    while set() {
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return,
            left => std::thread::sleep(left.min(LOOK)),
        }
    }
}
