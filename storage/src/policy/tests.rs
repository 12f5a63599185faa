use super::*;

const ASK: Ask = Ask { stream: StreamId(7), target: TargetId(0), len: 65536 };

fn done(side: Side, latency: Nanos, ok: bool) -> Completion {
    let Ask { stream, target, len } = ASK;
    Completion { stream, target, side, len, latency, ok, role: Role::Whole }
}

fn every_policy() -> Vec<Policy> {
    vec![
        Policy::CacheOnly,
        Policy::BackendOnly,
        Policy::fixed(50),
        Policy::Netcas(Box::new(Netcas::new(100.0, 100.0))),
        Policy::Orthus(Box::default()),
        Policy::Window(Box::new(Window::new(WindowConfig::default()))),
    ]
}

#[test]
fn a_silent_backend_is_left_by_every_policy_and_taken_again_when_it_answers() {
    for policy in every_policy() {
        let mut splitter = Splitter::new(policy);
        splitter.issued(0, Side::Backend, ASK);
        assert!(splitter.tick(100 * MILLIS));
        assert!(!splitter.tick(300 * MILLIS));
        for i in 0..50 {
            let route = splitter.route(301 * MILLIS + i, ASK);
            assert_ne!(route, Route::One(Side::Backend), "{:?}", splitter.policy());
        }
        splitter.completed(400 * MILLIS, done(Side::Backend, 400 * MILLIS, true));
        assert!(splitter.tick(401 * MILLIS));
    }
}

#[test]
fn a_failed_backend_read_leaves_the_backend_at_once() {
    let mut splitter = Splitter::new(Policy::BackendOnly);
    splitter.issued(0, Side::Backend, ASK);
    splitter.completed(1, done(Side::Backend, 1, false));
    assert_eq!(splitter.route(2, ASK), Route::One(Side::Cache));
}

#[test]
fn every_policy_reads_at_a_backend_again_whose_last_read_had_failed() {
    const READ: Nanos = 400_000;
    for policy in every_policy().into_iter().skip(1) {
        let mut splitter = Splitter::new(policy);
        splitter.issued(0, Side::Backend, ASK);
        splitter.completed(1, done(Side::Backend, 1, false));
        let mut at_backend = 0;
        for i in 1..10_000u64 {
            let now = i * MILLIS / 2;
            match splitter.route(now, ASK) {
                Route::Probe => {
                    splitter.issued(now, Side::Backend, ASK);
                    // The path is back after two seconds.
                    splitter.completed(now + 1, done(Side::Backend, 1, i > 4000));
                }
                Route::One(Side::Backend) => {
                    assert!(i > 4000, "{:?}", splitter.policy());
                    at_backend += 1;
                    splitter.issued(now, Side::Backend, ASK);
                    splitter.completed(now + READ / 4, done(Side::Backend, READ / 4, true));
                }
                Route::One(Side::Cache) => {
                    splitter.issued(now, Side::Cache, ASK);
                    splitter.completed(now + READ, done(Side::Cache, READ, true));
                }
                Route::Stripe { .. } => panic!("64 KiB are not striped"),
            }
        }
        assert!(splitter.backend_live());
        assert!(at_backend > 10, "{at_backend} by {:?}", splitter.policy());
    }
}

#[test]
fn a_silent_cache_is_told_from_one_that_fails_and_its_first_answer_brings_it_back() {
    let mut splitter = Splitter::new(Policy::CacheOnly);
    splitter.issued(0, Side::Cache, ASK);
    splitter.completed(1, done(Side::Cache, 1, false));
    assert!(splitter.cache_live());
    splitter.issued(2, Side::Cache, ASK);
    splitter.tick(300 * MILLIS);
    assert!(!splitter.cache_live() && splitter.backend_live());
    assert!(splitter.cache_wants_question(301 * MILLIS));
    splitter.issued(301 * MILLIS, Side::Cache, ASK);
    assert!(!splitter.cache_wants_question(302 * MILLIS));
    splitter.completed(303 * MILLIS, done(Side::Cache, 2 * MILLIS, true));
    assert!(splitter.cache_live());
}

/// One read of a hundred stalls for 50 ms at the chosen side; the rest take about a millisecond.
#[test]
fn hedging_cuts_the_tail_within_its_budget() {
    let mut splitter = Splitter::new(Policy::fixed(50)).hedging(2);
    let mut random = crate::random::Random(9);
    let (mut now, mut hedged, mut late) = (0, 0, [0, 0]);
    for i in 0..20_000 {
        let Route::One(side) = splitter.route(now, ASK) else { panic!("fixed ratios split whole reads") };
        splitter.issued(now, side, ASK);
        let stall = if random.below(100) < 1 { 50 * MILLIS } else { 0 };
        let alone = MILLIS + random.below(MILLIS) + stall;
        let deadline = splitter.deadline(side, ASK.len).filter(|d| alone > *d && stall > 0);
        let helped = deadline.filter(|_| splitter.hedge(side, ASK.target)).map_or(alone, |d| d + 2 * MILLIS);
        hedged += u32::from(helped < alone);
        if i > 2000 {
            late[0] += u32::from(alone > 20 * MILLIS);
            late[1] += u32::from(helped > 20 * MILLIS);
        }
        now += helped;
        splitter.completed(now, done(side, alone, true));
    }
    assert!(hedged <= 410, "{hedged} of 20000");
    assert!(late[1] * 4 < late[0], "{late:?}");
}

/// One read of 1 MiB at a time beside a backend, whose answers come when they come.
struct Alone {
    splitter: Splitter,
    now: Nanos,
    /// What the backend has yet to answer: when, and the answer.
    late: Vec<(Nanos, Completion)>,
}

impl Alone {
    const CACHE: Nanos = 17 * MILLIS;
    const LEN: u32 = 1 << 20;
    /// After this time the other side is asked.
    const RESCUE: Nanos = 300 * MILLIS;

    fn part(takes: Nanos, len: u32) -> Nanos {
        takes * Nanos::from(len) / Nanos::from(Self::LEN)
    }

    fn wait(&mut self, until: Nanos) {
        while self.now < until {
            let next = self.late.first().map_or(until, |answer| answer.0);
            self.now = next.min(until).min(self.now + 25 * MILLIS).max(self.now);
            self.splitter.tick(self.now);
            while self.late.first().is_some_and(|answer| answer.0 <= self.now) {
                let (_, answer) = self.late.remove(0);
                self.splitter.completed(self.now, answer);
            }
        }
    }

    fn read_cache(&mut self, len: u32, role: Role) {
        self.splitter.issued(self.now, Side::Cache, Ask { len, ..ASK });
        let latency = Self::part(Self::CACHE, len);
        self.wait(self.now + latency);
        self.splitter.completed(self.now, Completion { len, role, ..done(Side::Cache, latency, true) });
    }

    /// Returns when the answer comes, or the other side is to be asked; both are one time for a part that nobody waits for.
    fn ask_backend(&mut self, len: u32, takes: Nanos, role: Role) -> (Nanos, bool) {
        self.splitter.issued(self.now, Side::Backend, Ask { len, ..ASK });
        let latency = Self::part(takes, len);
        let lost = role != Role::Duplicate && latency > Self::RESCUE;
        let role = if lost { Role::Outrun } else { role };
        self.late.push((self.now + latency, Completion { len, role, ..done(Side::Backend, latency, true) }));
        self.late.sort_unstable_by_key(|answer| answer.0);
        (self.now + latency.min(Self::RESCUE), lost)
    }

    fn read(&mut self, backend: Nanos) {
        let all = Self::LEN;
        match self.splitter.route(self.now, Ask { len: all, ..ASK }) {
            Route::One(Side::Cache) => self.read_cache(all, Role::Whole),
            Route::Probe => {
                self.ask_backend(all, backend, Role::Duplicate);
                self.read_cache(all, Role::Whole);
            }
            Route::One(Side::Backend) => {
                let (until, lost) = self.ask_backend(all, backend, Role::Whole);
                self.wait(until);
                if lost {
                    self.read_cache(all, Role::Whole);
                }
            }
            Route::Stripe { cache } => {
                let (until, lost) = self.ask_backend(all - cache, backend, Role::Striped);
                self.read_cache(cache, Role::Striped);
                self.wait(until);
                if lost {
                    self.splitter.part_is_late(Side::Backend, all - cache, Self::RESCUE);
                    self.read_cache(all - cache, Role::Striped);
                }
            }
        }
    }
}

/// What a lone reader gets over what the cache would have given, in 40 seconds; the backend takes 5 ms for a read for a `fast` time,
/// and then `backend`.
fn alone_beside(fast: Nanos, backend: Nanos) -> f64 {
    let splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    let (mut alone, mut reads) = (Alone { splitter, now: 0, late: Vec::new() }, 0);
    while alone.now < 60 * SECOND {
        alone.read(if alone.now < fast { 5 * MILLIS } else { backend });
        reads += u64::from(alone.now >= 20 * SECOND);
    }
    (reads * Alone::CACHE) as f64 / (40 * SECOND) as f64
}

/// Every read there is taken for lost, and nothing can be measured while the backend is.
#[test]
fn a_lone_reader_does_not_stay_with_a_backend_that_is_slower_than_silence_may_last() {
    for backend in [100, 240, 330, 700, 2000] {
        for fast in [0, 1, 10] {
            let got = alone_beside(fast * SECOND, backend * MILLIS);
            assert!(got >= 0.95, "{got:.3} of the cache, reads of {backend} ms after {fast} s");
        }
    }
    assert!(alone_beside(0, 5 * MILLIS) > 3.0);
}

/// Runs of `reads` by 16 readers with pauses of 3 s between, over two devices that take a millisecond per read each. The first
/// `unrouted` ones of a run come past the policy, as those do whose bytes are to be validated first. Returns the reads per
/// second after ten runs.
fn in_runs(unrouted: u32, reads: u32) -> u64 {
    let mut splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    let (mut now, mut since_last, mut reads_last) = (SECOND, 0, 0);
    for run in 0..60 {
        let mut free = [now; 2];
        let mut flying: Vec<(Nanos, Nanos, Side)> = Vec::new();
        let (start, mut sent, mut ended) = (now, 0, 0);
        while ended < reads {
            while flying.len() < 16 && sent < reads {
                let route = if sent < unrouted { Route::One(Side::Cache) } else { splitter.route(now, ASK) };
                let side = if let Route::One(side) = route { side } else { Side::Cache };
                splitter.issued(now, side, ASK);
                let end = free[side as usize].max(now) + MILLIS;
                free[side as usize] = end;
                flying.push((end, now, side));
                sent += 1;
            }
            let first = (0..flying.len()).min_by_key(|i| flying[*i].0).unwrap();
            let (end, began, side) = flying.swap_remove(first);
            now = end;
            splitter.completed(now, done(side, end - began, true));
            ended += 1;
        }
        if run >= 10 {
            (since_last, reads_last) = (since_last + now - start, reads_last + u64::from(reads));
        }
        now += 3 * SECOND;
    }
    reads_last * SECOND / since_last
}

#[test]
fn a_pause_is_no_slow_device_whoever_reads_first_after_it() {
    for reads in [60, 150, 600] {
        let (routed, unrouted) = (in_runs(0, reads), in_runs(3, reads));
        assert!(routed > 1850 && unrouted * 100 > routed * 97, "{reads}: {routed}, {unrouted}");
    }
}

/// A closed loop of 16 readers over four targets: the cache answers in 4 ms, three targets in 2 ms, target 3 in `slow`.
/// Returns how many of the last reads came from each target, and the most that target 3 held at once.
fn over_four_targets(slow: Nanos) -> ([u32; 4], u32) {
    let mut splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    let mut random = crate::random::Random(4);
    // (when it ends, completion)
    let mut flying: Vec<(Nanos, Completion)> = Vec::new();
    let (mut now, mut counts, mut most) = (0, [0; 4], 0);
    while now < 20 * SECOND {
        while flying.iter().filter(|(_, d)| d.role.is_useful()).count() < 16 {
            let target = TargetId(random.below(4) as u32);
            let ask = Ask { stream: StreamId(random.below(16)), target, len: 65536 };
            let route = splitter.route(now, ask);
            let mut send = |side, useful| {
                splitter.issued(now, side, ask);
                let Ask { stream, target, len } = ask;
                let service = match side {
                    // One device of a fixed rate: what is in flight there waits for each other.
                    Side::Cache => 500_000 * (1 + splitter.outstanding().cache.reads as Nanos),
                    Side::Backend if target.0 == 3 => slow,
                    Side::Backend => 2 * MILLIS,
                };
                let done = Completion {
                    stream,
                    target,
                    side,
                    len,
                    latency: service,
                    ok: true,
                    role: if useful { Role::Whole } else { Role::Duplicate },
                };
                flying.push((now + service, done));
            };
            match route {
                Route::One(side) => send(side, true),
                Route::Probe => {
                    send(Side::Cache, true);
                    send(Side::Backend, false);
                }
                Route::Stripe { .. } => panic!("64 KiB are not striped"),
            }
        }
        let held =
            flying.iter().filter(|(_, d)| d.role.is_useful() && d.side == Side::Backend && d.target.0 == 3);
        let first = flying.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, _)| i).unwrap();
        if now > 10 * SECOND {
            most = most.max(held.count() as u32);
        }
        let (at, done) = flying.swap_remove(first);
        now = now.max(at);
        splitter.tick(now);
        splitter.completed(now, done);
        if now > 10 * SECOND && done.role.is_useful() && done.side == Side::Backend {
            counts[done.target.0 as usize] += 1;
        }
    }
    (counts, most)
}

#[test]
fn a_slow_target_takes_nothing_from_its_neighbours() {
    let (even, _) = over_four_targets(2 * MILLIS);
    let (counts, most) = over_four_targets(40 * MILLIS);
    assert!(even.iter().all(|c| *c > 1000), "{even:?}");
    for neighbour in 0..3 {
        assert!(counts[neighbour] * 10 > even[neighbour] * 7, "{counts:?} after {even:?}");
    }
    // Without a window of its own it holds most of what may be in flight, ten readers.
    assert!(most <= 2, "the slow target held {most} readers");
}

/// Misses before were large and slow; they say nothing of how long a read of 64 KiB takes.
#[test]
fn large_misses_do_not_hide_a_backend_that_is_faster_for_a_single_reader() {
    let mut splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    let miss = Ask { len: 1 << 20, ..ASK };
    let mut now = 0;
    for _ in 0..256 {
        splitter.issued(now, Side::Backend, miss);
        now += 20 * MILLIS;
        splitter.completed(now, Completion { len: miss.len, ..done(Side::Backend, 20 * MILLIS, true) });
    }
    let (start, mut at_backend, mut reads) = (now, 0, 0);
    while now < start + 3 * SECOND {
        let route = splitter.route(now, ASK);
        let (side, latency) = match route {
            Route::One(Side::Backend) => (Side::Backend, 600_000),
            _ => (Side::Cache, 1_100_000),
        };
        splitter.issued(now, side, ASK);
        if route == Route::Probe {
            splitter.issued(now, Side::Backend, ASK);
            splitter.completed(
                now + 600_000,
                Completion { role: Role::Duplicate, ..done(Side::Backend, 600_000, true) },
            );
        }
        now += latency;
        splitter.completed(now, done(side, latency, true));
        if now > start + SECOND {
            reads += 1;
            at_backend += u32::from(side == Side::Backend);
        }
    }
    assert!(at_backend * 10 > reads * 9, "{at_backend} of {reads} at the backend");
}

/// While reads are striped, the level of the search has no say; noise must not raise it.
#[test]
fn a_single_reader_of_large_blocks_is_striped_and_never_sent_to_the_slow_side_alone() {
    let mut splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    let mut random = crate::random::Random(7);
    let (mut now, mut whole, mut striped) = (0, 0, 0);
    while now < 60 * SECOND {
        let ask = Ask { len: 1 << 20, ..ASK };
        let mut took = |side: Side, len: u32| {
            let per_byte = if side == Side::Cache { 16 } else { 55 };
            u64::from(len) * per_byte * (90 + random.below(20)) / 100
        };
        let parts = match splitter.route(now, ask) {
            Route::Stripe { cache } => vec![(Side::Cache, cache), (Side::Backend, ask.len - cache)],
            Route::One(Side::Backend) => vec![(Side::Backend, ask.len)],
            Route::One(Side::Cache) | Route::Probe => vec![(Side::Cache, ask.len)],
        };
        if now > 10 * SECOND {
            striped += u32::from(parts.len() == 2);
            whole += u32::from(parts.len() == 1 && parts[0].0 == Side::Backend);
        }
        let mut ends: Vec<_> = parts.iter().map(|(side, len)| (took(*side, *len), *side, *len)).collect();
        ends.sort_by_key(|e| e.0);
        parts.iter().for_each(|(side, len)| splitter.issued(now, *side, Ask { len: *len, ..ask }));
        for (latency, side, len) in &ends {
            let done = Completion {
                len: *len,
                role: if parts.len() == 2 { Role::Striped } else { Role::Whole },
                ..done(*side, *latency, true)
            };
            splitter.completed(now + latency, done);
        }
        now += ends.last().map_or(MILLIS, |e| e.0);
    }
    assert!(striped > 2000 && whole < 40, "{striped} striped, {whole} whole at the slow side");
}

#[test]
fn a_lost_target_is_left_alone_and_its_neighbours_are_not() {
    let mut splitter = Splitter::new(Policy::BackendOnly);
    let at = |target| Ask { target: TargetId(target), ..ASK };
    splitter.issued(0, Side::Backend, at(3));
    assert!(splitter.tick(300 * MILLIS), "the others are live");
    assert_ne!(splitter.route(301 * MILLIS, at(3)), Route::One(Side::Backend));
    assert_eq!(splitter.route(301 * MILLIS, at(2)), Route::One(Side::Backend));
    splitter.backend_reported(302 * MILLIS, BackendState::Gone);
    assert_ne!(splitter.route(303 * MILLIS, at(60)), Route::One(Side::Backend), "one never seen before");
}

#[test]
fn plain_caching_never_asks_a_lost_backend() {
    let mut splitter = Splitter::new(Policy::CacheOnly);
    splitter.backend_reported(0, BackendState::Gone);
    assert!((1..100).all(|i| splitter.route(i * SECOND, ASK) == Route::One(Side::Cache)));
}

#[test]
fn in_flight_accounting_returns_to_zero_whatever_the_order() {
    let mut splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    for i in 0..1000u64 {
        let side = if i % 3 == 0 { Side::Backend } else { Side::Cache };
        splitter.issued(i, side, ASK);
        if i % 2 == 0 {
            splitter.completed(i, done(side, 10, i % 7 != 0));
        }
    }
    for i in (1..1000u64).step_by(2) {
        let side = if i % 3 == 0 { Side::Backend } else { Side::Cache };
        splitter.completed(2000 + i, done(side, 10, true));
    }
    assert_eq!(splitter.outstanding(), Outstanding::default());
}

#[test]
fn a_backend_that_a_signal_calls_gone_is_left_by_every_policy_until_the_signal_calls_it_back() {
    for policy in every_policy() {
        let mut splitter = Splitter::new(policy);
        // A read that hangs there: own timing alone would say "silent" for as long as it does.
        splitter.issued(0, Side::Backend, ASK);
        splitter.backend_reported(1, BackendState::Gone);
        for i in 0..50 {
            assert_ne!(splitter.route(2 + i, ASK), Route::One(Side::Backend), "{:?}", splitter.policy());
        }
        assert!(!splitter.tick(SECOND));
        splitter.backend_reported(2 * SECOND, BackendState::Live);
        assert!(splitter.tick(2 * SECOND));
        // A new read hangs: the signal was too hopeful. The old one would say nothing.
        splitter.issued(2 * SECOND, Side::Backend, ASK);
        assert!(!splitter.tick(2 * SECOND + 251 * MILLIS));
    }
}

#[test]
fn an_answer_does_not_overrule_a_signal_that_calls_the_backend_gone() {
    let mut splitter = Splitter::new(Policy::BackendOnly);
    splitter.issued(0, Side::Backend, ASK);
    splitter.backend_reported(1, BackendState::Gone);
    splitter.completed(2, done(Side::Backend, 2, true));
    assert_eq!(splitter.route(3, ASK), Route::One(Side::Cache));
}

#[test]
fn a_degraded_backend_is_spared_by_polite_mounts_alone() {
    for (polite, spared) in [(true, true), (false, false)] {
        let window = Window::new(WindowConfig { polite, ..WindowConfig::default() });
        let mut splitter = Splitter::new(Policy::Window(Box::new(window)));
        splitter.backend_reported(0, BackendState::Degraded);
        // A policy that is put in place later knows it too.
        let window = Window::new(WindowConfig { polite, ..WindowConfig::default() });
        splitter.replace(Policy::Window(Box::new(window)));
        splitter.route(1, ASK);
        let Policy::Window(window) = splitter.policy() else { panic!("not replaced") };
        assert_eq!(window.snapshot().reason == window::Reason::BackendCongested, spared);
    }
}

#[test]
fn a_dead_backend_is_probed_by_duplicates_only() {
    let mut splitter = Splitter::new(Policy::Window(Box::new(Window::new(WindowConfig::default()))));
    splitter.backend_reported(0, BackendState::Gone);
    let routes: Vec<Route> = (1..=10).map(|i| splitter.route(i * 50 * MILLIS, ASK)).collect();
    assert!(routes.contains(&Route::Probe));
    assert!(routes.iter().all(|r| matches!(r, Route::Probe | Route::One(Side::Cache))));
}

#[test]
fn netcas_takes_the_formula_share_once_it_is_active() {
    let mut splitter = Splitter::new(Policy::Netcas(Box::new(Netcas::new(80.0, 20.0))));
    let mut cache = 0;
    for i in 0..10_000u64 {
        let now = i * MILLIS / 10;
        let Route::One(side) = splitter.route(now, ASK) else { panic!("netcas splits whole reads") };
        splitter.issued(now, side, ASK);
        splitter.completed(now, done(side, MILLIS, true));
        cache += u32::from(side == Side::Cache && i >= 5_000);
    }
    assert_eq!(cache, 4_000);
}

/// Threads look at the clock before they take their turn: the times told are not in order.
#[test]
fn times_out_of_order_are_taken_as_now_by_every_policy() {
    for policy in every_policy() {
        let (mut splitter, mut random) = (Splitter::new(policy), 1u64);
        for i in 1..20_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let late = (random >> 33) % (20 * MILLIS);
            let now = (i * MILLIS / 4).saturating_sub(late);
            let side = match splitter.route(now, ASK) {
                Route::One(side) => side,
                Route::Probe | Route::Stripe { .. } => Side::Cache,
            };
            splitter.issued(now, side, ASK);
            splitter.completed(now.saturating_sub(late), done(side, MILLIS, true));
            splitter.tick(now);
        }
        assert_eq!(splitter.outstanding(), Outstanding::default());
    }
}
