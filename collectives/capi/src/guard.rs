//! The border: what comes out of Rust as a panic or an error leaves as a status code.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use migshare_collectives::{Error, Status};

/// `MIGSHARE_ABI_VERSION` of the header.
const ABI_VERSION: i32 = 1;

/// Names of the status codes, by number.
const NAMES: [&CStr; 13] = [
    c"MIGSHARE_OK",
    c"MIGSHARE_INVALID",
    c"MIGSHARE_PEER_LOST",
    c"MIGSHARE_TIMEOUT",
    c"MIGSHARE_CORRUPT",
    c"MIGSHARE_MISMATCH",
    c"MIGSHARE_POISONED",
    c"MIGSHARE_TRUNCATED",
    c"MIGSHARE_EXHAUSTED",
    c"MIGSHARE_SYSTEM",
    c"MIGSHARE_PENDING",
    c"MIGSHARE_BUSY",
    c"MIGSHARE_INTERNAL",
];

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// What a guarded body may end with besides success.
pub(crate) enum Failure {
    /// The library's own error.
    Library(Error),
    /// A status that this layer finds by itself.
    Border(Status, &'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// Runs the body of an `extern "C"` function.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Ok as i32,
        Ok(Err(failure)) => explain(&failure),
        Err(_) => {
            explain(&Failure::Border(Status::Internal, "a defect in migshare was caught at its border"))
        }
    }
}

#[cold]
fn explain(failure: &Failure) -> i32 {
    let (status, text) = match failure {
        Failure::Library(error) => (error.status(), error.to_string()),
        Failure::Border(status, text) => (*status, (*text).to_owned()),
    };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // A thread that is being torn down has no place for the text any more.
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
    status as i32
}

/// The version of the header that this library was made with.
#[unsafe(no_mangle)]
pub extern "C" fn migshare_abi_version() -> i32 {
    ABI_VERSION
}

/// The name of a status code.
#[unsafe(no_mangle)]
pub extern "C" fn migshare_status_name(status: i32) -> *const c_char {
    let name = usize::try_from(status).ok().and_then(|index| NAMES.get(index));
    name.map_or(c"unknown status".as_ptr(), |name| name.as_ptr())
}

/// The text of this thread's last failure, valid until its next call.
#[unsafe(no_mangle)]
pub extern "C" fn migshare_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_with_a_text() {
        assert_eq!(guard(|| panic!("on purpose")), Status::Internal as i32);
        // SAFETY: the pointer was made from a CString of this thread just now.
        let text = unsafe { CStr::from_ptr(migshare_last_error()) };
        assert!(text.to_str().unwrap().contains("defect"));
    }

    #[test]
    fn every_status_has_the_name_of_its_number() {
        for (status, name) in [(Status::Ok, "MIGSHARE_OK"), (Status::Pending, "MIGSHARE_PENDING")] {
            assert_eq!(NAMES[status as usize].to_str().unwrap(), name);
        }
        assert_eq!(NAMES.len(), Status::Internal as usize + 1);
    }
}
