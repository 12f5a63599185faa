//! Runs the policies on the device pairs of a Perf Profile, in virtual time, and prints every cell.
//!
//! `cargo run --release --example emulated_pair -- perf_profile.csv [published_results.csv]`; the last line is
//! `RESULT {json}`.

use std::path::Path;

use anyhow::{Context, Result};
use migshare_storage::emulate::{CacheKind, Load, Pair, rate};
use migshare_storage::policy::{Policy, Profile, SECOND, Window, WindowConfig};
use serde_json::json;

struct Cell {
    name: String,
    cache_only: f64,
    best: f64,
    best_split: u8,
    window: f64,
    /// Modelled over measured, one per split.
    model_errors: Vec<f64>,
}

fn main() -> Result<()> {
    let path =
        std::env::args().nth(1).context("usage: emulated_pair PERF_PROFILE.csv [PUBLISHED_RESULTS.csv]")?;
    let profile = Profile::read(Path::new(&path))?;
    let mut result = serde_json::Map::new();
    for (kind, suffix) in [(CacheKind::Synchronous, ""), (CacheKind::Asynchronous, "_async")] {
        println!("cache {kind:?}: cell, cache-only, best static (split), window, window/best, window/cache");
        let cells = profile.rows.iter().map(|r| cell(&profile, r.depth, r.jobs, kind));
        let cells = cells.collect::<Option<Vec<_>>>().context("a row of the profile cannot be emulated")?;
        for c in &cells {
            println!(
                "{:>6} {:>9.0} {:>9.0} ({:>3}) {:>9.0} {:.4} {:.4}",
                c.name,
                c.cache_only,
                c.best,
                c.best_split,
                c.window,
                c.window / c.best,
                c.window / c.cache_only
            );
        }
        let worst = |f: fn(&Cell) -> f64| cells.iter().map(f).fold(f64::MAX, f64::min);
        result.insert(format!("emulated_worst_vs_best{suffix}"), round(worst(|c| c.window / c.best)));
        result.insert(format!("emulated_worst_vs_cache{suffix}"), round(worst(|c| c.window / c.cache_only)));
        if kind == CacheKind::Synchronous {
            let errors = cells.iter().flat_map(|c| c.model_errors.iter().copied());
            result.insert("emulator_median_error".into(), round(median(errors.collect())));
        }
    }
    if let Some(published) = std::env::args().nth(2) {
        let text = std::fs::read_to_string(&published).with_context(|| published.clone())?;
        result.insert("netcas_formula_error".into(), round(formula_error(&profile, &text)?));
    }
    println!("RESULT {}", json!(result));
    Ok(())
}

fn round(value: f64) -> serde_json::Value {
    json!((value * 1e5).round() / 1e5)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn cell(profile: &Profile, depth: u32, jobs: u32, kind: CacheKind) -> Option<Cell> {
    let pair = Pair::from_profile(profile, depth, kind)?;
    let load = |warm_up, measure| Load { jobs, depth, warm_up, measure };
    let statics: Vec<(u8, f64)> = profile
        .splits
        .iter()
        .map(|split| (*split, rate(&pair, Policy::fixed(*split), load(SECOND / 4, SECOND))))
        .collect();
    let measured = &profile.row(depth, jobs)?.rates;
    let model_errors = statics.iter().zip(measured).map(|((_, m), r)| (m / r - 1.0).abs()).collect();
    let (best_split, best) = statics.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let window = Policy::Window(Box::new(Window::new(WindowConfig::default())));
    let window = rate(&pair, window, load(3 * SECOND, 9 * SECOND));
    Some(Cell {
        name: format!("{depth}x{jobs}"),
        cache_only: statics.first()?.1,
        best,
        best_split,
        window,
        model_errors,
    })
}

/// Largest relative distance between the formula's result as looked up here and as published: a CSV with the
/// columns `iodepth`, `numjobs` and `iops_at_formula`.
fn formula_error(profile: &Profile, published: &str) -> Result<f64> {
    let mut lines = published.lines();
    let head: Vec<&str> = lines.next().context("empty table of published results")?.split(',').collect();
    let column =
        |name: &str| head.iter().position(|h| *h == name).with_context(|| format!("no column {name}"));
    let (depth, jobs, iops) = (column("iodepth")?, column("numjobs")?, column("iops_at_formula")?);
    let mut worst: f64 = 0.0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |i: usize| fields.get(i).copied().context("short line in the published results");
        let row =
            profile.row(field(depth)?.parse()?, field(jobs)?.parse()?).context("no such profile row")?;
        worst = worst.max((profile.formula_rate(row) / field(iops)?.parse::<f64>()? - 1.0).abs());
    }
    Ok(worst)
}
