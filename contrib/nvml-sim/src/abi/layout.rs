//! Structures of nvml.h that cross the border, with their sizes checked at compile time.
//!
//! Field names are the header's in snake case. A version word is `size | version << 24`.

use super::border::Out;
use crate::session::Handle;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident ($c:literal, $size:literal) { $($field:ident: $ty:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[doc = concat!("`", $c, "`.")]
            #[derive(Debug, Clone, Copy)]
            #[repr(C)]
            #[allow(missing_docs, reason = "the header's field names")]
            pub struct $name { $(pub $field: $ty),* }
            const _: () = assert!(size_of::<$name>() == $size, $c);
        )*
        /// C names and sizes in bytes.
        pub const SIZES: &[(&str, usize)] = &[$(($c, $size)),*];
    };
}

/// A name of up to 95 bytes, NUL-terminated.
pub type Name = [u8; 96];

/// Cuts `text` to fit and pads it with NUL.
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let fits = text.len().min(N - 1);
    bytes[..fits].copy_from_slice(&text.as_bytes()[..fits]);
    bytes
}

/// The version word of a structure.
pub const fn version_word(size: usize, version: u32) -> u32 {
    size as u32 | version << 24
}

structures! {
    Placement ("nvmlGpuInstancePlacement_t", 8) { start: u32, size: u32 }
    GpuInstanceProfileInfo ("nvmlGpuInstanceProfileInfo_t", 48) {
        id: u32, is_p2p_supported: u32, slice_count: u32, instance_count: u32, multiprocessor_count: u32,
        copy_engine_count: u32, decoder_count: u32, encoder_count: u32, jpeg_count: u32, ofa_count: u32,
        memory_size_mb: u64,
    }
    GpuInstanceProfileInfoV2 ("nvmlGpuInstanceProfileInfo_v2_t", 152) {
        version: u32, id: u32, is_p2p_supported: u32, slice_count: u32, instance_count: u32,
        multiprocessor_count: u32, copy_engine_count: u32, decoder_count: u32, encoder_count: u32,
        jpeg_count: u32, ofa_count: u32, memory_size_mb: u64, name: Name,
    }
    GpuInstanceProfileInfoV3 ("nvmlGpuInstanceProfileInfo_v3_t", 152) {
        version: u32, id: u32, slice_count: u32, instance_count: u32, multiprocessor_count: u32,
        copy_engine_count: u32, decoder_count: u32, encoder_count: u32, jpeg_count: u32, ofa_count: u32,
        memory_size_mb: u64, name: Name, capabilities: u32,
    }
    GpuInstanceInfo ("nvmlGpuInstanceInfo_t", 24) { device: Handle, id: u32, profile_id: u32, placement: Placement }
    ComputeInstanceProfileInfo ("nvmlComputeInstanceProfileInfo_t", 36) {
        id: u32, slice_count: u32, instance_count: u32, multiprocessor_count: u32, shared_copy_engine_count: u32,
        shared_decoder_count: u32, shared_encoder_count: u32, shared_jpeg_count: u32, shared_ofa_count: u32,
    }
    ComputeInstanceProfileInfoV2 ("nvmlComputeInstanceProfileInfo_v2_t", 136) {
        version: u32, id: u32, slice_count: u32, instance_count: u32, multiprocessor_count: u32,
        shared_copy_engine_count: u32, shared_decoder_count: u32, shared_encoder_count: u32,
        shared_jpeg_count: u32, shared_ofa_count: u32, name: Name,
    }
    ComputeInstanceProfileInfoV3 ("nvmlComputeInstanceProfileInfo_v3_t", 140) {
        version: u32, id: u32, slice_count: u32, instance_count: u32, multiprocessor_count: u32,
        shared_copy_engine_count: u32, shared_decoder_count: u32, shared_encoder_count: u32,
        shared_jpeg_count: u32, shared_ofa_count: u32, name: Name, capabilities: u32,
    }
    ComputeInstanceInfo ("nvmlComputeInstanceInfo_t", 32) {
        device: Handle, gpu_instance: Handle, id: u32, profile_id: u32, placement: Placement,
    }
    DeviceAttributes ("nvmlDeviceAttributes_t", 40) {
        multiprocessor_count: u32, shared_copy_engine_count: u32, shared_decoder_count: u32,
        shared_encoder_count: u32, shared_jpeg_count: u32, shared_ofa_count: u32, gpu_instance_slice_count: u32,
        compute_instance_slice_count: u32, memory_size_mb: u64,
    }
    ProcessInfoV1 ("nvmlProcessInfo_v1_t", 16) { pid: u32, used_gpu_memory: u64 }
    ProcessInfo ("nvmlProcessInfo_t", 24) {
        pid: u32, used_gpu_memory: u64, gpu_instance_id: u32, compute_instance_id: u32,
    }
    ProcessDetail ("nvmlProcessDetail_v1_t", 32) {
        pid: u32, used_gpu_memory: u64, gpu_instance_id: u32, compute_instance_id: u32, protected_memory: u64,
    }
    ProcessDetailList ("nvmlProcessDetailList_v1_t", 24) {
        version: u32, mode: u32, entries: u32, list: Out<ProcessDetail>,
    }
    Memory ("nvmlMemory_t", 24) { total: u64, free: u64, used: u64 }
    MemoryV2 ("nvmlMemory_v2_t", 40) { version: u32, total: u64, reserved: u64, free: u64, used: u64 }
    PciInfo ("nvmlPciInfo_t", 68) {
        bus_id_legacy: [u8; 16], domain: u32, bus: u32, device: u32, pci_device_id: u32, pci_subsystem_id: u32,
        bus_id: [u8; 32],
    }
    FieldValue ("nvmlFieldValue_t", 40) {
        field_id: u32, scope_id: u32, timestamp: i64, latency_usec: i64, value_type: u32, nvml_return: u32,
        value: u64,
    }
    EventData ("nvmlEventData_t", 32) {
        device: Handle, event_type: u64, event_data: u64, gpu_instance_id: u32, compute_instance_id: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn fields_that_moved_between_versions_lie_where_the_header_has_them() {
        assert_eq!(offset_of!(GpuInstanceProfileInfo, memory_size_mb), 40);
        assert_eq!(offset_of!(GpuInstanceProfileInfoV2, memory_size_mb), 48);
        assert_eq!(offset_of!(GpuInstanceProfileInfoV2, name), 56);
        assert_eq!(offset_of!(GpuInstanceProfileInfoV3, memory_size_mb), 40);
        assert_eq!(offset_of!(GpuInstanceProfileInfoV3, name), 48);
        assert_eq!(offset_of!(GpuInstanceProfileInfoV3, capabilities), 144);
        assert_eq!(offset_of!(ComputeInstanceProfileInfoV3, capabilities), 136);
        assert_eq!(offset_of!(DeviceAttributes, memory_size_mb), 32);
    }

    #[test]
    fn version_words_are_those_of_the_header() {
        assert_eq!(version_word(size_of::<GpuInstanceProfileInfoV2>(), 2), 0x0200_0098);
        assert_eq!(version_word(size_of::<GpuInstanceProfileInfoV3>(), 3), 0x0300_0098);
        assert_eq!(version_word(size_of::<ComputeInstanceProfileInfoV2>(), 2), 0x0200_0088);
        assert_eq!(version_word(size_of::<ComputeInstanceProfileInfoV3>(), 3), 0x0300_008c);
    }

    #[test]
    fn long_texts_are_cut_and_terminated() {
        assert_eq!(padded::<4>("abcdef"), *b"abc\0");
        assert_eq!(padded::<4>("a"), *b"a\0\0\0");
    }
}
