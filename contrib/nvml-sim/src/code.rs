//! NVML's return codes and their texts (nvml.h, `nvmlReturn_t`).

use std::ffi::CStr;

/// The result of a simulated NVML call.
pub type Result<T> = std::result::Result<T, Code>;

/// A return code other than success. Any number can stand here: faults inject codes this file does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

/// `NVML_SUCCESS`.
pub const SUCCESS: u32 = 0;

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $(#[doc = concat!("`NVML_ERROR_", stringify!($name), "`.")] pub const $name: Code = Code($value);)*
        }
        const TABLE: &[(u32, &str, &CStr)] = &[$(($value, stringify!($name), $text)),*];
    };
}

codes! {
    UNINITIALIZED = 1, c"Uninitialized";
    INVALID_ARGUMENT = 2, c"Invalid Argument";
    NOT_SUPPORTED = 3, c"Not Supported";
    NO_PERMISSION = 4, c"Insufficient Permissions";
    ALREADY_INITIALIZED = 5, c"Already Initialized";
    NOT_FOUND = 6, c"Not Found";
    INSUFFICIENT_SIZE = 7, c"Insufficient Size";
    INSUFFICIENT_POWER = 8, c"Insufficient External Power";
    DRIVER_NOT_LOADED = 9, c"Driver Not Loaded";
    TIMEOUT = 10, c"Timeout";
    IRQ_ISSUE = 11, c"Interrupt Request Issue";
    LIBRARY_NOT_FOUND = 12, c"NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND = 13, c"Function Not Found";
    CORRUPTED_INFOROM = 14, c"Corrupted infoROM";
    GPU_IS_LOST = 15, c"GPU is lost";
    RESET_REQUIRED = 16, c"GPU requires reset";
    OPERATING_SYSTEM = 17, c"The operating system has blocked the request";
    LIB_RM_VERSION_MISMATCH = 18, c"RM has detected an NVML/RM version mismatch";
    IN_USE = 19, c"In use by another client";
    MEMORY = 20, c"Insufficient Memory";
    NO_DATA = 21, c"No data";
    VGPU_ECC_NOT_SUPPORTED = 22, c"vGPU ECC not supported";
    INSUFFICIENT_RESOURCES = 23, c"Insufficient Resources";
    FREQ_NOT_SUPPORTED = 24, c"Frequency not supported";
    ARGUMENT_VERSION_MISMATCH = 25, c"Argument version mismatch";
    DEPRECATED = 26, c"Deprecated";
    NOT_READY = 27, c"System not in ready state";
    GPU_NOT_FOUND = 28, c"No GPUs were found";
    INVALID_STATE = 29, c"Invalid state";
    UNKNOWN = 999, c"Unknown Error";
}

impl Code {
    /// The header's name without `NVML_ERROR_`, or the bare number.
    pub fn name(self) -> String {
        if self.0 == SUCCESS {
            return "SUCCESS".to_owned();
        }
        match TABLE.iter().find(|(value, _, _)| *value == self.0) {
            Some((_, name, _)) => (*name).to_owned(),
            None => self.0.to_string(),
        }
    }

    /// Reads a name as [`Code::name`] writes it (also with the prefix `NVML_ERROR_`), or a number.
    pub fn parse(text: &str) -> Option<Code> {
        let bare = text.trim_start_matches("NVML_ERROR_").trim_start_matches("NVML_");
        if bare.eq_ignore_ascii_case("SUCCESS") {
            return Some(Code(SUCCESS));
        }
        let named = TABLE.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(bare));
        named.map(|(value, _, _)| Code(*value)).or_else(|| bare.parse().ok().map(Code))
    }
}

/// What `nvmlErrorString` says for a code.
pub fn text(code: u32) -> &'static CStr {
    if code == SUCCESS {
        return c"Success";
    }
    TABLE.iter().find(|(value, _, _)| *value == code).map_or(c"Unknown Error", |(_, _, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_with_and_without_the_prefix() {
        for (value, name, _) in TABLE {
            assert_eq!(Code::parse(name), Some(Code(*value)));
            assert_eq!(Code::parse(&format!("NVML_ERROR_{name}")), Some(Code(*value)));
            assert_eq!(Code(*value).name(), *name);
        }
        assert_eq!(Code::parse("77"), Some(Code(77)));
        assert_eq!(Code::parse("IN USE"), None);
    }

    #[test]
    fn unknown_codes_have_a_text() {
        assert_eq!(text(12345), c"Unknown Error");
        assert_eq!(text(0), c"Success");
    }
}
