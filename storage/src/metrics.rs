//! Everything that Prometheus is told, made anew for each reader: what is gone (a job, a mount) is not there any more.
//!
//! Names without the prefix stand in [`crate::fs::reads::METRICS`] for the counters of a mount, and here for the rest.

pub mod http;
mod jobs;
mod page;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use jobs::{Job, Jobs};
use page::{Kind, Page};

use crate::cache::{Cache, EXTENT, FileStore};
use crate::feedback::BackendState;
use crate::fs::writes::BACK_METRICS;
use crate::fs::{ReadPath, WriteBack};
use crate::policy::Side;

/// A mount as the metrics see it.
pub struct Source {
    /// Where it is mounted: the label `mount`.
    pub at: PathBuf,
    /// Its read path.
    pub reads: Arc<ReadPath>,
    /// Its write-back, if it has one.
    pub back: Option<Arc<WriteBack>>,
}

/// The text format, version 0.0.4.
///
/// # Errors
/// Never in practice: the encoder refuses families without values.
pub fn render(cache: &Cache<FileStore>, mounts: &[Source]) -> io::Result<Vec<u8>> {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
    page.one(Kind::Gauge, "build_info", "Version of the sidecar.", &version, 1);
    for mount in mounts {
        let at = mount.at.display().to_string();
        counters(&mut page, &at, &mount.reads);
        sides(&mut page, &at, &mount.reads);
        backend(&mut page, &at, &mount.reads);
        jobs_of(&mut page, &at, &mount.reads);
        if let Some(back) = &mount.back {
            write_back(&mut page, &at, back);
        }
    }
    of_cache(&mut page, cache);
    page.encode()
}

fn counters(page: &mut Page, at: &str, reads: &ReadPath) {
    // Sums of latencies are the histograms' here, in seconds.
    for (metric, value) in reads.stats().values().filter(|(m, _)| !m.name.contains("_nanoseconds_")) {
        page.one(Kind::Counter, metric.name, metric.help, &[("mount", at.to_owned())], value);
    }
}

fn sides(page: &mut Page, at: &str, reads: &ReadPath) {
    let in_flight = reads.in_flight();
    for (side, name, flying) in
        [(Side::Cache, "cache", in_flight.cache), (Side::Backend, "backend", in_flight.backend)]
    {
        let labels = [("mount", at.to_owned()), ("side", name.to_owned())];
        let (seconds, bytes) = reads.stats().histograms(side);
        page.histogram("read_seconds", "Time from a read's issue to its end.", &labels, seconds);
        page.histogram("read_size_bytes", "Sizes of reads.", &labels, bytes);
        let help = "Bytes of reads under way.";
        page.one(Kind::Gauge, "in_flight_bytes", help, &labels, flying.bytes);
    }
    for (class, bytes) in reads.windows().into_iter().flatten() {
        let labels = [("mount", at.to_owned()), ("class", class.to_owned())];
        let help =
            "Bytes of hits that the window policy keeps in flight at the backend, by size of the reads.";
        page.one(Kind::Gauge, "backend_window_bytes", help, &labels, bytes);
    }
}

fn backend(page: &mut Page, at: &str, reads: &ReadPath) {
    let now = reads.backend().now().state;
    let states =
        [(BackendState::Live, "live"), (BackendState::Degraded, "degraded"), (BackendState::Gone, "gone")];
    for (state, name) in states {
        let labels = [("mount", at.to_owned()), ("state", name.to_owned())];
        let help = "1 for the state that the backend is in, by signals and by timing.";
        page.one(Kind::Gauge, "backend_state", help, &labels, u64::from(state == now));
    }
    for (source, times) in reads.backend().left() {
        let labels = [("mount", at.to_owned()), ("source", source.as_str().to_owned())];
        let help = "How often hits stopped being read at the backend, by what said so.";
        page.one(Kind::Counter, "backend_left_total", help, &labels, times);
    }
}

fn jobs_of(page: &mut Page, at: &str, reads: &ReadPath) {
    for job in reads.jobs().all() {
        let labels = [("mount", at.to_owned()), ("job_id", job.id.clone())];
        let [hits, split, misses] =
            [&job.hit_bytes, &job.split_bytes, &job.miss_bytes].map(|n| n.load(Ordering::Relaxed));
        let mut add = |name, help, value| page.one(Kind::Counter, name, help, &labels, value);
        add("job_hit_bytes_total", "Bytes that a job read and the cache had.", hits);
        add("job_split_bytes_total", "Bytes of those that were read at the backend.", split);
        add("job_miss_bytes_total", "Bytes that a job read and the cache had not.", misses);
    }
}

fn write_back(page: &mut Page, at: &str, back: &WriteBack) {
    for (name, help, value) in BACK_METRICS {
        let kind = if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        page.one(kind, name, help, &[("mount", at.to_owned())], value(back));
    }
}

fn of_cache(page: &mut Page, cache: &Cache<FileStore>) {
    let (used, all) = cache.usage();
    let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let counters = &cache.counters;
    let gauges = [
        ("cache_used_bytes", "Bytes of slots that hold something.", u64::from(used) * EXTENT),
        ("cache_size_bytes", "Bytes of all slots.", u64::from(all) * EXTENT),
        ("cache_pinned_bytes", "Bytes of slots that pinned files hold.", cache.pinned_slots() * EXTENT),
    ];
    for (name, help, value) in gauges {
        page.one(Kind::Gauge, name, help, &[], value);
    }
    for (name, help, value) in [
        ("cache_filled_bytes_total", "Bytes written into the cache.", count(&counters.filled_bytes)),
        ("cache_evictions_total", "Slots that were used again.", count(&counters.evictions)),
        ("cache_corrupt_blocks_total", "Blocks refused by their checksum.", count(&counters.corrupt_blocks)),
        ("cache_write_errors_total", "Writes that the cache device failed.", count(&counters.write_errors)),
    ] {
        page.one(Kind::Counter, name, help, &[], value);
    }
}
