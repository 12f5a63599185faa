//! The `netcas` policy as published (arXiv 2510.02323 and the authors' newest public code), for comparison.
//!
//! ```text
//!   Idle --activity--> Warmup --window full--> Stable <--latency < +5 %-- Congestion
//!                                                 \-----latency > +7 %---->/
//! ```
//! The share of the cache is A/(A+B) from a Perf Profile; under congestion B is scaled by the drop of the
//! backend's throughput against its running maximum. Its known weaknesses (a maximum and a minimum that
//! never age, a signal that only completions refresh, a fixed profile key) are part of what was published
//! and are kept.

use super::interleave::Interleave;
use super::{Completion, MILLIS, Nanos, Side};

const PERIOD: Nanos = 100 * MILLIS;
const SAMPLES: usize = 20;
const BASELINE_AFTER: u64 = 40;
const ENTER_PERMIL: u64 = 70;
const LEAVE_PERMIL: u64 = 50;
/// Below both of these per period the device counts as idle: MiB of backend reads and requests per second.
const IDLE_MIB: u64 = 100;
const IDLE_IOPS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Idle,
    Warmup,
    Stable,
    Congestion,
}

#[derive(Debug, Default)]
struct MovingMean {
    samples: std::collections::VecDeque<u64>,
}

impl MovingMean {
    fn push(&mut self, value: u64) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(value);
    }

    fn mean(&self) -> u64 {
        let n = self.samples.len() as u64;
        self.samples.iter().sum::<u64>().checked_div(n).unwrap_or(0)
    }
}

/// State of the published policy.
#[derive(Debug)]
pub struct Netcas {
    cache_rate: f64,
    backend_rate: f64,
    mode: Mode,
    interleave: Interleave,
    period_start: Nanos,
    requests: u64,
    backend: PeriodSum,
    published: (u64, u64),
    throughput: MovingMean,
    latency: MovingMean,
    ticks: u64,
    max_throughput: u64,
    min_latency: Option<u64>,
}

#[derive(Debug, Default)]
struct PeriodSum {
    bytes: u64,
    latency: u64,
    reads: u64,
}

impl Netcas {
    /// `cache_rate` and `backend_rate`: the profile's two end columns for the profile key in use.
    pub fn new(cache_rate: f64, backend_rate: f64) -> Self {
        Self {
            cache_rate,
            backend_rate,
            mode: Mode::Idle,
            interleave: Interleave::new(100),
            period_start: 0,
            requests: 0,
            backend: PeriodSum::default(),
            published: (0, 0),
            throughput: MovingMean::default(),
            latency: MovingMean::default(),
            ticks: 0,
            max_throughput: 0,
            min_latency: None,
        }
    }

    pub(super) fn route(&mut self, now: Nanos) -> Side {
        if now.saturating_sub(self.period_start) >= PERIOD {
            self.monitor(now);
        }
        self.requests += 1;
        self.interleave.next_side()
    }

    pub(super) fn completed(&mut self, _now: Nanos, done: &Completion) {
        if done.side == Side::Backend {
            self.backend.bytes += u64::from(done.len);
            self.backend.latency += done.latency;
            self.backend.reads += 1;
        }
    }

    fn monitor(&mut self, now: Nanos) {
        let elapsed = now - self.period_start;
        self.period_start = now;
        let sum = std::mem::take(&mut self.backend);
        let iops = std::mem::take(&mut self.requests).saturating_mul(super::SECOND) / elapsed.max(1);
        // The published driver refreshes its figures by completions only: without any they freeze.
        if let Some(mean) = sum.latency.checked_div(sum.reads) {
            self.published = (sum.bytes >> 20, mean / 1000);
        }
        self.throughput.push(self.published.0);
        self.latency.push(self.published.1);
        self.ticks += 1;
        self.max_throughput = self.max_throughput.max(self.throughput.mean());
        if self.ticks >= BASELINE_AFTER {
            let mean = self.latency.mean();
            self.min_latency = Some(self.min_latency.map_or(mean, |min| min.min(mean)));
        }
        self.step(self.published.0 <= IDLE_MIB && iops <= IDLE_IOPS);
    }

    fn step(&mut self, idle: bool) {
        let (increase, full) = (self.latency_increase(), self.throughput.samples.len() == SAMPLES);
        let next = match self.mode {
            _ if idle => Mode::Idle,
            Mode::Idle => Mode::Warmup,
            Mode::Warmup if full => Mode::Stable,
            Mode::Stable if increase > ENTER_PERMIL => Mode::Congestion,
            Mode::Congestion if increase < LEAVE_PERMIL => Mode::Stable,
            same => same,
        };
        let entered = next != self.mode;
        self.mode = next;
        match next {
            Mode::Idle => self.interleave.set_percent(100),
            Mode::Warmup => self.interleave.set_percent(self.ratio(0)),
            Mode::Stable if entered => self.correct(increase),
            Mode::Congestion => self.correct(increase),
            Mode::Stable => {}
        }
    }

    fn correct(&mut self, increase: u64) {
        let drop = if increase > ENTER_PERMIL { self.throughput_drop() } else { 0 };
        self.interleave.set_percent(self.ratio(drop));
    }

    fn throughput_drop(&self) -> u64 {
        let max = self.max_throughput;
        ((max - self.throughput.mean().min(max)) * 1000).checked_div(max).unwrap_or(0)
    }

    fn latency_increase(&self) -> u64 {
        let Some(min) = self.min_latency else { return 0 };
        (self.latency.mean().saturating_sub(min) * 1000).checked_div(min).unwrap_or(0)
    }

    /// floor(100 A / (A + B')), B' = B (1000 - drop) / 1000.
    fn ratio(&self, drop_permil: u64) -> u8 {
        let backend = self.backend_rate * (1000 - drop_permil.min(1000)) as f64 / 1000.0;
        (100.0 * self.cache_rate / (self.cache_rate + backend)).floor().clamp(0.0, 100.0) as u8
    }

    /// The share of the cache in percent that the published formula gives for an uncongested backend.
    pub fn formula_percent(cache_rate: f64, backend_rate: f64) -> f64 {
        100.0 * cache_rate / (cache_rate + backend_rate)
    }
}
