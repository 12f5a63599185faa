//! The only code that calls NVML.
