//! Figure 4: the policies on the device pairs of the authors' Perf Profile, in virtual time.
//!
//! Two CSV files replace the tables in `data/`, from the environment: `PERF_PROFILE` and `PERF_PROFILE_FORMULA`. What this
//! says of devices is only as good as the emulator, so how well it reproduces the nineteen columns of the profile that it was
//! not made from is reported beside it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use migshare_storage::emulate::{CacheKind, Load, Pair, rate};
use migshare_storage::plot::Chart;
use migshare_storage::policy::{Policy, Profile, SECOND, Window, WindowConfig};
use serde_json::{Map, Value, json};

use super::paired::median;
use super::{Plan, axes, plot};

/// IOPS of 64 KiB random reads for depth, jobs and split (netCAS-SKKU/netCAS on GitHub, artefact of arXiv 2510.02323).
const PROFILE: &str = "perf_profile_64k_randread_iops.csv";
/// What the published formula, looked up in that table, gives.
const FORMULA: &str = "formula_by_table.csv";
/// The bars of the published figure (the same source).
const BARS: &str = "published_bars.csv";

fn table(name: &str, variable: &str) -> Result<String> {
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/storage/data").join(name);
    let path = std::env::var_os(variable).map_or(shipped, PathBuf::from);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

struct Cell {
    name: String,
    cache_only: f64,
    best: f64,
    best_split: u8,
    window: f64,
    /// Modelled over measured, one per split.
    model_errors: Vec<f64>,
}

/// Runs all cells.
pub(crate) fn run(plan: &Plan) -> Result<Map<String, Value>> {
    let profile = Profile::parse(&table(PROFILE, "PERF_PROFILE")?)?;
    let mut result = Map::new();
    for (kind, suffix) in [(CacheKind::Synchronous, ""), (CacheKind::Asynchronous, "_async")] {
        println!("cache {kind:?}: cell, cache-only, best static (split), window, window/best, window/cache");
        let mut cells = Vec::new();
        for row in &profile.rows {
            eprintln!("emulated: {kind:?} cache, cell {} of {}", cells.len() + 1, profile.rows.len());
            let one = cell(&profile, row.depth, row.jobs, kind);
            cells.push(one.context("a row of the profile cannot be emulated")?);
        }
        cells.iter().for_each(Cell::print);
        let worst = |f: fn(&Cell) -> f64| cells.iter().map(f).fold(f64::MAX, f64::min);
        result.insert(format!("emulated_worst_vs_best{suffix}"), round(worst(|c| c.window / c.best)));
        result.insert(format!("emulated_worst_vs_cache{suffix}"), round(worst(|c| c.window / c.cache_only)));
        if kind == CacheKind::Synchronous {
            columns(&profile, &cells, &mut result);
        }
        draw(plan, &format!("emulated{suffix}"), &cells)?;
    }
    let error = formula_error(&profile, &table(FORMULA, "PERF_PROFILE_FORMULA")?)?;
    result.insert("netcas_formula_error".into(), round(error));
    result.insert(
        "netcas_bars_median_error".into(),
        round(bars_error(&profile, &table(BARS, "PERF_PROFILE_BARS")?)?),
    );
    Ok(result)
}

/// How well the model reproduces the columns that it was not made from, column by column.
fn columns(profile: &Profile, cells: &[Cell], result: &mut Map<String, Value>) {
    println!("model against table, columns that it was not made from: split, median error, largest");
    let inner = 1..profile.splits.len().saturating_sub(1);
    let errors = |i: usize| cells.iter().filter_map(move |c| c.model_errors.get(i).copied());
    for i in inner.clone() {
        let most = errors(i).fold(0.0, f64::max);
        println!("{:>4} {:.4} {most:.3}", profile.splits[i], median(errors(i).collect()));
    }
    result.insert("emulator_median_error".into(), round(median(inner.flat_map(errors).collect())));
}

fn draw(plan: &Plan, name: &str, cells: &[Cell]) -> Result<()> {
    let line = |f: fn(&Cell) -> f64| cells.iter().enumerate().map(|(i, c)| (i as f64, f(c))).collect();
    let series = vec![
        ("cache-only", line(|c| c.cache_only)),
        ("best static", line(|c| c.best)),
        ("window", line(|c| c.window)),
    ];
    let places = cells.iter().map(|c| c.name.clone()).collect();
    let axes = axes("The emulated pair", "depth x jobs", "64 KiB reads per second");
    plot(plan, name, Chart { places, ..axes }, series)
}

impl Cell {
    fn print(&self) {
        println!(
            "{:>6} {:>9.0} {:>9.0} ({:>3}) {:>9.0} {:.4} {:.4}",
            self.name,
            self.cache_only,
            self.best,
            self.best_split,
            self.window,
            self.window / self.best,
            self.window / self.cache_only
        );
    }
}

fn round(value: f64) -> Value {
    json!((value * 1e5).round() / 1e5)
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

/// Largest relative distance between the formula's result as looked up here and in a table of it.
fn formula_error(profile: &Profile, published: &str) -> Result<f64> {
    let rows = rows(published, "iops_at_formula")?;
    let mut worst: f64 = 0.0;
    for (depth, jobs, iops) in rows {
        let row = profile.row(depth, jobs).context("no such profile row")?;
        worst = worst.max((profile.formula_rate(row) / iops - 1.0).abs());
    }
    Ok(worst)
}

/// The published bars are cells of the table at the formula's ratio rounded to its grid. One of the sixteen was taken from the
/// next cell, so the median is the measure.
fn bars_error(profile: &Profile, published: &str) -> Result<f64> {
    let mut errors = Vec::new();
    for (depth, jobs, iops) in rows(published, "netcas_iops")? {
        let row = profile.row(depth, jobs).context("no such profile row")?;
        let exact = 100.0 * row.cache_only() / (row.cache_only() + row.backend_only());
        let near = (0..profile.splits.len()).min_by(|a, b| {
            let gap = |i: usize| (f64::from(profile.splits[i]) - exact).abs();
            gap(*a).total_cmp(&gap(*b))
        });
        errors.push((row.rates[near.context("an empty profile")?] / iops - 1.0).abs());
    }
    Ok(median(errors))
}

/// Depth, jobs and one column of a CSV.
fn rows(text: &str, column: &str) -> Result<Vec<(u32, u32, f64)>> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().context("an empty table")?.split(',').collect();
    let place =
        |name: &str| head.iter().position(|h| *h == name).with_context(|| format!("no column {name}"));
    let (depth, jobs, value) = (place("iodepth")?, place("numjobs")?, place(column)?);
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let field = |i: usize| fields.get(i).copied().context("a short line");
            Ok((field(depth)?.parse()?, field(jobs)?.parse()?, field(value)?.parse()?))
        })
        .collect()
}
