//! Names that the driver derives: GPU instance ids, UUIDs, capability minors.
//!
//! A GPU instance id is a node of a binary tree over the GPU's memory (open-gpu-kernel-modules, kmigmgr_ga100.c):
//! 0 the whole, 1-2 halves, 3-6 quarters, 7-14 eighths. Listings of real GPUs show the tree in two orders.

use sha1_smol::Sha1;

use super::GiOrder;

impl GiOrder {
    /// The GPU instance id of a placement on a GPU of `units` placement units.
    pub fn instance_id(self, units: u32, start: u32, size: u32) -> u32 {
        let parts = units / size;
        let start = match self {
            GiOrder::HalfSwapped if parts > 1 => (start + units / 2) % units,
            _ => start,
        };
        parts - 1 + start / size
    }
}

/// A UUID (RFC 9562, version 5) of a text.
pub fn name_uuid(text: &str) -> String {
    let mut sha = Sha1::new();
    sha.update(b"migshare nvml-sim\0");
    sha.update(text.as_bytes());
    let digest = sha.digest().bytes();
    let mut b = [0u8; 16];
    b.copy_from_slice(&digest[..16]);
    b[6] = (b[6] & 0x0f) | 0x50;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The UUID of a MIG device. As with the real driver (gpu_uuid.c) it follows from chip, GPU, place and first engine:
/// an instance made again at the same place has the same UUID.
pub fn mig_uuid(chip: &str, gpu_uuid: &str, instance: u32, first_slice: u32) -> String {
    format!("MIG-{}", name_uuid(&format!("{chip}/{gpu_uuid}/{instance}/{first_slice}")))
}

/// Minors of the capability nodes (nv-caps.c): those of GPU instance `gi` on `/dev/nvidia<minor>`, and of its
/// compute instances 0 to 7.
pub fn capability_minors(minor: u32, gi: u32) -> (u32, [u32; 8]) {
    let access = 3 + 135 * minor + 9 * gi;
    (access, std::array::from_fn(|ci| access + 1 + ci as u32))
}
