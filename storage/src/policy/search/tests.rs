//! The search against known rate curves.

use super::*;

/// Runs the search against known rates of cache and backend over the level, `n` requests of one byte in flight.
fn found_for(n: u64, rates: impl Fn(u64) -> [f64; 2]) -> u64 {
    let mut search = Search::default();
    for _ in 0..200 {
        let level = search.level().min(n);
        let [cache, backend] = rates(level);
        search.epoch(Epoch {
            rate: cache + backend,
            in_flight: n,
            unit: 1,
            cache_when_spilled: n - level,
            cache_latency: ((n - level) as f64 / cache * 1e6) as u64,
            backend_latency: (level as f64 / backend * 1e6) as u64,
        });
    }
    search.best.level
}

/// The same for a curve of their sum.
fn found(n: u64, rate: impl Fn(u64) -> f64) -> u64 {
    found_for(n, |level| [rate(level) / 2.0; 2])
}

#[test]
fn a_backend_that_only_costs_is_left_alone() {
    assert_eq!(found(1, |w| if w == 0 { 54.0 } else { 2.5 }), 0);
    assert_eq!(found(4, |w| 112.0 - 10.0 * w as f64), 0);
}

#[test]
fn a_reader_that_comes_alone_costs_a_glance_where_duplicates_took_longer() {
    const RATES: [f64; 2] = [60.0, 18.0];
    let mut search = Search::default();
    let (mut slow, mut reads) = (0, 0);
    while reads < 3000 {
        let at_backend = search.level() > 0;
        let rate = RATES[usize::from(at_backend)];
        let over = |n: &u64| search.is_lost(*n, *n as f64 / rate, 1, true);
        let epoch = (1..16).find(over).unwrap_or(16);
        slow += if at_backend { epoch } else { 0 };
        reads += epoch;
        let epoch = Epoch {
            rate,
            in_flight: 1,
            unit: 1,
            cache_when_spilled: 0,
            cache_latency: 1,
            backend_latency: 3,
        };
        search.epoch(epoch);
    }
    assert!((1..=4).contains(&slow), "{slow} reads at the slower side");
}

/// The backend is faster than the cache for a moment after a rest, as links are that save up, and slower from then on.
#[test]
fn a_reader_that_comes_alone_is_not_fooled_again_and_again() {
    let mut search = Search::default();
    let (mut in_row, mut got) = (0, 0.0);
    for _ in 0..1000 {
        in_row = if search.level() > 0 { in_row + 1 } else { 0 };
        let backend_rate = if in_row <= 2 { 70.0 } else { 40.0 };
        let rate = if in_row > 0 { backend_rate } else { 60.0 };
        got += 1.0 / rate;
        search.epoch(Epoch {
            rate,
            in_flight: 1,
            unit: 1,
            cache_when_spilled: 0,
            cache_latency: 7,
            backend_latency: 6,
        });
    }
    let mean = 1000.0 / got;
    assert!(mean > 0.97 * 60.0, "{mean:.1} of 60");
}

#[test]
fn a_peak_behind_a_plateau_is_found() {
    // 1024 in flight: the backend saturates at 16, the cache is fast only with at most 4 inside.
    let rate = |w: u64| if w >= 1020 { 112.0 } else { 62.0 } + 53.0 * (w.min(16) as f64) / 16.0;
    let level = found(1024, rate);
    assert!(level >= 1020, "{level}");
}

#[test]
fn of_equal_levels_the_one_wins_at_which_reads_wait_as_long_at_either_side() {
    let level = found_for(256, |w| [100.0, 50.0 * (w.min(16) as f64) / 16.0]);
    assert!((70..=100).contains(&level), "{level}");
    let level = found_for(16, |w| [if w < 16 { 60.0 } else { 0.0 }, if w == 0 { 0.0 } else { 60.0 }]);
    assert!((7..=9).contains(&level), "{level}");
}

#[test]
fn a_gain_is_worth_a_longer_queue() {
    // The backend's rate grows until everything waits there.
    let level = found_for(64, |w| [if w < 64 { 10.0 } else { 0.0 }, w as f64]);
    assert!((60..64).contains(&level), "{level}");
}

#[test]
fn a_noisy_device_is_not_searched_for_ever() {
    let mut search = Search::default();
    let mut random = crate::random::Random(3);
    let mut searching = 0;
    for epoch in 0..3000 {
        searching += u32::from(epoch > 1000 && search.level() > 0);
        // The backend is worth nothing, and the cache's rate wanders by a quarter, for a few epochs at a time.
        let wander = if epoch % 12 < 6 { 1.0 } else { 0.75 + random.below(10) as f64 / 100.0 };
        let rate = wander * if search.level() == 0 { 100.0 } else { 50.0 };
        search.epoch(Epoch {
            rate,
            in_flight: 1,
            unit: 1,
            cache_when_spilled: 0,
            cache_latency: 2,
            backend_latency: 1,
        });
    }
    assert!(searching < 120, "{searching} of 2000 epochs at the backend");
}

/// Whatever the search is at when they come: the first epoch of a level that is held is no measure of how many there were.
#[test]
fn more_readers_are_seen_whenever_they_come() {
    for backend in [18.0, 100.0] {
        for alone in 0..400 {
            let mut search = Search::default();
            let read = |search: &mut Search, readers: u64| {
                let level = search.level().min(readers);
                let cache = if level < readers { 60.0 } else { 0.0 };
                let rate = cache + if level > 0 { backend } else { 0.0 };
                search.epoch(Epoch {
                    rate,
                    in_flight: readers,
                    unit: 1,
                    cache_when_spilled: readers - level,
                    cache_latency: ((readers - level).max(1) as f64 * 1000.0 / 60.0) as u64,
                    backend_latency: (level.max(1) as f64 * 1000.0 / backend) as u64,
                });
                rate
            };
            (0..alone).for_each(|_| {
                read(&mut search, 1);
            });
            let rates: Vec<f64> = (0..40).map(|_| read(&mut search, 16)).collect();
            let (best, late) = (60.0 + backend, &rates[12..]);
            let mean = late.iter().sum::<f64>() / late.len() as f64;
            assert!(mean > best * 0.95, "{mean:.1} of {best} after {alone} epochs: {rates:?}");
        }
    }
}

/// A reader for whom the kernel reads ahead has twice as much in flight when it is answered faster.
#[test]
fn readers_who_ask_for_more_when_they_get_more_are_no_more_readers() {
    let mut search = Search::default();
    let mut got = 0.0;
    for epoch in 0..200 {
        let at_backend = search.level().min(8);
        let rate = 60.0 + if at_backend > 0 { 60.0 } else { 0.0 };
        got += if epoch >= 40 { rate } else { 0.0 };
        search.epoch(Epoch {
            rate,
            in_flight: if at_backend > 0 { 16 } else { 4 },
            unit: 1,
            cache_when_spilled: 8,
            cache_latency: 100,
            backend_latency: 100,
        });
    }
    let mean = got / 160.0;
    assert!(mean > 115.0, "{mean:.1} of 120");
}

#[test]
fn a_moved_rate_restarts_from_plain_caching() {
    let mut search = Search::default();
    let epoch = |rate| Epoch {
        rate,
        in_flight: 16,
        unit: 1,
        cache_when_spilled: 4,
        cache_latency: 1,
        backend_latency: 1,
    };
    for _ in 0..60 {
        let level = search.level().min(16) as f64;
        search.epoch(epoch(100.0 + level));
    }
    assert!(search.level() > 0 && !search.exploring());
    for _ in 0..2 {
        search.epoch(epoch(40.0));
    }
    assert_eq!(search.level(), 0);
}
