//! An even interleave of two sides at a fixed percentage.
//!
//! The published batched weighted round robin decides, for every request that is not a miss, by its first
//! two rules alone; replayed over 100,000 requests its pattern rules are never reached. What is left is an
//! error accumulator restarted every 100 requests, and that is what this is.

use super::Side;

const WINDOW: u32 = 100;

/// Error accumulator: of every 100 requests, `percent` go to the cache.
#[derive(Clone, Debug)]
pub struct Interleave {
    percent: u32,
    total: u32,
    cache: u32,
}

impl Interleave {
    /// `percent` above 100 counts as 100.
    pub(crate) fn new(percent: u8) -> Self {
        Self { percent: u32::from(percent.min(100)), total: 0, cache: 0 }
    }

    /// Changes the percentage from the next request on; the window goes on.
    pub(crate) fn set_percent(&mut self, percent: u8) {
        self.percent = u32::from(percent.min(100));
    }

    /// The side of the next request.
    pub(crate) fn next_side(&mut self) -> Side {
        if self.total == WINDOW {
            self.total = 0;
            self.cache = 0;
        }
        self.total += 1;
        if self.cache < self.total * self.percent / 100 {
            self.cache += 1;
            Side::Cache
        } else {
            Side::Backend
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(percent: u8, n: usize) -> String {
        let mut interleave = Interleave::new(percent);
        (0..n).map(|_| if interleave.next_side() == Side::Cache { 'C' } else { 'B' }).collect()
    }

    #[test]
    fn published_sequences_are_reproduced() {
        assert_eq!(pattern(80, 10), "BCCCCBCCCC");
        assert_eq!(pattern(67, 6), "BCCBCC");
        assert_eq!(pattern(48, 6), "BBCBCB");
    }

    #[test]
    fn a_hundred_requests_hold_the_percentage_exactly() {
        for percent in 0..=100u8 {
            let cache = pattern(percent, 100).chars().filter(|c| *c == 'C').count();
            assert_eq!(cache, usize::from(percent));
        }
    }
}
