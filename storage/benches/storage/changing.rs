//! Figure 3: the network changes every few seconds, by its rate and by competing flows; at last its cable is pulled for
//! a while.
//!
//! Each policy lives through the same script. The measure of a phase is the best static ratio in that phase, found before
//! by trying ratios while nothing changes; the whole phase counts, the time of noticing included.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use migshare_storage::plot::Chart;
use rustix::fs::{Mode, OFlags, open};
use serde_json::{Map, Value, json};

use super::load::{self, BUCKET, Load, Outcome, Pattern};
use super::paired;
use super::rig::{Mount, Remote, Sidecar, Work, forget_pages, put};
use super::{Plan, axes, plot};

const LOAD: Load = Load { block: 64 << 10, depth: 16, pattern: Pattern::Random };
const POLICIES: [&str; 4] = ["window", "cache-only", "orthus", "netcas"];
const CACHE_MB: u32 = 60;
/// Time that a policy has for noticing before a bucket counts as a dip, in buckets.
const NOTICE: usize = 3;
/// A bucket is judged only where this many requests fit into it.
const REQUESTS: u64 = 50;
/// The cable is out this long: readers notice it, and TCP's timer has not yet backed off to seconds.
const PULLED: Duration = Duration::from_millis(1500);
const AFTER: Duration = Duration::from_secs(6);

/// A stretch of time: MB/s of the network and competing flows.
#[derive(Clone, Copy)]
struct Phase {
    network: u32,
    flows: u32,
}

const SCRIPT: [Phase; 6] = [
    Phase { network: 103, flows: 0 },
    Phase { network: 18, flows: 0 },
    Phase { network: 60, flows: 0 },
    Phase { network: 60, flows: 4 },
    Phase { network: 103, flows: 1 },
    Phase { network: 103, flows: 0 },
];

/// Runs the script for every policy, and pulls the cable of `window`.
pub(crate) fn run(plan: &Plan) -> Result<Map<String, Value>> {
    let (best, runs) = {
        let work = Work::new("changing")?;
        let remote = Remote::up(&work.0, "nbd", 400)?.with_cache(400)?;
        let sidecar =
            warm_sidecar(&work, &remote, &["window", "cache-only", "orthus", "netcas", "fixed-50"])?;
        (best_statics(plan, &remote, &sidecar)?, paired_runs(plan, &remote, &sidecar)?)
    };
    let work = Work::new("cable")?;
    let remote = Remote::by_one_connection(&work.0, 400)?.with_cache(400)?;
    let sidecar = warm_sidecar(&work, &remote, &["window"])?;
    let recovery = recovery(plan, &remote, &sidecar)?;
    draw(plan, &runs)?;
    Ok(summary(plan, &best, &runs, &recovery))
}

/// A sidecar that has all of the file `data` in its cache.
fn warm_sidecar(work: &Work, remote: &Remote, policies: &[&str]) -> Result<Sidecar> {
    put(&remote.files(), "data", 256)?;
    let profile = (f64::from(CACHE_MB) * 1e6 / 65536.0, f64::from(SCRIPT[0].network) * 1e6 / 65536.0);
    let sidecar = Sidecar::start(&work.0, &remote.files(), &remote.cache(), 300, policies, Some(profile))?;
    sidecar.warm("data")?;
    forget_pages(&remote.files().join("data"))?;
    remote.tell("cache-rate", &CACHE_MB.to_string())?;
    Ok(sidecar)
}

fn enter(remote: &Remote, phase: Phase, before: Option<Phase>) -> Result<()> {
    if before.is_none_or(|b| b.network != phase.network) {
        remote.tell("rate", &phase.network.to_string())?;
    }
    if before.is_none_or(|b| b.flows != phase.flows) {
        remote.tell("flows", &phase.flows.to_string())?;
    }
    Ok(())
}

/// Best rate of a static ratio in each phase, in bytes per second.
fn best_statics(plan: &Plan, remote: &Remote, sidecar: &Sidecar) -> Result<Vec<f64>> {
    let mount = sidecar.mount("fixed-50")?;
    let mut best = Vec::new();
    let mut before = None;
    for (index, phase) in SCRIPT.into_iter().enumerate() {
        eprintln!("changing: static ratios in phase {} of {}", index + 1, SCRIPT.len());
        enter(remote, phase, before)?;
        before = Some(phase);
        std::thread::sleep(Duration::from_millis(500));
        let mut most = (0.0, 0);
        for percent in (0..=100).rev().step_by(10) {
            mount.set_policy(&format!("fixed-{percent}"))?;
            let rate = load::run(&mount.at.join("data"), LOAD, plan.run)?.rate;
            most = if rate > most.0 { (rate, percent) } else { most };
        }
        println!(
            "phase {index}: network {} MB/s, {} flows: best static {:.1} MB/s at {} % cache",
            phase.network,
            phase.flows,
            most.0 / 1e6,
            most.1
        );
        best.push(most.0);
    }
    Ok(best)
}

/// `runs[policy][block]`.
fn paired_runs(plan: &Plan, remote: &Remote, sidecar: &Sidecar) -> Result<Vec<Vec<Outcome>>> {
    let mut runs: Vec<Vec<Outcome>> = POLICIES.iter().map(|_| Vec::new()).collect();
    let blocks = if plan.quick { 1 } else { plan.blocks };
    for block in 0..blocks {
        for turn in 0..POLICIES.len() {
            let policy = (block + turn) % POLICIES.len();
            eprintln!("changing: block {} of {blocks}, {}", block + 1, POLICIES[policy]);
            let mount = sidecar.mount(POLICIES[policy])?;
            let (path, before) = (mount.at.join("data"), Told::of(mount)?);
            enter(remote, SCRIPT[0], None)?;
            // Learning before the first change is not what this figure is about.
            load::run(&path, LOAD, plan.learn / 2)?;
            let outcome = load::run_with(&path, LOAD, plan.phase * SCRIPT.len() as u32, || {
                let start = Instant::now();
                for (index, pair) in SCRIPT.windows(2).enumerate() {
                    let at = plan.phase * (index as u32 + 1);
                    std::thread::sleep(at.saturating_sub(start.elapsed()));
                    enter(remote, pair[1], Some(pair[0]))?;
                }
                Ok(())
            })?;
            println!("{}: {}", POLICIES[policy], Told::of(mount)?.since(&before));
            runs[policy].push(outcome);
        }
    }
    Ok(runs)
}

/// What the sidecar counted: a hit that became a miss, or that one side left waiting, is no matter of the split.
struct Told([u64; TOLD.len()]);

const TOLD: [&str; 5] =
    ["hit_bytes_total", "split_bytes_total", "miss_bytes_total", "rescues_total", "probes_total"];

impl Told {
    fn of(mount: &Mount) -> Result<Self> {
        let mut told = [0; TOLD.len()];
        for (place, name) in TOLD.into_iter().enumerate() {
            told[place] = mount.counter(name)?;
        }
        Ok(Self(told))
    }

    fn since(&self, before: &Self) -> String {
        let mut grown = self.0.iter().zip(before.0).map(|(now, before)| now - before);
        let mut next = || grown.next().unwrap_or(0);
        let mut mb = || next() / 1_000_000;
        let (hits, split, missed) = (mb(), mb(), mb());
        format!(
            "{hits} MB of hits, {split} of them at the backend; {missed} MB missed; {} rescued, {} duplicates",
            next(),
            next()
        )
    }
}

struct Recovery {
    /// From the first good backend byte to full speed.
    seconds: f64,
    buckets: Vec<u64>,
}

/// Pulls the cable while `window` is read, and puts it back.
fn recovery(plan: &Plan, remote: &Remote, sidecar: &Sidecar) -> Result<Vec<Recovery>> {
    enter(remote, Phase { network: 60, flows: 0 }, None)?;
    let path = sidecar.mount("window")?.at.join("data");
    let bare = remote.files().join("data");
    load::run(&path, LOAD, plan.learn)?;
    let mut found = Vec::new();
    let turns = if plan.quick { 2 } else { plan.blocks };
    for turn in 0..turns {
        eprintln!("changing: cable {} of {turns}", turn + 1);
        let first_good = std::sync::Mutex::new(None);
        let lead = plan.phase;
        let (start, over) = (Instant::now(), AtomicBool::new(false));
        let outcome = std::thread::scope(|scope| {
            load::run_with(&path, LOAD, lead + PULLED + AFTER, || {
                std::thread::sleep(lead);
                remote.tell("link", "down")?;
                std::thread::sleep(PULLED);
                // Readers of the bare mount that wait now; the first one to be answered tells when the backend was back.
                for place in 0..4 {
                    let (bare, first_good, over) = (&bare, &first_good, &over);
                    scope.spawn(move || {
                        let read = read_block(bare, place * 8191);
                        if read.is_ok() && !over.load(Ordering::Acquire) {
                            first_good.lock().ok()?.get_or_insert(start.elapsed());
                        }
                        Some(())
                    });
                }
                remote.tell("link", "up")
            })
        })?;
        over.store(true, Ordering::Release);
        let good = first_good.lock().ok().and_then(|g| *g).unwrap_or(lead + PULLED + AFTER);
        found.push(Recovery { seconds: until_full(&outcome, lead, good), buckets: outcome.buckets });
    }
    Ok(found)
}

fn read_block(path: &std::path::Path, block: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(open(path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty())?);
    let mut buffer = migshare_storage::io::Buffer::new(4096);
    Ok(file.read_exact_at(&mut buffer, block * 4096 % (256 << 20))?)
}

/// Seconds from `good` until three buckets in a row give 0.95 of what was there before the cable was pulled.
fn until_full(outcome: &Outcome, lead: Duration, good: Duration) -> f64 {
    let bucket = |at: Duration| (at.as_nanos() / BUCKET.as_nanos()) as usize;
    let before = &outcome.buckets[bucket(lead) / 2..bucket(lead).min(outcome.buckets.len())];
    let full = 0.95 * paired::median(before.iter().map(|b| *b as f64).collect());
    let from = bucket(good).min(outcome.buckets.len());
    let rest = &outcome.buckets[from..];
    let mean = |w: &[u64]| w.iter().sum::<u64>() as f64 / w.len() as f64;
    let at = rest.windows(3).position(|w| mean(w) >= full).unwrap_or(rest.len());
    (from + at) as f64 * BUCKET.as_secs_f64()
        - good.as_secs_f64().min((from + at) as f64 * BUCKET.as_secs_f64())
}

fn phase_rates(plan: &Plan, outcome: &Outcome) -> Vec<f64> {
    let per = (plan.phase.as_nanos() / BUCKET.as_nanos()) as usize;
    let chunks = outcome.buckets.chunks(per).take(SCRIPT.len());
    chunks.map(|c| c.iter().sum::<u64>() as f64 / (c.len() as f64 * BUCKET.as_secs_f64())).collect()
}

/// Buckets after the time of noticing in which `window` is below 0.9 of what cache-only gives.
fn dips(plan: &Plan, window: &Outcome, cache: &Outcome) -> usize {
    let per = (plan.phase.as_nanos() / BUCKET.as_nanos()) as usize;
    let steady = paired::median(cache.buckets.iter().map(|b| *b as f64).collect());
    let judged = window.buckets.iter().zip(&cache.buckets).enumerate().take(per * SCRIPT.len());
    judged
        .filter(|(index, (w, c))| {
            let holds = **c as f64 >= 0.9 * steady && **c / LOAD.block >= REQUESTS;
            index % per >= NOTICE && holds && (**w as f64) < 0.9 * steady
        })
        .count()
}

fn summary(plan: &Plan, best: &[f64], runs: &[Vec<Outcome>], recovery: &[Recovery]) -> Map<String, Value> {
    let total = |o: &Outcome| o.buckets.iter().sum::<u64>() as f64;
    let over = |other: usize| {
        let ratios = runs[0].iter().zip(&runs[other]).map(|(a, b)| total(a) / total(b));
        paired::median(ratios.collect())
    };
    let mut worst = f64::MAX;
    for (index, best) in best.iter().enumerate() {
        let mut line = format!("phase {index}:");
        for (policy, outcomes) in POLICIES.iter().zip(runs) {
            let fraction = paired::median(
                outcomes
                    .iter()
                    .map(|o| phase_rates(plan, o).get(index).copied().unwrap_or(0.0) / best)
                    .collect(),
            );
            line += &format!("  {policy} {fraction:.3}");
            if *policy == "window" {
                worst = worst.min(fraction);
            }
        }
        println!("{line}  of the best static ratio");
    }
    let dips: usize = runs[0].iter().zip(&runs[1]).map(|(w, c)| dips(plan, w, c)).sum();
    let seconds = recovery.iter().map(|r| r.seconds);
    println!(
        "recovery after the cable: {:?} s",
        recovery.iter().map(|r| (r.seconds * 100.0).round() / 100.0).collect::<Vec<_>>()
    );
    let found = json!({
        "phase_fraction": worst,
        "dips_after_300ms": dips,
        "recovery_s_max": seconds.fold(0.0, f64::max),
        "vs_cache_only_changing": over(1),
        "vs_orthus_changing": over(2),
        "vs_netcas_changing": over(3),
    });
    let mut found = found.as_object().cloned().unwrap_or_default();
    if let Some(last) = recovery.last() {
        found.insert(
            "recovery_s_last_mb_per_100ms".into(),
            json!(last.buckets.iter().map(|b| b / 100_000).map(|b| b as f64 / 10.0).collect::<Vec<_>>()),
        );
    }
    found
}

fn draw(plan: &Plan, runs: &[Vec<Outcome>]) -> Result<()> {
    let line = |o: &Outcome| {
        o.buckets.iter().enumerate().map(|(i, b)| (i as f64 / 10.0, *b as f64 / 1e5)).collect::<Vec<_>>()
    };
    let series = POLICIES.iter().zip(runs).filter_map(|(p, r)| Some((*p, line(r.last()?)))).collect();
    let marks = SCRIPT.iter().enumerate().map(|(i, p)| {
        (plan.phase.as_secs_f64() * i as f64, format!("{} MB/s, {} flows", p.network, p.flows))
    });
    let axes = axes("A changing network", "seconds", "MB/s");
    plot(plan, "changing", Chart { marks: marks.collect(), ..axes }, series)
}
