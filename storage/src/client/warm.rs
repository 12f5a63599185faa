//! Reads files through the mount until they are cached.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{get, number, set};

/// The regular files at and below some paths.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = paths.to_vec();
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().with_context(|| path.display().to_string())?;
        if meta.is_dir() {
            let names = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
            left.extend(names.collect::<Result<Vec<_>, _>>()?.into_iter().map(|e| e.path()));
        } else if meta.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// See the module.
pub(crate) fn warm(paths: &[PathBuf], pin: bool, json: bool) -> Result<()> {
    let files = files(paths)?;
    let mut total = 0;
    for file in &files {
        total += file.metadata()?.len();
    }
    let (mut done, mut cached) = (0, 0);
    let show = std::io::stderr().is_terminal();
    for (index, file) in files.iter().enumerate() {
        if pin {
            set(file, "pin", "1")?;
        }
        cached += warm_file(file, |bytes| {
            if show {
                let percent = 100.0 * (done + bytes) as f64 / total.max(1) as f64;
                eprint!(
                    "\r{percent:5.1} % of {:.1} MB, file {} of {}",
                    total as f64 / 1e6,
                    index + 1,
                    files.len()
                );
            }
        })?;
        done += file.metadata()?.len();
    }
    if show {
        eprintln!();
    }
    if json {
        println!("{}", serde_json::json!({ "files": files.len(), "bytes": total, "cached_bytes": cached }));
    } else {
        println!("{} files, {total} bytes, {cached} of them cached", files.len());
        if cached < total {
            println!(
                "the rest did not fit (--size), was changed within the last 2 s, or had to wait; run it again"
            );
        }
    }
    Ok(())
}

/// Reads one file until it is cached; returns the cached bytes.
fn warm_file(path: &Path, progress: impl Fn(u64)) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut cached = 0;
    // A pass that adds nothing is the last one: the cache is too small, or the file changes.
    loop {
        // Past the page cache, so that a second pass is not served from there.
        let mut file = direct(path).with_context(|| path.display().to_string())?;
        let mut read = 0;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            read += n as u64;
            progress(read);
        }
        settle(path)?;
        let before = std::mem::replace(&mut cached, number(&get(path, "explain")?, "cached_bytes"));
        if cached >= read || cached <= before {
            return Ok(cached);
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

/// Waits until the fills behind the last reads no longer add to the cache.
fn settle(path: &Path) -> Result<()> {
    let mut before = None;
    loop {
        let cached = number(&get(path, "explain")?, "cached_bytes");
        if before == Some(cached) {
            return Ok(());
        }
        before = Some(cached);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
