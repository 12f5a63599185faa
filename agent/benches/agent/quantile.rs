//! Times of many like things, and what they are at a share of all.

use std::time::Duration;

/// Times in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The times in the order in which they were added, so many at once.
    pub(crate) fn blocks(&self, size: usize) -> impl Iterator<Item = Times> {
        self.0.chunks(size).map(|block| Times(block.to_vec()))
    }

    /// The time that this share of all does not exceed, in microseconds; 1.0 is the longest.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    /// One line of a table: name, count, median, 99th percentile, longest.
    pub(crate) fn row(&self, name: &str) -> String {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.at(share));
        format!("  {name:<44} {:>6} {p50:>10.0} {p99:>10.0} {max:>10.0}", self.len())
    }
}

/// The head of a table of [`Times::row`]s.
pub(crate) fn head() -> String {
    format!("  {:<44} {:>6} {:>10} {:>10} {:>10}", "microseconds", "n", "p50", "p99", "max")
}

/// Three digits behind the point are more than any of these figures repeats.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
