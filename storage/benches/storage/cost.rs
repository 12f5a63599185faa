//! Figure 5: what the cache costs. Memory per cached GiB and the time from start to first byte with a full index, by a real
//! sidecar; growth with the number of extents and of files by the index alone, because ten million extents stand for
//! 2.5 TB of data.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use migshare_storage::cache::{BLOCK, Cache, EXTENT, FileKey, Sectors, Version};
use serde_json::{Map, Value, json};

use super::load;
use super::rig::{Sidecar, Work, put};
use super::{Plan, axes, cpu, paired, plot};

/// Extents of one file in the growth.
const PER_FILE: u64 = 1000;

pub(crate) fn run(plan: &Plan) -> Result<Map<String, Value>> {
    let work = Work::new("cost")?;
    let mut found = first_byte(plan, &work)?;
    let sizes: &[u64] =
        if plan.quick { &[10_000, 100_000, 1_000_000] } else { &[100_000, 1_000_000, 10_000_000] };
    let mut points = Vec::new();
    for extents in sizes {
        eprintln!("cost: an index of {extents} extents");
        let grown = grow(&work, *extents)?;
        println!(
            "{extents:>9} extents: {:>6.1} bytes each, {:>6.0} MB in all, loaded in {:.2} s, lookup {:.2} us",
            grown.bytes as f64 / *extents as f64,
            grown.bytes as f64 / 1e6,
            grown.load_s,
            grown.lookup_us
        );
        points.push((*extents, grown));
    }
    if let Some((extents, last)) = points.last() {
        let per_gib = last.bytes as f64 / *extents as f64 * (1u64 << 30) as f64 / EXTENT as f64;
        found.insert("index_mib_per_cached_gib".into(), json!(per_gib / f64::from(1 << 20)));
        found.insert("index_extents".into(), json!(extents));
        found.insert("index_load_s".into(), json!(last.load_s));
        found.insert("index_lookup_us".into(), json!(last.lookup_us));
    }
    let line = |f: fn(&Grown) -> f64| points.iter().map(|(n, g)| (*n as f64 / 1e6, f(g))).collect();
    let series =
        vec![("memory, MB", line(|g| g.bytes as f64 / 1e6)), ("load, ms", line(|g| g.load_s * 1000.0))];
    plot(plan, "cost", axes("Growth of the index", "million extents", "MB, ms"), series)?;
    Ok(found)
}

/// A real sidecar with a full cache: memory before and after it was filled, and the time from its start to the first byte.
fn first_byte(plan: &Plan, work: &Work) -> Result<Map<String, Value>> {
    eprintln!("cost: start to first byte");
    let backend = work.0.join("backend");
    fs::create_dir_all(&backend)?;
    let mib = if plan.quick { 300 } else { 1000 };
    put(&backend, "data", mib)?;
    let start =
        |name: &str| Sidecar::start(&work.0, &backend, &work.0.join(name), 1024, &["cache-only"], None);
    let sidecar = start("cache")?;
    let empty = cpu::resident(sidecar.pid())?;
    sidecar.warm("data")?;
    let full = cpu::resident(sidecar.pid())?;
    let path = sidecar.mounts[0].at.join("data");
    drop(sidecar);
    let mut times = Vec::new();
    for _ in 0..plan.blocks {
        let begin = Instant::now();
        let sidecar = start("cache")?;
        let file = load::open_direct(&path)?;
        let mut buffer = migshare_storage::io::Buffer::new(4096);
        file.read_exact_at(&mut buffer, 0)?;
        times.push(begin.elapsed().as_secs_f64());
        anyhow::ensure!(sidecar.mounts[0].counter("hit_reads_total")? > 0, "the first byte was no hit");
        drop(file);
        drop(sidecar);
    }
    let seconds = paired::median(times);
    println!(
        "start to first byte of a cache that was filled before: {seconds:.3} s; resident {} MiB empty, {} MiB after {mib} MiB of fills",
        empty >> 20,
        full >> 20
    );
    let found = json!({
        "start_to_first_byte_s": seconds,
        "resident_mib_empty": empty >> 20,
        "resident_mib_after_fill": full >> 20,
    });
    Ok(found.as_object().cloned().unwrap_or_default())
}

#[derive(Clone, Copy)]
struct Grown {
    bytes: u64,
    load_s: f64,
    lookup_us: f64,
}

/// A store that keeps the index in a file and forgets the data.
#[derive(Debug)]
struct IndexOnly(fs::File);

impl Sectors for IndexOnly {
    fn write_data(&self, _at: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn write_index(&self, at: u64, record: &[u8]) -> io::Result<()> {
        self.0.write_all_at(record, at)
    }
    fn read_index(&self, at: u64, records: &mut [u8]) -> io::Result<()> {
        let size = self.0.metadata()?.len();
        let inside = (size.saturating_sub(at) as usize).min(records.len());
        self.0.read_exact_at(&mut records[..inside], at)?;
        records[inside..].fill(0);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Fills an index in one process and loads it in another, whose memory is nothing but the index: freed memory that is used
/// again would not show.
fn grow(work: &Work, extents: u64) -> Result<Grown> {
    let file = work.0.join("index-only");
    let child = |what: &str| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(what).arg(&file).arg(extents.to_string()).stdout(Stdio::piped());
        let child = command.spawn().and_then(Child::wait_with_output)?;
        anyhow::ensure!(child.status.success(), "{what} of {extents} extents failed");
        Ok(String::from_utf8(child.stdout)?)
    };
    child(FILL)?;
    let told = child(LOAD)?;
    fs::remove_file(&file)?;
    let numbers: Vec<f64> = told.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let [bytes, load_s, lookup_us] = numbers[..] else { anyhow::bail!("the index process said {told:?}") };
    Ok(Grown { bytes: bytes as u64, load_s, lookup_us })
}

/// What a child process is told to do.
const FILL: &str = "--fill-index";
const LOAD: &str = "--load-index";

/// Fills an index, or loads it from its file as a start does and prints memory, seconds and microseconds per lookup.
/// Returns whether `what` was for a child.
pub(crate) fn growth_child(what: &str, file: &str, extents: &str) -> Result<bool> {
    if what != FILL && what != LOAD {
        return Ok(false);
    }
    let extents: u64 = extents.parse()?;
    let slots = u32::try_from(extents).context("too many extents")?;
    let store =
        IndexOnly(fs::File::options().read(true).write(true).create(true).truncate(false).open(file)?);
    let before = cpu::resident(std::process::id())?;
    let start = Instant::now();
    let cache = Cache::load(store, slots);
    let load_s = start.elapsed().as_secs_f64();
    if what == FILL {
        // A block each: a record has room for all checksums whatever it holds.
        let data = vec![7u8; BLOCK as usize];
        for n in 0..extents {
            let (key, version) = file_of(n);
            cache.insert(key, &version, n % PER_FILE * EXTENT, &data, || true);
        }
        return Ok(true);
    }
    let bytes = cpu::resident(std::process::id())?.saturating_sub(before);
    let lookups = 100_000u64;
    let start = Instant::now();
    for n in 0..lookups {
        let n = n.wrapping_mul(7919) % extents;
        let (key, version) = file_of(n);
        let parts = cache.lookup(key, &version, n % PER_FILE * EXTENT, 4096);
        parts.with_context(|| format!("extent {n} was lost"))?.iter().for_each(|p| cache.unpin(p));
    }
    println!("{bytes} {load_s} {}", start.elapsed().as_secs_f64() * 1e6 / lookups as f64);
    Ok(true)
}

/// The file of an extent of the growth.
fn file_of(extent: u64) -> (FileKey, Version) {
    let inode = extent / PER_FILE + 1;
    let version = Version {
        size: PER_FILE * EXTENT,
        mtime: 1,
        ctime: 1,
        btime: inode.cast_signed(),
        ..Version::default()
    };
    (FileKey { backend: 1, inode }, version)
}
