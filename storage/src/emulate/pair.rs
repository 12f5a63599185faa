//! A cache and a backend whose rates come from the end columns of a Perf Profile.
//!
//! Only the two end columns are used: the cache column as a function of the jobs inside the cache, the
//! backend column as a function of the requests outstanding. The columns between them are left to check the
//! model against.

use super::station::Curve;
use crate::policy::{Nanos, Profile};

/// How the cache treats its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// A read blocks its job, as persistent memory behind a block device does.
    Synchronous,
    /// A read is queued, as with NVMe.
    Asynchronous,
}

/// A device pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// How the cache treats its caller.
    pub kind: CacheKind,
    /// The cache's rate over the requests inside.
    pub cache: Curve,
    /// The backend's rate over the requests outstanding.
    pub backend: Curve,
    /// How much the work of requests differs: 0 is not at all, 0.5 from half to one and a half of the usual.
    pub jitter: f64,
}

impl Pair {
    /// The pair that a profile shows for jobs of queue depth `depth`; `None` when it has no such rows.
    pub fn from_profile(profile: &Profile, depth: u32, kind: CacheKind) -> Option<Self> {
        let at_depth = || profile.rows.iter().filter(|r| r.depth == depth);
        let cache = Curve::new(at_depth().map(|r| (r.jobs, r.cache_only())).collect())?;
        // Fewer requests than one job's depth: rows of one shallower job tell.
        let shallow = profile.rows.iter().filter(|r| r.jobs == 1 && r.depth < depth);
        let points = shallow.chain(at_depth()).map(|r| (r.depth * r.jobs, r.backend_only()));
        Some(Self { kind, cache, backend: Curve::new(points.collect())?, jitter: 0.0 })
    }

    /// Two toy devices of equal servers; `None` when a number is zero.
    pub fn servers(cache: (u32, Nanos), backend: (u32, Nanos)) -> Option<Self> {
        let (cache, backend) = (Curve::servers(cache.0, cache.1)?, Curve::servers(backend.0, backend.1)?);
        Some(Self { kind: CacheKind::Asynchronous, cache, backend, jitter: 0.0 })
    }
}
