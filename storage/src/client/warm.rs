//! Reads files through the mount until they are cached.

use std::fs::File;
use std::io::Read;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::progress::Progress;
use super::{check_mount, get, number, set};

/// Files and bytes that are read before anybody waits for their fills.
const BATCH_FILES: usize = 256;
const BATCH_BYTES: u64 = 64 << 20;
/// Files that are read at once.
const READERS: usize = 4;
/// How often the fills are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A regular file and its size when it was found.
struct Found {
    path: PathBuf,
    bytes: u64,
}

/// What was found below some paths.
#[derive(Default)]
struct Tree {
    files: Vec<Found>,
    /// What could not be looked at.
    skipped: usize,
}

impl Tree {
    fn below(paths: &[PathBuf]) -> Self {
        let mut tree = Self::default();
        let mut left: Vec<PathBuf> = paths.to_vec();
        while let Some(path) = left.pop() {
            if let Err(error) = tree.add(&path, &mut left) {
                tree.skip(&path, &error.into());
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    fn add(&mut self, path: &Path, left: &mut Vec<PathBuf>) -> std::io::Result<()> {
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            for entry in path.read_dir()? {
                left.push(entry?.path());
            }
        } else if meta.is_file() {
            self.files.push(Found { path: path.to_owned(), bytes: meta.len() });
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, error: &anyhow::Error) {
        self.skipped += 1;
        eprintln!("migshare-storage: {}: {error:#}", path.display());
    }
}

/// The regular files at and below some paths.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    paths.iter().try_for_each(|path| check_mount(path))?;
    let tree = Tree::below(paths);
    ensure!(tree.skipped == 0, "{} paths could not be looked at; nothing was done", tree.skipped);
    Ok(tree.files.into_iter().map(|file| file.path).collect())
}

/// See the module. What cannot be read is skipped; an error if anything is not cached in the end.
pub(crate) fn warm(paths: &[PathBuf], pin: bool, json: bool) -> Result<()> {
    paths.iter().try_for_each(|path| check_mount(path))?;
    let mut tree = Tree::below(paths);
    let found = std::mem::take(&mut tree.files);
    let total = found.iter().map(|file| file.bytes).sum();
    let progress = Progress::new(found.len(), total);
    let mut read = Vec::with_capacity(found.len());
    let mut left = &found[..];
    while !left.is_empty() {
        let (batch, rest) = left.split_at(batch_of(left));
        read.extend(warm_batch(batch, pin, &progress, &mut tree));
        left = rest;
    }
    progress.end();
    // Only now: what came later may have taken the place of what came first.
    let cached: u64 = read.iter().map(|file| cached_bytes_again(file)).sum();
    tell(found.len(), total, cached, tree.skipped, json);
    ensure!(tree.skipped == 0, "{} files or directories could not be read", tree.skipped);
    ensure!(
        cached >= total,
        "not all is cached: it did not fit (--size; each file takes 256 KiB of it or a multiple), was changed within the last \
         2 s, or had to wait; a second run helps in the latter cases"
    );
    Ok(())
}

fn tell(files: usize, total: u64, cached: u64, skipped: usize, json: bool) {
    if json {
        let told = serde_json::json!({
            "files": files, "bytes": total, "cached_bytes": cached, "skipped": skipped,
        });
        println!("{told}");
    } else {
        println!("{files} files, {total} bytes, {cached} of them cached");
    }
}

/// How many of these files make one batch.
fn batch_of(files: &[Found]) -> usize {
    let mut bytes = 0;
    let fits = files.iter().take(BATCH_FILES).take_while(|file| {
        bytes += file.bytes;
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}

/// Reads files until they are cached, or reading them again adds nothing: the cache is too small, or they change. Returns
/// those that can be read.
fn warm_batch<'a>(files: &'a [Found], pin: bool, progress: &Progress, tree: &mut Tree) -> Vec<&'a Found> {
    let mut missing = Vec::new();
    for (file, result) in files.iter().zip(for_all(files, |file| read_first(file, pin, progress))) {
        match result {
            Ok(()) => missing.push(file),
            Err(error) => tree.skip(&file.path, &error),
        }
    }
    let readable = missing.clone();
    let mut before = None;
    loop {
        let cached = settle(&missing);
        missing.retain(|file| cached_bytes(file) < file.bytes);
        if missing.is_empty() || before.is_some_and(|before| cached <= before) {
            return readable;
        }
        before = Some(missing.iter().map(|file| cached_bytes(file)).sum());
        // What cannot be read any more counts as not cached.
        for_all(&missing, |file| read(&file.path, |_| ()));
    }
}

fn read_first(file: &Found, pin: bool, progress: &Progress) -> Result<()> {
    if pin {
        set(&file.path, "pin", "1")?;
    }
    let done = read(&file.path, |bytes| progress.add(bytes));
    progress.file_done();
    done
}

/// Does something to all of them, some at once.
fn for_all<T: Sync>(files: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Vec<Result<()>> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let turns = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            files.get(index).map(|file| (index, work(file)))
        });
        turns.collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(take_turns)).collect();
        let done = readers.into_iter().map(|r| r.join().unwrap_or_else(|panic| resume_unwind(panic)));
        let mut done: Vec<_> = done.flatten().collect();
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    })
}

/// The whole file, past the page cache, so that a second pass is not served from there.
fn read(path: &Path, progress: impl Fn(u64)) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut file = direct(path)?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => progress(n as u64),
        }
    }
}

fn direct(path: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(File::from(
        open(path, flags | OFlags::DIRECT, Mode::empty()).or_else(|_| open(path, flags, Mode::empty()))?,
    ))
}

/// Of a file that was just read. Nothing, when it is gone meanwhile.
fn cached_bytes(file: &Found) -> u64 {
    get(&file.path, "explain").map_or(0, |known| number(&known, "cached_bytes"))
}

/// Of a file that the kernel may have forgotten since: the sidecar knows the version of what was opened.
fn cached_bytes_again(file: &Found) -> u64 {
    let _open = File::open(&file.path);
    cached_bytes(file)
}

/// Waits until the fills behind the last reads no longer add to the cache; returns what is cached of these files.
fn settle(files: &[&Found]) -> u64 {
    let mut before = None;
    loop {
        let cached = files.iter().map(|file| cached_bytes(file)).sum();
        if before == Some(cached) {
            return cached;
        }
        before = Some(cached);
        std::thread::sleep(LOOK);
    }
}
