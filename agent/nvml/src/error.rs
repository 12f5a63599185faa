//! What an NVML call answered when it did not succeed: the call's name and the raw code.
//!
//! The raw code is kept because nvml-wrapper has no variant for 23 (INSUFFICIENT_RESOURCES) and above.

use nvml_wrapper::error::NvmlError as Wrapped;
use nvml_wrapper_sys::bindings as sys;
use std::fmt;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmlError {
    /// NVML's name of the call.
    pub call: &'static str,
    /// NVML's return code (`nvmlReturn_t`).
    pub code: u32,
    /// What more is known, or empty.
    pub detail: String,
    /// The GPU instance that was left standing without its full compute instance, because undoing failed too or because it
    /// would not be destroyed.
    pub left: Option<u32>,
}

impl NvmlError {
    pub(crate) fn new(call: &'static str, code: u32) -> NvmlError {
        NvmlError { call, code, detail: String::new(), left: None }
    }

    pub(crate) fn wrapped(call: &'static str, e: Wrapped) -> NvmlError {
        let code = code_of(&e);
        let detail = match e {
            Wrapped::LibloadingError(e) => e.to_string(),
            Wrapped::FailedToLoadSymbol(e) => e,
            _ => String::new(),
        };
        NvmlError { call, code, detail, left: None }
    }

    pub(crate) fn because(mut self, detail: impl Into<String>) -> NvmlError {
        self.detail = detail.into();
        self
    }

    pub(crate) fn leaving(mut self, gi: u32) -> NvmlError {
        self.left = Some(gi);
        self
    }

    /// The GPU has fallen off the bus.
    pub fn is_gone(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST
    }

    /// Somebody uses the GPU or the instance.
    pub fn in_use(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_IN_USE
    }

    /// The GPU must be reset first.
    pub fn reset_required(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED
    }

    /// The caller lacks the right.
    pub fn no_permission(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION
    }

    /// No room: NVML says this for a full GPU and for a taken placement alike.
    pub fn insufficient(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES
    }

    /// The GPU, or whatever was asked for, does not do this.
    pub(crate) fn unsupported(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED
    }

    /// Nothing of that name stands.
    pub fn not_found(&self) -> bool {
        self.code == sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND
    }
}

/// The raw code behind a wrapper's error. The wrapper has one of its own for a missing symbol.
pub(crate) fn code_of(e: &Wrapped) -> u32 {
    match e {
        Wrapped::FailedToLoadSymbol(_) => sys::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
        Wrapped::LibloadingError(_) => sys::nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND,
        Wrapped::UnexpectedVariant(code) => *code,
        _ => CODES
            .iter()
            .find(|(code, _)| same(e, *code))
            .map_or(sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN, |c| c.0),
    }
}

fn same(e: &Wrapped, code: u32) -> bool {
    std::mem::discriminant(e) == std::mem::discriminant(&Wrapped::from(code))
}

/// NVML's return codes and their names in nvml.h, for messages.
const CODES: &[(u32, &str)] = &[
    (1, "UNINITIALIZED"),
    (2, "INVALID_ARGUMENT"),
    (3, "NOT_SUPPORTED"),
    (4, "NO_PERMISSION"),
    (5, "ALREADY_INITIALIZED"),
    (6, "NOT_FOUND"),
    (7, "INSUFFICIENT_SIZE"),
    (8, "INSUFFICIENT_POWER"),
    (9, "DRIVER_NOT_LOADED"),
    (10, "TIMEOUT"),
    (11, "IRQ_ISSUE"),
    (12, "LIBRARY_NOT_FOUND"),
    (13, "FUNCTION_NOT_FOUND"),
    (14, "CORRUPTED_INFOROM"),
    (15, "GPU_IS_LOST"),
    (16, "RESET_REQUIRED"),
    (17, "OPERATING_SYSTEM"),
    (18, "LIB_RM_VERSION_MISMATCH"),
    (19, "IN_USE"),
    (20, "MEMORY"),
    (21, "NO_DATA"),
    (22, "VGPU_ECC_NOT_SUPPORTED"),
    (23, "INSUFFICIENT_RESOURCES"),
    (25, "ARGUMENT_VERSION_MISMATCH"),
    (29, "INVALID_STATE"),
    (999, "UNKNOWN"),
];

impl fmt::Display for NvmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = CODES.iter().find(|(code, _)| *code == self.code).map_or("unnamed", |(_, name)| name);
        write!(f, "{} says {name} ({})", self.call, self.code)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        match self.left {
            Some(gi) => write!(f, "; gpu instance {gi} is left without its compute instance"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NvmlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wrapper() {
        for (code, name) in CODES {
            assert_eq!(code_of(&Wrapped::from(*code)), *code, "{name}");
        }
        assert_eq!(code_of(&Wrapped::from(4711)), 4711);
    }

    #[test]
    fn an_error_names_call_code_and_what_is_left() {
        let e = NvmlError::new("nvmlGpuInstanceDestroy", 19).because("still held").leaving(9);
        assert_eq!(
            e.to_string(),
            "nvmlGpuInstanceDestroy says IN_USE (19): still held; gpu instance 9 is left without its compute instance"
        );
        assert!(e.in_use() && !e.is_gone());
    }
}
