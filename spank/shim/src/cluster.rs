//! The cluster as slurmctld knows it: nodes, partitions, and a job that is to avoid some of them.

use crate::host::{c_string, check, slice, text};
use crate::sys;
use migshare_spank::gres;
use migshare_spank::slurm::{Node, Partition, SlurmError};
use std::ptr;

/// All nodes.
pub(crate) fn nodes() -> Result<Vec<Node>, SlurmError> {
    let mut message = ptr::null_mut();
    // SAFETY: Slurm fills the pointer, or fails.
    check("slurm_load_node", unsafe { sys::slurm_load_node(0, &mut message, sys::SHOW_EVERYTHING) })?;
    // SAFETY: the message is Slurm's, whole, and its records are counted.
    let records = unsafe { slice((*message).node_array, (*message).record_count) };
    let found = records.iter().map(|node| {
        // SAFETY: null or strings of the record.
        let [name, features, active, gres] =
            unsafe { [node.name, node.features, node.features_act, node.gres].map(|t| text(t)) };
        let features = active.or(features).unwrap_or_default();
        Node {
            name: name.unwrap_or_default(),
            features: features.split(',').map(str::to_owned).filter(|f| !f.is_empty()).collect(),
            leaves: gres::given(&gres.unwrap_or_default()),
        }
    });
    let found = found.collect();
    // SAFETY: it came from slurm_load_node and is not used again.
    unsafe { sys::slurm_free_node_info_msg(message) };
    Ok(found)
}

/// All partitions.
pub(crate) fn partitions() -> Result<Vec<Partition>, SlurmError> {
    let mut message = ptr::null_mut();
    // SAFETY: Slurm fills the pointer, or fails.
    check("slurm_load_partitions", unsafe {
        sys::slurm_load_partitions(0, &mut message, sys::SHOW_EVERYTHING)
    })?;
    // SAFETY: the message is Slurm's, whole, and its records are counted.
    let records = unsafe { slice((*message).partition_array, (*message).record_count) };
    let found = records.iter().map(|partition| {
        // SAFETY: null or strings of the record.
        let [name, nodes] = unsafe { [partition.name, partition.nodes].map(|t| text(t).unwrap_or_default()) };
        Partition { name, nodes, default: u64::from(partition.flags) & sys::PARTITION_DEFAULT != 0 }
    });
    let found = found.collect();
    // SAFETY: it came from slurm_load_partitions and is not used again.
    unsafe { sys::slurm_free_partition_info_msg(message) };
    Ok(found)
}

/// Sets the nodes that a pending job must not have, and a comment that its user can read.
pub(crate) fn keep_away(job: u32, nodes: &str, why: &str) -> Result<(), SlurmError> {
    let (nodes, why) = (c_string(nodes), c_string(why));
    // SAFETY: a struct of numbers and pointers, for which zero is a value.
    let mut update: sys::job_desc_msg_t = unsafe { std::mem::zeroed() };
    // SAFETY: it sets all fields to "no change".
    unsafe { sys::slurm_init_job_desc_msg(&mut update) };
    set_job(&mut update, job);
    update.exc_nodes = nodes.as_ptr().cast_mut();
    update.admin_comment = why.as_ptr().cast_mut();
    // SAFETY: the message and its strings live until the call returns, which only reads them.
    check("slurm_update_job", unsafe { sys::slurm_update_job(&mut update) })
}

#[cfg(not(slurm_step_id_jobs))]
fn set_job(update: &mut sys::job_desc_msg_t, job: u32) {
    update.job_id = job;
}

#[cfg(slurm_step_id_jobs)]
fn set_job(update: &mut sys::job_desc_msg_t, job: u32) {
    update.step_id = crate::host::step_id(job, sys::NO_VAL);
}
