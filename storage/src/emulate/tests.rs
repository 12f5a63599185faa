use super::*;
use crate::policy::{MILLIS, Profile, Window, WindowConfig};

/// A small table of our own: the cache is fastest with four jobs, the backend saturates at 16 requests.
const TABLE: &str = "iodepth,numjobs,split100,split0
1,1,50000,2500
1,4,110000,9000
1,16,80000,35000
4,1,50000,9000
4,4,110000,36000
4,16,80000,50000
16,1,50000,36000
16,4,110000,50000
16,16,80000,50000
";

fn window() -> Policy {
    Policy::Window(Box::new(Window::new(WindowConfig::default())))
}

fn load(depth: u32, jobs: u32, warm_up: Nanos) -> Load {
    Load { jobs, depth, warm_up, measure: SECOND }
}

#[test]
fn window_is_near_the_best_static_split_and_never_below_the_cache_in_every_cell() {
    let profile = Profile::parse(TABLE).unwrap();
    for kind in [CacheKind::Synchronous, CacheKind::Asynchronous] {
        for row in &profile.rows {
            let (depth, jobs) = (row.depth, row.jobs);
            let pair = Pair::from_profile(&profile, depth, kind).unwrap();
            let fixed = |p| rate(&pair, Policy::fixed(p), load(depth, jobs, SECOND / 4));
            let best = (0..=20).map(|i| fixed(i * 5)).fold(0.0, f64::max);
            let got = rate(&pair, window(), load(depth, jobs, 2 * SECOND));
            assert!(got >= 0.97 * best, "{kind:?} {depth}x{jobs}: {got:.0} of best {best:.0}");
            assert!(got >= 0.9995 * fixed(100), "{kind:?} {depth}x{jobs}: {got:.0} below cache-only");
        }
    }
}

#[test]
fn a_backend_that_slows_down_leaves_readers_at_the_speed_of_the_cache() {
    let pair = Pair::servers((4, 40_000), (16, 400_000)).unwrap();
    let steps = [Step { at: 2 * SECOND, factor: 0.05 }, Step { at: 4 * SECOND, factor: 1.0 }];
    let run = |policy| series(&pair, policy, load(16, 1, 0), &steps, 6 * SECOND, 100 * MILLIS);
    let (split, cache) = (run(window()), run(Policy::CacheOnly));
    for bucket in 23..40 {
        let ratio = split[bucket] as f64 / cache[bucket] as f64;
        assert!(ratio >= 0.9, "{ratio:.2} of cache-only at {bucket}00 ms");
    }
    let recovered: u64 = split[50..60].iter().sum();
    let before: u64 = split[10..20].iter().sum();
    assert!(recovered as f64 >= 0.95 * before as f64, "{recovered} after, {before} before the slow phase");
}

#[test]
fn a_single_reader_of_a_fast_cache_is_not_diverted() {
    let pair = Pair::servers((8, 20_000), (64, 400_000)).unwrap();
    let cache = rate(&pair, Policy::CacheOnly, load(1, 1, SECOND));
    assert!(rate(&pair, window(), load(1, 1, SECOND)) >= 0.99 * cache);
}

#[test]
fn equal_servers_scale_until_they_are_full() {
    let curve = Curve::servers(4, 1_000_000).unwrap();
    assert_eq!([1, 2, 4, 9].map(|k| curve.at(k).round()), [1000.0, 2000.0, 4000.0, 4000.0]);
    assert!(Curve::new(vec![]).is_none());
    assert!(Curve::new(vec![(1, 0.0)]).is_none());
}
