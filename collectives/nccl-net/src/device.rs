//! The one virtual device: what it promises to NCCL, and where it works at all.

use std::ffi::{CStr, c_int};

use crate::abi::{
    Logger, NcclResult, PTR_HOST, PropertiesV6, PropertiesV8, PropertiesV10, PropertiesV12, VDevice,
};
use crate::guard::{Failure, info, set_logger};

/// `NCCL_NET` has to equal this.
pub(crate) const NAME: &CStr = c"migshare";
/// Megabits per second, for NCCL's choice of algorithms: what one core copies.
const SPEED: c_int = 64_000;
/// Microseconds.
const LATENCY: f32 = 1.0;
const MAX_COMMS: c_int = 65_536;
const MAX_BYTES: usize = 1 << 40;
/// Variables that tell how many nodes a job or step has.
const NODE_COUNTS: [&str; 3] = ["SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"];

/// Takes the logger, and refuses jobs whose ranks cannot all share this node's memory.
pub(crate) fn init(logger: Logger) -> Result<(), Failure> {
    set_logger(logger);
    for name in NODE_COUNTS {
        let Ok(text) = std::env::var(name) else { continue };
        if text.parse::<u32>().is_ok_and(|nodes| nodes > 1) {
            let text =
                format!("the job runs on {text} nodes ({name}), host shared memory reaches one: not used");
            return Err(Failure::new(NcclResult::InvalidUsage, text));
        }
        break;
    }
    info("host shared memory, one node");
    Ok(())
}

pub(crate) fn check(device: c_int) -> Result<(), Failure> {
    if device == 0 {
        Ok(())
    } else {
        Err(Failure::new(NcclResult::InvalidArgument, "there is one device, number 0"))
    }
}

pub(crate) const V6: PropertiesV6 = PropertiesV6 {
    name: NAME.as_ptr(),
    pci_path: std::ptr::null(),
    guid: 0,
    ptr_support: PTR_HOST,
    speed: SPEED,
    port: 0,
    latency: LATENCY,
    max_comms: MAX_COMMS,
    max_recvs: 1,
};

pub(crate) const V8: PropertiesV8 = PropertiesV8 {
    name: NAME.as_ptr(),
    pci_path: std::ptr::null(),
    guid: 0,
    ptr_support: PTR_HOST,
    reg_is_global: 0,
    speed: SPEED,
    port: 0,
    latency: LATENCY,
    max_comms: MAX_COMMS,
    max_recvs: 1,
    net_device_type: 0,
    net_device_version: 0,
};

pub(crate) const V10: PropertiesV10 = PropertiesV10 {
    name: NAME.as_ptr(),
    pci_path: std::ptr::null(),
    guid: 0,
    ptr_support: PTR_HOST,
    reg_is_global: 0,
    force_flush: 0,
    speed: SPEED,
    port: 0,
    latency: LATENCY,
    max_comms: MAX_COMMS,
    max_recvs: 1,
    net_device_type: 0,
    net_device_version: 0,
    v_props: VDevice { ndevs: 1, devs: [0; 4] },
    max_p2p_bytes: MAX_BYTES,
    max_coll_bytes: MAX_BYTES,
};

pub(crate) const V12: PropertiesV12 = PropertiesV12 {
    name: NAME.as_ptr(),
    pci_path: std::ptr::null(),
    guid: 0,
    ptr_support: PTR_HOST,
    reg_is_global: 0,
    force_flush: 0,
    speed: SPEED,
    port: 0,
    latency: LATENCY,
    max_comms: MAX_COMMS,
    max_recvs: 1,
    net_device_type: 0,
    net_device_version: 0,
    v_props: VDevice { ndevs: 1, devs: [0; 8] },
    max_p2p_bytes: MAX_BYTES,
    max_coll_bytes: MAX_BYTES,
    max_multi_request_size: 1,
    rail_id: 0,
    plane_id: 0,
};
