//! The storage sidecar measured: `make bench-storage`, or `QUICK=1 make bench-storage` for an answer within fifteen minutes.
//!
//! ```text
//!   engine    1  full hits, cold misses and small files on a plain disk, against the bare disk
//!   split     2  every policy over a real remote file system and a cache device of known rates
//!   changing  3  the same while the network changes, and after its cable was pulled
//!   emulated  4  every cell of the authors' Perf Profile in virtual time
//!   cost      5  memory, start, growth
//! ```
//! All figures are ratios of things measured in turns in one run. It wants the machine for itself, root and the packages
//! that `contrib/scripts/install-needs.sh all` installs. `FIGURE=2,5` (numbers or names) runs those only; `CELLS=TEXT` measures
//! only the cells of `split` whose name contains it, of all of them also with `QUICK=1`: `QUICK=1 CELLS=/` takes each of them,
//! shortly, in two hours. A figure that fails does not take the others with it. Plots go to `PLOTS` (default: `bench-storage` in
//! the target directory), data to `BENCH_DIR` (default /var/tmp, a real disk). The last line is `RESULT {json}`.

mod changing;
mod cost;
mod cpu;
mod emulated;
mod engine;
mod load;
mod paired;
mod rig;
mod split;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use migshare_storage::plot::{Chart, Series};
use serde_json::{Map, Value};

/// How much is measured.
struct Plan {
    quick: bool,
    /// Times that each arm is measured.
    blocks: usize,
    /// One measurement.
    run: Duration,
    /// Time for learning.
    learn: Duration,
    /// The most that `window` has for finding a level; reads on until it has found one.
    search: Duration,
    /// One phase of the changing network.
    phase: Duration,
    cells: Option<String>,
    plots: PathBuf,
}

type Figure = fn(&Plan) -> Result<Map<String, Value>>;

const FIGURES: [(&str, Figure); 5] = [
    ("engine", engine::run),
    ("split", split::run),
    ("changing", changing::run),
    ("emulated", emulated::run),
    ("cost", cost::run),
];

/// Those that need a remote file system.
const REMOTE: [&str; 2] = ["split", "changing"];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [what, file, extents] = &arguments[..]
        && cost::growth_child(what, file, extents)?
    {
        return Ok(());
    }
    let chosen = chosen(&arguments)?;
    rig::end_with_signals()?;
    rig::check(chosen.iter().any(|(name, _)| REMOTE.contains(name)))?;
    let plan = plan()?;
    let mut result = Map::new();
    let mut failed = Vec::new();
    let whole = Instant::now();
    for (index, (name, figure)) in chosen.iter().enumerate() {
        let start = Instant::now();
        println!("\n== {name}");
        eprintln!("figure {} of {}, {:.0} s so far", index + 1, chosen.len(), whole.elapsed().as_secs_f64());
        match figure(&plan) {
            Ok(found) => result.extend(found),
            Err(error) => {
                eprintln!("{name} failed: {error:#}");
                failed.push(*name);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        result.insert(format!("{name}_took_s"), seconds.round().into());
    }
    println!("\nplots: {}", plan.plots.display());
    println!("RESULT {}", Value::Object(result));
    anyhow::ensure!(failed.is_empty(), "no figures from {}: see above", failed.join(", "));
    Ok(())
}

/// The figures that were asked for, by number or name, in `FIGURE` or as arguments; all without either.
fn chosen(arguments: &[String]) -> Result<Vec<(&'static str, Figure)>> {
    let text = std::env::var("FIGURE").unwrap_or_else(|_| arguments.join(","));
    let wanted: Vec<&str> = text.split([',', ' ']).filter(|w| !w.is_empty()).collect();
    if wanted.is_empty() {
        return Ok(FIGURES.to_vec());
    }
    let known = FIGURES.map(|(name, _)| name);
    let find = |word: &str| {
        let place = word.parse::<usize>().map(|n| n.wrapping_sub(1));
        let place = place.ok().or_else(|| known.iter().position(|name| *name == word));
        let figure = place.and_then(|p| FIGURES.get(p).copied());
        figure.with_context(|| format!("FIGURE: {word} is none of 1 to 5, {}", known.join(", ")))
    };
    wanted.into_iter().map(find).collect()
}

fn plan() -> Result<Plan> {
    let quick = std::env::var_os("QUICK").is_some_and(|v| v != "0" && !v.is_empty());
    let target = std::env::current_exe()?;
    let target = target.ancestors().nth(3).context("where is the target directory?")?;
    let plots = std::env::var_os("PLOTS").map_or_else(|| target.join("bench-storage"), PathBuf::from);
    std::fs::create_dir_all(&plots).with_context(|| format!("PLOTS: {}", plots.display()))?;
    let (millis, blocks) = if quick { (600, 3) } else { (2000, 5) };
    Ok(Plan {
        quick,
        blocks,
        run: Duration::from_millis(millis),
        learn: if quick { Duration::from_secs(3) } else { Duration::from_secs(12) },
        search: if quick { Duration::from_secs(8) } else { Duration::from_secs(20) },
        phase: if quick { Duration::from_secs(3) } else { Duration::from_secs(5) },
        cells: std::env::var("CELLS").ok(),
        plots,
    })
}

/// Lines by name.
type Lines<'a> = Vec<(&'a str, Vec<(f64, f64)>)>;

/// A chart without lines.
fn axes(title: &str, x: &str, y: &str) -> Chart {
    Chart { title: title.to_owned(), x: x.to_owned(), y: y.to_owned(), ..Chart::default() }
}

/// Writes a plot.
fn plot(plan: &Plan, name: &str, chart: Chart, lines: Lines<'_>) -> Result<()> {
    let series = lines.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect();
    let path = plan.plots.join(format!("{name}.svg"));
    std::fs::write(&path, Chart { series, ..chart }.to_svg()).with_context(|| path.display().to_string())
}
