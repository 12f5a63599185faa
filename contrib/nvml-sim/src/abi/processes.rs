//! Processes on GPUs and MIG devices.
//!
//! On a MIG device: those of its compute instance. On the GPU: all, with instance ids, for the privileged; for others
//! in MIG mode NO_PERMISSION. All simulated work is compute: the graphics and MPS lists are empty.

use super::border::Out;
use super::exports;
use super::layout::{ProcessDetail, ProcessDetailList, ProcessInfo, ProcessInfoV1, version_word};
use crate::code::{Code, Result};
use crate::machine::Process;
use crate::session::{Call, Handle};

/// `NVML_PROCESS_MODE_COMPUTE` and the last of the modes, MPS.
const MODE_COMPUTE: u32 = 0;
const MODE_LAST: u32 = 2;
/// Instance id of a process that is on none.
const NO_INSTANCE: u32 = u32::MAX;

fn found(call: &Call, device: Handle) -> Result<Vec<ProcessInfo>> {
    let info = |(p, on): &(&Process, Option<(u32, u32)>)| ProcessInfo {
        pid: p.pid.number,
        used_gpu_memory: p.memory_mib << 20,
        gpu_instance_id: on.map_or(NO_INSTANCE, |(gi, _)| gi),
        compute_instance_id: on.map_or(NO_INSTANCE, |(_, ci)| ci),
    };
    let of: Vec<(&Process, Option<(u32, u32)>)> = if call.is_mig_device(device)? {
        let place = call.mig_device(device)?;
        let ids = Some((place.instance.id, place.compute.id));
        place.compute.processes.iter().map(|p| (p, ids)).collect()
    } else {
        let (_, gpu) = call.gpu(device)?;
        if gpu.mig.current {
            call.privileged()?;
        }
        gpu.all_processes()
    };
    Ok(of.iter().filter(|(p, _)| p.pid.alive()).map(info).collect())
}

/// Writes a list whose capacity the caller put into `count`; INSUFFICIENT_SIZE tells how many there are.
fn put<T: Copy>(all: &[T], count: Out<u32>, list: Out<T>) -> Result<()> {
    let room = count.get()? as usize;
    count.put(all.len() as u32)?;
    if all.len() > room {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if all.is_empty() { Ok(()) } else { list.put_all(all) }
}

exports! {
    /// `nvmlDeviceGetComputeRunningProcesses_v3`.
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: Handle, count: Out<u32>, list: Out<ProcessInfo>)
    on device |call| {
        put(&found(call, device)?, count, list)
    }

    /// `nvmlDeviceGetComputeRunningProcesses_v2`.
    fn nvmlDeviceGetComputeRunningProcesses_v2(device: Handle, count: Out<u32>, list: Out<ProcessInfo>)
    on device |call| {
        put(&found(call, device)?, count, list)
    }

    /// `nvmlDeviceGetComputeRunningProcesses`: the first version, without instance ids.
    fn nvmlDeviceGetComputeRunningProcesses(device: Handle, count: Out<u32>, list: Out<ProcessInfoV1>)
    on device |call| {
        let short = |p: &ProcessInfo| ProcessInfoV1 { pid: p.pid, used_gpu_memory: p.used_gpu_memory };
        put(&found(call, device)?.iter().map(short).collect::<Vec<_>>(), count, list)
    }

    /// `nvmlDeviceGetRunningProcessDetailList`.
    fn nvmlDeviceGetRunningProcessDetailList(device: Handle, out: Out<ProcessDetailList>) on device |call| {
        let asked = out.get()?;
        if asked.version != version_word(size_of::<ProcessDetailList>(), 1) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let all = match asked.mode {
            MODE_COMPUTE => found(call, device)?,
            1..=MODE_LAST => Vec::new(),
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        let detail = |p: &ProcessInfo| ProcessDetail {
            pid: p.pid,
            used_gpu_memory: p.used_gpu_memory,
            gpu_instance_id: p.gpu_instance_id,
            compute_instance_id: p.compute_instance_id,
            protected_memory: 0,
        };
        let details: Vec<_> = all.iter().map(detail).collect();
        out.put(ProcessDetailList { entries: details.len() as u32, ..asked })?;
        match details.len() {
            0 => Ok(()),
            n if n > asked.entries as usize => Err(Code::INSUFFICIENT_SIZE),
            _ => asked.list.put_all(&details),
        }
    }

    /// `nvmlDeviceGetGraphicsRunningProcesses_v3`.
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Handle, count: Out<u32>, list: Out<ProcessInfo>)
    on device |call| {
        call.is_mig_device(device)?;
        put(&[], count, list)
    }

    /// `nvmlDeviceGetMPSComputeRunningProcesses_v3`.
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: Handle, count: Out<u32>, list: Out<ProcessInfo>)
    on device |call| {
        call.is_mig_device(device)?;
        put(&[], count, list)
    }
}
