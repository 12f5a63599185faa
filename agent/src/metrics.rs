//! Figures for Prometheus. Two sorts: what is counted as it happens ([`Meters`]), and what the status shows at the moment of
//! a scrape (`picture`). Names, labels and helps of all are one table, which dashboards and documentation are checked against.
//!
//! Labels are bounded by the hardware: GPUs, leaves, NVML's calls and codes, kinds of refusal. A job id appears on one info
//! series per leased leaf and nowhere else.

pub mod http;
mod picture;
pub mod table;

use migshare_proto::message::Reason;
use migshare_proto::status::Status;
use prometheus::core::Collector;
use prometheus::{Encoder, HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder};
use std::time::Duration;

/// Upper bounds of histograms, in seconds: an fsync takes tenths of milliseconds to seconds, an NVML call up to ten seconds.
const BOUNDS: &[f64] = &[0.0001, 0.0002, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// What is counted as it happens. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Meters {
    registry: Registry,
    nvml_errors: IntCounterVec,
    nvml_seconds: HistogramVec,
    nvml_hangs: IntCounterVec,
    nvml_hanging: IntGauge,
    refusals: IntCounterVec,
    rejected: IntCounterVec,
    renamed: IntCounterVec,
    reconfig: IntCounterVec,
    reconfig_seconds: HistogramVec,
    journal_seconds: HistogramVec,
    request_seconds: HistogramVec,
}

impl Meters {
    /// Meters at zero.
    pub fn new() -> Result<Meters, prometheus::Error> {
        let registry = Registry::new();
        Ok(Meters {
            nvml_errors: counter(&registry, "migshare_nvml_errors_total")?,
            nvml_seconds: histogram(&registry, "migshare_nvml_call_duration_seconds")?,
            nvml_hangs: counter(&registry, "migshare_nvml_hangs_total")?,
            nvml_hanging: gauge(&registry, "migshare_nvml_hanging")?,
            refusals: counter(&registry, "migshare_refusals_total")?,
            renamed: counter(&registry, "migshare_gpu_renamed_total")?,
            rejected: counter(&registry, "migshare_rejected_total")?,
            reconfig: counter(&registry, "migshare_reconfig_total")?,
            reconfig_seconds: histogram(&registry, "migshare_reconfig_duration_seconds")?,
            journal_seconds: histogram(&registry, "migshare_journal_append_duration_seconds")?,
            request_seconds: histogram(&registry, "migshare_request_duration_seconds")?,
            registry,
        })
    }

    /// An NVML call returned.
    pub fn nvml(&self, call: &str, code: u32, took: Duration) {
        self.nvml_seconds.with_label_values(&[call]).observe(took.as_secs_f64());
        // NOT_SUPPORTED, INVALID_ARGUMENT and NOT_FOUND end NVML's enumerations: answers, not errors.
        if !matches!(code, 0 | 2 | 3 | 6) {
            self.nvml_errors.with_label_values(&[call, &code.to_string()]).inc();
        }
    }

    /// An NVML call does not return, or it has.
    pub fn hangs(&self, call: Option<&str>) {
        self.nvml_hanging.set(i64::from(call.is_some()));
        if let Some(call) = call {
            self.nvml_hangs.with_label_values(&[call]).inc();
        }
    }

    /// An instance was made or destroyed, or not.
    pub fn reconfigured(&self, what: &str, done: bool, took: Duration) {
        self.reconfig.with_label_values(&[what, if done { "done" } else { "failed" }]).inc();
        self.reconfig_seconds.with_label_values(&[what]).observe(took.as_secs_f64());
    }

    /// How long it takes to make or destroy an instance: the mean since the start, in milliseconds.
    pub fn expected_ms(&self, make: bool) -> Option<u32> {
        let known = self.reconfig_seconds.with_label_values(&[if make { "make" } else { "destroy" }]);
        let changes = known.get_sample_count();
        (changes > 0).then(|| (known.get_sample_sum() / changes as f64 * 1000.0).round() as u32)
    }

    /// A request was refused.
    pub fn refused(&self, reason: Reason) {
        self.refusals.with_label_values(&[reason.name().as_str()]).inc();
    }

    /// A GPU has another minor number, or a profile of it another name, than at the last look.
    pub fn renamed(&self, what: &str) {
        self.renamed.with_label_values(&[what]).inc();
    }

    /// So many more clients were sent away.
    pub fn rejected(&self, why: &str, more: u64) {
        self.rejected.with_label_values(&[why]).inc_by(more);
    }

    /// Records were appended to the journal and synced, or not.
    pub fn journal(&self, done: bool, took: Duration) {
        let result = if done { "done" } else { "failed" };
        self.journal_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    /// A request was answered. `own` is the agent's own time: from its line read whole until its reply is written.
    pub fn request(&self, request: &str, own: Duration) {
        self.request_seconds.with_label_values(&[request]).observe(own.as_secs_f64());
    }

    /// All figures, as Prometheus reads them.
    pub fn render(&self, status: &Status) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(picture::families(status)?);
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

fn counter(registry: &Registry, name: &str) -> Result<IntCounterVec, prometheus::Error> {
    let row = table::row(name)?;
    let counter = IntCounterVec::new(prometheus::Opts::new(row.name, row.help), row.labels)?;
    register(registry, counter)
}

fn gauge(registry: &Registry, name: &str) -> Result<IntGauge, prometheus::Error> {
    let row = table::row(name)?;
    register(registry, IntGauge::new(row.name, row.help)?)
}

fn histogram(registry: &Registry, name: &str) -> Result<HistogramVec, prometheus::Error> {
    let row = table::row(name)?;
    let options = prometheus::HistogramOpts::new(row.name, row.help).buckets(BOUNDS.to_vec());
    register(registry, HistogramVec::new(options, row.labels)?)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests;
