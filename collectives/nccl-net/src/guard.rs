//! The border to NCCL: panics and errors become results, and NCCL's log says why.

use std::ffi::{CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};

use migshare_collectives::{Error, Status};

use crate::abi::{LOG_FLAGS, LOG_INFO, LOG_WARN, Logger, NcclResult};

static LOGGER: RwLock<Logger> = RwLock::new(None);

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) result: NcclResult,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(result: NcclResult, text: impl Into<String>) -> Self {
        Self { result, text: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let result = match error.status() {
            Status::Invalid => NcclResult::InvalidArgument,
            // What NCCL's own networks answer when a message is longer than the receive.
            Status::Truncated => NcclResult::InvalidUsage,
            Status::PeerLost | Status::Timeout | Status::Corrupt | Status::Mismatch | Status::Poisoned => {
                NcclResult::RemoteError
            }
            Status::System => NcclResult::SystemError,
            _ => NcclResult::InternalError,
        };
        Self::new(result, error.to_string())
    }
}

/// Runs the body of a plugin function.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> NcclResult {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => NcclResult::Success,
        Ok(Err(failure)) => {
            log(LOG_WARN, &failure.text);
            failure.result
        }
        Err(_) => {
            log(LOG_WARN, "a defect in the plugin was caught at its border");
            NcclResult::InternalError
        }
    }
}

/// Takes NCCL's log function.
pub(crate) fn set_logger(logger: Logger) {
    *LOGGER.write().unwrap_or_else(PoisonError::into_inner) = logger;
}

/// Writes a line that is of interest when a user asks NCCL to talk.
pub(crate) fn info(text: &str) {
    log(LOG_INFO, text);
}

fn log(level: c_int, text: &str) {
    let logger = *LOGGER.read().unwrap_or_else(PoisonError::into_inner);
    let (Some(logger), Ok(text)) = (logger, CString::new(format!("NET/migshare: {text}"))) else { return };
    let (file, line) = (c"migshare".as_ptr(), line!() as c_int);
    // SAFETY: NCCL's printf-like logger with one string argument for the one conversion.
    unsafe { logger(level, LOG_FLAGS, file, line, c"%s".as_ptr(), text.as_ptr()) };
}
