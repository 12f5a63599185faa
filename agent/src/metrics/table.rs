//! Every metric: name, labels, help. `GPU_I_ID` and `GPU_I_PROFILE` are dcgm-exporter's names and values, so that
//! `* on(gpu, GPU_I_ID) group_left(...)` joins its figures with these.

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn define(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, labels, help }
}

/// All metrics, by name.
pub const TABLE: &[Row] = &[
    define(
        "migshare_build_info",
        &["version", "driver", "cuda", "layout"],
        "Versions of agent and driver; always 1.",
    ),
    define(
        "migshare_changes_deferred",
        &["gpu"],
        "Changes of an ordered layout that wait for jobs, or for a GPU to serve.",
    ),
    define(
        "migshare_changes_pending",
        &["gpu"],
        "Changes of an ordered layout that are under way or about to be.",
    ),
    define(
        "migshare_fragmentation_ratio",
        &["gpu"],
        "Share of free placement units outside the largest run of free units.",
    ),
    define("migshare_gpu_info", &["gpu", "UUID", "pci_bus_id", "model"], "Identity of a GPU; always 1."),
    define(
        "migshare_gpu_renamed_total",
        &["what"],
        "Minor numbers of GPUs and names of profiles that changed under the agent: minor, profile.",
    ),
    define("migshare_gpu_serving", &["gpu"], "1 while the GPU serves leases, 0 in every other state."),
    define(
        "migshare_gpu_state",
        &["gpu", "state"],
        "1 for the state that a GPU is in: serving, cordoned, mig_off, lost, reset_required, missing.",
    ),
    define("migshare_gpu_stranded_compute_slices", &["gpu"], "Compute slices that no instance covers."),
    define("migshare_grants", &[], "Grants of steps."),
    define(
        "migshare_isolation_info",
        &["filter"],
        "What keeps tasks from the leaves of others: bpf, devices or none; always 1.",
    ),
    define("migshare_journal_append_duration_seconds", &["result"], "Time of an append with its fsync."),
    define(
        "migshare_leaf_info",
        &["gpu", "leaf", "GPU_I_ID", "GPU_I_PROFILE", "mig_uuid", "start", "size"],
        "Identity of a leaf; always 1.",
    ),
    define(
        "migshare_lease_job_info",
        &["gpu", "leaf", "GPU_I_ID", "job_id"],
        "Job that holds a leaf; always 1.",
    ),
    define("migshare_leases", &[], "Open leases."),
    define("migshare_leaves", &["gpu", "state"], "Leaves by state: free, leased, quarantined."),
    define("migshare_leaves_cordoned", &[], "Leaves of these on GPUs that an admin took out of service."),
    define("migshare_leaves_counted", &[], "Leaves that Slurm is told this node has."),
    define("migshare_leaves_usable", &[], "Leaves of these that are leased or can be."),
    define("migshare_nvml_call_duration_seconds", &["call"], "Time of NVML calls."),
    define(
        "migshare_nvml_errors_total",
        &["call", "code"],
        "NVML calls that failed, by call and return code.",
    ),
    define("migshare_nvml_hanging", &[], "1 while an NVML call does not return, else 0."),
    define("migshare_nvml_hangs_total", &["call"], "NVML calls that did not return in time."),
    define("migshare_problems", &[], "Things that are wrong; `migshare status` names them."),
    define("migshare_reconfig_duration_seconds", &["change"], "Time to make or destroy an instance."),
    define("migshare_reconfig_total", &["change", "result"], "Instances made and destroyed, by result."),
    define("migshare_refusals_total", &["reason"], "Requests that were refused, by reason."),
    define(
        "migshare_rejected_total",
        &["why"],
        "Clients of the socket that were sent away: permission, version, malformed, crowded.",
    ),
    define(
        "migshare_request_duration_seconds",
        &["request"],
        "Time from a request read whole to its reply written.",
    ),
    define("migshare_segments", &[], "Steps whose ranks share memory."),
    define("migshare_segments_limit_bytes", &[], "Most bytes of such memory that may be promised."),
    define(
        "migshare_segments_promised_bytes",
        &[],
        "Bytes of such memory that are promised; pages are taken as ranks write to them.",
    ),
];

/// The row of a metric. A name that is not in the table is a defect, which the start reports.
pub(super) fn row(name: &str) -> Result<&'static Row, prometheus::Error> {
    let unknown = || prometheus::Error::Msg(format!("{name} is not in the table of metrics"));
    TABLE.iter().find(|row| row.name == name).ok_or_else(unknown)
}
