//! One device: first come, first served, at a rate that depends on how many requests are inside.

use std::collections::VecDeque;

use crate::policy::{Nanos, SECOND};
use crate::random::Random;

/// Requests per second over the number of requests inside: linear between the known points.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    points: Vec<(u32, f64)>,
}

impl Curve {
    /// `points`: (requests inside, requests per second); sorted here, the last rate also holds beyond.
    /// Returns `None` without points or with a rate that is not positive.
    pub fn new(mut points: Vec<(u32, f64)>) -> Option<Self> {
        points.sort_by_key(|p| p.0);
        points.dedup_by_key(|p| p.0);
        let good = !points.is_empty() && points.iter().all(|p| p.0 > 0 && p.1 > 0.0);
        good.then_some(Self { points })
    }

    /// `servers` equal servers of `service` each: the toy device.
    pub fn servers(servers: u32, service: Nanos) -> Option<Self> {
        let one = SECOND as f64 / service.max(1) as f64;
        Self::new((1..=servers).map(|k| (k, one * f64::from(k))).collect())
    }

    /// Requests per second with `inside` requests.
    pub fn at(&self, inside: u32) -> f64 {
        let after = self.points.partition_point(|p| p.0 <= inside);
        match (after.checked_sub(1).map(|i| self.points[i]), self.points.get(after)) {
            (Some((k0, r0)), Some((k1, r1))) => r0 + (r1 - r0) * f64::from(inside - k0) / f64::from(k1 - k0),
            (Some((_, rate)), None) => rate,
            // Below the first known point: in proportion.
            (None, Some((k, rate))) => rate * f64::from(inside) / f64::from(*k),
            (None, None) => 0.0,
        }
    }
}

/// A device with its queue.
#[derive(Debug)]
pub struct Station<T> {
    curve: Curve,
    factor: f64,
    queue: VecDeque<T>,
    /// Work left of the request in front, in requests.
    left: f64,
    since: Nanos,
    /// How much the work of requests differs, and by what.
    jitter: f64,
    random: Random,
}

impl<T> Station<T> {
    /// An idle device.
    pub fn new(curve: Curve) -> Self {
        let (queue, random) = (VecDeque::new(), Random(0));
        Self { curve, factor: 1.0, queue, left: 0.0, since: 0, jitter: 0.0, random }
    }

    /// The same, whose requests are from 1 - `jitter` to 1 + `jitter` times the usual work; `seed` names the sequence.
    #[must_use]
    pub fn uneven(self, jitter: f64, seed: u64) -> Self {
        Self { jitter, random: Random(seed), ..self }
    }

    fn work(&mut self) -> f64 {
        const STEPS: u64 = 1 << 20;
        1.0 + self.jitter * (self.random.below(2 * STEPS + 1) as f64 / STEPS as f64 - 1.0)
    }

    /// Multiplies all rates from `now` on.
    pub fn scale(&mut self, now: Nanos, factor: f64) {
        self.settle(now);
        self.factor = factor;
    }

    /// Adds a request.
    pub fn push(&mut self, now: Nanos, request: T) {
        self.settle(now);
        if self.queue.is_empty() {
            self.left = self.work();
        }
        self.queue.push_back(request);
    }

    /// When the request in front will be done.
    pub fn next_at(&self) -> Option<Nanos> {
        (!self.queue.is_empty()).then(|| {
            let wait = self.left * SECOND as f64 / self.rate();
            self.since.saturating_add((wait.ceil() as Nanos).max(1))
        })
    }

    /// Takes the request in front, which must be due.
    pub fn pop(&mut self, now: Nanos) -> Option<T> {
        self.settle(now);
        self.left = self.work();
        self.queue.pop_front()
    }

    fn rate(&self) -> f64 {
        self.curve.at(u32::try_from(self.queue.len()).unwrap_or(u32::MAX)) * self.factor
    }

    fn settle(&mut self, now: Nanos) {
        if !self.queue.is_empty() {
            self.left -= self.rate() * now.saturating_sub(self.since) as f64 / SECOND as f64;
            self.left = self.left.max(0.0);
        }
        self.since = now;
    }
}
