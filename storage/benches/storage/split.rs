//! Figure 2: every policy in every cell of a remote file system and a cache device of known rates.
//!
//! A cell is a ratio of the two rates, a size of reads, a depth and a number of competing flows. In each cell the arms are
//! measured in turns: the policies, cache-only a second time (the noise floor), and the bare mount of the remote file
//! system. `window` and the baselines may learn before the first block of a cell.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migshare_storage::plot::Chart;
use serde_json::{Map, Value, json};

use super::load::{self, Load, Pattern};
use super::paired;
use super::rig::{Remote, Sidecar, Work, forget_pages, put};
use super::{Plan, axes, plot};

const POLICIES: [&str; 5] = ["window", "cache-only", "backend-only", "netcas", "orthus"];
/// Arms: the policies, cache-only once more, the bare mount.
const ARMS: [&str; 7] =
    ["window", "cache-only", "backend-only", "netcas", "orthus", "cache-only again", "bare backend"];
/// MB/s of the cache device, and of the network for each ratio: the scale that two cores serve without being the limit.
const CACHE_MB: u32 = 60;
const RATIOS: [(&str, u32); 3] = [("1:0.3", 18), ("1:1", 60), ("1:1.71", 103)];
/// 4 KiB reads at a sixth of these rates: 15,000 of them a second would be the two cores' limit and not the devices'.
const SMALL: u32 = 6;
const FILE_MIB: u64 = 256;
/// How often `window` is looked at, and at how many looks in a row it must have tried nothing before a cell is measured.
const POLL: Duration = Duration::from_millis(50);
const HELD: u32 = 16;
/// What `window` holds may be of another load; it takes so long to notice with large reads that queue.
const NOTICED: Duration = Duration::from_secs(3);
/// No cell is begun after this time with `QUICK=1`, so that all figures end within fifteen minutes.
const QUICK_LONGEST: Duration = Duration::from_secs(640);

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    ratio: usize,
    block: u64,
    depth: u32,
    flows: u32,
    pattern: Pattern,
}

const fn cell(ratio: usize, block: u64, depth: u32, flows: u32) -> Cell {
    Cell { ratio, block, depth, flows, pattern: Pattern::Random }
}

const K4: u64 = 4 << 10;
const K64: u64 = 64 << 10;
const M1: u64 = 1 << 20;

/// The cells of `QUICK=1`; the last one is a single sequential reader, who gains by striping alone.
const QUICK: [Cell; 24] = [
    cell(0, K64, 1, 0),
    cell(0, K64, 16, 0),
    cell(0, K64, 64, 0),
    cell(0, M1, 1, 0),
    cell(0, M1, 4, 0),
    cell(0, K4, 16, 0),
    cell(0, K64, 16, 4),
    cell(0, K64, 16, 8),
    cell(1, K64, 1, 0),
    cell(1, K64, 4, 0),
    cell(1, K64, 16, 0),
    cell(1, K64, 64, 0),
    cell(1, M1, 4, 0),
    cell(1, M1, 16, 0),
    cell(1, K4, 64, 0),
    cell(1, K64, 16, 1),
    cell(1, K64, 16, 8),
    cell(2, K64, 1, 0),
    cell(2, K64, 16, 0),
    cell(2, M1, 16, 0),
    cell(2, K4, 16, 0),
    cell(2, K64, 16, 1),
    cell(2, K64, 64, 4),
    Cell { ratio: 2, block: M1, depth: 1, flows: 0, pattern: Pattern::Sequential },
];

fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for ratio in 0..RATIOS.len() {
        for flows in [0, 1, 4, 8] {
            for block in [K4, K64, M1] {
                for depth in [1, 4, 16, 64] {
                    cells.push(cell(ratio, block, depth, flows));
                }
            }
        }
        cells.push(Cell { ratio, block: M1, depth: 1, flows: 0, pattern: Pattern::Sequential });
    }
    cells
}

impl Cell {
    fn name(&self) -> String {
        let size = if self.block >= M1 {
            format!("{}m", self.block >> 20)
        } else {
            format!("{}k", self.block >> 10)
        };
        let kind = if self.pattern == Pattern::Sequential { "-seq" } else { "" };
        format!("{}/{size}{kind}/q{}/f{}", RATIOS[self.ratio].0, self.depth, self.flows)
    }

    fn load(&self) -> Load {
        Load { block: self.block, depth: self.depth, pattern: self.pattern }
    }

    /// How many times as long as others a run is: large reads that queue are few, and end in bunches.
    fn runs(&self) -> u32 {
        if self.block >= M1 && self.depth > 1 { 2 } else { 1 }
    }

    /// MB/s of cache and network.
    fn rates(&self) -> (u32, u32) {
        let scale = if self.block < K64 { SMALL } else { 1 };
        (CACHE_MB / scale, RATIOS[self.ratio].1 / scale)
    }

    /// Whether both sides can be kept busy at once, so that their sum is the measure.
    fn saturates(&self) -> bool {
        self.flows == 0 && self.depth >= 16
    }
}

/// What a cell showed: one list of rates per arm, in bytes per second, block by block.
struct Shown {
    cell: Cell,
    rates: Vec<Vec<f64>>,
}

impl Shown {
    fn median(&self, arm: usize) -> f64 {
        paired::median(self.rates[arm].clone())
    }

    /// An arm over the better of cache-only and backend-only.
    fn over_better(&self, arm: usize) -> f64 {
        let better = if self.median(1) >= self.median(2) { 1 } else { 2 };
        paired::ratio(&self.rates[arm], &self.rates[better])
    }

    /// Cache-only over itself, as a loss whichever of the two was ahead.
    fn floor(&self) -> f64 {
        let ratio = paired::ratio(&self.rates[5], &self.rates[1]);
        ratio.min(1.0 / ratio)
    }

    fn over_sum(&self) -> f64 {
        let sum: Vec<f64> = self.rates[1].iter().zip(&self.rates[2]).map(|(a, b)| a + b).collect();
        paired::ratio(&self.rates[0], &sum)
    }
}

/// Measures all cells.
pub(crate) fn run(plan: &Plan) -> Result<Map<String, Value>> {
    let work = Work::new("split")?;
    let remote = Remote::up(&work.0, "nbd", 400)?.with_cache(400)?;
    put(&remote.files(), "data", FILE_MIB)?;
    let bounded = plan.quick && plan.cells.is_none();
    let mut cells = if bounded { QUICK.to_vec() } else { all_cells() };
    if let Some(only) = &plan.cells {
        cells.retain(|c| c.name().contains(only.as_str()));
        ensure!(!cells.is_empty(), "CELLS={only}: no cell has this in its name, as 1:1/64k/q16/f0 has");
    }
    // Each change of the devices' rates costs a restart.
    cells.sort_by_key(|c| (c.ratio, c.block < K64, c.flows));
    let start = Instant::now();
    let mut shown = Vec::new();
    let mut rig = Rig { plan, work: &work, remote: &remote, sidecar: None, now: (usize::MAX, 0, 0, 0) };
    println!(
        "{:24} {}  MB/s, medians; window over the better side; floor",
        "cell",
        ARMS.map(|a| format!("{a:>13.13}")).join("")
    );
    for (index, cell) in cells.iter().enumerate() {
        if bounded && start.elapsed() > QUICK_LONGEST {
            println!("{} cells left out: this machine is too busy or too slow for them", cells.len() - index);
            break;
        }
        eprintln!("split: cell {} of {}: {}", index + 1, cells.len(), cell.name());
        let one = rig.measure(*cell)?;
        let medians: Vec<String> =
            (0..ARMS.len()).map(|arm| format!("{:>13.1}", one.median(arm) / 1e6)).collect();
        println!("{:24} {}  {:.3} {:.3}", cell.name(), medians.join(""), one.over_better(0), one.floor());
        shown.push(one);
    }
    drop(rig);
    draw(plan, &shown)?;
    Ok(summary(&shown))
}

fn draw(plan: &Plan, shown: &[Shown]) -> Result<()> {
    let series = (0..ARMS.len()).filter(|arm| *arm != 5).map(|arm| {
        (ARMS[arm], shown.iter().enumerate().map(|(i, s)| (i as f64, s.median(arm) / 1e6)).collect())
    });
    let places = shown.iter().map(|s| s.cell.name()).collect();
    let axes = axes("Clean hits by policy, medians", "cell", "MB/s");
    plot(plan, "split", Chart { places, ..axes }, series.collect())
}

fn summary(shown: &[Shown]) -> Map<String, Value> {
    let mut found = Map::new();
    let worst = |f: fn(&Shown) -> f64| shown.iter().map(|s| (f(s), s)).min_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((value, at)) = worst(|s| s.over_better(0)) {
        found.insert("window_worst_cell".into(), json!(value));
        found.insert("window_worst_cell_name".into(), json!(at.cell.name()));
        found.insert("noise_floor_of_that_cell".into(), json!(at.floor()));
    }
    if let Some((value, _)) = worst(Shown::floor) {
        found.insert("noise_floor_worst_cell".into(), json!(value));
    }
    let below = shown.iter().filter(|s| s.over_better(0) < 0.97 * s.floor()).count();
    found.insert("window_cells_below_0_97_of_floor".into(), json!(below));
    found.insert("cells".into(), json!(shown.len()));
    let sums = shown.iter().filter(|s| s.cell.saturates()).map(Shown::over_sum);
    if let Some(least) = sums.min_by(f64::total_cmp) {
        found.insert("sum_fraction".into(), json!(least));
    }
    let striped = shown.iter().filter(|s| s.cell.pattern == Pattern::Sequential);
    if let Some(least) = striped.map(|s| s.over_better(0)).min_by(f64::total_cmp) {
        found.insert("stripe_gain".into(), json!(least));
    }
    for (arm, key) in [(3, "netcas_worst_cell"), (4, "orthus_worst_cell")] {
        let worst = shown.iter().map(|s| s.over_better(arm)).fold(f64::MAX, f64::min);
        found.insert(key.into(), json!(worst));
    }
    found
}

struct Rig<'a> {
    plan: &'a Plan,
    work: &'a Work,
    remote: &'a Remote,
    sidecar: Option<Sidecar>,
    /// Ratio, flows and rates in force.
    now: (usize, u32, u32, u32),
}

impl Rig<'_> {
    fn measure(&mut self, cell: Cell) -> Result<Shown> {
        self.set_up(cell)?;
        let sidecar = self.sidecar.as_ref().context("no sidecar")?;
        self.learn(sidecar, cell)?;
        let time = self.plan.run * cell.runs();
        let bare = self.remote.files().join("data");
        let paths = ARMS.map(|arm| {
            let policy = arm.strip_suffix(" again").unwrap_or(arm);
            sidecar.mount(policy).map_or_else(|_| bare.clone(), |m| m.at.join("data"))
        });
        let rates =
            paired::blocks(self.plan.blocks, &paths, |path| Ok(load::run(path, cell.load(), time)?.rate))?;
        Ok(Shown { cell, rates })
    }

    /// The rates, flows and profile of a cell.
    fn set_up(&mut self, cell: Cell) -> Result<()> {
        let (cache, network) = cell.rates();
        let scale = (cell.ratio, cell.flows, cache, network);
        if self.sidecar.is_none() || (self.now.0, self.now.2) != (cell.ratio, cache) {
            self.sidecar = None;
            self.remote.tell("flows", "0")?;
            self.now.1 = 0;
            // Filled at full speed; the profile is what the two sides are set to.
            self.remote.tell("rate", "1000")?;
            self.remote.tell("cache-rate", "1000")?;
            let profile = (f64::from(cache) * 1e6 / K64 as f64, f64::from(network) * 1e6 / K64 as f64);
            let (backend, dir) = (self.remote.files(), self.remote.cache());
            let sidecar = Sidecar::start(&self.work.0, &backend, &dir, 300, &POLICIES, Some(profile))?;
            sidecar.warm("data")?;
            forget_pages(&backend.join("data"))?;
            self.sidecar = Some(sidecar);
            self.remote.tell("rate", &network.to_string())?;
            self.remote.tell("cache-rate", &cache.to_string())?;
        }
        if self.now.1 != cell.flows {
            self.remote.tell("flows", &cell.flows.to_string())?;
            std::thread::sleep(Duration::from_secs(1));
        }
        self.now = scale;
        Ok(())
    }

    /// Time for the policies that learn.
    fn learn(&self, sidecar: &Sidecar, cell: Cell) -> Result<()> {
        let most = self.plan.learn;
        for (policy, time) in [("netcas", most / 8), ("orthus", most / 2)] {
            load::run(&sidecar.mount(policy)?.at.join("data"), cell.load(), time)?;
        }
        let (mount, start) = (sidecar.mount("window")?, Instant::now());
        let (least, most) = (NOTICED * (cell.runs() - 1), self.plan.search * cell.runs());
        load::run_with(&mount.at.join("data"), cell.load(), Duration::ZERO, || {
            // A level that was just found may have been lucky: the trials that follow tell.
            let mut held = 0;
            while start.elapsed() < most && held < HELD {
                std::thread::sleep(POLL);
                let holds = start.elapsed() > least && !mount.is_exploring("data", cell.block)?;
                held = if holds { held + 1 } else { 0 };
            }
            Ok(())
        })?;
        Ok(())
    }
}
