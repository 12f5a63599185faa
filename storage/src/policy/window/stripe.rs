//! Striping: one large read that comes nearly alone is cut in two, read at both sides at once.
//!
//! The cut moves so that both parts end together; whether striping pays at all is decided by comparing the
//! later part with whole reads at the cache, both re-measured now and then.

use crate::policy::{Completion, Nanos, Outstanding, Side};

/// Shorter reads cost more in overhead than a second device can give back.
const SHORTEST: u32 = 512 << 10;
/// Reads in flight below which the caller counts as alone.
const ALONE: u32 = 2;
/// Every so many large reads the other way is tried.
const TRY_EVERY: u32 = 64;
/// The cut is a multiple of this share of the read.
const PARTS: u64 = 64;
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(super) struct Stripes {
    /// Of [`PARTS`], how many the cache reads.
    share: u64,
    whole: f64,
    cache_part: f64,
    backend_part: f64,
    count: u32,
}

impl Default for Stripes {
    fn default() -> Self {
        Self { share: PARTS * 3 / 4, whole: 0.0, cache_part: 0.0, backend_part: 0.0, count: 0 }
    }
}

impl Stripes {
    /// Whether a read of `len` should be striped now.
    pub(super) fn wants(&mut self, len: u32, out: &Outstanding) -> bool {
        if len < SHORTEST || out.cache.reads + out.backend.reads >= ALONE {
            return false;
        }
        self.count = self.count.wrapping_add(1);
        let striped = self.cache_part.max(self.backend_part);
        let pays = self.whole > 0.0 && striped > 0.0 && striped * 1.05 < self.whole;
        let try_other = self.whole > 0.0 && self.count % TRY_EVERY < 2;
        pays != try_other
    }

    /// Bytes of the cache's part of a read of `len`.
    pub(super) fn cache_part(&self, len: u32) -> u32 {
        let part = u64::from(len) * self.share / PARTS / BLOCK * BLOCK;
        u32::try_from(part.max(BLOCK)).unwrap_or(len)
    }

    /// Learns from a completion: whole large reads, and the two parts of a striped one.
    pub(super) fn completed(&mut self, done: &Completion) {
        if done.len >= SHORTEST && done.side == Side::Cache && !done.striped {
            blend(&mut self.whole, done.latency);
        } else if done.striped {
            match done.side {
                Side::Cache => blend(&mut self.cache_part, done.latency),
                Side::Backend => {
                    blend(&mut self.backend_part, done.latency);
                    self.balance();
                }
            }
        }
    }

    fn balance(&mut self) {
        if self.cache_part > self.backend_part * 1.05 {
            self.share = (self.share - 1).max(PARTS / 8);
        } else if self.backend_part > self.cache_part * 1.05 {
            self.share = (self.share + 1).min(PARTS - 2);
        }
    }
}

fn blend(mean: &mut f64, latency: Nanos) {
    let latency = latency as f64;
    *mean = if *mean == 0.0 { latency } else { *mean + (latency - *mean) / 4.0 };
}
