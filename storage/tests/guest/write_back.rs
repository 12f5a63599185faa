//! Write-back under power cuts: the journal is replayed to the backend as the next start does, and every file must be in a state
//! that it once had, at or after its last acknowledged fsync.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use migshare_storage::fs::writes::{Finished, Settings};
use migshare_storage::fs::{Identity, WriteBack};
use migshare_storage::random::Random;

use super::log_writes::Log;
use super::recovered::Mounted;

pub(crate) const INIT: &str = concat!(include_str!("init"), include_str!("write-back"));
/// Bytes of each side.
pub(crate) const HALF: u64 = 48 << 20;
/// Bytes of one write, as in `write-back`.
const WRITE: usize = 16 << 10;
const POWER_CUTS: u64 = 60;

/// One `put` of the guest.
#[derive(Clone, Debug)]
struct Put {
    name: String,
    number: u32,
    len: usize,
    truncates: bool,
    /// Where it began in the log, and where fsync had returned.
    begun: usize,
    synced: usize,
}

impl Put {
    fn all(marks: &[(usize, String)]) -> Vec<Self> {
        let mut puts: Vec<Self> = Vec::new();
        for (at, mark) in marks {
            let words: Vec<&str> = mark.split(',').collect();
            match words[..] {
                ["begun", name, number, len, how] => puts.push(Self {
                    name: name.to_owned(),
                    number: number.parse().unwrap(),
                    len: len.parse().unwrap(),
                    truncates: how == "trunc",
                    begun: *at,
                    synced: usize::MAX,
                }),
                ["synced", ..] => puts.last_mut().unwrap().synced = *at,
                _ => {}
            }
        }
        puts
    }

    fn content(&self) -> Vec<u8> {
        let line = format!("{} {:05}\n", self.name, self.number);
        line.bytes().cycle().take(self.len).collect()
    }

    /// What the file is after each call of this put, when it was `before`; `None`: there is none.
    fn states(&self, before: Option<Vec<u8>>) -> Vec<Option<Vec<u8>>> {
        let content = self.content();
        let mut now = before.filter(|_| !self.truncates).unwrap_or_default();
        let mut states = vec![Some(now.clone())];
        for (i, bytes) in content.chunks(WRITE).enumerate() {
            let (from, to) = (i * WRITE, i * WRITE + bytes.len());
            now.resize(now.len().max(to), 0);
            now[from..to].copy_from_slice(bytes);
            states.push(Some(now.clone()));
        }
        states
    }
}

/// The states that a file may be found in when everything up to `durable` is, and something up to `reached` may be.
fn allowed(puts: &[&Put], durable: usize, reached: usize) -> Vec<Option<Vec<u8>>> {
    let mut states = vec![None];
    for put in puts.iter().filter(|p| p.begun < reached) {
        let before = states.last().cloned().flatten();
        let next = put.states(before);
        if put.synced <= durable {
            states = next.last().cloned().into_iter().collect();
        } else {
            states.extend(next);
        }
    }
    states
}

/// Cuts the power at places all over the log.
pub(crate) fn power_cuts(dir: &Path, both: &Path, log: &Path, backend_id: u64) {
    let log = Log::read(File::open(log).unwrap()).unwrap();
    let (flushes, marks) = (log.flushes(), log.marks());
    let puts = Put::all(&marks);
    let mut files: BTreeMap<&str, Vec<&Put>> = BTreeMap::new();
    puts.iter().for_each(|put| files.entry(&put.name).or_default().push(put));
    let first = marks.iter().find(|(_, mark)| mark == "ready").expect("nothing was begun").0;
    let (end, start) = (log.entries.len(), File::options().read(true).write(true).open(both).unwrap());
    let (mut done, mut sum) = (0, Found::default());
    for cut in 0..POWER_CUTS {
        let at = first + ((end - first) as u64 * (cut + 1) / POWER_CUTS) as usize;
        let durable = flushes.iter().copied().rfind(|f| *f < at).map_or(0, |f| f + 1).max(done);
        let next = flushes.iter().copied().find(|f| *f >= at).unwrap_or(end).max(durable);
        log.apply(done..durable, &start).unwrap();
        done = durable;
        let image = dir.join("cut");
        io::copy(&mut File::open(both).unwrap(), &mut File::create(&image).unwrap()).unwrap();
        let disk = File::options().write(true).open(&image).unwrap();
        log.apply_some(done..next, 0..HALF, &disk, &mut Random(cut)).unwrap();
        // The other machine's power stays.
        log.apply_at(done..at.max(done), HALF..2 * HALF, &disk).unwrap();
        drop(disk);
        let found = after_restart(&image, dir, backend_id);
        for (name, puts) in &files {
            let states = allowed(puts, done, next);
            let content = found.content.get(*name);
            let fine = states.iter().any(|state| state.as_ref() == content);
            let seen = content.map(|c| (c.len(), String::from_utf8_lossy(&c[..c.len().min(9)]).into_owned()));
            assert!(
                fine,
                "cut {cut} at {at} ({done} to {next}): {name} is {seen:?}; {puts:?}; {:?}",
                found.told()
            );
            // Whose fsync had returned, and who was not written since, is nobody's conflict.
            let quiet = puts.iter().all(|put| put.synced <= done || put.begun >= next);
            let copies = found.content.keys().filter(|n| n.starts_with(&format!("{name}.migshare-conflict")));
            assert!(!quiet || copies.count() == 0, "cut {cut} at {at}: {name}: {:?}", found.told());
        }
        sum.dirty += found.dirty;
        sum.bytes += found.bytes;
    }
    println!(
        "{POWER_CUTS} power cuts of {} puts: {} files with {} bytes replayed",
        puts.len(),
        sum.dirty,
        sum.bytes
    );
    assert!(sum.dirty > 0, "nothing was ever dirty");
}

/// What a restart found.
#[derive(Debug, Default)]
struct Found {
    content: BTreeMap<String, Vec<u8>>,
    dirty: u64,
    bytes: u64,
}

impl Found {
    fn told(&self) -> Vec<(&String, usize)> {
        self.content.iter().map(|(name, bytes)| (name, bytes.len())).collect()
    }
}

/// Replays the journal as a start does, and reads everything at the backend.
fn after_restart(image: &Path, dir: &Path, backend_id: u64) -> Found {
    let near = Mounted::new(image, dir.join("near"), &format!("loop,sizelimit={HALF}"));
    let far = Mounted::new(image, dir.join("far"), &format!("loop,offset={HALF},sizelimit={HALF}"));
    let mut found = Found::default();
    if let Some(directory) = journal(near.path()) {
        let settings = Settings { directory, bound: 16 << 20, fsync_local: true };
        let back = WriteBack::open(&settings, far.path(), backend_id, Identity::Own).unwrap();
        let recovered = back.recover();
        assert_eq!(recovered.failed, Vec::<String>::new());
        (found.dirty, found.bytes) = (recovered.files, recovered.bytes);
        back.start_flushing().unwrap();
        assert_eq!(back.finish(|_| true), Finished::Clean);
        back.end();
        // The disk cannot be unmounted while its threads have the journal open.
        while Arc::strong_count(&back) > 1 {
            std::thread::yield_now();
        }
    }
    for entry in fs::read_dir(far.path()).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        found.content.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    found
}

/// `None` before the sidecar's first start had come so far.
fn journal(near: &Path) -> Option<PathBuf> {
    let mut names = fs::read_dir(near.join("cache")).ok()?.map(|e| e.unwrap().path());
    names.find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("dirty-")))
}
