//! Counters of a mount, and the one table that says how they are named.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Histogram, HistogramOpts, exponential_buckets};
use serde_json::{Map, Value, json};

use crate::policy::{Nanos, Side};

/// Counters since the start. All only grow.
#[derive(Debug)]
pub struct Statistics {
    counters: [AtomicU64; METRICS.len()],
    cache: Histograms,
    backend: Histograms,
}

/// Reads of one side.
#[derive(Debug)]
struct Histograms {
    seconds: Histogram,
    bytes: Histogram,
}

impl Histograms {
    fn new() -> Self {
        // 16 us to 67 s, 4 KiB to 4 MiB.
        let make = |start, factor, count| {
            let buckets = exponential_buckets(start, factor, count).unwrap_or_default();
            Histogram::with_opts(HistogramOpts::new("reads", "Reads.").buckets(buckets))
                .expect("name and buckets are constants that the crate accepts")
        };
        Self { seconds: make(16e-6, 4.0, 12), bytes: make(4096.0, 4.0, 6) }
    }
}

impl Default for Statistics {
    fn default() -> Self {
        let counters = std::array::from_fn(|_| AtomicU64::new(0));
        Self { counters, cache: Histograms::new(), backend: Histograms::new() }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name, as in Prometheus without the prefix `migshare_storage_`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident $name:literal $help:literal)*) => {
        #[derive(Clone, Copy)]
        enum Id { $($id),* }
        /// Every counter, in the order of `stats`.
        pub const METRICS: [Metric; [$(Id::$id),*].len()] = [$(Metric { name: $name, help: $help }),*];
    };
}

metrics! {
    CacheReads "cache_reads_total" "Reads that the cache served."
    CacheBytes "cache_read_bytes_total" "Bytes that the cache served."
    CacheNanos "cache_read_nanoseconds_total" "Sum of the latencies of the cache's reads."
    CacheErrors "cache_read_errors_total" "Reads that the cache failed."
    BackendReads "backend_reads_total" "Reads that the backend served: misses, split hits and probes."
    BackendBytes "backend_read_bytes_total" "Bytes that the backend served."
    BackendNanos "backend_read_nanoseconds_total" "Sum of the latencies of the backend's reads."
    BackendErrors "backend_read_errors_total" "Reads that the backend failed."
    HitReads "hit_reads_total" "Reads all of whose blocks were cached."
    HitBytes "hit_bytes_total" "Bytes of those reads."
    SplitBytes "split_bytes_total" "Bytes of hits that the backend was chosen for."
    MissBytes "miss_bytes_total" "Bytes that were not cached."
    Rescues "rescues_total" "Hits whose side was silent or failed, so that the other one was asked too."
    Hedges "hedges_total" "Hits whose side was late, so that the other one was asked too, out of the hedging budget."
    SkippedFills "skipped_fills_total" "Misses that were not cached because too many fills waited or fills are off."
    SavedBytes "saved_backend_bytes_total" "Bytes that readers got and the backend was not asked for."
    Probes "probes_total" "Duplicate reads to learn the backend's speed."
}

impl Statistics {
    fn add(&self, id: Id, value: u64) {
        self.counters[id as usize].fetch_add(value, Ordering::Relaxed);
    }

    pub(in crate::fs) fn add_read(&self, side: Side, len: u32, latency: Nanos, ok: bool) {
        let [reads, bytes, nanos, errors] = match side {
            Side::Cache => [Id::CacheReads, Id::CacheBytes, Id::CacheNanos, Id::CacheErrors],
            Side::Backend => [Id::BackendReads, Id::BackendBytes, Id::BackendNanos, Id::BackendErrors],
        };
        if ok {
            self.add(reads, 1);
            self.add(bytes, len.into());
            self.add(nanos, latency);
            let histograms = self.of(side);
            histograms.seconds.observe(latency as f64 / 1e9);
            histograms.bytes.observe(len.into());
        } else {
            self.add(errors, 1);
        }
    }

    fn of(&self, side: Side) -> &Histograms {
        match side {
            Side::Cache => &self.cache,
            Side::Backend => &self.backend,
        }
    }

    /// Latencies in seconds and sizes in bytes of the reads of a side.
    pub fn histograms(&self, side: Side) -> (&Histogram, &Histogram) {
        let of = self.of(side);
        (&of.seconds, &of.bytes)
    }

    /// Bytes that the backend was not asked for.
    pub(in crate::fs) fn add_saved(&self, bytes: u32) {
        self.add(Id::SavedBytes, bytes.into());
    }

    pub(in crate::fs) fn add_hit(&self, len: u32, split: u32) {
        self.add(Id::HitReads, 1);
        self.add(Id::HitBytes, len.into());
        self.add(Id::SplitBytes, split.into());
    }

    pub(in crate::fs) fn add_miss(&self, bytes: u64) {
        self.add(Id::MissBytes, bytes);
    }

    pub(in crate::fs) fn add_rescue(&self) {
        self.add(Id::Rescues, 1);
    }

    pub(in crate::fs) fn add_hedge(&self) {
        self.add(Id::Hedges, 1);
    }

    pub(in crate::fs) fn add_probe(&self) {
        self.add(Id::Probes, 1);
    }

    pub(in crate::fs) fn add_skipped_fill(&self) {
        self.add(Id::SkippedFills, 1);
    }

    /// Names with values.
    pub fn values(&self) -> impl Iterator<Item = (Metric, u64)> + '_ {
        METRICS.iter().copied().zip(self.counters.iter().map(|c| c.load(Ordering::Relaxed)))
    }

    /// One JSON object.
    pub fn to_json(&self) -> Value {
        let map: Map<String, Value> = self.values().map(|(m, v)| (m.name.to_owned(), json!(v))).collect();
        Value::Object(map)
    }
}
